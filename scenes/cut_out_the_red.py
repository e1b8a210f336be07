"""What refilling slots gives: every request moves to where the continuous run had it, alone."""

from tracereel.scenes.film_scene import FilmScene


class CutOutTheRed(FilmScene):
    """The moved grid and the ratio."""

    name = "cut_out_the_red"
