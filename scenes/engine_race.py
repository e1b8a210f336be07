"""The race of engines, alone."""

from tracereel.scenes.film_scene import FilmScene


class EngineRace(FilmScene):
    """The race of engines, alone."""

    name = "engine_race"
