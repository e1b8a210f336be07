"""Workload files, known by their shape: prompt files, traces of other services, and synthetic workloads.

- A prompt file is JSON Lines: {"id", "prompt", "output_tokens", "arrival_ms", "client"}. `output_tokens` is how long
  the model's own greedy answer was, up to its end token or a stated cap: with it pinned, every policy decodes the same
  number of tokens. `arrival_ms` is when the request comes where the arrivals are `given`. A prompt without an id gets
  the number of its line, as in the files of vLLM's custom data set. The policy `fair` shares the engine between the
  `client`s.
- Traces of lengths and times: see `workload_traces`.
- TOML that describes a synthetic workload; see `SyntheticFile`.

A file is opened once, so that it may be a pipe. Every fault is one line with the file, the line and the field. Knows
nothing of models or engines.
"""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
from tracereel.engine.workload import Arrivals, Lengths, Prompt, TokenPrompt, Workload, WorkloadError
from tracereel.engine.workload_input import WorkloadInput, open_workload
from tracereel.engine.workload_traces import MAX_TOKENS, azure, fields_of, mooncake, units_of
from tracereel.trace.format import events
from tracereel.trace.format.bounds import fault, shown
from tracereel.trace.format.storage import replace_text

MAX_PROMPT_CHARACTERS = 1_000_000
MAX_REQUESTS = 1_000_000
MAX_ARRIVAL_MS = 1_000_000_000
MAX_WEIGHT = 1_000_000
MAX_TOML_BYTES = 1 << 20

_OTHER_JSON = {
    "conversations": "holds conversations, as ShareGPT's files do",
    "conversation": "holds conversations, as ShareGPT's files do",
    "messages": "holds conversations as lists of messages",
    "body": "is a batch file of OpenAI's interface",
}
"""JSON files of other kinds, by one of their fields: they are refused."""
_WANTED = 'write a line {"id": …, "prompt": …, "output_tokens": …} for each request'


class SyntheticFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A synthetic workload: how many requests, how they come, how long their prompts and answers are.

    `clients` names the clients; each request is one client's, drawn with the client's number as its weight.
    """

    requests: int
    prompt_tokens: Lengths
    output_tokens: Lengths
    arrivals: Arrivals = Arrivals()
    seed: int = 0
    clients: dict[str, int] = {}


class _PromptLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    prompt: str
    id: str | None = None
    output_tokens: int | None = None
    arrival_ms: float | None = None
    client: str | None = None


def read_workload(
    path: Path, limit: int | None = None, *, time_unit: str | None = None, hash_block_tokens: int | None = None
) -> Workload:
    """Read a workload file of any shape, its first `limit` requests where that is given.

    Prompts come at their own times where the file has them, else all at once. `time_unit` (s, ms, us, ns) and
    `hash_block_tokens` say what the numbers of a trace of Mooncake's field names count, where its fields do not. Raises
    WorkloadError.
    """
    if limit is not None and limit < 1:
        raise WorkloadError(f"limit: {limit} is less than 1")
    source = open_workload(path)
    shape = _shape(source)
    if shape != "mooncake" and (time_unit or hash_block_tokens):
        raise WorkloadError(
            f"{path}: has no units to name; --time-unit and --hash-block-tokens are for Mooncake's fields"
        )
    if shape == "toml":
        return _synthetic(source, limit)
    notes: list[str] = []
    if shape == "csv":
        return _timed(source, azure(source, notes), limit, notes)
    if shape == "mooncake":
        return _timed(source, mooncake(source, units_of(source, time_unit, hash_block_tokens), notes), limit, notes)
    prompts = _prompts(source)
    given = any(prompt.arrival_ms is not None for prompt in prompts)
    workload = Workload.of(path.name, prompts[:limit], Arrivals("given") if given else Arrivals())
    return replace(workload, notes=_first_of(limit, len(prompts)))


def read_prompts(path: Path) -> list[Prompt]:
    """Read a prompt file. Raises WorkloadError that names the line and the field at fault."""
    return _prompts(open_workload(path))


def write_prompts(path: Path, prompts: list[Prompt]) -> None:
    """Write a prompt file, whole or not at all. Raises OSError that names it."""
    replace_text(path, "".join(msgspec.json.encode(prompt).decode() + "\n" for prompt in prompts))


def _shape(source: WorkloadInput) -> str:
    """The shape of a file: by its name where that says it, else (a pipe has no name) by its first line."""
    first = source.first.lstrip()
    if source.suffix in (".toml", ".csv"):
        return source.suffix[1:]
    if b'"input_length"' in first:
        return "mooncake"
    if first.startswith(b"{") or source.suffix in (".jsonl", ".json"):
        return "prompts"
    if b"TIMESTAMP" in first:
        return "csv"
    is_list = first.startswith(b"[{") or first.strip() == b"["
    return "toml" if not is_list and (b"=" in first or first.startswith((b"#", b"["))) else "prompts"


def _prompts(source: WorkloadInput) -> list[Prompt]:
    if source.first.lstrip().startswith(b"["):
        what = "holds conversations, as ShareGPT's files do" if b'"conversation' in source.first else "is one JSON list"
        raise WorkloadError(f"{source.path}: {what}, not JSON Lines; {_WANTED}")
    if other := sorted(set(_OTHER_JSON) & fields_of(source.first)):
        raise WorkloadError(f"{source.path}: {_OTHER_JSON[other[0]]}; {_WANTED}")
    prompts: list[Prompt] = []
    seen: set[str] = set()
    for number, line in source.lines:
        prompt = _prompt(source, number, line)
        if prompt.id in seen:
            raise source.fault(number, f"id: {shown(prompt.id)} is on an earlier line")
        seen.add(prompt.id)
        prompts.append(prompt)
    if not prompts:
        raise WorkloadError(f"{source.path}: holds no prompt")
    return prompts


def _prompt(source: WorkloadInput, number: int, line: bytes) -> Prompt:
    try:
        entry = msgspec.json.decode(line, type=_PromptLine)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise source.fault(number, str(error)) from None
    request_id = f"line {number}" if entry.id is None else entry.id
    if what := fault(request_id, events.Name):
        raise source.fault(number, f"id: {shown(request_id)}: {what}")
    if not entry.prompt or len(entry.prompt) > MAX_PROMPT_CHARACTERS:
        raise source.fault(number, f"prompt: 1 to {MAX_PROMPT_CHARACTERS} characters")
    if entry.output_tokens is not None and not 1 <= entry.output_tokens <= MAX_TOKENS:
        limits = "is less than 1" if entry.output_tokens < 1 else f"is more than {MAX_TOKENS:,}"
        raise source.fault(number, f"output_tokens: {entry.output_tokens} {limits}")
    if entry.arrival_ms is not None and not 0 <= entry.arrival_ms <= MAX_ARRIVAL_MS:
        raise source.fault(number, f"arrival_ms: {entry.arrival_ms} is not 0 to {MAX_ARRIVAL_MS}")
    if entry.client is not None and (what := fault(entry.client, events.Name)):
        raise source.fault(number, f"client: {shown(entry.client)}: {what}")
    return Prompt(request_id, entry.prompt, entry.output_tokens, entry.arrival_ms, entry.client)


def _timed(source: WorkloadInput, requests: Iterator[TokenPrompt], limit: int | None, notes: list[str]) -> Workload:
    """The first requests with their own times, counted from the earliest; those that compute nothing are left out."""
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
        raise WorkloadError(f"{source.path}: holds no request")
    start_ms = min(prompt.arrival_ms or 0.0 for prompt in prompts)
    prompts = [replace(prompt, arrival_ms=(prompt.arrival_ms or 0.0) - start_ms) for prompt in prompts]
    first = [f"the first {limit} requests of the file"] if len(prompts) == limit else []
    left_out = [f"{empty} without prompt or output tokens are left out"] if empty else []
    made_up = "prompts are made up: token ids of the lengths that the file gives"
    workload = Workload.of(source.path.name, prompts, Arrivals("given"))
    return replace(workload, notes=(*first, *left_out, *notes, made_up))


def _synthetic(source: WorkloadInput, limit: int | None) -> Workload:
    path = source.path
    try:
        content = msgspec.toml.decode(source.text(MAX_TOML_BYTES), type=SyntheticFile)
    except RecursionError:
        raise WorkloadError(f"{path}: is nested too deep") from None
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        raise WorkloadError(f"{path}: {' '.join(str(error).split())}") from None
    if not 1 <= content.requests <= MAX_REQUESTS:
        raise WorkloadError(f"{path}: requests: {shown(content.requests)} is not 1 to {MAX_REQUESTS:,}")
    if what := fault(content.seed, events.Seed):
        raise WorkloadError(f"{path}: seed: {shown(content.seed)}: {what}")
    if content.arrivals.seed:
        raise WorkloadError(f"{path}: arrivals: seed: one seed, next to `requests`, is for the whole workload")
    lengths = []
    for field in ("prompt_tokens", "output_tokens"):
        try:
            lengths.append(getattr(content, field).draw(content.requests, random.Random(f"{content.seed}/{field}")))
        except WorkloadError as error:
            raise WorkloadError(f"{path}: {field}: {error}") from None
    prompts = [
        TokenPrompt(f"request {i}", prompt, output, seed=content.seed, client=client)
        for i, (prompt, output, client) in enumerate(zip(*lengths, _clients(path, content), strict=True))
    ]
    arrivals = msgspec.structs.replace(content.arrivals, seed=content.seed)
    try:
        whole = Workload.of(path.name, prompts, arrivals)
    except WorkloadError as error:
        raise WorkloadError(f"{path}: {error}") from None
    notes = (*_first_of(limit, len(prompts)), "prompts are made up: token ids of lengths that were drawn")
    return replace(whole, requests=whole.requests[:limit], seed=content.seed, notes=notes)


def _clients(path: Path, content: SyntheticFile) -> list[str | None]:
    """The client of each request. Raises WorkloadError."""
    if not content.clients:
        return [None] * content.requests
    for client, weight in content.clients.items():
        if what := fault(client, events.Name):
            raise WorkloadError(f"{path}: clients: {shown(client)}: {what}")
        if not 1 <= weight <= MAX_WEIGHT:
            raise WorkloadError(f"{path}: clients: {shown(client)}: {shown(weight)} is not 1 to {MAX_WEIGHT:,}")
    rng = random.Random(f"{content.seed}/clients")
    return list(rng.choices(list(content.clients), list(content.clients.values()), k=content.requests))


def _first_of(limit: int | None, there: int) -> tuple[str, ...]:
    return (f"the first {limit} of {there} requests",) if limit is not None and limit < there else ()
