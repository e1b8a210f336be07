"""Slots that are idle while requests wait: the film's first seconds, alone."""

from tracereel.scenes.film_scene import FilmScene


class TwoOfEight(FilmScene):
    """The cold open."""

    name = "two_of_eight"
