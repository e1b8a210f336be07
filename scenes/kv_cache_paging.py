"""Blocks and block tables, alone."""

from tracereel.scenes.film_scene import FilmScene


class KvCachePaging(FilmScene):
    """Blocks and block tables, alone."""

    name = "kv_cache_paging"
