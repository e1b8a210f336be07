"""Latencies, alone."""

from tracereel.scenes.film_scene import FilmScene


class Latency(FilmScene):
    """Latencies, alone."""

    name = "latency"
