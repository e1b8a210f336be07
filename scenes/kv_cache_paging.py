"""Blocks and block tables, alone."""

from tracereel.film.beats.kv_cache_paging import kv_cache_paging
from tracereel.scenes.reel import ReelScene


class KvCachePaging(ReelScene):
    """Blocks and block tables, alone."""

    def construct(self) -> None:
        """Tell it."""
        self.tell(kv_cache_paging(self.show))
