"""You are one request: its answers in two runs on one clock, alone."""

from tracereel.scenes.film_scene import FilmScene


class YouAre(FilmScene):
    """One request, two answers."""

    name = "you_are"
