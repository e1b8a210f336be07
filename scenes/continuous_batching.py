"""Continuous batching: the film.

What the viewer should understand: an engine that may change its batch at every step keeps its slots busy, and that is
worth what it was measured to be worth. The title says what was measured on what. `pipeline_flow` shows the loop,
`decode_batching` what a freed slot is worth, `same_position` that not every batching is continuous, and
`throughput_comparison` the race and the ratio. The end card says how to measure and to render it again.
"""

from tracereel.scenes.cards import end_card, title_card
from tracereel.scenes.decode_batching import decode_batching
from tracereel.scenes.pipeline_flow import pipeline_flow
from tracereel.scenes.reel import ReelScene
from tracereel.scenes.same_position import same_position
from tracereel.scenes.throughput_comparison import throughput_comparison


class ContinuousBatching(ReelScene):
    """The whole film."""

    def construct(self) -> None:
        """Title, four beats, end."""
        title_card(self, self.run("continuous"))
        pipeline_flow(self)
        decode_batching(self)
        if self.recordings.has("same-position"):
            same_position(self)
        throughput_comparison(self)
        compared = [case for case in ("static", "same-position", "continuous") if self.recordings.has(case)]
        end_card(self, [run for case in compared for run in self.runs(case)])
