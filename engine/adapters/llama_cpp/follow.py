"""Follows one server until its prompts are answered, or for a time, and writes the trace."""

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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
OUTPUT_TOKENS = 128
"""The most of an answer where the prompt does not say it."""
IDLE_SECONDS = 0.02
STEPS = "the time from one look at /slots that saw a slot advance, or saw all idle, to the next that saw it"
UNKNOWN = "when a pass began and ended, KV in use, the device; of others' requests arrival, prompt, tokens, last tokens"


@dataclass(frozen=True)
class Prompt:
    """A user's message, when it is due, and the most tokens of its answer."""

    id: str
    prompt: str
    output_tokens: int = OUTPUT_TOKENS
    arrival_ms: float = 0.0


@dataclass
class Outcome:
    """What was recorded: steps, requests that no look saw, and answers that broke off with the first one's reason."""

    steps: int = 0
    requests: int = 0
    unseen: int = 0
    broken: int = 0
    fault: str | None = None


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
    if len(prompts) > MOST_PROMPTS:
        raise AdapterError(f"{len(prompts)} prompts are more than the {MOST_PROMPTS} that can be sent at once")
    try:
        props = server.props()
        server.slots()  # refused here, before anything is written
        ids = [server.prompt_ids(prompt.prompt) for prompt in prompts]
        clock = start_clock()
        arrivals = None
        if prompts:
            arrivals = "at once" if not any(prompt.arrival_ms for prompt in prompts) else "as the prompt file says"
        header = _header(server, props, interval_ms)
        # How many requests there will be is not known: other clients have theirs.
        workload_info = WorkloadInfo(name=as_name(workload), arrivals=arrivals)
        header = msgspec.structs.replace(header, clock=clock, workload=workload_info)
        with Recorder(path, header) as recorder:
            following = _Following(server, recorder, prompts, ids, clock.monotonic_ns)
            if ready is not None:
                ready()
            following.run(stop, seconds, interval_ms)
        return following.outcome
    finally:
        server.close()


@dataclass
class _Following:
    """One recording while it is made: times are counted from `zero_ns`."""

    server: Server
    recorder: Recorder
    prompts: Sequence[Prompt]
    ids: list[list[int]]
    zero_ns: int
    ledger: Ledger = field(default_factory=Ledger)
    outcome: Outcome = field(default_factory=Outcome)

    def run(self, stop: threading.Event, seconds: float | None, interval_ms: float) -> None:
        """Send what is due, look, record; until the end."""
        server, ledger, outcome = self.server, self.ledger, self.outcome
        first_seed = secrets.randbelow(2**31 - MOST_PROMPTS)
        due = sorted(range(len(self.prompts)), key=lambda i: self.prompts[i].arrival_ms)
        busy_ns = 0
        while not stop.is_set() and (seconds is None or self._now_ns() < seconds * 1e9):
            while due and self.prompts[due[0]].arrival_ms * 1e6 <= self._now_ns():
                self._send(i := due.pop(0), first_seed + i)
            try:
                busy = _look(server, ledger, self.zero_ns)
            except AdapterError:
                if stop.is_set():  # the look itself was broken off
                    break
                raise
            _record(self.recorder, ledger, outcome, all_of_it=False)
            if self.prompts and not due and not ledger.busy:
                break
            if busy or not ledger.busy:
                busy_ns = self._now_ns()
            elif self._now_ns() - busy_ns > server.timeout_s * 1e9:
                outcome.fault = outcome.fault or f"no slot has worked for {server.timeout_s:g} s"
                server.interrupt()
            stop.wait(interval_ms / 1e3 if busy or ledger.busy else IDLE_SECONDS)
        _record(self.recorder, ledger, outcome, all_of_it=True)

    def _now_ns(self) -> int:
        return time.monotonic_ns() - self.zero_ns

    def _send(self, i: int, seed: int) -> None:
        sent = _sent(self.prompts[i], self.ids[i], seed, self.zero_ns)
        self.ledger.send(sent)
        read = threading.Thread(target=_read, args=(self.server, sent, self.ids[i], self.outcome), daemon=True)
        read.start()


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
    if isinstance(context, int) and 0 < context < 2**31:
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
            parameters=parameters if isinstance(parameters, int) and 0 <= parameters <= 2**53 else None,
        ),
        device=DeviceInfo(kind="unknown", name="not named by the server"),
        workload=WorkloadInfo(name="what came"),
        clock=start_clock(),
        config=config,
    )
