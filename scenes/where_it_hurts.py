"""The worst moment, alone."""

from tracereel.scenes.film_scene import FilmScene


class WhereItHurts(FilmScene):
    """The worst moment, alone."""

    name = "where_it_hurts"
