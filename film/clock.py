"""The film's clock: which instant of engine time each second of film shows, declared passage by passage.

Within a passage engine time runs evenly, or stands still. Knows seconds and nanoseconds; nothing of frames or traces.
"""

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate, pairwise

_EVEN = 0.01


@dataclass(frozen=True)
class Passage:
    """`film_s` seconds of film that show engine time from `from_ns` to `to_ns`."""

    film_s: float
    from_ns: int
    to_ns: int

    @property
    def engine_s(self) -> float:
        """Seconds of engine time that pass."""
        return (self.to_ns - self.from_ns) / 1e9

    @property
    def even(self) -> bool:
        """Does engine time pass as fast as film time, within one in a hundred?"""
        return self.engine_s > 0 and abs(self.film_s / self.engine_s - 1) < _EVEN


class FilmClock:
    """Passages one after the other; engine time never goes back.

    Raises ValueError where a passage takes no film time or does not begin where the one before it ends.
    """

    def __init__(self, passages: list[Passage]):
        if not passages or any(passage.film_s <= 0 or passage.to_ns < passage.from_ns for passage in passages):
            raise ValueError("a passage needs film time, and engine time that does not go back")
        if any(before.to_ns != after.from_ns for before, after in pairwise(passages)):
            raise ValueError("a passage does not begin where the one before it ends")
        self.passages = tuple(passages)
        self._starts = [0.0, *accumulate(passage.film_s for passage in passages)]

    @property
    def film_s(self) -> float:
        """Length of the film."""
        return self._starts[-1]

    def start_of(self, passage: int) -> float:
        """The film second at which a passage begins."""
        return self._starts[passage]

    def passage_at(self, film_s: float) -> Passage:
        """The passage that runs at a film second."""
        return self.passages[self._index(film_s)]

    def engine_ns(self, film_s: float) -> int:
        """The engine time shown at a film second."""
        i = self._index(film_s)
        passage = self.passages[i]
        share = min(max((film_s - self._starts[i]) / passage.film_s, 0.0), 1.0)
        return passage.from_ns + round(share * (passage.to_ns - passage.from_ns))

    def film_second(self, engine_ns: int) -> float:
        """The first film second that shows an engine time; before the film 0, after it its end."""
        for start, passage in zip(self._starts, self.passages, strict=False):
            if engine_ns <= passage.from_ns:
                return start
            if engine_ns <= passage.to_ns:
                return start + passage.film_s * (engine_ns - passage.from_ns) / (passage.to_ns - passage.from_ns)
        return self._starts[-1]

    def _index(self, film_s: float) -> int:
        return min(max(bisect_right(self._starts, film_s) - 1, 0), len(self.passages) - 1)


class Script:
    """Writes a film's clock passage by passage: `run` to an instant in so many seconds, `hold` it for so many."""

    def __init__(self, from_ns: int = 0):
        self._at_ns = from_ns
        self._passages: list[Passage] = []

    def run(self, to_ns: int, film_s: float) -> "Script":
        """Let engine time run on to `to_ns` within `film_s` seconds of film."""
        self._passages.append(Passage(film_s, self._at_ns, max(int(to_ns), self._at_ns)))
        self._at_ns = self._passages[-1].to_ns
        return self

    def hold(self, film_s: float) -> "Script":
        """Let engine time stand still."""
        return self.run(self._at_ns, film_s)

    @property
    def film_s(self) -> float:
        """Film seconds written so far: where the next passage begins."""
        return sum(passage.film_s for passage in self._passages)

    @property
    def at_ns(self) -> int:
        """The engine time that has been reached."""
        return self._at_ns

    def clock(self) -> FilmClock:
        """The clock as written."""
        return FilmClock(self._passages)


def ease(share: float) -> float:
    """Smooth start and end: 0 to 1 for a share from 0 to 1, held outside."""
    x = min(max(share, 0.0), 1.0)
    return x * x * x * (x * (6 * x - 15) + 10)
