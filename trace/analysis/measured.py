"""Measured values: a number or a text that knows how it was obtained, so that anybody can obtain it again.

A `Measured` names its query, the query's arguments, the digests of the traces and the lines of the records behind it.
Queries are plain functions registered by name; `evaluate` recomputes any of them, which is how a film is verified.
Knows traces and metrics. Does not know where a value is shown, nor how it is formatted.
"""

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from tracereel.trace.analysis.compare import Ratio, median_run, throughput_ratio
from tracereel.trace.analysis.gaps import gaps_beside
from tracereel.trace.analysis.latency import ITL, Latencies, Pause, worst_pause
from tracereel.trace.analysis.metrics import Metrics
from tracereel.trace.analysis.waterfall import PARTS, Waterfall, waterfall
from tracereel.trace.state.columns import Ints, Trace
from tracereel.trace.state.timeline import Timeline

Value = int | float | str
Argument = int | float | str
Lines = tuple[int, int]
Answer = tuple[Value, Lines]


class UnknownQueryError(KeyError):
    """No query has that name."""


@dataclass(frozen=True)
class Measured:
    """A value, the query that gives it, and the traces and lines (first, last; of the first trace) it comes from."""

    value: Value
    query: str
    args: tuple[tuple[str, Argument], ...]
    traces: tuple[str, ...]
    lines: Lines


class Run:
    """A trace with what is asked of it often: its timeline, its metrics, and measured values by query."""

    def __init__(self, trace: Trace):
        self.trace = trace
        self.measure = lru_cache(maxsize=50_000)(self._measure)
        """Ask a query about this run: `measure("waiting", t_ns=…)`. Raises UnknownQueryError."""
        self.latencies: dict[str, Latencies] = {}

    @classmethod
    def read(cls, path: Path) -> "Run":
        """Read a trace file. Raises TraceError."""
        return cls(Trace.read(path))

    @cached_property
    def timeline(self) -> Timeline:
        """The state at any instant."""
        return Timeline(self.trace)

    @cached_property
    def metrics(self) -> Metrics:
        """What the run adds up to."""
        return Metrics(self.trace)

    @cached_property
    def decode_rows(self) -> Ints:
        """For each step its rows, padding among them; 0 where it prefills."""
        steps = self.trace.steps
        rows = steps.batch + steps.padding
        rows[steps.member_step[~steps.member_decode]] = 0
        return rows

    def _measure(self, query: str, **args: Argument) -> Measured:
        return measure(query, [self], **args)


def measure(query: str, runs: Sequence[Run], **args: Argument) -> Measured:
    """Ask a query about runs. Raises UnknownQueryError, and what the query raises."""
    value, lines = evaluate(query, runs, args)
    digests = tuple(run.trace.digest for run in runs)
    return Measured(value, query, tuple(sorted(args.items())), digests, lines)


def evaluate(query: str, runs: Sequence[Run], args: Mapping[str, Argument]) -> Answer:
    """The value a query gives, and the lines behind it. Raises UnknownQueryError."""
    if query not in QUERIES:
        raise UnknownQueryError(query)
    return QUERIES[query](*runs, **args)


QUERIES: dict[str, Callable[..., Answer]] = {}


def _query(function: Callable[..., Answer]) -> Callable[..., Answer]:
    QUERIES[function.__name__] = function
    return function


def _steps(run: Run, first: int, end: int) -> Lines:
    """The lines of the steps from `first` up to but without `end`; the header's where there are none."""
    line = run.trace.steps.line
    return (int(line[first]), int(line[end - 1])) if end > first else (1, 1)


def _so_far(run: Run, t_ns: int) -> Lines:
    return _steps(run, 0, run.timeline.steps_started(t_ns))


def _whole(run: Run) -> Lines:
    return _steps(run, 0, len(run.trace.steps))


# What the header says.


@_query
def header(run: Run, *, field: str) -> Answer:
    """A field of the header by its path, such as `device.name`."""
    value: object = run.trace.header
    for name in field.split("."):
        value = getattr(value, name)
    if not isinstance(value, int | float | str):
        raise ValueError(f"header.{field} is absent")
    return value, (1, 1)


@_query
def digest(run: Run) -> Answer:
    """The first 12 digits of the trace's digest."""
    return run.trace.name, (1, 1)


@_query
def recorded_on(run: Run) -> Answer:
    """The day (UTC) of the recording."""
    moment = datetime.datetime.fromtimestamp(run.trace.header.clock.wall_ns / 1e9, tz=datetime.UTC)
    return moment.date().isoformat(), (1, 1)


@_query
def device(run: Run) -> Answer:
    """The device by its own name, and its threads where it is a processor."""
    info = run.trace.header.device
    name = " ".join(info.name.replace("(R)", "").replace("(TM)", "").split())
    threads = f"{info.threads} thread{'s' if info.threads != 1 else ''}"
    return (f"{name}, {threads}" if info.threads else name), (1, 1)


@_query
def model(run: Run) -> Answer:
    """The model's name, its dtype, and a word where its weights are not real."""
    info = run.trace.header.model
    return f"{info.name} · {info.dtype}" + ("" if info.weights == "real" else " · random weights"), (1, 1)


@_query
def engine(run: Run) -> Answer:
    """The engine's name and version."""
    info = run.trace.header.engine
    return f"{info.name} {info.version}", (1, 1)


@_query
def replica(run: Run, *, index: int) -> Answer:
    """The number of a merged trace's replica."""
    return run.trace.header.replicas[index].replica, (1, 1)


@_query
def policy(run: Run) -> Answer:
    """How the engine batched, in its own word."""
    return run.trace.header.policy, (1, 1)


@_query
def provenance(*runs: Run) -> Answer:
    """Where runs come from, in words: engine, model, device, workload, and each trace's digest."""
    first = runs[0]
    facts = [
        engine(first)[0],
        model(first)[0],
        device(first)[0],
        first.trace.header.workload.name,
        *sorted(run.trace.name for run in runs),
    ]
    return "; ".join(map(str, facts)), (1, 1)


# One request.


@_query
def request_name(run: Run, *, request: int) -> Answer:
    """How a request is called on screen: R1, R2, … in the order of arrival."""
    return f"R{request + 1}", (run.trace.arrival_lines[request],) * 2


@_query
def prompt(run: Run, *, request: int) -> Answer:
    """The text of a request's prompt, or its id where the trace does not hold the text."""
    arrival = run.trace.arrivals[request]
    return arrival.prompt if arrival.prompt is not None else arrival.id, (run.trace.arrival_lines[request],) * 2


@_query
def output_text(run: Run, *, request: int, first: int, end: int) -> Answer:
    """The text of a request's output tokens from `first` up to but without `end`; empty where it is not known."""
    texts = run.trace.texts_of(request)
    steps = run.trace.steps.token_step[run.trace.tokens_of(request)[first:end]]
    lines = _steps(run, int(steps[0]), int(steps[-1]) + 1) if len(steps) else (1, 1)
    return ("" if texts is None else "".join(texts[first:end])), lines


@_query
def request_output_tokens(run: Run, *, request: int, t_ns: int) -> Answer:
    """Output tokens of a request at engine time t."""
    return run.timeline.at(t_ns).output_tokens_of(request), _so_far(run, t_ns)


@_query
def position(run: Run, *, request: int, t_ns: int) -> Answer:
    """Tokens of a running request whose KV is there at engine time t."""
    seats = run.timeline.at(t_ns).seats
    found = next((seat for seat in seats if seat is not None and seat.request == request), None)
    if found is None:
        raise ValueError(f"request {request} does not run at {t_ns} ns")
    return found.computed_tokens, _so_far(run, t_ns)


# The whole run at an instant.


@_query
def engine_time_s(run: Run, *, t_ns: int) -> Answer:
    """Engine time t itself, in seconds."""
    return t_ns / 1e9, _so_far(run, t_ns)


@_query
def waiting(run: Run, *, t_ns: int) -> Answer:
    """Requests in the waiting queue at engine time t."""
    return run.timeline.at(t_ns).num_waiting, _so_far(run, t_ns)


@_query
def running(run: Run, *, t_ns: int) -> Answer:
    """Requests that hold a slot at engine time t."""
    return run.timeline.at(t_ns).num_running, _so_far(run, t_ns)


@_query
def finished(run: Run, *, t_ns: int) -> Answer:
    """Requests that have ended by engine time t."""
    return run.timeline.at(t_ns).num_finished, _so_far(run, t_ns)


@_query
def prefilling(run: Run, *, t_ns: int) -> Answer:
    """Requests in a slot that lack KV for tokens they have, at engine time t."""
    seats = run.timeline.at(t_ns).seats
    return sum(seat is not None and seat.prefill for seat in seats), _so_far(run, t_ns)


@_query
def decoding(run: Run, *, t_ns: int) -> Answer:
    """Requests in a slot that lack KV for their newest token alone, at engine time t."""
    seats = run.timeline.at(t_ns).seats
    return sum(seat is not None and not seat.prefill for seat in seats), _so_far(run, t_ns)


@_query
def waiting_beyond(run: Run, *, t_ns: int, shown: int) -> Answer:
    """Requests in the waiting queue at engine time t beyond the first `shown`."""
    return max(run.timeline.at(t_ns).num_waiting - shown, 0), _so_far(run, t_ns)


@_query
def finished_beyond(run: Run, *, t_ns: int, shown: int) -> Answer:
    """Requests that have ended by engine time t before the newest `shown`."""
    return max(run.timeline.at(t_ns).num_finished - shown, 0), _so_far(run, t_ns)


@_query
def slots_beyond(run: Run, *, shown: int) -> Answer:
    """Slots beyond the first `shown`."""
    return max(run.trace.header.slots - shown, 0), (1, 1)


@_query
def slots_shown(run: Run, *, shown: int) -> Answer:
    """How many of the slots are shown where there is room for so many."""
    return min(run.trace.header.slots, shown), (1, 1)


@_query
def output_tokens(run: Run, *, t_ns: int) -> Answer:
    """Output tokens of all requests by engine time t."""
    return run.timeline.at(t_ns).output_tokens, _so_far(run, t_ns)


@_query
def steps_made(run: Run, *, t_ns: int) -> Answer:
    """Steps that have ended by engine time t."""
    return run.timeline.steps_ended(t_ns), _so_far(run, t_ns)


@_query
def idle_slot_steps(run: Run, *, t_ns: int) -> Answer:
    """Slot-steps by engine time t in which no sequence advanced in the slot: slots x steps - members of the steps."""
    return run.timeline.idle_slot_steps_at(t_ns), _steps(run, 0, run.timeline.steps_ended(t_ns))


@_query
def batch(run: Run, *, t_ns: int) -> Answer:
    """Members of the step that runs at engine time t, or of the newest one between steps; 0 before the first."""
    started = run.timeline.steps_started(t_ns)
    if not started:
        return 0, (1, 1)
    return int(run.trace.steps.batch[started - 1]), _steps(run, started - 1, started)


# The whole run.


@_query
def slots(run: Run) -> Answer:
    """Slots: rows of the batch."""
    return run.trace.header.slots, (1, 1)


@_query
def num_requests(run: Run) -> Answer:
    """Requests of the run."""
    return len(run.trace.arrivals), (1, 1)


@_query
def num_steps(run: Run) -> Answer:
    """Steps of the run."""
    return len(run.trace.steps), _whole(run)


@_query
def duration_s(run: Run) -> Answer:
    """First arrival to last token, in seconds."""
    return run.metrics.duration_s, _whole(run)


@_query
def output_throughput(run: Run) -> Answer:
    """Output tokens / (last token - first arrival), a second."""
    value = run.metrics.output_throughput
    if value is None:
        raise ValueError("the trace holds no output token")
    return value, _whole(run)


@_query
def mean_batch(run: Run) -> Answer:
    """Members of a step, mean over the steps."""
    value = run.metrics.mean_batch
    if value is None:
        raise ValueError("the trace holds no step")
    return value, _whole(run)


@_query
def idle_share_percent(run: Run) -> Answer:
    """Slot-steps in which no sequence advanced, in percent of slots x steps."""
    return 100 * run.metrics.idle_slot_steps / max(run.metrics.slot_steps, 1), _whole(run)


# Latencies, of completed requests.


def _latencies(run: Run, metric: str) -> Latencies:
    found = run.latencies.get(metric)
    if found is None:
        found = run.latencies[metric] = Latencies.of(run.trace, metric)
    return found


@_query
def latency_n(run: Run, *, metric: str, t_ns: int) -> Answer:
    """How many values of `ttft` or `itl` are known at engine time t."""
    return _latencies(run, metric).known(t_ns), _so_far(run, t_ns)


@_query
def latency_percentile_ms(run: Run, *, metric: str, percentile: float) -> Answer:
    """A percentile (0 to 100, linear interpolation) of `ttft` or `itl` over the run, in milliseconds."""
    values = _latencies(run, metric).value_ms
    if not len(values):
        raise ValueError(f"the trace holds no {metric}")
    return float(np.percentile(values, percentile)), _whole(run)


def _pause(run: Run) -> Pause:
    pause = worst_pause(run.trace)
    if pause is None:
        raise ValueError("no completed request of the trace has two output tokens")
    return pause


@_query
def worst_pause_ms(run: Run) -> Answer:
    """The longest inter-token time of the run, in milliseconds."""
    pause = _pause(run)
    return (pause.to_ns - pause.from_ns) / 1e6, _steps(run, pause.step, pause.step + 1)


@_query
def worst_pause_request(run: Run) -> Answer:
    """Who waited for the longest inter-token time, as it is called on screen."""
    return request_name(run, request=_pause(run).request)


@_query
def worst_pause_prefill_tokens(run: Run) -> Answer:
    """Prompt tokens of others that were computed in the step that ended the longest inter-token time."""
    pause = _pause(run)
    return pause.prefill_tokens, _steps(run, pause.step, pause.step + 1)


@_query
def worst_pause_over_median(run: Run) -> Answer:
    """The longest inter-token time over the run's median one."""
    ratio = float(worst_pause_ms(run)[0]) / float(latency_percentile_ms(run, metric=ITL, percentile=50)[0])
    return ratio, _whole(run)


# Several runs: repeats of two cases, the first `numerator` runs against the rest.


def _ratio(runs: Sequence[Run], numerator: int) -> Ratio:
    return throughput_ratio([run.trace for run in runs[:numerator]], [run.trace for run in runs[numerator:]])


@_query
def throughput_ratio_median(*runs: Run, numerator: int) -> Answer:
    """Output throughput of one case over the other's, median of the pairs."""
    return _ratio(runs, numerator).median, _whole(runs[0])


@_query
def throughput_ratio_low(*runs: Run, numerator: int) -> Answer:
    """The lowest of the pairs' ratios."""
    return _ratio(runs, numerator).low, _whole(runs[0])


@_query
def throughput_ratio_high(*runs: Run, numerator: int) -> Answer:
    """The highest of the pairs' ratios."""
    return _ratio(runs, numerator).high, _whole(runs[0])


@_query
def throughput_ratio_pairs(*runs: Run, numerator: int) -> Answer:
    """How many pairs of runs the ratio is from."""
    return _ratio(runs, numerator).n, _whole(runs[0])


@_query
def num_runs(*runs: Run) -> Answer:
    """How many runs are meant."""
    return len(runs), (1, 1)


@_query
def requests_with_same_tokens(*runs: Run) -> Answer:
    """Requests whose output token ids are the same in all the runs; requests are matched by their ids."""
    answers = [
        {arrival.id: run.trace.steps.token_id[run.trace.tokens_of(i)].tolist() for i, arrival in enumerate(arrivals)}
        for run, arrivals in ((run, run.trace.arrivals) for run in runs)
    ]
    first = answers[0]
    same = sum(all(answer.get(name) == tokens for answer in answers) for name, tokens in first.items())
    return same, _whole(runs[0])


# KV blocks and prefixes.


@_query
def block_number(run: Run, *, block: int) -> Answer:
    """The number of a KV block of the pool."""
    if not 0 <= block < (run.trace.header.kv_blocks or 0):
        raise ValueError(f"the pool has no block {block}")
    return block, (1, 1)


@_query
def kv_used(run: Run, *, t_ns: int) -> Answer:
    """KV blocks held at engine time t: those in the block tables of requests in a slot, a shared one counted once."""
    return len(run.timeline.at(t_ns).block_holders), _so_far(run, t_ns)


@_query
def blocks_of_request(run: Run, *, request: int, t_ns: int) -> Answer:
    """KV blocks in a request's block table at engine time t."""
    return len(run.timeline.at(t_ns).block_table(request)), _so_far(run, t_ns)


@_query
def shared_blocks(run: Run, *, request: int, t_ns: int) -> Answer:
    """KV blocks of a request's block table that stand in another's too, at engine time t."""
    state = run.timeline.at(t_ns)
    table = state.block_table(request)
    return sum(len(state.block_holders.get(block, ())) > 1 for block in table), _so_far(run, t_ns)


@_query
def cached_tokens(run: Run, *, request: int, t_ns: int) -> Answer:
    """Tokens whose KV was there already when the request got the slot that it holds at engine time t."""
    return int(run.trace.stays.cached[_stay(run, request, t_ns)]), _so_far(run, t_ns)


@_query
def lost_tokens(run: Run, *, request: int, t_ns: int) -> Answer:
    """Tokens whose KV a request had when it was preempted for the last time by engine time t."""
    stay = _preempted_stay(run, request, t_ns)
    return run.timeline.computed_in(stay), _so_far(run, t_ns)


@_query
def recomputed_tokens(run: Run, *, request: int, t_ns: int) -> Answer:
    """Tokens that a request which is back from its preemption computes again: their KV was there, and is no more."""
    back, before = _stay(run, request, t_ns), _preempted_stay(run, request, t_ns)
    return max(run.timeline.computed_in(before) - int(run.trace.stays.cached[back]), 0), _so_far(run, t_ns)


@_query
def prefill_tokens(run: Run) -> Answer:
    """Tokens computed in prefill: of prompts, and again after preemptions; those taken from the cache are not."""
    steps = run.trace.steps
    return int(steps.member_computed[~steps.member_decode].sum()), _whole(run)


@_query
def preemptions(run: Run) -> Answer:
    """How often a running request lost its slot and blocks."""
    return run.metrics.preemptions, _whole(run)


def _stay(run: Run, request: int, t_ns: int) -> int:
    found = run.timeline.stay_of(request, t_ns)
    if found is None:
        raise ValueError(f"request {request} does not run at {t_ns} ns")
    return found


def _preempted_stay(run: Run, request: int, t_ns: int) -> int:
    stays = run.trace.stays
    found = np.flatnonzero((stays.request == request) & stays.preempted & (stays.to_ns <= t_ns))
    if not len(found):
        raise ValueError(f"request {request} was not preempted by {t_ns} ns")
    return int(found[-1])


# One prompt among the others.


@_query
def prompt_tokens(run: Run, *, request: int) -> Answer:
    """Tokens of a request's prompt."""
    return run.trace.arrivals[request].prompt_tokens, (run.trace.arrival_lines[request],) * 2


@_query
def request_ttft_ms(run: Run, *, request: int) -> Answer:
    """A request's TTFT, in ms."""
    first = run.timeline.token_times_of(request)[0]
    return (first - run.trace.arrivals[request].arrival_ns) / 1e6, _so_far(run, first)


@_query
def gap_beside_ms(run: Run, *, request: int, percentile: int) -> Answer:
    """A percentile of the gaps between consecutive output tokens of the others while a request waits and is read.

    Those gaps, in ms, that have a part between its arrival and its first token; 100 is the longest, 50 the median.
    """
    begin, end = gaps_beside(run.timeline, request)
    if not len(end):
        raise ValueError(f"nobody decodes beside request {request}")
    return float(np.percentile(end - begin, percentile)) / 1e6, _so_far(run, int(end.max()))


@_query
def gap_beside_low_ms(*runs: Run, request: int, percentile: int) -> Answer:
    """The lowest of several runs' `gap_beside_ms`."""
    return min(gap_beside_ms(run, request=request, percentile=percentile)[0] for run in runs), _whole(runs[0])


@_query
def gap_beside_high_ms(*runs: Run, request: int, percentile: int) -> Answer:
    """The highest of several runs' `gap_beside_ms`."""
    return max(gap_beside_ms(run, request=request, percentile=percentile)[0] for run in runs), _whole(runs[0])


# Steps by the number of their rows, over several runs.


def decode_step_ms(runs: Sequence[Run], rows: int) -> list[float]:
    """The time of every step of the runs that prefills nothing and has so many rows, padding among them; in ms."""
    found: list[float] = []
    for run in runs:
        steps = run.trace.steps
        found += run.metrics.step_ms[run.decode_rows == rows].tolist() if len(steps) else []
    return found


@_query
def step_rows(*runs: Run, rows: int) -> Answer:
    """How many rows a step has that is asked for by that number, where there is such a step that prefills nothing."""
    if not decode_step_ms(runs, rows):
        raise ValueError(f"no step decodes {rows} rows")
    return rows, _whole(runs[0])


@_query
def step_ms_median(*runs: Run, rows: int) -> Answer:
    """The median time of a step that prefills nothing and has so many rows, padding among them; in ms."""
    return float(np.median(decode_step_ms(runs, rows))), _whole(runs[0])


@_query
def step_ms_ratio(*runs: Run, rows: int, base: int) -> Answer:
    """How many times as long a step of `rows` rows takes as one of `base` rows, by their medians."""
    return float(np.median(decode_step_ms(runs, rows)) / np.median(decode_step_ms(runs, base))), _whole(runs[0])


@_query
def guessed_efficiency(*runs: Run) -> Answer:
    """A guess that was never measured: how a notebook modelled the efficiency of a batch of B. An illustration."""
    return "max(0.5, 1 − 0.1 ln B)", (1, 1)


@_query
def throughput_median(*runs: Run) -> Answer:
    """Output tokens a second, median of the runs."""
    return float(np.median([output_throughput(run)[0] for run in runs])), _whole(runs[0])


@_query
def e2el_median_s(*runs: Run) -> Answer:
    """The median request's E2EL in seconds, median of the runs."""
    return float(np.median([np.median(run.metrics.e2el_ms) for run in runs])) / 1e3, _whole(runs[0])


@_query
def tpot_median_ms(*runs: Run) -> Answer:
    """The median request's TPOT in ms, median of the runs."""
    return float(np.median([np.median(run.metrics.tpot_ms) for run in runs])), _whole(runs[0])


# Where a speed-up comes from: two runs, the earlier first; of several pairs, as in a ratio.


@_query
def ms_per_token(run: Run, *, t_ns: int) -> Answer:
    """Engine time since the first arrival for each output token so far, in ms; once the last is out, of the run."""
    state = run.timeline.at(t_ns)
    if not state.output_tokens:
        raise ValueError(f"there is no output token at {t_ns} ns")
    begin = run.timeline.arrival_times[0]
    last = int(run.trace.steps.end_ns[run.trace.steps.token_step[-1]])
    return (min(t_ns, last) - begin) / 1e6 / state.output_tokens, _so_far(run, t_ns)


@_query
def slot_steps(run: Run) -> Answer:
    """Slots x steps."""
    return run.metrics.slot_steps, _whole(run)


@lru_cache(maxsize=64)
def split(before: Run, after: Run) -> Waterfall:
    """The speed-up of one run over another in parts. Raises NoWaterfallError."""
    return waterfall(before.trace, after.trace)


@_query
def waterfall_ms(before: Run, after: Run, *, side: str) -> Answer:
    """Milliseconds of the run an output token: of the earlier run (`before`) or of the later one (`after`)."""
    found = split(before, after)
    return {"before": found.before_ms, "after": found.after_ms}[side], _whole(before)


@_query
def waterfall_change_ms(before: Run, after: Run, *, part: str) -> Answer:
    """Milliseconds an output token that a part of the speed-up added; below 0 it saved them."""
    return -split(before, after).parts[PARTS.index(part)].saved_ms, _whole(before)


@_query
def waterfall_speedup(before: Run, after: Run) -> Answer:
    """How many times faster an output token came."""
    return split(before, after).speedup, _whole(before)


@_query
def waterfall_change_low_ms(*runs: Run, part: str) -> Answer:
    """The least that a part added in any pair; the runs are (earlier, later, earlier, later, ...)."""
    return min(_changes(runs, part)), _whole(runs[0])


@_query
def waterfall_change_high_ms(*runs: Run, part: str) -> Answer:
    """The most that a part added in any pair; the runs are (earlier, later, earlier, later, ...)."""
    return max(_changes(runs, part)), _whole(runs[0])


def _changes(runs: Sequence[Run], part: str) -> list[float]:
    pairs = zip(runs[::2], runs[1::2], strict=True)
    return [-split(before, after).parts[PARTS.index(part)].saved_ms for before, after in pairs]


@_query
def num_pairs(*runs: Run) -> Answer:
    """How many pairs of runs are meant."""
    return len(runs) // 2, (1, 1)


@_query
def refill_ceiling(run: Run) -> Answer:
    """What refilling slots can give at most: the refill ceiling of the run."""
    value = run.metrics.refill_ceiling
    if value is None:
        raise ValueError("the trace holds no output token")
    return value, _whole(run)


# The film's own clock: declared, not measured, and recomputed like everything else.


@_query
def slowdown(*, film_s: float, engine_s: float) -> Answer:
    """How many times slower than measured a passage of film is shown: film seconds / engine seconds."""
    return film_s / engine_s, (0, 0)


@_query
def speedup(*, film_s: float, engine_s: float) -> Answer:
    """How many times faster than measured a passage of film is shown: engine seconds / film seconds."""
    return engine_s / film_s, (0, 0)


def median_of(runs: Sequence[Run]) -> Run:
    """The run with the median throughput of its case: the one that is shown for all."""
    shown = median_run([run.trace for run in runs])
    return next(run for run in runs if run.trace is shown)
