"""A long prompt among decodes, alone."""

from tracereel.film.beats.chunked_prefill import chunked_prefill
from tracereel.scenes.reel import ReelScene


class ChunkedPrefill(ReelScene):
    """A long prompt among decodes, alone."""

    def construct(self) -> None:
        """Tell it."""
        self.tell(chunked_prefill(self.show))
