"""Which second of a film shows which instant of which run: from the film's own ledger, and its chapters from its file.

Knows ledgers and films; draws nothing.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from tracereel.player.errors import PlayerError

if TYPE_CHECKING:
    from tracereel.film.passages import Passage


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
    if not ledger.clock:
        raise PlayerError(f"{film}: its ledger holds no engine time")
    passages = list(_passages(ledger.clock, ledger.frame_rate))
    return FilmEntry(name=film.name, chapters=chapters, passages=passages)


def _passages(clock: "Sequence[Passage]", rate: float) -> Iterator[FilmPassage]:
    """Each passage in seconds; where one goes on in the next, up to where that begins: nothing is between them."""
    for passage, after in zip(clock, [*clock[1:], None], strict=True):
        last, to_ns = passage.last, round(passage.engine_ns(passage.last))
        if after is not None and (after.first, after.trace) == (last + 1, passage.trace):
            begins_ns = round(after.engine_ns(after.first))
            last, to_ns = (after.first, begins_ns) if begins_ns >= to_ns else (last, to_ns)
        yield FilmPassage(
            digest=passage.trace,
            from_s=passage.first / rate,
            to_s=last / rate,
            from_ns=round(passage.engine_ns(passage.first)),
            to_ns=to_ns,
        )
