"""Continuous batching: the film."""

from tracereel.film.storyboards import continuous_batching
from tracereel.scenes.reel import ReelScene


class ContinuousBatching(ReelScene):
    """The whole film."""

    def construct(self) -> None:
        """Title, the beats that the recordings can tell, end."""
        for beat in continuous_batching(self.show):
            self.tell(beat)
