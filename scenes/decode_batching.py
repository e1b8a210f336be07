"""Slots against time, alone."""

from tracereel.film.beats.decode_batching import decode_batching
from tracereel.scenes.reel import ReelScene


class DecodeBatching(ReelScene):
    """Slots against time, alone."""

    def construct(self) -> None:
        """Tell it."""
        self.tell(decode_batching(self.show))
