"""The end card, alone."""

from tracereel.scenes.film_scene import FilmScene


class Closing(FilmScene):
    """The end card, alone."""

    name = "closing"
