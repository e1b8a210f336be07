"""The race of engines, alone."""

from tracereel.film.beats.engine_race import engine_race
from tracereel.scenes.reel import ReelScene


class EngineRace(ReelScene):
    """The race of engines, alone."""

    def construct(self) -> None:
        """Tell it."""
        self.tell(engine_race(self.show))
