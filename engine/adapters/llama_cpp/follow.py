"""Follows one server until its prompts are answered, or for a time, and writes the trace."""

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec
from tracereel.engine.adapters import AdapterError
from tracereel.engine.adapters.llama_cpp.ledger import ERROR, UNSEEN, Ledger, Seen, Sent
from tracereel.engine.adapters.llama_cpp.server import Chunk, Props, Server
from tracereel.trace.format.bounds import as_name
from tracereel.trace.format.events import (
    SCHEMA_VERSION,
    DeviceInfo,
    EngineInfo,
    Finish,
    Header,
    ModelInfo,
    WorkloadInfo,
)
from tracereel.trace.format.recorder import Recorder, start_clock

MOST_PROMPTS = 256
"""Each has a connection and a thread."""
MOST_LINE_BYTES = 2**20
"""A line of a prompt file."""
IDLE_SECONDS = 0.02
STEPS = "the time from one look at /slots that saw a slot advance, or saw all idle, to the next that saw it"
UNKNOWN = "when a pass began and ended, KV in use, the device; of others' requests arrival, prompt, tokens, last tokens"


class Prompt(msgspec.Struct, frozen=True):
    """A line of a prompt file: a user's message, when it is due, and the most tokens of its answer."""

    id: str
    prompt: str
    output_tokens: int = 128
    arrival_ms: float = 0.0


@dataclass
class Outcome:
    """What was recorded: steps, requests that no look saw, and answers that broke off with the first one's reason."""

    steps: int = 0
    requests: int = 0
    unseen: int = 0
    broken: int = 0
    fault: str | None = None


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of a file of JSON Lines. Raises AdapterError, which names the line."""
    prompts: list[Prompt] = []
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MOST_LINE_BYTES + 1), b""), start=1):
            if len(line) > MOST_LINE_BYTES:
                raise AdapterError(f"{path}, line {number}: longer than {MOST_LINE_BYTES:,} bytes")
            if not line.strip():
                continue
            try:
                prompt = msgspec.json.decode(line, type=Prompt)
            except msgspec.DecodeError as error:
                raise AdapterError(f"{path}, line {number}: {error}") from None
            if not prompt.prompt or prompt.output_tokens < 1 or not 0 <= prompt.arrival_ms < 1e9:
                raise AdapterError(f"{path}, line {number}: a prompt, output_tokens from 1 on, arrival_ms from 0 on")
            prompts.append(prompt)
            if len(prompts) > MOST_PROMPTS:
                raise AdapterError(f"{path}: holds more than {MOST_PROMPTS} prompts, which are sent at once")
    if not prompts:
        raise AdapterError(f"{path}: holds no prompt")
    return prompts


def follow(
    server: Server,
    path: Path,
    *,
    prompts: Sequence[Prompt] = (),
    workload: str = "what came",
    seconds: float | None = None,
    interval_ms: float = 1.0,
    stop: threading.Event | None = None,
    ready: Callable[[], None] | None = None,
) -> Outcome:
    """Record a server into `path`; with prompts until all are answered, else for `seconds`, or until `stop` is set.

    Looks are `interval_ms` apart at least. Raises AdapterError where the server does not answer, and RecordingError
    where the file cannot be written; what was recorded until then stays behind as a recording that was cut.
    """
    stop = stop or threading.Event()
    props = server.props()
    server.slots()  # refused here, before anything is written
    ids = [server.prompt_ids(prompt.prompt) for prompt in prompts]
    clock = start_clock()
    zero_ns = clock.monotonic_ns
    arrivals = None
    if prompts:
        arrivals = "at once" if not any(prompt.arrival_ms for prompt in prompts) else "as the prompt file says"
    header = _header(server, props, interval_ms)
    workload_info = WorkloadInfo(name=as_name(workload), requests=len(prompts) or None, arrivals=arrivals)
    header = msgspec.structs.replace(header, clock=clock, workload=workload_info)
    ledger, outcome = Ledger(), Outcome()
    with Recorder(path, header) as recorder:
        first_seed = secrets.randbelow(2**31 - MOST_PROMPTS)
        due = sorted(range(len(prompts)), key=lambda i: prompts[i].arrival_ms)
        ends_ns = None if seconds is None else zero_ns + int(seconds * 1e9)
        if ready is not None:
            ready()
        while not stop.is_set() and (ends_ns is None or time.monotonic_ns() < ends_ns):
            now_ns = time.monotonic_ns() - zero_ns
            while due and prompts[due[0]].arrival_ms * 1e6 <= now_ns:
                i = due.pop(0)
                sent = _sent(prompts[i], ids[i], first_seed + i, zero_ns)
                ledger.send(sent)
                threading.Thread(target=_read, args=(server, sent, ids[i], outcome), daemon=True).start()
            busy = _look(server, ledger, zero_ns)
            _record(recorder, ledger, outcome, all_of_it=False)
            if prompts and not due and not ledger.busy:
                break
            stop.wait(interval_ms / 1e3 if busy or ledger.busy else IDLE_SECONDS)
        _record(recorder, ledger, outcome, all_of_it=True)
    server.close()
    return outcome


def _look(server: Server, ledger: Ledger, zero_ns: int) -> bool:
    """One look; does any slot work?"""
    answer = server.slots()
    at_ns = time.monotonic_ns() - zero_ns
    seen = [
        Seen(
            slot=slot.id,
            task=slot.id_task,
            seed=slot.params.seed,
            cached=slot.n_prompt_tokens_cache,
            processed=slot.n_prompt_tokens_processed,
            decoded=slot.next_token[0].n_decoded if slot.next_token else 0,
            remain=slot.next_token[0].n_remain if slot.next_token else -1,
        )
        for slot in answer
        if slot.is_processing
    ]
    ledger.look(seen, at_ns)
    return bool(seen)


def _record(recorder: Recorder, ledger: Ledger, outcome: Outcome, *, all_of_it: bool) -> None:
    for record in ledger.records(all_of_it=all_of_it):
        recorder.record(record)
        kind = type(record).__name__
        outcome.steps += kind == "Step"
        outcome.requests += kind == "Arrival"
        if isinstance(record, Finish):
            outcome.unseen += record.reason == UNSEEN
            outcome.broken += record.reason == ERROR


def _sent(prompt: Prompt, prompt_ids: list[int], seed: int, zero_ns: int) -> Sent:
    now_ns = time.monotonic_ns() - zero_ns
    return Sent(
        id=prompt.id,
        prompt=prompt.prompt,
        prompt_tokens=len(prompt_ids),
        max_tokens=prompt.output_tokens,
        seed=seed,
        due_ns=min(int(prompt.arrival_ms * 1e6), now_ns),
        submitted_ns=now_ns,
    )


def _read(server: Server, sent: Sent, prompt_ids: list[int], outcome: Outcome) -> None:
    """On a thread of its own: read one answer."""
    try:
        for chunk in server.stream(prompt_ids, sent.max_tokens, sent.seed):
            _take(sent, chunk)
    except AdapterError as error:
        outcome.fault = outcome.fault or f"{sent.id}: {error}"
    finally:
        sent.ended = True


def _take(sent: Sent, chunk: Chunk) -> None:
    if chunk.stop:
        if chunk.timings is not None:
            sent.cached = chunk.timings.cache_n
        sent.received = max(sent.received, chunk.tokens_predicted)
        sent.stop_type = chunk.stop_type
    elif chunk.tokens_predicted:
        sent.pieces[chunk.tokens_predicted] = (chunk.content, chunk.tokens[0] if len(chunk.tokens) == 1 else None)
        sent.received = chunk.tokens_predicted


def _header(server: Server, props: Props, interval_ms: float) -> Header:
    """What the server says of itself. Its device, threads and KV cache it does not."""
    model = server.architecture()
    context = props.default_generation_settings.get("n_ctx")
    parameters = model.get("n_params")
    config: dict[str, bool | int | float | str | None] = {
        "a_step_is": STEPS,
        "not_known": UNKNOWN,
        "look_interval_ms": interval_ms,
    }
    if isinstance(context, int):
        config["max_model_len"] = context
    return Header(
        schema=SCHEMA_VERSION,
        engine=EngineInfo(name="llama.cpp", version=as_name(props.build_info) or "unknown"),
        policy="continuous",
        slots=props.total_slots,
        model=ModelInfo(
            name=as_name(PurePosixPath(props.model_path.replace("\\", "/")).name.removesuffix(".gguf") or "unnamed"),
            weights="real",
            dtype=as_name(props.model_ftype or "unknown"),
            parameters=parameters if isinstance(parameters, int) and parameters >= 0 else None,
        ),
        device=DeviceInfo(kind="unknown", name="not named by the server"),
        workload=WorkloadInfo(name="what came"),
        clock=start_clock(),
        config=config,
    )
