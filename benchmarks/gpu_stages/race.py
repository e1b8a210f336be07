"""Stages in which engines run the same recorded workload in turns, each in a process of its own on the same device.

The film's workload with the default model; and nano-vllm's (256 requests, prompt and output each uniform 100 to 1,024)
on the geometry of Qwen3-0.6B with weights drawn at random. vLLM gets the same weights from a folder in Hugging Face's
layout, the same prompts as token ids, and the same limits.
"""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from gpu_parcel import unpack
from tracereel.engine.adapters.export import exported_model
from tracereel.engine.adapters.session import Session, SessionRequest
from tracereel.engine.config import EngineConfig
from tracereel.engine.loading import LoadedModel
from tracereel.engine.model_store import require_model
from tracereel.engine.recording import request_of
from tracereel.engine.workload import Arrivals, Prompt, TokenPrompt, Workload
from tracereel.trace.analysis.metrics import Metrics
from tracereel.trace.analysis.pairs import throughput_ratio
from tracereel.trace.check.invariants import check
from tracereel.trace.format.events import RunInfo
from tracereel.trace.recordings.index import ENGINES, device_folder
from tracereel.trace.state.columns import Trace

from gpu_stages.place import Place
from gpu_stages.random_export import export_random
from gpu_stages.setting import Figures, Setting, progress, rounds_within

Json = dict[str, Any]
HERE = Path(__file__).resolve().parent
STAND_INS = HERE / "stand_ins"


class RivalError(Exception):
    """An engine ended before its time; the message is one line."""


class Rival:
    """An engine in a process of its own, loading from now on."""

    def __init__(self, engine: str, session: Session, place: Place, dry: bool):
        asked = place.work / f"{session.run.suite}-{engine}.json"
        asked.write_bytes(msgspec.json.encode(session))
        command = [sys.executable, "-m", f"gpu_stages.worker_{engine}", str(asked), *(["--dry-run"] if dry else [])]
        self.engine, self._log = engine, place.logs / f"{session.run.suite}-{engine}.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment(place, vllm=engine == "vllm", dry=dry),
            )

    def ready(self) -> None:
        """Wait until it is loaded and warm. Raises RivalError."""
        self._answer()

    def run(self) -> None:
        """Let it run the session's requests once. Raises RivalError."""
        assert self._process.stdin is not None
        self._process.stdin.write("run\n")
        self._process.stdin.flush()
        self._answer()

    def stop(self) -> None:
        """Let it close its recording and end."""
        try:
            self._process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answer(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("@@"):
                return
        words = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        named = [line for line in words if "Error" in line] or words or ["it said nothing"]
        raise RivalError(f"{self.engine} ended: {named[-1].strip()[:300]} (all of it: {self._log})")


def environment(place: Place, *, vllm: bool, dry: bool) -> dict[str, str]:
    """A process's environment; vLLM may be installed to a folder of its own, and has a stand-in in a dry run."""
    paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    if vllm:
        paths.insert(0, str(STAND_INS if dry else place.work / "vllm"))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}


def race(setting: Setting, folder: Path, sessions: dict[str, Session], label: str) -> Iterator[Json]:
    """Let each engine run its session in turns, as often as fits; figures of the recordings."""
    first = next(iter(sessions.values()))
    place = Place(folder)
    place.make()
    target = Path(first.path)
    target.mkdir(parents=True, exist_ok=True)
    rivals = [Rival(engine, session, place, setting.dry) for engine, session in sessions.items()]
    try:
        turns = 0
        progress(f"{label}: loading")
        for rival in rivals:
            rival.ready()
        for turn in rounds_within(setting, label):
            for rival in rivals[turn % len(rivals) :] + rivals[: turn % len(rivals)]:
                rival.run()
            turns = turn + 1
    finally:
        # Side by side: an engine takes seconds to end, and nothing of it is wanted any more.
        threads = [threading.Thread(target=rival.stop) for rival in rivals]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    traces = {engine: [recording(target, engine, turn) for turn in range(turns)] for engine in sessions}
    yield {"figures": figures_of(traces)}


def recording(folder: Path, engine: str, turn: int) -> Trace:
    """The recording of an engine's run; the n-th counts from 1. Raises RivalError where it is not one."""
    path = folder / f"{engine}-{turn + 1}.jsonl.zst"
    if not path.is_file():
        raise RivalError(f"{path}: {engine} has not recorded this run")
    if fault := check(path).fault:
        raise RivalError(f"{path}: the recording does not pass its check: {fault}")
    return Trace.read(path)


def figures_of(traces: dict[str, list[Trace]]) -> Figures:
    """Each engine's output throughput, and tracereel's over each other's, in each round."""
    figures = {
        f"{engine}, output tokens/s": [Metrics(trace).output_throughput or 0.0 for trace in own]
        for engine, own in traces.items()
    }
    for engine, own in traces.items():
        if engine != "tracereel" and "tracereel" in traces:
            ratio = throughput_ratio(traces["tracereel"], own)
            figures[f"tracereel over {engine}"] = list(ratio.pairs or (ratio.median,))
    return figures


def session_of(
    loaded_model: str,
    workload: Workload,
    requests: list[SessionRequest],
    config: EngineConfig,
    folder: Path,
    run: RunInfo,
) -> Session:
    """What one engine is to run again and again; run i of it is recorded as ENGINE-i below `folder`."""
    return Session(
        model=loaded_model,
        path=str(folder.absolute()),
        requests=requests,
        slots=config.max_num_seqs,
        token_budget=config.max_num_batched_tokens,
        kv_blocks=config.num_blocks,
        block_size=config.block_size,
        max_model_len=config.max_model_len,
        workload=workload.info(),
        run=run,
        variant="continuous",
    )


def requests_of(loaded: LoadedModel, workload: Workload) -> list[SessionRequest]:
    """A workload's requests as token ids."""
    return [
        SessionRequest(
            prompt.id,
            prompt.prompt if isinstance(prompt, Prompt) else "",
            list(request_of(prompt, loaded).prompt_ids),
            prompt.output_tokens or 1,
        )
        for _, prompt in workload.requests
    ]


def both(session: Session, models: dict[str, str]) -> dict[str, Session]:
    """The session for each engine, whose model is its own form of the same weights."""
    return {
        engine: msgspec.structs.replace(session, model=model, run=msgspec.structs.replace(session.run, case=engine))
        for engine, model in models.items()
    }


# Stages.


def install_vllm(setting: Setting, folder: Path) -> Iterator[Json]:
    """Put vLLM where `environment` finds it, where there is a parcel; import it once, and export the film's model."""
    place, begin = Place(folder), time.monotonic()
    place.make()
    if setting.parcel is not None:
        for line in unpack(setting.parcel, place.work, ("vllm",)):
            progress(line)
    look = "import vllm; from vllm import LLM, SamplingParams; print(vllm.__version__)"
    found = subprocess.run(
        [sys.executable, "-c", look],
        env=environment(place, vllm=True, dry=setting.dry),
        capture_output=True,
        text=True,
    )
    if found.returncode:
        raise RivalError(f"vllm: cannot be imported: {(found.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    progress(f"vllm {found.stdout.strip().splitlines()[-1]}")
    if not setting.dry:
        exported_model(require_model())
    yield {"figures": {"seconds": [time.monotonic() - begin]}}


def race_film(setting: Setting, folder: Path) -> Iterator[Json]:
    """The film's workload by tracereel and vLLM."""
    suite, loaded = setting.suite("film-gpu"), setting.load("default")
    workload = Workload.of(suite.name, suite.prompts, Arrivals())
    config = suite.config(next(case for case in suite.cases if case.policy == "continuous"))
    target = Place(folder).recordings / f"{suite.name}{ENGINES}" / device_folder(loaded.device)
    run = RunInfo(suite=f"{suite.name}{ENGINES}", case="tracereel", repeat=0, repeats=setting.rounds)
    session = session_of("default", workload, requests_of(loaded, workload), config, target, run)
    model = Place(folder).work / "export" if setting.dry else exported_model(require_model())
    if setting.dry:
        export_random(loaded, model)
    del loaded
    yield from race(setting, folder, both(session, {"tracereel": "default", "vllm": str(model)}), "race-film")


def nano_session(setting: Setting, folder: Path, loaded: LoadedModel, suite: str) -> Session:
    """nano-vllm's benchmark: prompts and answers uniform within `race_lengths`, greedy, all at once."""
    rng = random.Random(0)
    low, high = setting.race_lengths
    prompts = [
        TokenPrompt(str(i), rng.randint(low, high), rng.randint(low, high)) for i in range(setting.race_requests)
    ]
    workload = Workload.of("nano-vllm", prompts, Arrivals())
    config = nano_config(setting)
    target = Place(folder).recordings / suite / device_folder(loaded.device)
    run = RunInfo(suite=suite, case="tracereel", repeat=0, repeats=setting.rounds)
    return session_of("race", workload, requests_of(loaded, workload), config, target, run)


def nano_config(setting: Setting) -> EngineConfig:
    """A slot for each request, and KV for all of them at their largest together: nobody is preempted."""
    if setting.dry:
        return EngineConfig(max_num_seqs=3, max_num_batched_tokens=32, max_model_len=64, num_blocks=16)
    return EngineConfig(max_num_seqs=256, max_num_batched_tokens=16384, max_model_len=2064, num_blocks=12_288)


def nano_vllm(setting: Setting, folder: Path) -> Iterator[Json]:
    """nano-vllm's workload by tracereel alone."""
    session = nano_session(setting, folder, setting.load("race"), "nano-vllm")
    yield from race(setting, folder, {"tracereel": session}, "nano-vllm")


def race_nano_vllm(setting: Setting, folder: Path) -> Iterator[Json]:
    """nano-vllm's workload by tracereel and vLLM."""
    loaded = setting.load("race")
    session = nano_session(setting, folder, loaded, f"nano-vllm{ENGINES}")
    model = Place(folder).work / "export-race"
    export_random(loaded, model)
    del loaded
    yield from race(setting, folder, both(session, {"tracereel": "race", "vllm": str(model)}), "race-nano-vllm")
