"""A long prompt among decodes, alone."""

from tracereel.scenes.film_scene import FilmScene


class ChunkedPrefill(FilmScene):
    """A long prompt among decodes, alone."""

    name = "chunked_prefill"
