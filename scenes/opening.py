"""Opening: the film's name, and where everything that follows comes from.

What the viewer should understand: this is a recording. Beat one: the name, and one line of what it is. Beat two: the
engine, model, device, workload and trace by their own names, and under them the whole run in one look.
"""

from tracereel.film.beats.cards import title_card
from tracereel.scenes.reel import ReelScene


class Opening(ReelScene):
    """The title card, alone."""

    def construct(self) -> None:
        """Tell it."""
        self.tell(title_card(self.show))
