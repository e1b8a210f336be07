"""A recording of one model of transformers: which of its methods are wrapped, and the header."""

import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from tracereel.engine.adapters import AdapterError
from tracereel.engine.adapters.journal import Journal
from tracereel.engine.adapters.pieces import has_piece, lacking, warn_of_untried
from tracereel.engine.adapters.transformers.header import TRIED, device_info, model_info
from tracereel.engine.adapters.transformers.taps import CONTINUOUS, ContinuousTap, StaticTap, num_blocks
from tracereel.trace.format.events import (
    SCHEMA_VERSION,
    Arrival,
    EngineInfo,
    Header,
    RunInfo,
    WorkloadInfo,
)
from tracereel.trace.format.recorder import Later, Recorder, start_clock

logger = logging.getLogger(__name__)

MODEL = ("init_continuous_batching", "generate", "_get_stopping_criteria")
"""Methods of a model."""


def require(thing: Any, names: Iterable[str]) -> None:
    """Raises AdapterError that names what this version of transformers lacks."""
    if lacks := [f"{type(thing).__name__}.{name}" for name in names if not has_piece(thing, name)]:
        raise lacking(f"transformers ({transformers.__version__})", lacks)


@contextmanager
def attach(
    model: Any,
    path: Path | str,
    *,
    tokenizer: Any = None,
    workload: WorkloadInfo | None = None,
    run: RunInfo | None = None,
) -> Iterator["Recording"]:
    """Record what `generate_batch` or `generate` of this model do while the context is open, into `path`.

    `tokenizer` gives the texts; without it the trace holds token ids alone. The file is in its place once the context
    is left; after an exception it stays behind, ending in `.partial`. Raises AdapterError for what cannot be recorded,
    and RecordingError where the file cannot be written.
    """
    warn_of_untried(logger, "transformers", transformers.__version__, TRIED)
    require(model, MODEL)
    recording = Recording(model, Path(path), tokenizer, workload or WorkloadInfo(name="unnamed"), run)
    with _wrapped(
        model,
        init_continuous_batching=recording.tap_continuous,
        generate=recording.tap_generate,
        _get_stopping_criteria=recording.tap_criteria,
    ):
        try:
            yield recording
        except BaseException:
            recording.end(whole=False)
            raise
    recording.end(whole=True)


@contextmanager
def _wrapped(thing: Any, **wrappers: Callable[..., Any]) -> Iterator[None]:
    """Put methods of one object into wrappers, each called with the method and its arguments; and take them out."""
    for name, wrapper in wrappers.items():
        setattr(thing, name, partial(wrapper, getattr(thing, name)))
    try:
        yield
    finally:
        for name in wrappers:
            delattr(thing, name)


class Recording:
    """One recording of one model: of `generate_batch` or of `generate`, not of both."""

    journal: Journal

    def __init__(self, model: Any, path: Path, tokenizer: Any, workload: WorkloadInfo, run: RunInfo | None):
        self._model, self._path, self._workload, self._run = model, path, workload, run
        self._tokenizer = tokenizer
        self._clock = start_clock()
        self.zero_ns = self._clock.monotonic_ns
        self._recorder: Recorder | None = None
        self._policy: str | None = None
        self._early: list[Later] = []
        """What was told before the header could be written."""
        self._expected: dict[tuple[int, ...], deque[str]] = defaultdict(deque)
        self._arrivals = 0
        self._batch: StaticTap | None = None

    def expect(
        self, id: str, prompt_ids: Sequence[int], *, prompt: str | None = None, max_tokens: int | None = None
    ) -> None:
        """Say that a request is due now which a later call will bring, and its name and own text.

        A call's prompts are matched with what was expected by their token ids, in order.
        """
        key = f"expected {self._arrivals}"
        self._expected[tuple(prompt_ids)].append(key)
        self._arrive(key, id, list(prompt_ids), time.monotonic_ns(), max_tokens, prompt)

    def end(self, *, whole: bool) -> None:
        """Close the file; not whole: leave it as cut off."""
        recorder, self._recorder = self._recorder, None
        if recorder is None:
            return
        if whole:
            recorder.close()
        else:
            recorder.abandon()

    # For the taps.

    def key_of(self, id: str, prompt_ids: list[int], at_ns: int, max_tokens: int | None) -> str:
        """The journal's key of a request that came: that of the one expected, or of one that arrives with it."""
        expected = self._expected.get(tuple(prompt_ids))
        if expected:
            return expected.popleft()
        key = f"{id} {self._arrivals}"
        self._arrive(key, id, prompt_ids, at_ns, max_tokens)
        return key

    def tell(self, make: Later) -> None:
        """Make records in their turn, on the recorder's thread."""
        if self._recorder is None:
            self._early.append(make)
        else:
            self._recorder.record_later(make)

    # Around the model's own methods.

    def tap_continuous(self, init: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Around `init_continuous_batching`: follow the manager's batch processor."""
        self._require("continuous")
        manager = init(*args, **kwargs)
        require(manager, ["_create_batch_processor"])
        create = manager._create_batch_processor
        if not hasattr(create, "tracereel"):

            def created() -> Any:
                processor = create()
                if not hasattr(processor, "tracereel"):
                    require(processor, CONTINUOUS)
                    self._begin_continuous(processor)
                    processor.tracereel = ContinuousTap(self, processor)
                return processor

            created.tracereel = True  # type: ignore[attr-defined]
            manager._create_batch_processor = created
        return manager

    def tap_generate(self, generate: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Around `generate`: a batch begins, and ends."""
        start_ns = time.monotonic_ns()
        inputs = args[0] if args else kwargs.get("inputs", kwargs.get("input_ids"))
        if inputs is None:
            raise AdapterError("generate: only prompts of token ids can be recorded")
        rows = inputs.tolist()
        mask = kwargs.get("attention_mask")
        kept = mask.tolist() if mask is not None else [[1] * len(row) for row in rows]
        prompts = [
            [token for token, keep in zip(row, keeps, strict=True) if keep]
            for row, keeps in zip(rows, kept, strict=True)
        ]
        self._begin("static", len(rows))
        keys = [self.key_of(f"row {self._arrivals}", prompt, start_ns, None) for prompt in prompts]
        self._batch = StaticTap(self, keys, [len(prompt) for prompt in prompts], start_ns)
        try:
            return generate(*args, **kwargs)
        finally:
            self._batch = None

    def tap_criteria(self, choose: Callable[..., Any], generation_config: Any, *args: Any, **kwargs: Any) -> Any:
        """Around the choice of stopping criteria, of which there is one in a call of `generate`."""
        criteria = choose(generation_config, *args, **kwargs)
        if self._batch is None:
            return criteria
        end = generation_config._eos_token_tensor
        return self._batch.criteria(criteria, frozenset() if end is None else frozenset(end.flatten().tolist()))

    # Both.

    def _arrive(
        self, key: str, id: str, prompt_ids: list[int], at_ns: int, max_tokens: int | None, prompt: str | None = None
    ) -> None:
        self._arrivals += 1
        self.tell(partial(self._arrival, key, id, prompt_ids, at_ns, max_tokens, prompt))

    def _arrival(
        self, key: str, id: str, prompt_ids: list[int], at_ns: int, max_tokens: int | None, prompt: str | None
    ) -> Iterator[Arrival]:
        text = None
        if self._tokenizer is not None:
            stream = DecodeStream(ids=prompt_ids, skip_special_tokens=True)
            text = partial(_next_text, stream, self._tokenizer.backend_tokenizer)
            prompt = prompt or self._tokenizer.decode(prompt_ids, skip_special_tokens=True)
        at = max(0, at_ns - self.zero_ns)
        yield self.journal.arrive(
            key,
            id=id,
            arrival_ns=at,
            submitted_ns=at,
            prompt_tokens=len(prompt_ids),
            max_tokens=max_tokens,
            prompt=prompt,
            text=text,
        )

    def _require(self, policy: str) -> None:
        if self._policy not in (None, policy):
            raise AdapterError(f"this recording is of {self._policy} batching; {policy} batching needs one of its own")

    def _begin_continuous(self, processor: Any) -> None:
        settings, cache = processor.cb_config, processor.cache
        paged = len(cache.cache_allocators) == 1
        self._begin(
            "continuous",
            settings.max_requests_per_batch,
            token_budget=processor.max_batch_tokens,
            kv_blocks=num_blocks(cache) if paged else None,
            kv_block_tokens=settings.page_size if paged else None,
            config={
                "scheduler": str(settings.scheduler_type),
                "asynchronous": bool(processor.use_async_batching),
                "prefix_sharing": bool(cache.use_prefix_sharing),
                "cpu_offload_gib": float(settings.cpu_offload_space or 0),
            },
        )

    def _begin(
        self, policy: str, slots: int, *, config: dict[str, bool | float | str] | None = None, **known: int | None
    ) -> None:
        """Write the header, once the first call says what kind of run this is."""
        self._require(policy)
        if self._policy is not None:
            return
        self._policy = policy
        self.journal = Journal(slots)
        model = self._model
        header = Header(
            schema=SCHEMA_VERSION,
            engine=EngineInfo(name="transformers", version=transformers.__version__),
            policy=policy,
            slots=slots,
            token_budget=known.get("token_budget"),
            kv_blocks=known.get("kv_blocks"),
            kv_block_tokens=known.get("kv_block_tokens"),
            model=model_info(model),
            device=device_info(model.device),
            workload=self._workload,
            run=self._run,
            clock=self._clock,
            libraries={"torch": str(torch.__version__)},
            config={"attention": str(model.config._attn_implementation), **(config or {})},
        )
        self._recorder = Recorder(self._path, header, on_fault="continue")
        for make in self._early:
            self._recorder.record_later(make)
        self._early.clear()


def _next_text(stream: DecodeStream, backend: Tokenizer, token_id: int) -> str:
    """The text that a token completes."""
    return stream.step(backend, token_id) or ""
