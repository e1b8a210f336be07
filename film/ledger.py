"""The ledger of a film: which measured values were on screen, in which frames, as which text.

Knows phrases and frame numbers. Does not draw; written next to the film, read by `tracereel verify`.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import zstandard
from tracereel.film.passages import Passage
from tracereel.film.phrases import Phrase
from tracereel.trace.format.atomic import require_file

LEDGER_DIGEST = "ledger"
"""The entry of a film's metadata that holds its ledger's digest."""
MAX_FILE_BYTES = 8 * 2**20
MAX_LEDGER_BYTES = 64 * 2**20
"""Unpacked."""
MOST_FRAMES = 10_000_000
LEAST_RATE, MOST_RATE = 0.01, 1000
"""Frames a second."""
_LEVEL = 10
Key = tuple[Phrase, str]


class LedgerError(Exception):
    """A film's ledger cannot be used; the message is one line."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """One measured value on screen: frames `first` to `last`, the text it stood in, and how it is obtained again.

    `shown` is the value as it was formatted, by `style`; `text` the whole line, cut where it had to be.
    """

    first: int
    last: int
    text: str
    shown: str
    style: str
    query: str
    args: dict[str, int | float | str]
    value: int | float | str
    traces: tuple[str, ...]
    lines: tuple[int, int]


class LedgerHead(msgspec.Struct, frozen=True, kw_only=True):
    """The film's facts."""

    film: str
    frames: int
    frame_rate: float
    provenance: dict[str, str]
    clock: list[Passage] = []
    """The engine time of every frame."""


class LedgerFile(LedgerHead, frozen=True, kw_only=True):
    """What is written: the film's facts and its claims in the order of their first frames."""

    claims: list[Claim]


@dataclass
class _Shown:
    first: int
    last: int


class Ledger:
    """Collects phrases frame by frame."""

    def __init__(self) -> None:
        self.frames = 0
        self._now: set[Key] = set()
        self._open: dict[Key, _Shown] = {}
        self._closed: list[tuple[Key, _Shown]] = []

    def note(self, phrase: Phrase, text: str) -> None:
        """A phrase is drawn as `text` into the frame that is being made."""
        if phrase.figures:
            self._now.add((phrase, text))

    def frame(self, count: int = 1) -> None:
        """The frame is done and stands `count` times."""
        first, last = self.frames, self.frames + count - 1
        for key in self._now:
            shown = self._open.get(key)
            if shown is not None and shown.last == first - 1:
                shown.last = last
            else:
                if shown is not None:
                    self._closed.append((key, shown))
                self._open[key] = _Shown(first, last)
        self._now = set()
        self.frames += count

    def claims(self) -> list[Claim]:
        """Everything claimed so far."""
        claims = [
            Claim(
                first=shown.first,
                last=shown.last,
                text=text,
                shown=figure.text,
                style=figure.style,
                query=figure.source.query,
                args=dict(figure.source.args),
                value=figure.source.value,
                traces=figure.source.traces,
                lines=figure.source.lines,
            )
            for (phrase, text), shown in [*self._closed, *self._open.items()]
            for figure in phrase.figures
        ]
        return sorted(claims, key=lambda claim: (claim.first, claim.last, claim.text, claim.query, str(claim.args)))


def ledger_lines(ledger: LedgerFile) -> Iterator[str]:
    """The ledger as JSON Lines: what the film is, then a claim a line."""
    encode = msgspec.json.Encoder().encode
    yield encode({name: getattr(ledger, name) for name in LedgerHead.__struct_fields__}).decode()
    for claim in ledger.claims:
        yield encode(claim).decode()


def encode_ledger(ledger: LedgerFile) -> bytes:
    """The ledger as its file holds it: its lines, compressed (zstd)."""
    text = "".join(f"{line}\n" for line in ledger_lines(ledger))
    return zstandard.ZstdCompressor(level=_LEVEL).compress(text.encode())


def ledger_path(film: Path) -> Path:
    """The path of a film's ledger: the film's own with another ending."""
    return film.with_name(f"{film.name}.ledger.jsonl.zst")


def read_ledger(film: Path) -> tuple[LedgerFile, bytes]:
    """A film's ledger, and its file's bytes. Raises LedgerError."""
    if film.exists() and not film.is_file():
        raise LedgerError(f"{film}: is not a regular file, and so no film")
    path = ledger_path(film)
    try:
        require_file(path)
        if path.stat().st_size > MAX_FILE_BYTES:
            raise LedgerError(f"{path}: is over {MAX_FILE_BYTES >> 20} MiB; no film's ledger is")
        data = path.read_bytes()
    except OSError as error:
        # Where the film is not there either, its name is what is wrong.
        raise LedgerError(f"{path if film.exists() else film}: cannot be read ({error.strerror})") from None
    lines = _lines_of(path, data)
    number, decode = 1, msgspec.json.Decoder(Claim).decode
    try:
        head = msgspec.json.decode(lines[0], type=LedgerHead)
        _require_in_bounds(path, head)
        claims = []
        for number, line in enumerate(lines[1:], 2):  # noqa: B007 (named where it fails)
            claims.append(decode(line))
        return LedgerFile(**msgspec.structs.asdict(head), claims=claims), data
    except RecursionError:
        raise LedgerError(f"{path}, line {number}: is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LedgerError(f"{path}, line {number}: {error}") from None


def _require_in_bounds(path: Path, head: LedgerHead) -> None:
    if not 0 <= head.frames <= MOST_FRAMES:
        raise LedgerError(f"{path}, line 1: frames: {head.frames} are not from 0 to {MOST_FRAMES:,}")
    if not LEAST_RATE <= head.frame_rate <= MOST_RATE:
        raise LedgerError(f"{path}, line 1: frame_rate: {head.frame_rate:g} is not from {LEAST_RATE} to {MOST_RATE}")
    before = -1
    for passage in head.clock:
        if not before < passage.first <= passage.last < min(head.frames, MOST_FRAMES) or passage.lasts_s <= 0:
            raise LedgerError(f"{path}, line 1: clock: frames {passage.first}-{passage.last} are not in order")
        before = passage.last


def _lines_of(path: Path, data: bytes) -> list[bytes]:
    """The lines of a ledger's file, which may have been made to expand without end."""
    unpack = zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(data)
    try:
        text = unpack.read(MAX_LEDGER_BYTES + 1)
    except zstandard.ZstdError as error:
        raise LedgerError(f"{path}: is no zstd data ({error})") from None
    if len(text) > MAX_LEDGER_BYTES:
        raise LedgerError(f"{path}: is over {MAX_LEDGER_BYTES >> 20} MiB unpacked; no film's ledger is")
    return text.splitlines() or [b""]


def digest_of(data: bytes) -> str:
    """SHA-256 (hex) of a ledger's file."""
    return hashlib.sha256(data).hexdigest()
