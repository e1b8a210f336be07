"""Continuous batching, at full length: everything that the recordings tell, from the loop to other engines."""

from tracereel.film.storyboards import full_length
from tracereel.scenes.reel import ReelScene


class FullLength(ReelScene):
    """The long film."""

    def construct(self) -> None:
        """Title, the beats that the recordings can tell, end."""
        for beat in full_length(self.show):
            self.tell(beat)
