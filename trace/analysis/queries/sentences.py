"""What sentences on screen state of runs: queries that give 1 where a sentence is true of them, and 0 where it is not.

The first run is the one that the beat's clock belongs to. A request is its index; `t_ns` is the frame's engine time.
"""

import math

import numpy as np
from tracereel.trace.analysis.batching_facts import (
    Refill,
    all_advance,
    came_together,
    longest_waiting_first,
    queued,
    refill,
)
from tracereel.trace.analysis.comparable import NotComparableError, require_comparable
from tracereel.trace.analysis.moments import first_handover, worst_pause
from tracereel.trace.analysis.pairs import apart, pairs_of
from tracereel.trace.analysis.queries.waterfalls import split
from tracereel.trace.analysis.query import Answer, Run, lines_of_run, query
from tracereel.trace.analysis.stalls import gaps_leave_out_steps, stalls
from tracereel.trace.state.columns import Ints, Trace

_DENSE = frozenset(("gemma", "gemma2", "gemma3_text", "gpt2", "llama", "mistral", "phi3", "qwen2", "qwen3"))
"""Architectures, as Hugging Face names them, of which each token passes through all weights."""


def _answer(true: bool, runs: tuple[Run, ...]) -> Answer:
    return int(true), lines_of_run(runs[0])


@query
def static_batches_stay_closed(*runs: Run) -> Answer:
    """Is there a run with static batching, and in each such run no slot retaken while others still run?"""
    static = [run.trace for run in runs if run.trace.header.policy == "static"]
    return _answer(bool(static) and all(refill(trace) is Refill.CLOSED for trace in static), runs)


@query
def freed_slots_are(run: Run, *, refill_is: str) -> Answer:
    """Is that what becomes of freed slots (`running`, `closed`, `alone`, `never`)?"""
    return _answer(refill(run.trace) is Refill(refill_is), (run,))


@query
def batch_changes_while_it_runs(run: Run) -> Answer:
    """Are freed slots retaken while others run, and do all that hold a slot advance in most steps?"""
    return _answer(refill(run.trace) is Refill.RUNNING and all_advance(run.trace), (run,))


@query
def a_freed_slot_is_taken_in_the_next_step(*runs: Run) -> Answer:
    """Is there a run in which a slot is freed and retaken in the very next step?"""
    return _answer(any(first_handover(run.trace) is not None for run in runs), runs)


@query
def takes_its_slot_in_the_next_step(*runs: Run, first: int, second: int) -> Answer:
    """Does the request `second` take the slot of `first` in the step after the last one of `first`?"""
    residencies = runs[0].trace.residencies
    left, came = (np.flatnonzero(residencies.request == request) for request in (first, second))
    taken = any(
        residencies.slot[i] == residencies.slot[k] and residencies.first_step[k] == residencies.last_step[i] + 1
        for i in left[-1:]
        for k in came
    )
    return _answer(taken, runs)


@query
def has_ended(*runs: Run, request: int, t_ns: int) -> Answer:
    """Has the first run's request ended by engine time t?"""
    timeline = runs[0].timeline
    ended = [at for at, other in zip(timeline.ended_times, timeline.ended_order, strict=True) if other == request]
    return _answer(bool(ended) and ended[0] <= t_ns, runs)


@query
def all_are_answered(*runs: Run) -> Answer:
    """Have all requests of the first run ended by its end?"""
    timeline = runs[0].timeline
    return _answer(timeline.at(timeline.end_ns).num_finished == len(runs[0].trace.arrivals), runs)


@query
def is_done_first(*runs: Run) -> Answer:
    """Did no run take less time than the first one?"""
    spans = [run.timeline.end_ns - run.timeline.begin_ns for run in runs]
    return _answer(spans[0] == min(spans), runs)


@query
def share_blocks(*runs: Run, first: int, second: int, t_ns: int) -> Answer:
    """Do two requests of the first run hold some of the same KV blocks at engine time t?"""
    state = runs[0].timeline.at(t_ns)
    return _answer(bool(set(state.blocks_of(first)) & set(state.blocks_of(second))), runs)


@query
def has_blocks_freed_while_it_runs(*runs: Run, request: int, t_ns: int) -> Answer:
    """Does the first run's request hold a slot at engine time t, with blocks that left its tables since it got it?"""
    return _answer(any(runs[0].timeline.at(t_ns).freed_places(request)), runs)


@query
def has_kv_group_of_kind(*runs: Run, kind: str) -> Answer:
    """Does the model of the first run have a group of layers with block tables of its own that keeps KV so?"""
    return _answer(any(group.kind == kind for group in runs[0].trace.header.kv_groups), runs)


@query
def caches_prefixes(*runs: Run) -> Answer:
    """Does a block that the first run gives back keep its KV for others: is KV taken from the prefix cache?"""
    return _answer(bool((runs[0].trace.residencies.cached > 0).any()), runs)


@query
def is_read_in_one_step(*runs: Run, request: int) -> Answer:
    """Is a request's prompt computed in a single step of the first run?"""
    return _answer(len(_prefills(runs[0], request)) == 1, runs)


@query
def is_read_while_others_decode(*runs: Run, request: int) -> Answer:
    """Does the last run prefill a request in several steps, and do others decode in each but the last of them?"""
    steps, reading = runs[-1].trace.steps, _prefills(runs[-1], request)
    decoding = np.isin(reading[:-1], steps.member_step[steps.member_decode])
    return _answer(len(reading) > 1 and bool(decoding.all()), runs)


@query
def steps_that_read_it_are_slower(*runs: Run, request: int) -> Answer:
    """Do the last run's steps that prefill a request take longer, in the median, than those without prefill?"""
    steps, reading = runs[-1].trace.steps, _prefills(runs[-1], request)
    spans = steps.end_ns - steps.start_ns
    others = np.setdiff1d(np.arange(len(steps)), steps.member_step[~steps.member_decode])
    known = bool(len(reading) and len(others))
    return _answer(known and bool(np.median(spans[reading]) > np.median(spans[others])), runs)


def _prefills(run: Run, request: int) -> Ints:
    """The steps that prefill a request."""
    steps = run.trace.steps
    own: Ints = np.unique(steps.member_step[(steps.member_request == request) & ~steps.member_decode])
    return own


@query
def was_preempted(*runs: Run, request: int, t_ns: int) -> Answer:
    """Has the first run's request lost its slot by the end of the step that runs at engine time t?"""
    trace = runs[0].trace
    residencies = trace.residencies
    lost = residencies.to_ns[(residencies.request == request) & residencies.preempted]
    following = trace.steps.end_ns[np.searchsorted(trace.steps.start_ns, t_ns, side="right") :]
    until = int(following[0]) if len(following) else t_ns
    return _answer(bool((lost <= until).any()), runs)


@query
def all_came_together(*runs: Run) -> Answer:
    """Had all requests of every run arrived before its first step?"""
    return _answer(all(came_together(run.trace) for run in runs), runs)


@query
def came_by_the_clock(*runs: Run) -> Answer:
    """Did some requests of a run arrive after its first step had begun?"""
    return _answer(not all(came_together(run.trace) for run in runs), runs)


@query
def some_wait_for_a_slot(*runs: Run) -> Answer:
    """Did requests of every run wait while all of its slots were held?"""
    return _answer(all(queued(run.trace) for run in runs), runs)


@query
def all_advance_in_most_steps(*runs: Run) -> Answer:
    """Do in most steps of every run all requests advance that hold a slot?"""
    return _answer(all(all_advance(run.trace) for run in runs), runs)


@query
def a_token_a_step(run: Run) -> Answer:
    """Does no step give a request more than one token?"""
    return _answer(bool((run.trace.steps.member_sampled <= 1).all()), (run,))


@query
def each_decode_gives_a_token(*runs: Run) -> Answer:
    """Does every decode of every run give its request exactly one token?"""
    decodes = (run.trace.steps.member_sampled[run.trace.steps.member_decode] for run in runs)
    return _answer(all(bool((sampled == 1).all()) for sampled in decodes), runs)


@query
def decodes_leave_out_no_step(*runs: Run) -> Answer:
    """Does every request of every run get a token in each step from its first token on, until it loses its slot?"""
    return _answer(not any(gaps_leave_out_steps(run.trace) for run in runs), runs)


@query
def is_prefilled_alone(*runs: Run, request: int) -> Answer:
    """Does each step that prefills a request prefill no other one, in every run?"""
    alone = (len(stall.prefills) == 1 for run in runs for stall in stalls(run.trace) if request in stall.prefills)
    return _answer(all(alone), runs)


@query
def a_run_reads_prompts_whole(*runs: Run) -> Answer:
    """Is there a run that prefills no request in several steps?"""
    return _answer(any(not _in_chunks(run) for run in runs), runs)


@query
def a_run_reads_in_chunks(*runs: Run) -> Answer:
    """Is there a run that prefills a request in several steps?"""
    return _answer(any(_in_chunks(run) for run in runs), runs)


def _in_chunks(run: Run) -> bool:
    return any(len(_prefills(run, request)) > 1 for request in range(len(run.trace.arrivals)))


@query
def several_tokens_a_step(run: Run) -> Answer:
    """Does a step give a request more than one token?"""
    return _answer(bool((run.trace.steps.member_sampled > 1).any()), (run,))


@query
def same_requests(*runs: Run) -> Answer:
    """Are there several runs, and may they be compared: the same workload, model, device and settings?"""
    return _answer(_comparable(runs, ()), runs)


@query
def same_requests_but_for(*runs: Run, setting: str) -> Answer:
    """Are there several runs that may be compared across one setting?"""
    return _answer(_comparable(runs, (setting,)), runs)


def _comparable(runs: tuple[Run, ...], across: tuple[str, ...]) -> bool:
    try:
        require_comparable([run.trace for run in runs], across=across)
    except NotComparableError:
        return False
    return len(runs) > 1


@query
def reads_all_weights(*runs: Run) -> Answer:
    """Are all models of an architecture known to have no experts, so that each step reads all of the weights?"""
    return _answer(all(run.trace.header.model.architecture in _DENSE for run in runs), runs)


@query
def recorded_to_its_end(run: Run) -> Answer:
    """Is the recording whole: neither broken nor cut off?"""
    return _answer(not run.trace.faulty, (run,))


@query
def recorded_in_part(run: Run) -> Answer:
    """Is the recording broken or cut off?"""
    return _answer(bool(run.trace.faulty), (run,))


@query
def are_broken(*runs: Run) -> Answer:
    """Are all these recordings broken?"""
    return _answer(all(run.trace.broken is not None for run in runs), runs)


@query
def are_cut_off(*runs: Run) -> Answer:
    """Were all these recordings cut off before their end?"""
    return _answer(all(run.trace.cut is not None for run in runs), runs)


@query
def are_of_one_engine(*runs: Run) -> Answer:
    """Were all runs made by the same version of the same engine?"""
    return _answer(len({(run.trace.header.engine.name, run.trace.header.engine.version) for run in runs}) == 1, runs)


@query
def is_one_run(*runs: Run) -> Answer:
    """Is there but one run?"""
    return _answer(len({run.trace.digest for run in runs}) == 1, runs)


@query
def a_run_batches_as(*runs: Run, policy: str) -> Answer:
    """Does a run's trace name that policy?"""
    return _answer(any(run.trace.header.policy == policy for run in runs), runs)


@query
def later_run_is_faster(before: Run, after: Run) -> Answer:
    """Does an output token take less time in the second run?"""
    return _answer(split(before, after).speedup > 1, (before, after))


@query
def decode_at_one_position(*runs: Run) -> Answer:
    """Does no step of the first run decode requests at several positions?"""
    steps = runs[0].trace.steps
    decode = steps.member_decode
    step, position = steps.member_step[decode], steps.member_position[decode]
    return _answer(not ((step[1:] == step[:-1]) & (position[1:] != position[:-1])).any(), runs)


@query
def take_turns(*runs: Run) -> Answer:
    """Do in most steps of the first run only some of those advance that hold a slot, in the others' all?"""
    return _answer(not all_advance(runs[0].trace) and all(all_advance(run.trace) for run in runs[1:]), runs)


@query
def longest_waiting_decode_next(*runs: Run) -> Answer:
    """Does every step of the first run that decodes advance the request whose last step is the longest ago?"""
    return _answer(longest_waiting_first(runs[0].trace), runs)


@query
def later_runs_steps_are_fuller(*runs: Run) -> Answer:
    """Has a step of the last run more rows on average than one of the first?"""
    return _answer((runs[-1].metrics.mean_batch or 0) > (runs[0].metrics.mean_batch or 0), runs)


@query
def longest_pause_is(run: Run, *, cause: str) -> Answer:
    """Is that what the engine did in the step that ended the longest wait (`prefill`, `preempted`, `step`)?"""
    pause = worst_pause(run.trace)
    return _answer((pause.cause if pause else "none") == cause, (run,))


@query
def parts_add_up(*runs: Run) -> Answer:
    """Do the parts of the speed-up of one run over another add up to the difference of their costs?"""
    found = split(runs[0], runs[1])
    saved = sum(part.saved_ms for part in found.parts)
    return _answer(math.isclose(found.before_ms - saved, found.after_ms, rel_tol=1e-6), runs)


@query
def ran_alone(*runs: Run) -> Answer:
    """Was each run made while none of the others was?"""
    return _answer(apart([run.trace for run in runs]), runs)


@query
def made_in_turns(*runs: Run) -> Answer:
    """Are the repeats of every case pairs with those of the first case, several of each?"""
    cases = _by_case(runs)
    return _answer(len(cases) > 1 and all(len(pairs_of(cases[0], case)) > 1 for case in cases[1:]), runs)


@query
def are_pairs(*runs: Run) -> Answer:
    """Are repeats of every case pairs with those of the first case?"""
    cases = _by_case(runs)
    return _answer(len(cases) > 1 and all(pairs_of(cases[0], case) for case in cases[1:]), runs)


@query
def are_no_pairs(*runs: Run) -> Answer:
    """Are no repeats of a case pairs with those of the first case?"""
    cases = _by_case(runs)
    return _answer(len(cases) > 1 and not any(pairs_of(cases[0], case) for case in cases[1:]), runs)


@query
def one_run_of_each(*runs: Run) -> Answer:
    """Is there one run of every case?"""
    return _answer(all(len(case) == 1 for case in _by_case(runs)), runs)


def _by_case(runs: tuple[Run, ...]) -> list[list[Trace]]:
    """The traces by case, in the order of the runs."""
    found: dict[str, list[Trace]] = {}
    for run in runs:
        made = run.trace.header.run
        found.setdefault(made.case if made else run.trace.digest, []).append(run.trace)
    return list(found.values())
