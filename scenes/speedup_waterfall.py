"""The speed-up in its parts, alone."""

from tracereel.film.beats.speedup_waterfall import speedup_waterfall
from tracereel.scenes.reel import ReelScene


class SpeedupWaterfall(ReelScene):
    """The speed-up in its parts, alone."""

    def construct(self) -> None:
        """Tell it."""
        self.tell(speedup_waterfall(self.show))
