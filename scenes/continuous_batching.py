"""Continuous batching: the film.

What the viewer should understand: an engine that may change its batch at every step keeps its slots busy, and that is
worth what it was measured to be worth. The title says what was measured on what. `pipeline_flow` shows the loop,
`decode_batching` what a freed slot is worth, `same_position` that not every batching is continuous, and
`throughput_comparison` the race and the ratio. The end card says how to measure and to render it again.
"""

from collections.abc import Iterator

from tracereel.scenes.beat import Beat
from tracereel.scenes.cards import end_card, title_card
from tracereel.scenes.decode_batching import decode_batching
from tracereel.scenes.pipeline_flow import pipeline_flow
from tracereel.scenes.reel import ReelScene
from tracereel.scenes.same_position import same_position
from tracereel.scenes.throughput_comparison import throughput_comparison


def film(reel: ReelScene) -> Iterator[Beat]:
    """The film's beats, each of the scene of its name; a beat whose recordings are not there is left out."""
    has = reel.recordings.has
    yield title_card(reel)
    yield pipeline_flow(reel)
    yield decode_batching(reel)
    if has("same-position") and has("continuous"):
        yield same_position(reel)
    yield throughput_comparison(reel)
    yield end_card(reel)


class ContinuousBatching(ReelScene):
    """The whole film."""

    def construct(self) -> None:
        """Title, the beats that the recordings can tell, end."""
        for beat in film(self):
            self.tell(beat)
