"""The ledger of a film: which measured values were on screen, in which frames, as which text.

Knows phrases and frame numbers. Does not draw; written beside the film, read by `tracereel verify`.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from tracereel.film.phrases import Phrase

LEDGER_DIGEST = "ledger"
"""The entry of a film's metadata that holds its ledger's digest."""
MAX_LEDGER_BYTES = 64 * 2**20
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


class LedgerFile(msgspec.Struct, frozen=True, kw_only=True):
    """What is written: the film's facts and its claims in the order of their first frames."""

    film: str
    frames: int
    frame_rate: float
    provenance: dict[str, str]
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


def encode_ledger(ledger: LedgerFile) -> str:
    """The ledger as text, a claim a line."""
    head: dict[str, Any] = msgspec.to_builtins(ledger)
    claims = head.pop("claims")
    encode = msgspec.json.Encoder().encode
    lines = ",\n".join(encode(claim).decode() for claim in claims)
    return encode(head).decode()[:-1] + ',"claims":[\n' + lines + "\n]}\n"


def ledger_path(film: Path) -> Path:
    """Where a film's ledger lies: beside it."""
    return film.with_name(film.name + ".ledger.json")


def read_ledger(film: Path) -> tuple[LedgerFile, str]:
    """A film's ledger, and its text. Raises LedgerError."""
    path = ledger_path(film)
    try:
        if path.stat().st_size > MAX_LEDGER_BYTES:
            raise LedgerError(f"{path}: is over {MAX_LEDGER_BYTES >> 20} MiB; no film's ledger is")
        text = path.read_text(encoding="utf-8")
        return msgspec.json.decode(text, type=LedgerFile), text
    except OSError as error:
        raise LedgerError(f"{path}: cannot be read ({error.strerror})") from None
    except RecursionError:
        raise LedgerError(f"{path}: is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LedgerError(f"{path}: {error}") from None


def digest_of(text: str) -> str:
    """SHA-256 (hex) of a ledger's text."""
    return hashlib.sha256(text.encode()).hexdigest()
