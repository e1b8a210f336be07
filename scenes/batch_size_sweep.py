"""Batch sizes, alone."""

from tracereel.film.beats.batch_size_sweep import batch_size_sweep
from tracereel.scenes.reel import ReelScene


class BatchSizeSweep(ReelScene):
    """Batch sizes, alone."""

    def construct(self) -> None:
        """Tell it."""
        self.tell(batch_size_sweep(self.show))
