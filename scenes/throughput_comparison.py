"""The race and the ratio, alone."""

from tracereel.film.beats.throughput_comparison import throughput_comparison
from tracereel.scenes.reel import ReelScene


class ThroughputComparison(ReelScene):
    """The race and the ratio, alone."""

    def construct(self) -> None:
        """Tell it."""
        self.tell(throughput_comparison(self.show))
