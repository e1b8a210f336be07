"""The speed-up in its parts, alone."""

from tracereel.scenes.film_scene import FilmScene


class SpeedupWaterfall(FilmScene):
    """The speed-up in its parts, alone."""

    name = "speedup_waterfall"
