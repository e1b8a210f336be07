"""Stages that record suites: the films' recordings, continuous over static batching by slots, tokens that agree."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tracereel.engine.loading import LoadedModel
from tracereel.engine.recording import Runners, record_run
from tracereel.engine.suite import Case
from tracereel.engine.suite_recording import record_suite
from tracereel.trace.analysis.metrics import Metrics
from tracereel.trace.analysis.pairs import throughput_ratio
from tracereel.trace.recordings.index import device_folder
from tracereel.trace.state.columns import Trace

from gpu_stages.place import Place
from gpu_stages.setting import Figures, Setting, progress

Json = dict[str, Any]
POLICIES = ("static", "same-position", "continuous")


def film(setting: Setting, folder: Path) -> Iterator[Json]:
    """The film's recordings with the default model."""
    yield from recorded(setting, folder, "film-gpu", "default")


def film_8b(setting: Setting, folder: Path) -> Iterator[Json]:
    """The recordings with a large geometry."""
    yield from recorded(setting, folder, "film-8b", "large")


def recorded(setting: Setting, folder: Path, name: str, model: str) -> Iterator[Json]:
    """Record a suite into `folder`/recordings; figures of what was recorded."""
    suite, loaded = setting.suite(name), setting.load(model)
    target = Place(folder).recordings / suite.name / device_folder(loaded.device)
    traces = [Trace.read(file) for file in record_suite(suite, loaded, target, _Lines())]
    figures: Figures = {**ratios_of(traces, ""), **waits_of(traces), **agreement_of(traces)}
    yield {"figures": figures, "computes": traces[0].header.config.get("attention")}


class _Lines:
    """Says what is recorded, a line a run."""

    def __init__(self) -> None:
        self._said = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != self._said:
            progress(f"{what} ({done} of {total} requests)")
        self._said = what


def ratios(setting: Setting, folder: Path) -> Iterator[Json]:
    """Continuous over static batching on the film's prompts, by slots; the film's own slots are in its recordings."""
    loaded, base = setting.load("default"), setting.suite("film-gpu")
    figures: Figures = {}
    for slots in setting.ratio_slots:
        cases = tuple(
            Case(name=policy, policy=policy, engine={"max_num_seqs": slots, "num_blocks": slots * 16})
            for policy in ("static", "continuous")
        )
        suite = replace(base, cases=cases, repeats=1 if setting.dry else 3)
        place = Place(folder).work / "ratios" / str(slots)
        traces = [Trace.read(file) for file in record_suite(suite, loaded, place, _Lines())]
        figures |= ratios_of(traces, f"{slots} slots, ")
        yield {"figures": figures}


def by_case(traces: Sequence[Trace]) -> dict[str, list[Trace]]:
    """Traces by the case that they are a run of."""
    found: dict[str, list[Trace]] = {}
    for trace in traces:
        if trace.header.run is not None:
            found.setdefault(trace.header.run.case, []).append(trace)
    return found


def ratios_of(traces: Sequence[Trace], label: str) -> Figures:
    """Each policy's output throughput, and its ratio to static batching's in each pair of runs."""
    cases = by_case(traces)
    figures: Figures = {}
    for case in POLICIES:
        if own := cases.get(case):
            figures[f"{label}{case}, output tokens/s"] = [Metrics(trace).output_throughput for trace in own]
            if case != "static":
                ratio = throughput_ratio(own, cases["static"])
                figures[f"{label}{case} over static"] = list(ratio.pairs or (ratio.median,))
    figures[f"{label}refill ceiling"] = [Metrics(cases["static"][0]).refill_ceiling]
    return figures


def waits_of(traces: Sequence[Trace]) -> Figures:
    """By policy: the share of the time in which the device waits for the host; steps with and without a prefill, ms."""
    figures: Figures = {}
    for case, own in by_case(traces).items():
        for trace in own:
            steps = trace.steps
            device = steps.device_ns
            if (device < 0).any():  # a dry run: there is no device
                device = steps.end_ns - steps.start_ns
            gaps = np.maximum(steps.device_gap_ns[1:], 0)
            if case != "online":  # between arrivals there is nothing to do
                share = 100 * float(gaps.sum()) / float(gaps.sum() + device.sum())
                figures.setdefault(f"{case}, the device waits, %", []).append(share)
            prefills = np.zeros(len(steps), dtype=bool)
            prefills[steps.member_step[~steps.member_decode]] = True
            for kind, chosen in (("with a prefill", prefills), ("that decode", ~prefills)):
                if chosen.any():
                    median = statistics.median(device[chosen].tolist()) / 1e6
                    figures.setdefault(f"{case}, steps {kind}, ms", []).append(median)
    return figures


def agreement_of(traces: Sequence[Trace]) -> Figures:
    """How many requests got the same tokens in all runs of those that came at once."""
    answers = [tokens_by_request(trace) for case, own in by_case(traces).items() if case != "online" for trace in own]
    return {"requests with the same tokens in all runs": [float(len(same_in_all(answers)))]}


def tokens_by_request(trace: Trace) -> dict[str, tuple[int, ...]]:
    """Each request's output tokens, by its id."""
    return {
        arrival.id: tuple(trace.steps.token_id[trace.tokens_of(number)].tolist())
        for number, arrival in enumerate(trace.arrivals)
    }


def same_in_all(answers: Sequence[dict[str, tuple[int, ...]]]) -> list[str]:
    """The requests whose tokens are the same in all of the answers."""
    return [name for name, tokens in answers[0].items() if all(other.get(name) == tokens for other in answers)]


def tokens(setting: Setting, folder: Path) -> Iterator[Json]:
    """In fp32: requests whose tokens under a policy are those of the CPU under continuous batching."""
    suite = setting.suite("film-gpu")
    chosen = suite.prompts[: setting.check_prompts]
    suite = replace(suite, prompts=chosen, engine={**suite.engine, "max_num_seqs": min(16, len(chosen))})
    place = Place(folder).work / "tokens"
    place.mkdir(parents=True, exist_ok=True)

    def answers(loaded: LoadedModel, case: Case, runners: Runners, name: str) -> dict[str, tuple[int, ...]]:
        progress(f"tokens: {name}")
        path = place / f"{name}.jsonl.zst"
        record_run(loaded, suite.config(case), suite.workload(case), path, runners=runners)
        return tokens_by_request(Trace.read(path))

    on_cpu = setting.load("default", "fp32", "cpu")
    want = answers(on_cpu, Case(name="cpu", policy="continuous"), Runners(on_cpu), "cpu")
    loaded = setting.load("default", "fp32")
    runners = Runners(loaded)
    figures: Figures = {}
    for policy in POLICIES:
        found = answers(loaded, Case(name=policy, policy=policy), runners, policy)
        figures[f"{policy}, requests unlike the CPU's"] = [float(len(want) - len(same_in_all([want, found])))]
        yield {"figures": figures}


def invariant(setting: Setting, folder: Path) -> Iterator[Json]:
    """The film's requests under every policy with `batch_invariant`: whose tokens agree, and what it costs.

    Its cost is continuous batching's throughput without it over that with it.
    """
    loaded, base = setting.load("default"), setting.suite("film-gpu")
    chosen = tuple(case for case in base.cases if case.name in POLICIES)
    cases = tuple(
        msgspec.structs.replace(case, engine={**case.engine, "batch_invariant": True}, repeats=None) for case in chosen
    )
    plain = Case(name="plain", policy="continuous")
    suite = replace(base, cases=(*cases, plain), repeats=1)
    place = Place(folder).work / "invariant"
    found = by_case([Trace.read(file) for file in record_suite(suite, loaded, place, _Lines())])
    answers = [tokens_by_request(found[case.name][0]) for case in cases]
    rate = {name: Metrics(found[name][0]).output_throughput or 0.0 for name in ("plain", "continuous")}
    yield {
        "figures": {
            "requests": [float(len(base.prompts))],
            "requests with other tokens in some run": [float(len(base.prompts) - len(same_in_all(answers)))],
            "throughput lost, %": [100 * (1 - rate["continuous"] / rate["plain"])],
        }
    }
