"""Continuous batching: the film."""

from tracereel.scenes.film_scene import FilmScene


class ContinuousBatching(FilmScene):
    """The whole film."""

    name = "continuous_batching"
