"""Traces of public services, which hold only lengths and times: Azure's, Mooncake's, Bailian's.

- CSV with TIMESTAMP, ContextTokens, GeneratedTokens, as in the Azure LLM inference traces (Patel et al., "Splitwise:
  Efficient Generative LLM Inference Using Phase Splitting", ISCA 2024).
- JSON Lines with `timestamp`, `input_length`, `output_length` and `hash_ids`: Mooncake's, in milliseconds and blocks of
  512 tokens, or Bailian's (which have `chat_id`, `parent_chat_id`, `turn`), in seconds and blocks of 16 tokens.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
from tracereel.engine.workload import TokenPrompt, WorkloadError
from tracereel.engine.workload_input import WorkloadInput

MAX_TOKENS = 10_000_000
TIME_UNITS = {"s": 1000.0, "ms": 1.0, "us": 1e-3, "ns": 1e-6}
"""Milliseconds in each."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CSV_FIELDS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_BAILIAN_FIELDS = frozenset({"chat_id", "parent_chat_id", "turn"})
_WITHOUT_EFFECT = frozenset({"type", "session_id", *_BAILIAN_FIELDS})


class _Line(msgspec.Struct, frozen=True):
    timestamp: float
    input_length: int
    output_length: int
    hash_ids: list[int] = []


@dataclass(frozen=True)
class Units:
    """What a trace's numbers count: `time` is one of TIME_UNITS, a hash id stands for `block_tokens` tokens."""

    time: str
    block_tokens: int
    whole_times: bool
    """Is a time that is no whole number a sign of another unit?"""


def units_of(source: WorkloadInput, time_unit: str | None, block_tokens: int | None) -> Units:
    """The units that were given, else those of the service that the first line's fields name. Raises WorkloadError."""
    if time_unit is not None and time_unit not in TIME_UNITS:
        raise WorkloadError(f"time unit: {time_unit!r} is not one of {', '.join(TIME_UNITS)}")
    if block_tokens is not None and not 1 <= block_tokens <= MAX_TOKENS:
        raise WorkloadError(f"hash block tokens: {block_tokens} is not 1 to {MAX_TOKENS:,}")
    bailian = bool(_BAILIAN_FIELDS & fields_of(source.first))
    time, block = ("s", 16) if bailian else ("ms", 512)
    return Units(time_unit or time, block_tokens or block, whole_times=time_unit is None and not bailian)


def fields_of(line: bytes) -> set[str]:
    """The field names of a line that is a JSON object; none where it is not one."""
    try:
        return set(msgspec.json.decode(line, type=dict[str, msgspec.Raw]))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return set()


def azure(source: WorkloadInput, notes: list[str]) -> Iterator[TokenPrompt]:
    """The requests of a CSV file, `arrival_ms` since 1970; columns that are not used are noted."""
    columns: list[int] = []
    for number, line in source.lines:
        try:
            cells = next(csv.reader([line.decode()]))
        except (UnicodeDecodeError, csv.Error) as error:
            raise source.fault(number, f"is not CSV in UTF-8 ({error})") from None
        if not columns:
            columns = _columns(source, number, cells)
            if others := [name.strip()[:40] for name in cells if name not in _CSV_FIELDS]:
                notes.append(_not_used("columns", others))
            continue
        absent = [name for name, column in zip(_CSV_FIELDS, columns, strict=True) if column >= len(cells)]
        if absent:
            raise source.fault(number, f"{absent[0]}: the line ends before it")
        at, prompt, output = (cells[column].strip() for column in columns)
        try:
            time = datetime.fromisoformat(at)
        except ValueError:
            raise source.fault(number, f"TIMESTAMP: {at[:40]!r} is not an ISO 8601 time") from None
        if time.tzinfo is None:
            time = time.replace(tzinfo=UTC)
        yield TokenPrompt(
            id=f"line {number}",
            prompt_tokens=_whole(source, number, "ContextTokens", prompt),
            output_tokens=_whole(source, number, "GeneratedTokens", output),
            arrival_ms=(time - _EPOCH) / timedelta(milliseconds=1),
        )


def _columns(source: WorkloadInput, number: int, cells: list[str]) -> list[int]:
    missing = [name for name in _CSV_FIELDS if name not in cells]
    if missing:
        raise source.fault(number, f"there is no column {missing[0]}; needed are {', '.join(_CSV_FIELDS)}")
    return [cells.index(name) for name in _CSV_FIELDS]


def mooncake(source: WorkloadInput, units: Units, notes: list[str]) -> Iterator[TokenPrompt]:
    """The requests of JSON Lines of Mooncake's names, `arrival_ms` on the trace's own clock; units are noted."""
    notes.append(f"times are in {units.time}, a hash id stands for {units.block_tokens} tokens")
    known = {*_Line.__struct_fields__, *_WITHOUT_EFFECT}
    if others := sorted(fields_of(source.first) - known):
        notes.append(_not_used("fields", others))
    for number, line in source.lines:
        try:
            entry = msgspec.json.decode(line, type=_Line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise source.fault(number, str(error)) from None
        at = entry.timestamp
        if not 0 <= at <= 2**53:
            raise source.fault(number, f"timestamp: {at:g} is not 0 to 2^53 {units.time}")
        if units.whole_times and at != int(at):
            raise source.fault(number, f"timestamp: {at:g} is no whole number of ms; name its unit with --time-unit")
        prompt = TokenPrompt(
            id=f"line {number}",
            prompt_tokens=_whole(source, number, "input_length", entry.input_length),
            output_tokens=_whole(source, number, "output_length", entry.output_length),
            arrival_ms=at * TIME_UNITS[units.time],
            hash_ids=tuple(entry.hash_ids),
            block_size=units.block_tokens,
        )
        blocks = -(-prompt.prompt_tokens // prompt.block_size)
        if len(prompt.hash_ids) > blocks:
            raise source.fault(
                number,
                f"hash_ids: {len(prompt.hash_ids)} for {blocks} blocks of {prompt.block_size} tokens; name what one"
                " stands for with --hash-block-tokens",
            )
        yield prompt


def _not_used(what: str, names: list[str]) -> str:
    images = "; images are not part of the prompts" if any("image" in name.lower() for name in names) else ""
    return f"{what} that are not used: {', '.join(names[:20])}{images}"


def _whole(source: WorkloadInput, line: int, field: str, value: str | int) -> int:
    try:
        number = int(value)
    except ValueError:
        raise source.fault(line, f"{field}: {str(value)[:40]!r} is not a whole number") from None
    if not 0 <= number <= MAX_TOKENS:
        shown = str(value) if len(str(value)) < 40 else f"{str(value)[:40]}…"
        raise source.fault(line, f"{field}: {shown} is not 0 to {MAX_TOKENS:,}")
    return number
