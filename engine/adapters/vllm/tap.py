"""Follows one of vLLM's schedulers and makes a trace of what it does."""

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any

import msgspec
import vllm
from tracereel.engine.adapters import AdapterError
from tracereel.engine.adapters.in_flight import Counts, InFlightStep, InFlightSteps
from tracereel.engine.adapters.journal import Journal
from tracereel.engine.adapters.pieces import warn_of_untried
from tracereel.engine.adapters.vllm.experts import expert_counts
from tracereel.engine.adapters.vllm.header import TRIED, header, trace_path
from tracereel.engine.adapters.vllm.kv import Freed, KvCache, Loads, Tables, whole_tables
from tracereel.engine.adapters.vllm.members import Members, Tokens
from tracereel.engine.adapters.vllm.pieces import piece, require
from tracereel.engine.adapters.vllm.settings import Settings
from tracereel.engine.adapters.vllm.sources import Sources
from tracereel.engine.adapters.vllm.texts import Texts
from tracereel.engine.adapters.vllm.transfers import Transfers, transfers_told
from tracereel.trace.format.events import Arrival, Finish, Step
from tracereel.trace.format.recorder import Recorder, RecordingError

cached_tokenizer_from_config = piece("vllm.tokenizers:cached_tokenizer_from_config")

_RANDOM_SUFFIX = re.compile(r"-[0-9a-f]{8}$")

Records = Iterator[Arrival | Step | Finish]
RawCounts = tuple[int, int, int | None]
"""Requests that run, requests that wait, KV blocks that are free (None where others hold some that no table has)."""
Schedule = tuple[tuple[Any, Tables, Freed, Loads], int, int, RawCounts | None, RawCounts]
"""vLLM's own account of it with the tables, when it began and was made, and the counts before and after."""

logger = logging.getLogger("vllm.tracereel")
"""Below vLLM's own logger, whose handlers it has."""


class Tap:
    """Follows one scheduler.

    What runs on the engine's thread takes references and counts, and hands them to the recorder's thread in the order
    in which they came, where all else is made of them; a schedule goes with whatever comes after it. Copied is what
    vLLM changes later: tables of requests that were admitted, transfers, and, with speculation and vLLM's front end in
    this process, new tokens; nothing else grows with the batch. A fault ends the recording with one line in vLLM's log:
    whoever calls the methods for the engine's thread calls `give_up` with what they raise.
    """

    def __init__(self, scheduler: Any, settings: Settings):
        """Looks up what is needed of vLLM. Raises AdapterError, and RecordingError, where nothing can be recorded."""
        config = scheduler.vllm_config
        warn_of_untried(logger, "vLLM", vllm.__version__, TRIED)
        require(scheduler)
        if getattr(config, "diffusion_config", None) is not None:
            raise AdapterError("tracereel: a diffusion model cannot be recorded; start vLLM without tracereel")
        self._scheduler = scheduler
        self._requests = scheduler.requests
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
        self._graphs = bool(getattr(getattr(config, "observability_config", None), "cudagraph_metrics", False))
        self._copies = self._drafts and not getattr(
            getattr(vllm, "envs", None), "VLLM_ENABLE_V1_MULTIPROCESSING", False
        )
        """Is the front end in this process? It cuts lists of new tokens where a stop string ends amid drafts."""
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
        self._journal = Journal(self._scheduler.max_num_running_reqs, content=self._content, drafts=self._drafts)
        self._in_flight = InFlightSteps(ahead=self._depth > 1)
        self._members = Members(
            self._journal,
            self._kv,
            self._sources,
            ahead=self._depth > 1,
            drafts=self._drafts,
            connected=self._connected,
        )
        self._texts = Texts(self._tokenizer)
        self._newest: Any = None
        """The last schedule that gave a request tokens, until they are there."""
        self._came_back = False
        """Has a step of this recording come back?"""
        self._carried: set[str] = set()
        """Preempted in a schedule that gave no request anything: told with the next step."""
        self._left_early: Freed = []
        """Blocks that left tables in such a schedule, likewise."""
        self._transfers: Transfers = []
        """Transfers of KV that were told with such a schedule, likewise."""
        self._recorder = Recorder(path, header(self._scheduler, self._settings, self._kv, run), on_fault="continue")
        clock = self._recorder.header.clock
        self._zero_ns, self._zero_wall_ns = clock.monotonic_ns, clock.wall_ns
        self._runs, self._left, self._between = self._runs + 1, self._settings.requests_per_run, False
        self._watch(True)
        logger.info("tracereel: recording to %s", path)

    def _watch(self, watched: bool) -> None:
        """Keep what is told between two steps, or no longer: without a recording nobody would ever take it."""
        self._kv.watch(watched)
        self._sources.watch(watched)

    # On the engine's thread.

    def counts(self) -> RawCounts:
        """How many run and wait, and how many blocks are free, now.

        Requests that have ended may hold blocks until a connector has sent or fetched their KV: then it is not known
        how many blocks the others hold.
        """
        running, waiting = self._queued()
        if not self._blocks_known or (self._connected and len(self._requests) > running + waiting):
            return running, waiting, None
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
            running, waiting = self._queued()
            if (others := running + waiting - 1) > 0:
                logger.warning(
                    "tracereel: %d earlier request(s) have not ended; the recording that begins here lacks them, and"
                    " `tracereel check` will find it in contradiction with itself",
                    others,
                )
            self._begin()
        if self._recorder is None:
            return
        self._left -= 1
        if request.resumable:
            self.give_up("a request that goes on after its end (streaming input) cannot be recorded")
            return
        prefill = getattr(request, "prefill_stats", None)
        self._hand_over(self._beside, self._arrival, request, prefill, time.monotonic_ns())

    def ended(self, key: str, reason: str, at_ns: int) -> None:
        """A request was ended from outside a step."""
        if self._recorder is not None:
            self._hand_over(self._beside, self._ending, key, at_ns, reason)

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
            graph = output.cudagraph_stats if self._graphs else None
            copied = _copied(results) if self._copies else None
            self._hand_over(self._completed, plan, results, copied, graph, transfers, end_ns, counts)
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
        if self._recorder is not None:
            self._let_go(whole=self._newest is None)

    def give_up(self, why: object) -> None:
        """End the recording where it is, with one line that says why; it stays behind as cut off."""
        if self._recorder is None and not self._between:
            return
        self._between = False
        said = str(why) if isinstance(why, (str, AdapterError, RecordingError)) else repr(why)
        logger.warning("tracereel: the recording ends here: %s", said)
        if self._recorder is not None:
            self._let_go(whole=False)

    def _let_go(self, *, whole: bool) -> None:
        """The recorder writes what it has, and gets nothing more."""
        recorder, self._recorder, self._schedule = self._recorder, None, None
        assert recorder is not None
        try:
            if whole:
                recorder.close()
            else:
                recorder.abandon()
        except Exception as error:
            logger.warning("tracereel: %s", error)
        self._watch(False)

    # On the recorder's thread.

    def _counted(self, counts: RawCounts) -> Counts:
        running, waiting, free = counts
        return Counts(running, waiting, None if free is None else self._kv.blocks - free)

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
        self,
        plan: Any,
        results: Any,
        copied: Tokens | None,
        graph: Any,
        transfers: Transfers,
        end_ns: int,
        now: RawCounts | None,
    ) -> Records:
        oldest = self._in_flight.oldest
        if oldest is not None and oldest.plan[0] is plan:
            self._came_back = True
            counted = None if now is None else self._counted(now)
            step = self._in_flight.completed(end_ns, counted)
            yield from self._told(step, results, copied, graph, transfers, end_ns)
        elif self._came_back and plan.total_num_scheduled_tokens:
            # What comes back before the first step of this recording was scheduled before it began.
            raise AdapterError("steps do not come back in the order in which they were scheduled")

    def _arrival(self, request: Any, prefill: Any, at_ns: int) -> Iterator[Arrival]:
        self._members.arrive(request.request_id, prefill)
        lora = getattr(request, "lora_request", None)
        prompt, text = self._texts.of(request)
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
        # vLLM's front end looks for stop strings and aborts the request in the engine core; the text says which it was.
        if reason == "abort" and self._texts.stopped(key):
            reason = "stop"
        self._forget([key])
        finish = self._journal.leave(key, at_ns - self._zero_ns, reason)
        if finish is not None:
            yield finish

    def _forget(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._members.forget(key)
            self._texts.forget(key)

    def _told(
        self, step: InFlightStep, results: Any, copied: Tokens | None, graph: Any, transfers: Transfers, end_ns: int
    ) -> Records:
        plan, whole, freed, loads = step.plan
        self._left_early += freed
        self._transfers += transfers
        self._carried |= plan.preempted_req_ids or set()
        if plan.total_num_scheduled_tokens:
            preempted, self._carried = self._carried, set()
            freed, self._left_early = self._left_early, []
            transfers, self._transfers = self._transfers, []
            members = list(self._members.of(plan, whole, results, copied))
            yield self._journal.step(
                step.moment(end_ns, self._zero_ns),
                members,
                preempted,
                freed=freed if self._kv.known else (),
                loading=loads,
                transfers=transfers,
                graph=None if graph is None else (graph.runtime_mode, graph.num_paddings),
                experts=expert_counts(chain.from_iterable(each.outputs for each in results.values()), self._experts),
            )
            self._forget(member.key for member in members if member.reason is not None)
        for make in step.after:
            yield from make()


def _copied(results: Any) -> Tokens:
    """Each request's new tokens, in lists of their own."""
    return {output.request_id: list(output.new_token_ids) for each in results.values() for output in each.outputs}


def _no_records() -> Records:
    return iter(())
