"""Continuous batching at full length: every scene that has recordings."""

from tracereel.scenes.film_scene import FilmScene


class FullLength(FilmScene):
    """The long film."""

    name = "full_length"
