"""Batch sizes, alone."""

from tracereel.scenes.film_scene import FilmScene


class BatchSizeSweep(FilmScene):
    """Batch sizes, alone."""

    name = "batch_size_sweep"
