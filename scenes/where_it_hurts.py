"""The worst moment, alone."""

from tracereel.film.beats.where_it_hurts import where_it_hurts
from tracereel.scenes.reel import ReelScene


class WhereItHurts(ReelScene):
    """The worst moment, alone."""

    def construct(self) -> None:
        """Tell it."""
        self.tell(where_it_hurts(self.show))
