"""Latencies, alone."""

from tracereel.film.beats.latency import latency
from tracereel.scenes.reel import ReelScene


class Latency(ReelScene):
    """Latencies, alone."""

    def construct(self) -> None:
        """Tell it."""
        self.tell(latency(self.show))
