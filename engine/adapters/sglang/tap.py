"""A SGLang scheduler's batches as a trace. On the scheduler's thread it copies what a batch's members are."""

import logging
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers.decoders import DecodeStream
from tracereel.engine.adapters import AdapterError
from tracereel.engine.adapters.export import dtype_name, read_note
from tracereel.engine.adapters.journal import Journal, Member, Moment
from tracereel.engine.adapters.sglang.pieces import installed
from tracereel.trace.format.events import (
    SCHEMA_VERSION,
    Arrival,
    DeviceInfo,
    EngineInfo,
    Finish,
    Header,
    ModelInfo,
    ParallelInfo,
    Step,
    WorkloadInfo,
)
from tracereel.trace.format.identity import cpu_name
from tracereel.trace.format.recorder import Later, Recorder, start_clock

logger = logging.getLogger("tracereel.sglang")


@dataclass(slots=True)
class _Batch:
    """A batch between its schedule and its tokens."""

    rids: list[str]
    prefixes: list[int] | None
    """Of a prefill how many tokens each had KV for; of a decode that is where it stood."""
    widths: list[int]
    retracted: list[str]
    kv_used: int | None
    start_ns: int
    scheduled_ns: int
    ahead: bool
    after: list[Later]


def refusal(scheduler: Any, parallel: Any) -> str | None:
    """What of this scheduler's settings a trace cannot be made of; None where it can."""
    found = {
        "speculative decoding": not scheduler.spec_algorithm.is_none(),
        "pipeline parallelism": parallel.pp_size > 1,
        "data-parallel attention": parallel.attn_dp_size > 1,
        "prefill and decode on different servers": str(scheduler.disaggregation_mode.value) != "null",
        "a diffusion model": scheduler.dllm_config is not None,
        "a model that generates no text": not scheduler.is_generation,
    }
    return next((what for what, so in found.items() if so), None)


class Tap:
    """Follows one scheduler. Steps come back in the order in which they were scheduled."""

    def __init__(self, scheduler: Any, folder: str, parallel: Any):
        self._scheduler = scheduler
        self._paged = not (scheduler.is_hybrid_swa or scheduler.is_hybrid_ssm)
        self._page = int(scheduler.page_size)
        self._total = int(scheduler.max_total_num_tokens)
        self._in_flight: deque[_Batch] = deque()
        self._retracted: list[str] = []
        self._present: set[str] = set()
        """Requests that have arrived and not ended."""
        self._reached: dict[str, int] = {}
        self._last_ns = 0
        self._backend = getattr(scheduler.tokenizer, "backend_tokenizer", None)
        self._journal = Journal(int(scheduler.max_running_requests))
        rank = parallel.dp_rank
        name = f"sglang-{'' if rank is None else f'{rank}-'}{os.getpid()}.jsonl.zst"
        self._recorder = Recorder(Path(folder) / name, _header(scheduler, parallel, self._paged), on_fault="continue")
        self._zero_ns = self._recorder.header.clock.monotonic_ns

    # On the scheduler's thread.

    def knows(self, rid: str) -> bool:
        """Has this request arrived and not ended?"""
        return rid in self._present

    def arrived(self, req: Any, at_ns: int) -> None:
        """A request was put in the queue. Raises AdapterError where it asks for beams."""
        if getattr(req, "beam_group", None) is not None:
            raise AdapterError("beam search cannot be recorded")
        limit = req.sampling_params.max_new_tokens
        self._present.add(req.rid)
        self._tell(partial(self._arrival, req.rid, list(req.origin_input_ids), limit, self._priority(req), at_ns))

    def retracted(self, rid: str) -> None:
        """A running request lost its KV in the schedule that is being made."""
        self._retracted.append(rid)

    def aborted(self, rid: str, at_ns: int) -> None:
        """A request ended outside a batch; nothing is said of one that had not come."""
        if rid in self._present:
            self._present.remove(rid)
            self._tell(partial(self._leaving, rid, at_ns))

    def scheduled(self, batch: Any, start_ns: int, scheduled_ns: int) -> None:
        """A batch is to run."""
        prefill = batch.forward_mode.is_extend()
        rids = [req.rid for req in batch.reqs]
        if not rids:  # this rank has nothing to compute, and runs along with others
            return
        retracted, self._retracted = self._retracted, []
        self._in_flight.append(
            _Batch(
                rids=rids,
                prefixes=list(batch.prefix_lens) if prefill else None,
                widths=list(batch.extend_lens) if prefill else [1] * len(rids),
                retracted=retracted,
                kv_used=self._kv_used(),
                start_ns=start_ns,
                scheduled_ns=scheduled_ns,
                ahead=bool(self._scheduler.enable_overlap),
                after=[],
            )
        )

    def completed(self, batch: Any, lengths: list[int], end_ns: int) -> None:
        """The oldest batch's tokens are there; `lengths` are the outputs' before."""
        if not batch.reqs:
            return
        oldest = self._in_flight.popleft() if self._in_flight else None
        if oldest is None or oldest.rids != [req.rid for req in batch.reqs]:
            raise AdapterError("batches do not come back in the order in which they were scheduled")
        results = [
            (list(req.output_ids[before:]), _reason(req)) for req, before in zip(batch.reqs, lengths, strict=True)
        ]
        self._present.difference_update(req.rid for req in batch.reqs if req.finished_reason is not None)
        self._recorder.record_later(partial(self._step, oldest, results, end_ns))
        for make in oldest.after:
            self._recorder.record_later(make)

    def close(self) -> None:
        """End the recording; with batches on their way it stays behind as cut off."""
        if self._in_flight:
            self.abandon()
        else:
            self._recorder.close()

    def abandon(self) -> None:
        """Leave the recording as cut off; what goes wrong with that is a line in the log."""
        try:
            self._recorder.abandon()
        except Exception as error:
            logger.warning("tracereel: %r", error)

    def _tell(self, make: Later) -> None:
        """What happens while a batch runs stands after its step."""
        if self._in_flight:
            self._in_flight[0].after.append(make)
        else:
            self._recorder.record_later(make)

    def _priority(self, req: Any) -> int:
        """A trace's priority, of which lower goes first: in SGLang higher does, where not said otherwise."""
        if not getattr(self._scheduler, "enable_priority_scheduling", False) or req.priority is None:
            return 0
        lower_first = getattr(self._scheduler, "schedule_low_priority_values_first", False)
        return int(req.priority if lower_first else -req.priority)

    def _kv_used(self) -> int | None:
        """Pages that requests hold: what a prefix cache could give up at once is not held."""
        if not self._paged:
            return None
        allocator, cache = self._scheduler.token_to_kv_pool_allocator, self._scheduler.tree_cache
        free = int(allocator.available_size()) + int(cache.evictable_size())
        return max(self._total - free, 0) // self._page

    # On the recorder's thread.

    def _arrival(
        self, rid: str, prompt_ids: list[int], max_tokens: int | None, priority: int, at_ns: int
    ) -> Iterator[Arrival]:
        prompt = text = None
        if self._backend is not None:
            stream = DecodeStream(ids=prompt_ids, skip_special_tokens=True)
            prompt = self._backend.decode(prompt_ids, skip_special_tokens=True)
            text = partial(_next_text, stream, self._backend)
        at = at_ns - self._zero_ns
        yield self._journal.arrive(
            rid,
            id=rid,
            arrival_ns=at,
            submitted_ns=at,
            prompt_tokens=len(prompt_ids),
            max_tokens=max_tokens,
            priority=priority,
            prompt=prompt,
            text=text,
        )

    def _leaving(self, rid: str, at_ns: int) -> Iterator[Finish]:
        self._reached.pop(rid, None)
        finish = self._journal.leave(rid, at_ns - self._zero_ns, "abort")
        if finish is not None:
            yield finish

    def _step(self, batch: _Batch, results: list[tuple[list[int], str | None]], end_ns: int) -> Iterator[Step]:
        begin_ns = max(batch.scheduled_ns, self._last_ns) if batch.ahead else batch.start_ns
        self._last_ns = end_ns
        moment = Moment(
            start_ns=begin_ns - self._zero_ns,
            scheduled_ns=None if batch.ahead else batch.scheduled_ns - self._zero_ns,
            end_ns=end_ns - self._zero_ns,
            latency_ns=end_ns - batch.start_ns if batch.ahead else None,
            kv_used=batch.kv_used,
        )
        yield self._journal.step(moment, self._members(batch, results), batch.retracted)

    def _members(self, batch: _Batch, results: list[tuple[list[int], str | None]]) -> Iterator[Member]:
        positions = batch.prefixes or [self._reached.get(rid, 0) for rid in batch.rids]
        for rid, position, width, (tokens, reason) in zip(batch.rids, positions, batch.widths, results, strict=True):
            if reason is None and self._journal.knows(rid):
                self._reached[rid] = position + width
            else:  # it ends with this step, or had ended before and is computed once more
                self._reached.pop(rid, None)
            yield Member(key=rid, position=position, scheduled=width, tokens=tokens, reason=reason)


def _reason(req: Any) -> str | None:
    """Why a request ended, by SGLang's own word: stop, length or abort."""
    return None if req.finished_reason is None else str(req.finished_reason.to_json()["type"])


def _next_text(stream: DecodeStream, backend: Any, token_id: int) -> str:
    return stream.step(backend, token_id) or ""


def _header(scheduler: Any, parallel: Any, paged: bool) -> Header:
    arguments, page = scheduler.server_args, int(scheduler.page_size)
    device, replica = str(arguments.device), int(parallel.dp_rank or 0)
    replicas = max(int(getattr(arguments, "dp_size", None) or 1), replica + 1)
    return Header(
        schema=SCHEMA_VERSION,
        engine=EngineInfo(name="SGLang", version=installed()),
        policy="continuous",
        slots=int(scheduler.max_running_requests),
        kv_blocks=int(scheduler.max_total_num_tokens) // page if paged else None,
        kv_block_tokens=page if paged else None,
        model=_model(scheduler),
        device=DeviceInfo(kind=device, name=cpu_name() if device == "cpu" else device),
        workload=WorkloadInfo(name="served"),
        parallel=ParallelInfo(tensor=int(parallel.tp_size), data=replicas, replica=replica),
        clock=start_clock(),
        config={
            "asynchronous": bool(scheduler.enable_overlap),
            "chunked_prefill_size": scheduler.chunked_prefill_size,
            "schedule_policy": str(scheduler.schedule_policy),
        },
    )


def _model(scheduler: Any) -> ModelInfo:
    """The model by its own name; a folder may carry a note of what its weights are."""
    arguments, dtype = scheduler.server_args, scheduler.model_config.dtype
    made_up = str(arguments.load_format) == "dummy"
    folder = Path(str(arguments.model_path))
    note = None if made_up else read_note(folder)
    if note is not None:
        return note.model_info(dtype)
    return ModelInfo(name=folder.name or "unnamed", weights="random" if made_up else "real", dtype=dtype_name(dtype))
