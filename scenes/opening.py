"""The title card, alone."""

from tracereel.scenes.film_scene import FilmScene


class Opening(FilmScene):
    """The title card, alone."""

    name = "opening"
