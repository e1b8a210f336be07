"""Slots against time, alone."""

from tracereel.scenes.film_scene import FilmScene


class DecodeBatching(FilmScene):
    """Slots against time, alone."""

    name = "decode_batching"
