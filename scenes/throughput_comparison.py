"""The race and the ratio, alone."""

from tracereel.scenes.film_scene import FilmScene


class ThroughputComparison(FilmScene):
    """The race and the ratio, alone."""

    name = "throughput_comparison"
