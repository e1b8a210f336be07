"""Same-position batch decoding, alone."""

from tracereel.film.beats.same_position import same_position
from tracereel.scenes.reel import ReelScene


class SamePosition(ReelScene):
    """Same-position batch decoding, alone."""

    def construct(self) -> None:
        """Tell it."""
        self.tell(same_position(self.show))
