"""Same-position batch decoding, alone."""

from tracereel.scenes.film_scene import FilmScene


class SamePosition(FilmScene):
    """Same-position batch decoding, alone."""

    name = "same_position"
