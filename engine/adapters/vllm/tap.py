"""Follows one of vLLM's schedulers and makes a trace of what it does."""

import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any

import msgspec
import vllm
from tracereel.engine.adapters import AdapterError
from tracereel.engine.adapters.in_flight import Counts, InFlightStep, InFlightSteps
from tracereel.engine.adapters.journal import Journal, Member
from tracereel.engine.adapters.vllm.experts import expert_counts
from tracereel.engine.adapters.vllm.header import header, trace_path, warn_of_untried
from tracereel.engine.adapters.vllm.kv import Freed, KvCache, Loads, Tables, whole_tables
from tracereel.engine.adapters.vllm.pieces import piece, require
from tracereel.engine.adapters.vllm.settings import Settings
from tracereel.engine.adapters.vllm.sources import Sources
from tracereel.engine.adapters.vllm.transfers import Transfers, transfers_told
from tracereel.trace.format.events import Arrival, Finish, Step
from tracereel.trace.format.recorder import Recorder
from vllm.logger import init_logger

cached_tokenizer_from_config = piece("vllm.tokenizers:cached_tokenizer_from_config")
IncrementalDetokenizer = piece("vllm.v1.engine.detokenizer:IncrementalDetokenizer")

PROMPT_ARGUMENT = "tracereel_prompt"
"""In a request's `extra_args`: the prompt's own text, where it is not what the template made of it."""
_RANDOM_SUFFIX = re.compile(r"-[0-9a-f]{8}$")

Records = Iterator[Arrival | Step | Finish]
RawCounts = tuple[int, int, int]
"""Requests that run, requests that wait, KV blocks that are free."""
Schedule = tuple[tuple[Any, Tables, Freed, Loads], int, int, RawCounts | None, RawCounts]
"""vLLM's own account of it with the tables, when it began and was made, and the counts before and after."""

logger = init_logger("vllm.tracereel")


class Tap:
    """Follows one scheduler.

    What runs on the engine's thread takes references and counts, nothing that grows with the batch, and hands them to
    the recorder's thread in the order in which they came, where all else is made of them; a schedule goes with whatever
    comes after it. The engine goes on whatever happens here: a fault ends the recording, with one line in vLLM's log.
    """

    def __init__(self, scheduler: Any, settings: Settings):
        config = scheduler.vllm_config
        warn_of_untried(vllm.__version__)
        require(scheduler)
        self._scheduler = scheduler
        self._kv = KvCache(scheduler)
        self._queued: Callable[[], tuple[int, int]] = scheduler.get_request_counts
        self._depth = int(config.max_concurrent_batches)
        """Steps that may be in flight at once."""
        self._counts_after = self._depth > 1 or settings.requests_per_run > 0
        """Does anything depend on the counts after a step?"""
        self._schedule: Schedule | None = None
        """The facts of a schedule that were not handed over yet."""
        connector = getattr(scheduler, "connector", None)
        self._connected = connector is not None
        self._sources = Sources(connector)
        if not self._kv.known:
            logger.warning("tracereel: this vLLM does not say which blocks leave early; block tables are left out")
        self._blocks_known = not getattr(scheduler, "defer_block_free", False)
        self._content = settings.content
        self._tokenizer = cached_tokenizer_from_config(config.model_config) if settings.content else None
        self._drafts = config.speculative_config is not None
        self._experts = int(getattr(config.model_config, "get_num_experts", int)() or 0)
        self._settings, self._to_skip = settings, settings.warmup
        self._runs = 0
        """Recordings that were begun."""
        self._left = 0
        """Requests that are yet to come to the run that is recorded, where a run has a number of them."""
        self._between = self._to_skip > 0
        """Does the next request begin a recording, once the warm-up is over?"""
        self._recorder: Recorder | None = None
        if not self._between:
            self._begin()

    def _begin(self) -> None:
        run, number = self._settings.run, None
        if self._settings.requests_per_run:
            number = self._runs + 1
            run = msgspec.structs.replace(run, repeat=run.repeat + self._runs) if run is not None else None
        path = trace_path(self._settings.path, self._scheduler.vllm_config, number)
        self._runs, self._left, self._between = self._runs + 1, self._settings.requests_per_run, False
        self._journal = Journal(self._scheduler.max_num_running_reqs, content=self._content, drafts=self._drafts)
        self._in_flight = InFlightSteps(ahead=self._depth > 1)
        self._newest: Any = None
        """The last schedule that gave a request tokens, until they are there."""
        self._carried: set[str] = set()
        """Preempted in a schedule that gave no request anything: told with the next step."""
        self._left_early: Freed = []
        """Blocks that left tables in such a schedule, likewise."""
        self._transfers: Transfers = []
        """Transfers of KV that were told with such a schedule, likewise."""
        self._reached: dict[str, int] = {}
        """How far each request's KV really reaches, where drafts of steps in flight may have been wrong."""
        self._stops: dict[str, tuple[list[str], list[str]]] = {}
        """The stop strings of a request, and its text so far."""
        self._prefills: dict[str, Any] = {}
        """What vLLM notes of a request's cached tokens at its first admission."""
        self._recorder = Recorder(path, header(self._scheduler, self._settings, self._kv, run), on_fault="continue")
        clock = self._recorder.header.clock
        self._zero_ns, self._zero_wall_ns = clock.monotonic_ns, clock.wall_ns
        logger.info("tracereel: recording to %s", path)

    # On the engine's thread.

    def counts(self) -> RawCounts:
        """How many run and wait, and how many blocks are free, now."""
        running, waiting = self._queued()
        return running, waiting, self._kv.free()

    def before(self) -> RawCounts | None:
        """The counts before a schedule; None where they are not needed, as no third step can be in flight."""
        return self.counts() if self._depth > 2 else None

    def arrived(self, request: Any) -> None:
        """A request was put in the queue."""
        if self._to_skip:
            self._to_skip -= 1
            return
        if self._between:
            self._begin()
        if self._recorder is None:
            return
        self._left -= 1
        if request.resumable:
            self._give_up("a request that goes on after its end (streaming input) cannot be recorded")
            return
        prefill = getattr(request, "prefill_stats", None)
        self._hand_over(self._beside, self._arrival, request, prefill, time.monotonic_ns())

    def ended(self, request: Any, at_ns: int) -> None:
        """A request was ended from outside."""
        if self._recorder is not None:
            reason = str(request.get_finished_reason())
            self._hand_over(self._beside, self._ending, request.request_id, at_ns, reason)

    def scheduled(self, plan: Any, start_ns: int, scheduled_ns: int, before: RawCounts | None) -> None:
        """A schedule was made."""
        if self._recorder is not None:
            if plan.total_num_scheduled_tokens:
                self._newest = plan
            if self._schedule is not None:
                self._hand_over(_no_records)
            loads = self._kv.loads() if self._connected else []
            kept = plan, whole_tables(plan), self._kv.take_freed(), loads
            self._schedule = kept, start_ns, scheduled_ns, before, self.counts()

    def updated(self, plan: Any, results: Any, output: Any, end_ns: int) -> None:
        """The tokens of the oldest step in flight are there; `output` is what the workers gave for it."""
        if self._recorder is not None:
            if plan is self._newest:
                self._newest = None
            counts = self.counts() if self._counts_after else None
            transfers = transfers_told(output) if self._connected else []
            self._hand_over(self._completed, plan, results, output, transfers, end_ns, counts)
            if (
                counts is not None
                and counts[:2] == (0, 0)
                and self._settings.requests_per_run
                and self._left <= 0
                and self._newest is None
            ):
                self.close()
                self._between = True

    def _hand_over(self, make: Callable[..., Records], *facts: Any) -> None:
        """Give what `make(*facts)` makes to the recorder's thread, and before it the schedule that was kept."""
        assert self._recorder is not None
        schedule, self._schedule = self._schedule, None
        self._recorder.record_later(self._after, schedule, make, facts)

    def close(self) -> None:
        """End the recording; one with steps still in flight stays behind as cut off."""
        recorder, self._recorder = self._recorder, None
        if recorder is None:
            return
        self._schedule = None
        try:
            if self._newest is not None:
                recorder.abandon()
            else:
                recorder.close()
        except Exception as error:
            logger.warning("tracereel: %s", error)

    def _give_up(self, why: str) -> None:
        recorder, self._recorder = self._recorder, None
        self._schedule = None
        if recorder is not None:
            logger.warning("tracereel: the recording ends here: %s", why)
            recorder.abandon()

    # On the recorder's thread.

    def _counted(self, counts: RawCounts) -> Counts:
        running, waiting, free = counts
        return Counts(running, waiting, self._kv.blocks - free)

    def _beside(self, make: Callable[..., Iterator[Arrival | Finish]], *facts: Any) -> Records:
        """Something happened outside a step: it is told after the step that runs."""
        oldest = self._in_flight.oldest
        if oldest is not None:
            oldest.after.append(partial(make, *facts))
        else:
            yield from make(*facts)

    def _after(self, schedule: Schedule | None, make: Callable[..., Records], facts: tuple[Any, ...]) -> Records:
        if schedule is not None:
            plan, start_ns, scheduled_ns, before, after = schedule
            counted = None if before is None else self._counted(before)
            self._in_flight.scheduled(plan, start_ns, scheduled_ns, counted, self._counted(after))
        return make(*facts)

    def _completed(
        self, plan: Any, results: Any, output: Any, transfers: Transfers, end_ns: int, now: RawCounts | None
    ) -> Records:
        oldest = self._in_flight.oldest
        if oldest is not None and oldest.plan[0] is plan:
            counted = None if now is None else self._counted(now)
            graph = getattr(output, "cudagraph_stats", None)
            yield from self._told(self._in_flight.completed(end_ns, counted), results, graph, transfers, end_ns)
        elif plan.total_num_scheduled_tokens:
            # An empty step that was scheduled before the recording began is none of ours.
            raise AdapterError("steps do not come back in the order in which they were scheduled")

    def _arrival(self, request: Any, prefill: Any, at_ns: int) -> Iterator[Arrival]:
        self._prefills[request.request_id] = prefill
        lora = getattr(request, "lora_request", None)
        sampling = request.sampling_params
        prompt = text = None
        if self._tokenizer is not None and sampling is not None and request.prompt_token_ids is not None:
            prompt = (sampling.extra_args or {}).get(PROMPT_ARGUMENT) or self._tokenizer.decode(
                request.prompt_token_ids, skip_special_tokens=True
            )
            spoken: list[str] | None = None
            if sampling.stop:
                spoken = []
                stops = [sampling.stop] if isinstance(sampling.stop, str) else list(sampling.stop)
                self._stops[request.request_id] = (stops, spoken)
            detokenizer = IncrementalDetokenizer.from_new_request(self._tokenizer, request)
            text = partial(_next_text, detokenizer, spoken)
        yield self._journal.arrive(
            request.request_id,
            id=_RANDOM_SUFFIX.sub("", request.request_id),
            arrival_ns=round(request.arrival_time * 1e9) - self._zero_wall_ns,
            submitted_ns=at_ns - self._zero_ns,
            prompt_tokens=request.num_prompt_tokens,
            max_tokens=request.max_tokens,
            priority=request.priority,
            prompt=prompt,
            text=text,
            lora=None if lora is None else lora.lora_name,
        )

    def _ending(self, key: str, at_ns: int, reason: str) -> Iterator[Finish]:
        stops, texts = self._stops.pop(key, ([], []))
        self._forget(key)
        # vLLM's front end looks for stop strings and aborts the request in the engine core; the text says which it was.
        if reason == "abort" and any(stop in "".join(texts) for stop in stops):
            reason = "stop"
        finish = self._journal.leave(key, at_ns - self._zero_ns, reason)
        if finish is not None:
            yield finish

    def _forget(self, key: str) -> None:
        for facts in (self._stops, self._reached, self._prefills):
            facts.pop(key, None)
        self._kv.forget(key)
        self._sources.forget(key)

    def _told(self, step: InFlightStep, results: Any, graph: Any, transfers: Transfers, end_ns: int) -> Records:
        plan, whole, freed, loads = step.plan
        self._left_early += freed
        self._transfers += transfers
        self._carried |= plan.preempted_req_ids or set()
        if plan.total_num_scheduled_tokens:
            preempted, self._carried = self._carried, set()
            freed, self._left_early = self._left_early, []
            transfers, self._transfers = self._transfers, []
            moment = step.moment(end_ns, self._zero_ns, blocks=self._blocks_known)
            yield self._journal.step(
                moment,
                self._members(plan, whole, results),
                preempted,
                freed=freed if self._kv.known else (),
                loading=loads,
                transfers=transfers,
                graph=None if graph is None else (graph.runtime_mode, graph.num_paddings),
                experts=expert_counts(chain.from_iterable(each.outputs for each in results.values()), self._experts),
            )
        for make in step.after:
            yield from make()

    def _members(self, plan: Any, whole: Tables, results: Any) -> Iterator[Member]:
        outputs: dict[str, Any] = {}
        for core_outputs in results.values():
            for output in core_outputs.outputs:
                outputs.setdefault(output.request_id, output)
        cached = plan.scheduled_cached_reqs
        planned = {new.req_id: (new.num_computed_tokens, new.block_ids) for new in plan.scheduled_new_reqs}
        planned.update(
            zip(cached.req_ids, zip(cached.num_computed_tokens, cached.new_block_ids, strict=True), strict=True)
        )
        drafts, invalid = plan.scheduled_spec_decode_tokens, plan.num_invalid_spec_tokens or {}
        for key, scheduled in plan.num_scheduled_tokens.items():
            position, tables = planned[key]
            output = outputs.get(key)
            tokens = output.new_token_ids if output is not None else []
            drafted = len(drafts.get(key, ()))
            if drafted and self._in_flight.ahead:
                # The schedule was made as if all drafts of the step before had been right.
                position = self._reached.get(key, position)
            if self._drafts and self._in_flight.ahead:
                self._reached[key] = position + (len(tokens) if drafted and tokens else scheduled)
            reason = str(output.finish_reason) if output is not None and output.finish_reason is not None else None
            grants = list(self._kv.grants(key, whole.get(key, tables), whole=key in whole)) if self._kv.known else []
            cached_from = self._sources.of(key, self._prefills.pop(key, None), position) if key in whole else {}
            if reason is not None:
                self._forget(key)
            yield Member(
                key=key,
                position=position,
                scheduled=scheduled,
                drafted=drafted,
                tokens=tokens,
                reason=reason,
                invalid=min(invalid.get(key, 0), drafted),
                cached_from=cached_from,
                blocks=[block for _, _, blocks in grants for block in blocks] if self._kv.one_table else [],
                groups=[] if self._kv.one_table else grants,
            )


def _no_records() -> Records:
    return iter(())


def _next_text(detokenizer: Any, spoken: list[str] | None, token_id: int) -> str:
    """The text that a token completes, as vLLM's own front end makes it."""
    detokenizer.token_ids.append(token_id)
    text = str(detokenizer.decode_next(token_id))
    if spoken is not None:
        spoken.append(text)
    return text
