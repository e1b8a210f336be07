"""One run of one workload by the engine, recorded: requests go in when they are due, steps come out as a trace.

Knows loaded models, workloads, the engine and the recorder. Does not know which runs belong together (`suite`).
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
from tracereel.engine.config import EngineConfig
from tracereel.engine.device_runner import DeviceRunner
from tracereel.engine.engine import Engine
from tracereel.engine.loading import LoadedModel
from tracereel.engine.online import OnlineEngine, drive
from tracereel.engine.request import Request, SamplingParams
from tracereel.engine.runner import ModelRunner
from tracereel.engine.workload import Prompt, TokenPrompt, Workload, WorkloadError
from tracereel.trace.check.invariants import check
from tracereel.trace.format.events import Header, RunInfo
from tracereel.trace.format.recorder import Recorder


class FailedRecordingError(Exception):
    """A recording does not pass its check; the message is one line."""


def request_of(prompt: Prompt | TokenPrompt, loaded: LoadedModel) -> Request:
    """A request of the pinned length: an end token ends it no earlier. Raises WorkloadError where there is none."""
    if prompt.output_tokens is None:
        raise WorkloadError(f"{prompt.id!r} has no output_tokens; run `tracereel pin`")
    sampling = SamplingParams(max_tokens=prompt.output_tokens, min_tokens=prompt.output_tokens)
    if isinstance(prompt, Prompt):
        encoded = tuple(loaded.tokenizer.encode_chat(prompt.prompt))
        return Request(prompt.id, encoded, sampling, prompt.prompt, client=prompt.client)
    ids = prompt.token_ids(loaded.model.config.vocabulary, avoid=loaded.tokenizer.end_ids)
    return Request(prompt.id, ids, sampling, client=prompt.client)


def header_of(loaded: LoadedModel, config: EngineConfig, workload: Workload, run: RunInfo | None) -> Header:
    """The header of a recording that starts now."""
    header = loaded.header(config, workload.info(), run)
    if not workload.notes:
        return header
    return msgspec.structs.replace(header, config={**header.config, "workload_notes": "; ".join(workload.notes)})


class Runners:
    """Makes a model's runners and keeps the last: to make one on a device captures many graphs. One pool at a time."""

    def __init__(self, loaded: LoadedModel):
        self._loaded = loaded
        self._kept: tuple[EngineConfig, ModelRunner | DeviceRunner] | None = None

    def of(self, config: EngineConfig) -> ModelRunner | DeviceRunner:
        """A runner for this configuration; the last one must not be in use any more."""
        # Which policy batches is the scheduler's alone: the same runner serves all of them.
        wanted = replace(config, policy=EngineConfig.policy, max_wait_ms=EngineConfig.max_wait_ms)
        if self._kept is None or self._kept[0] != wanted:
            self._kept = None  # its pool is given back before the next is taken
            self._kept = wanted, self._loaded.runner(config)
        return self._kept[1]


def record_run(
    loaded: LoadedModel,
    config: EngineConfig,
    workload: Workload,
    path: Path | None,
    *,
    runners: Runners | None = None,
    run: RunInfo | None = None,
    done: Callable[[int], None] = lambda finished: None,
) -> None:
    """Run a workload to its end; without a path nothing is recorded.

    `done` is called with the number of requests that have ended. The requests are made before the engine starts, by a
    runner of `runners` where there will be more runs. Raises WorkloadError, ConfigError, NeverFitsError,
    RecordingError.
    """
    requests = [request_of(prompt, loaded) for _, prompt in workload.requests]
    runner = (runners or Runners(loaded)).of(config)
    recorder = Recorder(path, header_of(loaded, config, workload, run)) if path else None
    engine = loaded.engine(config, runner=runner, recorder=recorder)
    try:
        for request in requests:
            engine.require_fit(request)
        if workload.at_once:
            for request in requests:
                engine.add(request, arrival_ns=0)
            while (ready_ns := engine.ready_in_ns()) is not None:
                if ready_ns:
                    time.sleep(ready_ns / 1e9)
                engine.step()
                done(engine.metrics().finished)
        else:
            _run_online(engine, workload, requests, done)
    except BaseException:
        if recorder:
            recorder.abandon()
        raise
    if recorder:
        recorder.close()


def record_workload(
    loaded: LoadedModel, config: EngineConfig, workload: Workload, path: Path, done: Callable[[int], None]
) -> None:
    """Record a run of a workload by itself and check it; the first step's set-up costs are paid before, unrecorded.

    Raises FailedRecordingError where the recording does not pass its check, and what `record_run` raises.
    """
    first = [
        msgspec.structs.replace(prompt, output_tokens=min(prompt.output_tokens or 1, 4))
        if isinstance(prompt, Prompt)
        else replace(prompt, output_tokens=min(prompt.output_tokens, 4))
        for _, prompt in workload.requests[: config.max_num_seqs]
    ]
    record_run(loaded, config, replace(workload, requests=tuple((0, prompt) for prompt in first)), None)
    record_run(loaded, config, workload, path, done=done)
    if fault := check(path).fault:
        raise FailedRecordingError(f"{path}: the recording does not pass its check: {fault}")


def _run_online(engine: Engine, workload: Workload, requests: list[Request], done: Callable[[int], None]) -> None:
    start_ns = engine.now_ns() + 1_000_000  # the first arrivals must not come before the engine's thread has started
    with OnlineEngine(engine) as online:

        def due() -> Iterator[tuple[int, Request]]:
            for (at, _), request in zip(workload.requests, requests, strict=True):
                done(online.metrics().finished)
                yield start_ns + at, request

        for stream in drive(online, due()):
            for _ in stream:
                pass  # raises where the engine has failed
            done(online.metrics().finished)
    done(len(requests))
