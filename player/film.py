"""Which second of a film shows which instant of which run: from the film's own ledger, and its chapters from its file.

The strip of every beat says the engine's time, so the ledger holds it for every frame. Knows ledgers and films; draws
nothing.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from tracereel.player.errors import PlayerError

CLOCK = "engine_time_s"
"""The query of the time on the strip."""
_OFF_NS = 1_000_000
"""Frames belong to one passage while time runs evenly, to so many ns: less than any screen tells apart."""
Instant = tuple[int, str, int]
"""(frame, digest, engine time in ns)."""


class FilmPassage(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of film that show a run's engine time from `from_ns` to `to_ns`, evenly."""

    digest: str
    from_s: float
    to_s: float
    from_ns: int
    to_ns: int


class FilmChapter(msgspec.Struct, frozen=True, kw_only=True):
    """A chapter of a film, and the second at which it begins."""

    title: str
    from_s: float


class FilmEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A film that shows runs of the page."""

    name: str
    chapters: list[FilmChapter]
    passages: list[FilmPassage]


def film_entry(film: Path) -> FilmEntry:
    """What a page says of a film. Raises PlayerError, or LedgerError where the film has no ledger."""
    import av
    from tracereel.film.ledger import read_ledger

    ledger = read_ledger(film)[0]
    try:
        with av.open(str(film)) as container:
            chapters = [
                FilmChapter(title=c["metadata"]["title"], from_s=float(c["start"] * (c["time_base"] or 0)))
                for c in container.chapters()
            ]
    except (OSError, av.FFmpegError) as error:
        raise PlayerError(f"{film}: cannot be read ({error.strerror or error})") from None
    seen = {
        frame: (claim.traces[0], int(claim.args["t_ns"]))
        for claim in ledger.claims
        if claim.query == CLOCK and claim.traces and "t_ns" in claim.args
        for frame in range(claim.first, claim.last + 1)
    }
    if not seen:
        raise PlayerError(f"{film}: its ledger holds no engine time")
    instants = ((frame, *seen[frame]) for frame in sorted(seen))
    return FilmEntry(name=film.name, chapters=chapters, passages=list(_passages(instants, ledger.frame_rate)))


def _passages(instants: Iterable[Instant], rate: float) -> Iterator[FilmPassage]:
    """Frames that follow each other put together while their run is one and its time runs evenly."""
    held: list[Instant] = []
    for instant in instants:
        if held and not _goes_on(held, instant):
            yield _passage(held, rate)
            # Where time only turns, the passages meet: no frame is between them.
            held = held[-1:] if held[-1][0] + 1 == instant[0] and held[-1][1] == instant[1] else []
        held.append(instant)
    if held:
        yield _passage(held, rate)


def _goes_on(held: list[Instant], instant: Instant) -> bool:
    frame, digest, t_ns = held[-1]
    if instant[:2] != (frame + 1, digest) or instant[2] < t_ns:
        return False
    if len(held) == 1:
        return True
    first_frame, _, first_ns = held[0]
    a_frame = (held[1][2] - first_ns) / (held[1][0] - first_frame)
    return abs(first_ns + a_frame * (instant[0] - first_frame) - instant[2]) <= _OFF_NS


def _passage(held: list[Instant], rate: float) -> FilmPassage:
    (first, digest, from_ns), (last, _, to_ns) = held[0], held[-1]
    return FilmPassage(digest=digest, from_s=first / rate, to_s=last / rate, from_ns=from_ns, to_ns=to_ns)
