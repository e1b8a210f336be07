"""Closing: what the film rests on, and how anybody makes it again.

What the viewer should understand: nothing had to be believed. Beat one: how many runs gave the same tokens. Beat two:
the commands that measure and render it again, and the provenance in words and as a QR code.
"""

from tracereel.film.beats.cards import end_card
from tracereel.scenes.reel import ReelScene


class Closing(ReelScene):
    """The end card, alone."""

    def construct(self) -> None:
        """Tell it."""
        self.tell(end_card(self.show))
