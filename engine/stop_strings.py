"""Finds stop strings in text that comes in pieces, and holds back what may yet become part of one.

Knows text only. Does not know tokens, nor what happens to a request that has met its stop string.
"""

from collections.abc import Sequence as Many


class StopStrings:
    """Watches one request's output for the first of several texts.

    The first `pieces_unwatched` pieces, the tokens that a request is to have in any case, are let through.
    """

    def __init__(self, stops: Many[str], pieces_unwatched: int = 0):
        self._stops = stops
        self._unwatched = pieces_unwatched
        self._held = ""
        self.met = False
        """Has one of them been found?"""

    def pass_on(self, piece: str, last: bool = False) -> str:
        """What may be shown now that `piece` has come: all but a tail that begins a stop string.

        Once a stop string is found that is what stood before it. `last` says that no piece will come after this one.
        """
        if self._unwatched > 0:
            self._unwatched -= 1
            return piece
        text = self._held + piece
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.met = True
            return text[: min(found)]
        held = 0 if last else self._tail(text)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def _tail(self, text: str) -> int:
        """How many characters at the end of the text begin a stop string."""
        longest = min(len(text), max(len(stop) for stop in self._stops) - 1)
        for length in range(longest, 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0
