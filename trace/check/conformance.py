"""What `tracereel check --strict` asks beyond what must hold: is this what the author of the emitter meant?

A reader ignores fields that it does not know, so a misspelt one is lost without a word; here it is named. So are
requests that never end in a run that did, and names that two requests share. Knows the schema; `invariants` knows runs.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from tracereel.trace.check.report import Violation
from tracereel.trace.format.decoding import MalformedRecordError, decode_record
from tracereel.trace.format.events import Arrival, End, Finish, Step
from tracereel.trace.format.storage import LineReader

_TAG = "event"


def strictly(path: Path | str) -> Iterator[Violation]:
    """Every violation of what is asked of an emitter beyond the invariants, in the order of the lines.

    Records that cannot be read are passed over: `invariants.check` names them. Raises TraceError for a file that cannot
    be read at all.
    """
    open_requests: dict[int, int] = {}
    names: dict[str, int] = {}
    ended = False
    for number, line in LineReader(path):
        try:
            event = decode_record(line)
        except MalformedRecordError:
            continue
        try:
            raw = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            yield Violation(number, "strict", "a field of another schema cannot be read; readers would ignore it")
            raw = {}
        for field in _unknown(raw, event):
            yield Violation(number, "strict", f"{field} is no field of this schema; readers would ignore it")
        if isinstance(event, Arrival):
            open_requests[event.request] = number
            if event.id in names:
                yield Violation(number, "strict", f"the id {event.id!r} stands on line {names[event.id]} already")
            names.setdefault(event.id, number)
        elif isinstance(event, Step):
            for ending in event.finished:
                open_requests.pop(ending.request, None)
        elif isinstance(event, Finish):
            open_requests.pop(event.request, None)
        ended = ended or isinstance(event, End)
    if ended:
        for request, number in open_requests.items():
            yield Violation(number, "strict", f"request {request} never ends, though the recording does")


def _unknown(raw: Any, value: Any, where: str = "") -> Iterator[str]:
    """The fields of a decoded line that its record has not, by their place."""
    if isinstance(value, msgspec.Struct):
        known = set(value.__struct_fields__)
        for name, inner in raw.items():
            if name in known:
                yield from _unknown(inner, getattr(value, name), f"{where}{name}.")
            elif name != _TAG or where:
                yield f"{where}{name}"
    elif isinstance(value, list):
        for inner, item in zip(raw, value, strict=True):
            if not isinstance(item, msgspec.Struct):
                return
            yield from _unknown(inner, item, where)
