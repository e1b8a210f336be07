"""Workload files, known by their shape: prompt files, Azure's and Mooncake's traces, and synthetic workloads.

- A prompt file is JSON Lines: {"id", "prompt", "output_tokens", "arrival_ms"}. `output_tokens` is how long the model's
  own greedy answer was, up to its end token or a stated cap: with it pinned, every policy decodes the same number of
  tokens. `arrival_ms` is when the request comes where the arrivals are `given`.
- CSV with TIMESTAMP, ContextTokens, GeneratedTokens, as in the Azure LLM inference traces (Patel et al., "Splitwise:
  Efficient Generative LLM Inference Using Phase Splitting", ISCA 2024).
- JSON Lines with `timestamp` (ms), `input_length`, `output_length` and `hash_ids`, as in Mooncake's traces.
- TOML that describes a synthetic workload; see `SyntheticFile`.

Every fault is one line with the file, the line and the field. Knows nothing of models or engines.
"""

import codecs
import csv
import random
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from tracereel.engine.workload import Arrivals, Lengths, Prompt, TokenPrompt, Workload, WorkloadError
from tracereel.trace.format.storage import replace_text

MAX_PROMPT_CHARACTERS = 1_000_000
MAX_REQUESTS = 1_000_000
MAX_ARRIVAL_MS = 1_000_000_000
MAX_TOKENS = 10_000_000
MAX_LINE_BYTES = 16 << 20

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CSV_FIELDS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


class SyntheticFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A synthetic workload: how many requests, how they come, how long their prompts and answers are."""

    requests: int
    prompt_tokens: Lengths
    output_tokens: Lengths
    arrivals: Arrivals = Arrivals()
    seed: int = 0


class _MooncakeLine(msgspec.Struct, frozen=True):
    timestamp: float
    input_length: int
    output_length: int
    hash_ids: list[int] = []


def read_workload(path: Path, limit: int | None = None) -> Workload:
    """Read a workload file of any shape, its first `limit` requests where that is given.

    Prompts come at their own times where the file has them, else all at once. Raises WorkloadError.
    """
    if limit is not None and limit < 1:
        raise WorkloadError(f"limit: {limit} is less than 1")
    if path.suffix == ".toml":
        return _synthetic(path, limit)
    if path.suffix == ".csv":
        return _timed(path, _azure(path), limit)
    _, first = next(_lines(path), (0, b""))
    if b'"input_length"' in first:
        return _timed(path, _mooncake(path), limit)
    prompts = read_prompts(path)
    given = any(prompt.arrival_ms is not None for prompt in prompts)
    workload = Workload.of(path.name, prompts[:limit], Arrivals("given") if given else Arrivals())
    return replace(workload, notes=_first_of(limit, len(prompts)))


def read_prompts(path: Path) -> list[Prompt]:
    """Read a prompt file. Raises WorkloadError that names the line and the field at fault."""
    prompts: list[Prompt] = []
    seen: set[str] = set()
    for number, line in _lines(path):
        try:
            prompt = msgspec.json.decode(line, type=Prompt)
        except msgspec.DecodeError as error:
            raise WorkloadError(f"{path}, line {number}: {error}") from None
        if not prompt.prompt or len(prompt.prompt) > MAX_PROMPT_CHARACTERS:
            raise WorkloadError(f"{path}, line {number}: prompt: 1 to {MAX_PROMPT_CHARACTERS} characters")
        if prompt.output_tokens is not None and prompt.output_tokens < 1:
            raise WorkloadError(f"{path}, line {number}: output_tokens: {prompt.output_tokens} is less than 1")
        if prompt.arrival_ms is not None and not 0 <= prompt.arrival_ms <= MAX_ARRIVAL_MS:
            raise WorkloadError(f"{path}, line {number}: arrival_ms: {prompt.arrival_ms} is not 0 to {MAX_ARRIVAL_MS}")
        if prompt.id in seen:
            raise WorkloadError(f"{path}, line {number}: id: {prompt.id!r} stands on an earlier line")
        seen.add(prompt.id)
        prompts.append(prompt)
    if not prompts:
        raise WorkloadError(f"{path}: holds no prompt")
    return prompts


def write_prompts(path: Path, prompts: list[Prompt]) -> None:
    """Write a prompt file, whole or not at all. Raises OSError that names it."""
    replace_text(path, "".join(msgspec.json.encode(prompt).decode() + "\n" for prompt in prompts))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers."""
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise WorkloadError(f"{path}, line {number}: is longer than {MAX_LINE_BYTES >> 20} MiB")
                if number > MAX_REQUESTS + 1:
                    raise WorkloadError(f"{path}: has more than {MAX_REQUESTS:,} lines")
                if line.strip():
                    yield number, line.removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise WorkloadError(f"{path}: cannot be read ({error.strerror})") from None


def _azure(path: Path) -> Iterator[TokenPrompt]:
    """The requests of a CSV file, `arrival_ms` since 1970."""
    columns: list[int] = []
    for number, line in _lines(path):
        try:
            cells = next(csv.reader([line.decode()]))
        except (UnicodeDecodeError, csv.Error) as error:
            raise WorkloadError(f"{path}, line {number}: is not CSV in UTF-8 ({error})") from None
        if not columns:
            missing = [name for name in _CSV_FIELDS if name not in cells]
            if missing:
                raise WorkloadError(
                    f"{path}, line {number}: there is no column {missing[0]}; needed are {', '.join(_CSV_FIELDS)}"
                )
            columns = [cells.index(name) for name in _CSV_FIELDS]
            continue
        absent = [name for name, column in zip(_CSV_FIELDS, columns, strict=True) if column >= len(cells)]
        if absent:
            raise WorkloadError(f"{path}, line {number}: {absent[0]}: the line ends before it")
        at, prompt, output = (cells[column].strip() for column in columns)
        try:
            time = datetime.fromisoformat(at)
        except ValueError:
            raise WorkloadError(f"{path}, line {number}: TIMESTAMP: {at!r} is not an ISO 8601 time") from None
        if time.tzinfo is None:
            time = time.replace(tzinfo=UTC)
        yield TokenPrompt(
            id=f"line {number}",
            prompt_tokens=_whole(prompt, path, number, "ContextTokens"),
            output_tokens=_whole(output, path, number, "GeneratedTokens"),
            arrival_ms=(time - _EPOCH) / timedelta(milliseconds=1),
        )


def _mooncake(path: Path) -> Iterator[TokenPrompt]:
    """The requests of a Mooncake trace."""
    for number, line in _lines(path):
        try:
            entry = msgspec.json.decode(line, type=_MooncakeLine)
        except msgspec.DecodeError as error:
            raise WorkloadError(f"{path}, line {number}: {error}") from None
        if not 0 <= entry.timestamp <= 2**53:
            raise WorkloadError(f"{path}, line {number}: timestamp: {entry.timestamp:g} is not 0 to 2^53 ms")
        prompt = TokenPrompt(
            id=f"line {number}",
            prompt_tokens=_whole(entry.input_length, path, number, "input_length"),
            output_tokens=_whole(entry.output_length, path, number, "output_length"),
            arrival_ms=entry.timestamp,
            hash_ids=tuple(entry.hash_ids),
        )
        blocks = -(-prompt.prompt_tokens // prompt.block_size)
        if len(prompt.hash_ids) > blocks:
            raise WorkloadError(
                f"{path}, line {number}: hash_ids: {len(prompt.hash_ids)} for {blocks} blocks of"
                f" {prompt.block_size} tokens"
            )
        yield prompt


def _whole(value: str | int, path: Path, line: int, field: str) -> int:
    try:
        number = int(value)
    except ValueError:
        raise WorkloadError(f"{path}, line {line}: {field}: {str(value)[:40]!r} is not a whole number") from None
    if not 0 <= number <= MAX_TOKENS:
        raise WorkloadError(f"{path}, line {line}: {field}: {number} is not 0 to {MAX_TOKENS:,}")
    return number


def _timed(path: Path, requests: Iterator[TokenPrompt], limit: int | None) -> Workload:
    """The first requests with their own times, counted from the earliest; such that compute nothing are left out."""
    prompts: list[TokenPrompt] = []
    empty = 0
    for request in requests:
        if request.prompt_tokens and request.output_tokens:
            prompts.append(request)
        else:
            empty += 1
        if len(prompts) == limit:
            break
    if not prompts:
        raise WorkloadError(f"{path}: holds no request")
    start_ms = min(prompt.arrival_ms or 0.0 for prompt in prompts)
    prompts = [replace(prompt, arrival_ms=(prompt.arrival_ms or 0.0) - start_ms) for prompt in prompts]
    notes = (f"the first {limit} requests of the file",) if len(prompts) == limit else ()
    if empty:
        notes = (*notes, f"{empty} without prompt or output tokens are left out")
    notes = (*notes, "prompts are made up: token ids of the lengths that the file gives")
    return replace(Workload.of(path.name, prompts, Arrivals("given")), notes=notes)


def _synthetic(path: Path, limit: int | None) -> Workload:
    try:
        content = msgspec.toml.decode(path.read_bytes(), type=SyntheticFile)
    except OSError as error:
        raise WorkloadError(f"{path}: cannot be read ({error.strerror})") from None
    except (msgspec.DecodeError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WorkloadError(f"{path}: {error}") from None
    if not 1 <= content.requests <= MAX_REQUESTS:
        raise WorkloadError(f"{path}: requests: {content.requests} is not 1 to {MAX_REQUESTS:,}")
    if content.arrivals.seed:
        raise WorkloadError(f"{path}: arrivals: seed: one seed, beside `requests`, is for the whole workload")
    lengths = []
    for field in ("prompt_tokens", "output_tokens"):
        try:
            lengths.append(getattr(content, field).draw(content.requests, random.Random(f"{content.seed}/{field}")))
        except WorkloadError as error:
            raise WorkloadError(f"{path}: {field}: {error}") from None
    prompts = [
        TokenPrompt(f"request {i}", prompt, output, seed=content.seed)
        for i, (prompt, output) in enumerate(zip(*lengths, strict=True))
    ]
    arrivals = msgspec.structs.replace(content.arrivals, seed=content.seed)
    try:
        whole = Workload.of(path.name, prompts, arrivals)
    except WorkloadError as error:
        raise WorkloadError(f"{path}: {error}") from None
    notes = (*_first_of(limit, len(prompts)), "prompts are made up: token ids of lengths that were drawn")
    return replace(whole, requests=whole.requests[:limit], seed=content.seed, notes=notes)


def _first_of(limit: int | None, there: int) -> tuple[str, ...]:
    return (f"the first {limit} of {there} requests",) if limit is not None and limit < there else ()
