"""Continuous batching at full length: everything that the recordings tell."""

from tracereel.scenes.film_scene import FilmScene


class FullLength(FilmScene):
    """The long film."""

    name = "full_length"
