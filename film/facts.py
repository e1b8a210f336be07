"""What each sentence on screen rests on: the queries that have to be true where it is drawn.

`FACTS` pairs a key of the phrasebook with its predicates. A predicate is a registered query that gives 1 or 0
(`tracereel.trace.analysis.queries.sentences`), asked of the runs of the beat, or an order of two figures as they are
printed ("static < continuous"). `NO_FACTS` holds the sentences that state nothing of a run but their figures, with the
reason. A sentence in neither is refused by a test; one whose predicate is false, when it is drawn. Draws nothing.
"""

import inspect
import operator
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

from tracereel.film.phrases import Phrase, Stated
from tracereel.trace.analysis.life import BLOCKS, FINISHED, STAGES
from tracereel.trace.analysis.queries import QUERIES, Argument, Run, measure


class FalseSentenceError(Exception):
    """A sentence is not true of the runs that it is said of; the message is one line."""


class Ask(NamedTuple):
    """A predicate: a query, its arguments, and for arguments that the sentence names the places that name them.

    `repeats`: is it asked of all runs that are compared, and not only of those that are shown? A query that has an
    argument `t_ns` is asked at the frame's engine time, where no place gives one. `of` is the place whose figure comes
    from the run that is asked first, `only` the place whose figures come from the runs that alone are asked.
    """

    query: str
    args: tuple[tuple[str, Argument], ...] = ()
    places: tuple[tuple[str, str], ...] = ()
    repeats: bool = False
    of: str = ""
    only: str = ""


class Order(NamedTuple):
    """A predicate: how the figure in one place, as it is printed, stands to that in another (`<`, `<=`, `=`)."""

    one: str
    relation: str
    other: str


Predicate = Ask | Order
_RELATIONS: dict[str, Callable[[float, float], bool]] = {"<": operator.lt, "<=": operator.le, "=": operator.eq}
_REQUEST = (("request", "request"),)
_SAME, _ALL_SAME = Ask("same_requests"), Ask("same_requests", repeats=True)

FACTS: dict[str, tuple[Predicate, ...]] = {
    "title.claim": (Ask("are_of_one_engine", repeats=True),),
    "strip.broken": (Ask("are_broken", only="digests"),),
    "strip.cut": (Ask("are_cut_off", only="digests"),),
    "end.one_run": (Ask("is_one_run", repeats=True),),
    "two_of_eight.name": (Ask("a_run_batches_as", (("policy", "static"),)),),
    "cut_out_the_red.whole": (Ask("a_run_batches_as", (("policy", "static"),)),),
    "same_position.name": (Ask("decode_at_one_position"),),
    "same_position.same": (Ask("decode_at_one_position"),),
    "chunked_prefill.whole": (Ask("a_run_reads_prompts_whole"),),
    "chunked_prefill.chunks": (Ask("a_run_reads_in_chunks"),),
    "chunked_prefill.decode": (Ask("each_decode_gives_a_token"),),
    "speedup_waterfall.name": (Ask("later_run_is_faster"),),
    "two_of_eight.closed": (Ask("static_batches_stay_closed"),),
    "two_of_eight.moves": (Ask("a_freed_slot_is_taken_in_the_next_step"),),
    "pipeline_flow.arrive": (Ask("came_by_the_clock"),),
    "pipeline_flow.waits": (Ask("all_came_together"),),
    "pipeline_flow.write": (Ask("a_token_a_step"),),
    "pipeline_flow.write_several": (Ask("several_tokens_a_step"),),
    "pipeline_flow.leave": (Ask("freed_slots_are", (("refill_is", "running"),)),),
    "pipeline_flow.leave_closed": (Ask("freed_slots_are", (("refill_is", "closed"),)),),
    "pipeline_flow.leave_next": (Ask("freed_slots_are", (("refill_is", "alone"),)),),
    "pipeline_flow.leave_alone": (Ask("freed_slots_are", (("refill_is", "never"),)),),
    "pipeline_flow.changes": (Ask("batch_changes_while_it_runs"),),
    "decode_batching.ends": (Ask("has_ended", places=(("request", "first"),)),),
    "decode_batching.retaken": (
        Ask("has_ended", places=(("request", "first"),)),
        Ask("takes_its_slot_in_the_next_step", places=(("first", "first"), ("second", "second"))),
    ),
    "decode_batching.static_is": (Ask("static_batches_stay_closed"),),
    "decode_batching.same": (_SAME,),
    "decode_batching.whole": (Ask("recorded_to_its_end"),),
    "decode_batching.as_recorded": (Ask("recorded_in_part"),),
    "decode_batching.done": (Ask("all_are_answered", of="seconds"),),
    "decode_batching.continuous_first": (_SAME, Order("first", "<", "second")),
    "decode_batching.static_first": (_SAME, Order("first", "<", "second")),
    "decode_batching.as_long": (_SAME,),
    "decode_batching.static_takes": (_SAME,),
    "decode_batching.continuous_takes": (_SAME,),
    "you_are.who_shorter": (_SAME, Order("continuous", "<", "static")),
    "you_are.who_longer": (_SAME, Order("static", "<", "continuous")),
    "you_are.who_equal": (_SAME, Order("static", "=", "continuous")),
    "you_are.clock": (_SAME,),
    "you_are.closed": (Ask("static_batches_stay_closed"),),
    "you_are.answer_shorter": (Order("continuous", "<", "static"),),
    "you_are.answer_longer": (Order("static", "<", "continuous"),),
    "you_are.answer_equal": (Order("static", "=", "continuous"),),
    "you_are.price_longer": (Order("static", "<", "continuous"),),
    "you_are.gap_longer": (Order("static", "<", "continuous"),),
    "you_are.gap_shorter": (Order("continuous", "<", "static"),),
    "you_are.gap_equal": (Order("static", "=", "continuous"),),
    "cut_out_the_red.moves": (_SAME,),
    "cut_out_the_red.steps_longer": (Ask("later_runs_steps_are_fuller"),),
    "same_position.why": (Ask("decode_at_one_position"),),
    "same_position.turns": (Ask("take_turns"),),
    "same_position.turns_in_order": (Ask("take_turns"), Ask("longest_waiting_decode_next")),
    "throughput_comparison.race": (_ALL_SAME, Ask("all_came_together", repeats=True)),
    "throughput_comparison.race_by_clock": (_ALL_SAME, Ask("came_by_the_clock", repeats=True)),
    "throughput_comparison.verdict": (Ask("made_in_turns", repeats=True),),
    "throughput_comparison.verdict_medians": (Ask("are_no_pairs", repeats=True),),
    "throughput_comparison.verdict_once": (Ask("one_run_of_each", repeats=True),),
    "where_it_hurts.prefill": (Ask("longest_pause_is", (("cause", "prefill"),)),),
    "where_it_hurts.preempted": (Ask("longest_pause_is", (("cause", "preempted"),)),),
    "where_it_hurts.step": (Ask("longest_pause_is", (("cause", "step"),)),),
    "where_it_hurts.none": (Ask("longest_pause_is", (("cause", "none"),)),),
    "kv_cache_paging.shares": (
        Ask("share_blocks", places=(("first", "first"), ("second", "second"), ("t_ns", "blocks"))),
    ),
    "kv_cache_paging.frees": (Ask("has_blocks_freed_while_it_runs", places=(*_REQUEST, ("t_ns", "blocks"))),),
    "kv_cache_paging.group_full": (Ask("has_kv_group_of_kind", (("kind", "full"),)),),
    "kv_cache_paging.group_sliding_window": (Ask("has_kv_group_of_kind", (("kind", "sliding_window"),)),),
    "kv_cache_paging.held_when_preempted": (Ask("was_preempted", places=_REQUEST),),
    "kv_cache_paging.kept": (Ask("caches_prefixes"),),
    "kv_cache_paging.returned": (Ask("has_ended", places=_REQUEST),),
    "kv_cache_paging.preempted": (Ask("was_preempted", places=_REQUEST),),
    "kv_cache_paging.out": (Ask("was_preempted", places=_REQUEST),),
    "kv_cache_paging.back": (Ask("was_preempted", places=_REQUEST),),
    "kv_cache_paging.verdict": (Ask("same_requests_but_for", (("setting", "config.enable_prefix_caching"),)),),
    "chunked_prefill.waits": (Ask("is_read_in_one_step", places=_REQUEST),),
    "chunked_prefill.goes_on": (Ask("is_read_while_others_decode", places=_REQUEST),),
    "chunked_prefill.goes_on_slower": (
        Ask("is_read_while_others_decode", places=_REQUEST),
        Ask("steps_that_read_it_are_slower", places=_REQUEST),
    ),
    "chunked_prefill.stalls_more": (Order("other", "<", "one"), Order("whole", "<", "chunks")),
    "chunked_prefill.stalls_less": (Order("other", "<", "one"), Order("chunks", "<", "whole")),
    "speedup_waterfall.race": (_SAME,),
    "speedup_waterfall.fuller_steps": (Ask("later_runs_steps_are_fuller"),),
    "speedup_waterfall.about_fuller_steps": (Ask("later_runs_steps_are_fuller"),),
    "speedup_waterfall.about_refilling_slots": (_SAME,),
    "batch_size_sweep.free": (Order("ratio", "<", "mid"),),
    "speedup_waterfall.sum": (Ask("parts_add_up"),),
    "batch_size_sweep.not_free": (Order("before", "<", "ratio"),),
    "batch_size_sweep.still_free": (Order("ratio", "<=", "before"),),
    "engine_race.first": (Ask("all_are_answered", of="seconds"), Ask("is_done_first", of="seconds")),
    "engine_race.race": (_SAME, Ask("ran_alone", repeats=True)),
    "engine_race.race_together": (_SAME,),
    "engine_race.verdict": (Ask("are_pairs", repeats=True),),
    **{
        f"follow.is_{stage}": (
            Ask("is_in_stage", (("stage", stage),), (("request", "stage"), ("t_ns", "stage")), of="stage"),
        )
        for stage in (*STAGES, BLOCKS)
    },
}
"""The predicates of each sentence that states a fact beyond its figures."""

_FIGURES = "all that it states of a run are its figures"
_PICTURE = "it says how the picture is to be read"
_TERM = "it says what a term means"
_OWN = "it is about this film, and not about a run"
_NAME = "it names what stands next to it: a scene, a case, a quantity, a row of a table"
_STATE = "it names the state that a place is drawn in; a picture that is drawn again is compared with the film"
_CLOCK = "spoken_time asks it of the film's clock"

NO_FACTS: dict[str, str] = {
    **dict.fromkeys(
        (
            *("two_of_eight.few", "decode_batching.verdict_alone", "decode_batching.stretch_sum"),
            *("pipeline_flow.stretch_sum", "kv_cache_paging.stretch_sum"),
            *(
                "cut_out_the_red.steps",
                "cut_out_the_red.ratio_pairs",
                "throughput_comparison.later",
                "end.ratio_of",
                "cut_out_the_red.ratio",
            ),
            *(
                "throughput_comparison.later",
                "throughput_comparison.verdict_other",
                "latency.verdict_ttft",
                "latency.verdict_ttft_alone",
            ),
            *("latency.verdict_itl", "latency.verdict_itl_alone", "speedup_waterfall.about_the_rest"),
            *(
                "where_it_hurts.worst",
                "where_it_hurts.worst_tied",
                "end.same_tokens",
                "kv_cache_paging.pool",
                "kv_cache_paging.pool_of_groups",
            ),
            *("chunked_prefill.arrives", "chunked_prefill.verdict", "chunked_prefill.stalls"),
            *("speedup_waterfall.about_ceiling", "batch_size_sweep.faster", "batch_size_sweep.faster_alone"),
            *("batch_size_sweep.answered", "engine_race.verdict_other"),
        ),
        _FIGURES,
    ),
    **dict.fromkeys(
        (
            *("two_of_eight.rows", "two_of_eight.some_rows", "decode_batching.row", "decode_batching.step"),
            *("throughput_comparison.alone", "latency.first", "latency.gaps"),
            *("where_it_hurts.gaps", "batch_size_sweep.dots", "batch_size_sweep.all", "engine_race.alone"),
        ),
        _PICTURE,
    ),
    **dict.fromkeys(
        (*("pipeline_flow.read", "speedup_waterfall.about_larger_batches"),),
        _TERM,
    ),
    **dict.fromkeys(("end.name", "end.scan", "end.link"), _OWN),
    # Labels.
    **dict.fromkeys(
        (
            *("strip.engine_time", "strip.slower", "strip.faster", "strip.trace", "strip.traces", "strip.and_trace"),
            *("special.and", "special.experts", "special.lora_requests", "special.cached_tokens_by_source"),
            *("special.drafts", "special.graphs", "special.waited_for_kv", "special.kv_transfers"),
            *("title.workload_is", "title.recorded_is", "two_of_eight.waiting", "two_of_eight.writing"),
            *("pipeline_flow.more", "pipeline_flow.replica", "pipeline_flow.more_slots", "pipeline_flow.earlier"),
            *("pipeline_flow.tokens", "decode_batching.idle", "decode_batching.tokens", "decode_batching.merged"),
            *("decode_batching.windowed", "you_are.name", "you_are.writes", "you_are.done", "you_are.s", "you_are.ms"),
            *("cut_out_the_red.end", "cut_out_the_red.left", "cut_out_the_red.spread", "same_position.members"),
            "same_position.members_briefly",
            *("same_position.tokens", "same_position.mean", "same_position.position", "throughput_comparison.total"),
            *("throughput_comparison.end", "throughput_comparison.times", "throughput_comparison.rate"),
            *("throughput_comparison.spread", "latency.facts", "latency.s", "latency.ms", "latency.known"),
            *("where_it_hurts.known", "where_it_hurts.ms", "where_it_hurts.waited", "where_it_hurts.waited_tied"),
            *(
                "where_it_hurts.median",
                "kv_cache_paging.held_of",
                "kv_cache_paging.more_blocks",
                "kv_cache_paging.more_tables",
                "kv_cache_paging.facts",
                "chunked_prefill.first",
                "chunked_prefill.stalled",
            ),
            *("chunked_prefill.ms", "speedup_waterfall.ceiling", "speedup_waterfall.ms", "speedup_waterfall.us"),
            *("speedup_waterfall.spread", "batch_size_sweep.guess", "engine_race.transformers_static"),
            *("engine_race.transformers", "engine_race.tokens", "engine_race.done"),
            *("follow.request", "follow.of_policy", "follow.of_engine", "follow.of_workload", "follow.briefly"),
            *(f"follow.{stage}_for" for stage in STAGES if stage != FINISHED),
        ),
        _FIGURES,
    ),
    **dict.fromkeys(("strip.even", "strip.held"), _CLOCK),
    **dict.fromkeys(
        (
            *("title.name", "title.engine", "title.model", "title.device", "title.workload", "title.recorded"),
            *("special.routing", "special.scheduling", "special.kv"),
            *("cases.static", "cases.continuous", "cases.same_position", "cases.online", "pipeline_flow.name"),
            *("pipeline_flow.waiting", "pipeline_flow.prefill", "pipeline_flow.decode", "pipeline_flow.finished"),
            *("decode_batching.name", "decode_batching.continuous", "decode_batching.static", "you_are.answer_bar"),
            *("you_are.gap_bar", "cut_out_the_red.name", "cut_out_the_red.fell", "cut_out_the_red.mean_step"),
            *("same_position.continuous", "throughput_comparison.name", "throughput_comparison.tokens"),
            *("throughput_comparison.baseline", "latency.name", "latency.ttft", "latency.itl", "where_it_hurts.name"),
            *("where_it_hurts.axis", "kv_cache_paging.name", "kv_cache_paging.pool_head"),
            *("kv_cache_paging.tables_head", "kv_cache_paging.waiting", "chunked_prefill.name"),
            *(
                "chunked_prefill.since",
                "chunked_prefill.longest",
                "chunked_prefill.together",
                "speedup_waterfall.name_slower",
            ),
            *("speedup_waterfall.refilling_slots", "speedup_waterfall.larger_batches", "speedup_waterfall.the_rest"),
            *("batch_size_sweep.name", "batch_size_sweep.step", "batch_size_sweep.throughput"),
            *("batch_size_sweep.latency", "engine_race.name", "end.record", "end.render", "end.render_command"),
            *("end.more", "end.result"),
            *(f"follow.{stage}" for stage in STAGES if stage != FINISHED),
        ),
        _NAME,
    ),
    **dict.fromkeys(
        (
            *("two_of_eight.idle", "two_of_eight.idle_while_waiting", "you_are.in_line", "you_are.ahead"),
            *("decode_batching.prefill", "decode_batching.decode"),
            *("you_are.prefill", "kv_cache_paging.held", "kv_cache_paging.shared", "kv_cache_paging.was_held"),
            *("kv_cache_paging.free", "kv_cache_paging.reserved", "kv_cache_paging.freed"),
        ),
        _STATE,
    ),
    **dict.fromkeys(("latency.itl_log", "where_it_hurts.axis_sampled"), _PICTURE),
}
"""The sentences and labels that need no predicate, and why."""


def refuse_false(phrase: Phrase, shown: Sequence[Run], compared: Sequence[Run], t_ns: int) -> None:
    """Raise FalseSentenceError where a phrase states what is not true of a beat's runs at an engine time."""
    for stated in phrase.stated:
        for predicate in FACTS.get(stated.key, ()):
            if isinstance(predicate, Order):
                true = _ordered(predicate, stated)
            else:
                true = _asked(predicate, stated, compared if predicate.repeats else shown, t_ns)
            if not true:
                raise FalseSentenceError(f"{phrase.text!r} ({stated.key}) is not true here: {_read(predicate)}")


def _ordered(order: Order, stated: Stated) -> bool:
    one, other = (
        float(stated.places[place].text.replace(",", "").replace("\N{MINUS SIGN}", "-"))
        for place in (order.one, order.other)
    )
    return _RELATIONS[order.relation](one, other)


def _asked(ask: Ask, stated: Stated, runs: Sequence[Run], t_ns: int) -> bool:
    args = dict(ask.args)
    for name, place in ask.places:
        args[name] = _argument(stated.places[place], name)
    if _wants_time(ask.query):
        args.setdefault("t_ns", t_ns)
    if ask.only:
        named_by = {digest for each in stated.places[ask.only].figures for digest in each.source.traces}
        runs = [run for run in dict.fromkeys(runs) if run.trace.digest in named_by]
    if ask.of:
        (named,) = stated.places[ask.of].figures
        runs = sorted(runs, key=lambda run: run.trace.digest not in named.source.traces)
    return measure(ask.query, runs, **args).value == 1


def _argument(phrase: Phrase, name: str) -> Argument:
    """The argument of that name that a figure was asked with, or the request that it names."""
    (named,) = phrase.figures
    args = dict(named.source.args)
    return args[name] if name in args else args["request"]


@cache
def _wants_time(query: str) -> bool:
    return "t_ns" in inspect.signature(QUERIES[query]).parameters


def _read(predicate: Predicate) -> str:
    """A predicate in words, for a message."""
    if isinstance(predicate, Order):
        return " ".join(predicate)
    return f"{predicate.query} {dict(predicate.args) or ''}".rstrip()
