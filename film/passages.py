"""Which engine time each frame of a film shows, as its ledger keeps it: enough to compute every time on screen again.

Knows beats, their clocks and frames. Draws nothing.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
from tracereel.film.beat import Beat
from tracereel.film.schedule import FilmFrame

_NEAR_S = 1e-9


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """Frames `first` to `last` of a film, in which engine time runs evenly or stands still.

    They belong to a passage of the clock that shows engine time from `from_ns` to `to_ns` of `trace` in `lasts_s`
    seconds of film; `at_s` is the second of that passage which the first frame shows, `step_s` what each next one adds.
    """

    first: int
    last: int
    at_s: float
    step_s: float
    lasts_s: float
    from_ns: int
    to_ns: int
    trace: str

    def engine_ns(self, frame: int) -> float:
        """The engine time that a frame shows."""
        share = (self.at_s + (frame - self.first) * self.step_s) / self.lasts_s
        return self.from_ns + min(max(share, 0.0), 1.0) * (self.to_ns - self.from_ns)


class Instant(NamedTuple):
    """What one frame shows of a clock."""

    at_s: float
    lasts_s: float
    from_ns: int
    to_ns: int
    trace: str


def instants_of(beats: Sequence[Beat], frames: Iterable[FilmFrame]) -> list[Instant]:
    """What each frame of the film of these beats shows of its beat's clock."""
    instants = []
    for frame in frames:
        beat = beats[frame.beat]
        passage = beat.clock.passage_at(frame.film_s)
        at_s = frame.film_s - beat.clock.start_of(beat.clock.passages.index(passage))
        instants.append(Instant(at_s, passage.film_s, passage.from_ns, passage.to_ns, beat.runs[0].trace.digest))
    return instants


def instants_in(passages: Iterable[Passage]) -> dict[int, Instant]:
    """What each frame of passages shows, by its number."""
    return {
        p.first + i: Instant(p.at_s + i * p.step_s, p.lasts_s, p.from_ns, p.to_ns, p.trace)
        for p in passages
        for i in range(p.last - p.first + 1)
    }


def passages_of(instants: Sequence[Instant]) -> list[Passage]:
    """The passages of frames, each as long as its frames follow each other evenly."""
    passages: list[Passage] = []
    for i, instant in enumerate(instants):
        longer = _with_frame(passages[-1], i, instant) if passages else None
        if longer is not None:
            passages[-1] = longer
            continue
        at_s, lasts_s, from_ns, to_ns, trace = instant
        clock = {"lasts_s": lasts_s, "from_ns": from_ns, "to_ns": to_ns, "trace": trace}
        passages.append(msgspec.convert({"first": i, "last": i, "at_s": at_s, "step_s": 0.0, **clock}, Passage))
    return passages


def _with_frame(passage: Passage, frame: int, instant: Instant) -> Passage | None:
    """The passage with one frame more; None where that frame does not follow evenly."""
    clock = passage.lasts_s, passage.from_ns, passage.to_ns, passage.trace
    step_s = instant.at_s - passage.at_s if passage.first == passage.last else passage.step_s
    due = passage.at_s + (frame - passage.first) * step_s
    if clock != instant[1:] or step_s < 0 or not math.isclose(instant.at_s, due, abs_tol=_NEAR_S):
        return None
    return msgspec.structs.replace(passage, last=frame, step_s=step_s)


def same_instants(passages: Iterable[Passage], instants: Sequence[Instant]) -> bool:
    """Do passages say of each frame what it shows? A clip's passages are made from those of its film, and rounded."""
    said = instants_in(passages)
    return said.keys() == set(range(len(instants))) and all(
        said[i][1:] == instant[1:] and math.isclose(said[i].at_s, instant.at_s, abs_tol=_NEAR_S)
        for i, instant in enumerate(instants)
    )
