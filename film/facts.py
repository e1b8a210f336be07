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
    from the run that is asked first, `only` the place whose figures come from the only runs that are asked.
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
_ALONE = Ask("is_prefilled_alone", places=_REQUEST)
_SAME, _ALL_SAME = Ask("same_requests"), Ask("same_requests", repeats=True)
_ONE_ENGINE = Ask("are_of_one_engine")

FACTS: dict[str, tuple[Predicate, ...]] = {
    "title.claim": (Ask("are_of_one_engine", repeats=True),),
    "strip.broken": (Ask("are_broken", only="digests"),),
    "strip.cut": (Ask("are_cut_off", only="digests"),),
    "end.one_run": (Ask("is_one_run", repeats=True),),
    "two_of_eight.name": (Ask("a_run_batches_as", (("policy", "static"),)),),
    "cut_out_the_red.whole": (Ask("a_run_batches_as", (("policy", "static"),)),),
    "cut_out_the_red.whole_light": (Ask("a_run_batches_as", (("policy", "static"),)),),
    "same_position.name": (Ask("decode_at_one_position"),),
    "same_position.same": (Ask("decode_at_one_position"),),
    "chunked_prefill.whole": (Ask("a_run_reads_prompts_whole"),),
    "chunked_prefill.chunks": (Ask("a_run_reads_in_chunks"),),
    "chunked_prefill.decode": (Ask("each_decode_gives_a_token"), Ask("decodes_leave_out_no_step")),
    "speedup_waterfall.name": (Ask("later_run_is_faster"),),
    "two_of_eight.closed": (Ask("static_batches_stay_closed"),),
    "two_of_eight.moves": (Ask("a_freed_slot_is_taken_in_the_next_step"),),
    "pipeline_flow.arrive": (Ask("came_by_the_clock"), Ask("some_wait_for_a_slot")),
    "pipeline_flow.arrive_free": (Ask("came_by_the_clock"),),
    "pipeline_flow.waits": (Ask("all_came_together"), Ask("some_wait_for_a_slot")),
    "pipeline_flow.at_once": (Ask("all_came_together"),),
    "pipeline_flow.write": (Ask("a_token_a_step"), Ask("all_advance_in_most_steps")),
    "pipeline_flow.write_several": (Ask("several_tokens_a_step"), Ask("all_advance_in_most_steps")),
    "pipeline_flow.write_some": (Ask("take_turns"),),
    "pipeline_flow.leave": (Ask("freed_slots_are", (("refill_is", "running"),)),),
    "pipeline_flow.leave_closed": (Ask("freed_slots_are", (("refill_is", "closed"),)),),
    "pipeline_flow.leave_next": (Ask("freed_slots_are", (("refill_is", "alone"),)),),
    "pipeline_flow.leave_alone": (Ask("freed_slots_are", (("refill_is", "never"),)),),
    "pipeline_flow.changes": (Ask("batch_changes_while_it_runs"),),
    "decode_batching.step": (Ask("each_decode_gives_a_token"),),
    "decode_batching.ends": (Ask("has_ended", places=(("request", "first"),)),),
    "decode_batching.retaken": (
        Ask("has_ended", places=(("request", "first"),)),
        Ask("takes_its_slot_in_the_next_step", places=(("first", "first"), ("second", "second"))),
    ),
    "decode_batching.static_is": (Ask("static_batches_stay_closed"),),
    "decode_batching.same": (_SAME, _ONE_ENGINE),
    "decode_batching.same_requests": (_SAME,),
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
    "you_are.clock": (_SAME, _ONE_ENGINE),
    "you_are.clock_of_engines": (_SAME,),
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
    **{
        f"where_it_hurts.{cause}": (Ask("longest_pause_is", (("cause", cause),)),)
        for cause in ("prefill", "prefill_apart", "left_out", "preempted", "step", "none")
    },
    "kv_cache_paging.shares": (
        Ask("share_blocks", places=(("first", "first"), ("second", "second"), ("t_ns", "blocks"))),
    ),
    "kv_cache_paging.frees": (Ask("has_blocks_freed_while_it_runs", places=(*_REQUEST, ("t_ns", "blocks"))),),
    "kv_cache_paging.group_full": (Ask("has_kv_group_of_kind", (("kind", "full"),)),),
    "kv_cache_paging.group_sliding_window": (Ask("has_kv_group_of_kind", (("kind", "sliding_window"),)),),
    "kv_cache_paging.held_when_preempted": (Ask("was_preempted", places=_REQUEST),),
    "kv_cache_paging.kept": (Ask("caches_prefixes"),),
    "kv_cache_paging.returned": (Ask("has_ended", places=_REQUEST),),
    "kv_cache_paging.preempted": (Ask("was_preempted", places=_REQUEST), Order("used", "=", "blocks")),
    "kv_cache_paging.out": (Ask("was_preempted", places=_REQUEST),),
    "kv_cache_paging.back": (Ask("was_preempted", places=_REQUEST),),
    "kv_cache_paging.verdict": (Ask("same_requests_but_for", (("setting", "config.enable_prefix_caching"),)),),
    "chunked_prefill.waits": (Ask("is_read_in_one_step", places=_REQUEST),),
    "chunked_prefill.goes_on": (Ask("is_read_while_others_decode", places=_REQUEST),),
    "chunked_prefill.goes_on_slower": (
        Ask("is_read_while_others_decode", places=_REQUEST),
        Ask("steps_that_read_it_are_slower", places=_REQUEST),
    ),
    **dict.fromkeys(("chunked_prefill.stalled", "chunked_prefill.stalls"), (_ALONE,)),
    "chunked_prefill.stalls_more": (_ALONE, Order("other", "<", "one"), Order("whole", "<", "chunks")),
    "chunked_prefill.stalls_less": (_ALONE, Order("other", "<", "one"), Order("chunks", "<", "whole")),
    "speedup_waterfall.race": (_SAME,),
    "speedup_waterfall.fuller_steps": (Ask("later_runs_steps_are_fuller"),),
    "speedup_waterfall.about_fuller_steps": (Ask("later_runs_steps_are_fuller"),),
    "speedup_waterfall.about_refilling_slots": (_SAME,),
    "batch_size_sweep.free": (Ask("reads_all_weights"), Order("ratio", "<", "mid")),
    "batch_size_sweep.cheap": (Order("ratio", "<", "mid"),),
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


def _keys(**by_scene: str) -> tuple[str, ...]:
    """Keys of the phrasebook, the names of each scene in a text: `latency="s ms"` for latency.s and latency.ms."""
    return tuple(f"{scene}.{name}" for scene, names in by_scene.items() for name in names.split())


NO_FACTS: dict[str, str] = {
    **dict.fromkeys(
        _keys(
            two_of_eight="few waiting writing",
            decode_batching="verdict_alone stretch_sum idle tokens merged merged_uneven windowed",
            pipeline_flow="stretch_sum more replica more_slots earlier tokens",
            kv_cache_paging="stretch_sum pool pool_of_groups held_of more_blocks more_tables facts",
            cut_out_the_red="steps ratio_pairs ratio end left spread",
            throughput_comparison="later verdict_other total end times rate spread",
            end="ratio_of same_tokens",
            latency="verdict_ttft verdict_ttft_alone verdict_itl verdict_itl_alone facts s ms known",
            speedup_waterfall="about_the_rest about_ceiling ceiling ms us spread",
            where_it_hurts="worst worst_tied known ms waited waited_tied median",
            chunked_prefill="decode_some arrives verdict first ms",
            batch_size_sweep="faster faster_alone answered guess costs",
            engine_race="verdict_other transformers_static transformers tokens done",
            strip="engine_time slower faster trace traces and_trace",
            special="and experts lora_requests cached_tokens_by_source drafts graphs waited_for_kv kv_transfers",
            title="workload_is recorded_is",
            you_are="name writes done s ms",
            same_position="members members_briefly tokens mean position",
            follow="request of_policy of_engine of_workload briefly",
        ),
        _FIGURES,
    ),
    **dict.fromkeys(
        _keys(
            two_of_eight="rows some_rows",
            decode_batching="row column",
            throughput_comparison="alone",
            latency="first gaps itl_log",
            where_it_hurts="gaps axis_sampled",
            batch_size_sweep="dots all",
            engine_race="alone",
        ),
        _PICTURE,
    ),
    **dict.fromkeys(_keys(pipeline_flow="read", speedup_waterfall="about_larger_batches"), _TERM),
    **dict.fromkeys(_keys(end="name scan link", title="claim_of_engines"), _OWN),
    **dict.fromkeys(_keys(strip="even held"), _CLOCK),
    **dict.fromkeys(
        _keys(
            title="name engine model device workload recorded",
            special="routing scheduling kv",
            cases="static continuous same_position online",
            pipeline_flow="name waiting prefill decode finished",
            decode_batching="name continuous static",
            you_are="answer_bar gap_bar",
            cut_out_the_red="name name_light fell mean_step",
            same_position="continuous",
            throughput_comparison="name tokens baseline",
            latency="name ttft itl",
            where_it_hurts="name axis",
            kv_cache_paging="name pool_head tables_head waiting",
            chunked_prefill="name since longest together",
            speedup_waterfall="name_slower refilling_slots larger_batches the_rest",
            batch_size_sweep="name step throughput latency",
            engine_race="name",
            end="record render render_continuous_batching render_continuous_batching_of_runs render_full_length "
            "render_full_length_of_runs more result",
        ),
        _NAME,
    ),
    **dict.fromkeys(
        _keys(
            two_of_eight="idle idle_while_waiting",
            you_are="in_line ahead prefill",
            decode_batching="prefill decode",
            kv_cache_paging="held shared was_held free reserved freed",
        ),
        _STATE,
    ),
    **{f"follow.{stage}_for": _FIGURES for stage in STAGES if stage != FINISHED},
    **{f"follow.{stage}": _NAME for stage in STAGES if stage != FINISHED},
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
