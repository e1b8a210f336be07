"""Who was in a step and what came of it, by vLLM's schedule and the outputs that it gave. On the recorder's thread."""

from collections.abc import Iterator
from typing import Any

from tracereel.engine.adapters import AdapterError
from tracereel.engine.adapters.journal import Journal, Member
from tracereel.engine.adapters.vllm.kv import KvCache, Tables
from tracereel.engine.adapters.vllm.sources import Sources

Tokens = dict[str, list[int]]
"""New tokens by request, where they were copied."""


class Members:
    """The members of one recording's steps. Knows of each request that runs how far its KV really reaches.

    ahead: vLLM schedules a step before it has seen the tokens of the one before; `drafts`: it speculates; `connected`:
    KV comes from elsewhere.
    """

    def __init__(self, journal: Journal, kv: KvCache, sources: Sources, *, ahead: bool, drafts: bool, connected: bool):
        self._journal, self._kv, self._sources = journal, kv, sources
        self._ahead = ahead
        self._guesses = ahead and drafts
        """Is a schedule made as if all drafts of the steps in flight were right?"""
        self._follows = connected or self._guesses
        self._reached: dict[str, int] = {}
        self._prefills: dict[str, Any] = {}
        """What vLLM notes of a request's cached tokens at its first admission."""

    def arrive(self, key: str, prefill: Any) -> None:
        """A request came; vLLM will note in `prefill` how many of its tokens are cached, and from where."""
        self._prefills[key] = prefill

    def forget(self, key: str) -> None:
        """A request is gone."""
        self._reached.pop(key, None)
        self._prefills.pop(key, None)
        self._kv.forget(key)
        self._sources.forget(key)

    def of(self, plan: Any, whole: Tables, results: Any, copied: Tokens | None) -> Iterator[Member]:
        """The members of a step, in vLLM's order; `whole` are the tables of those that its schedule admitted.

        Raises AdapterError where a request goes back behind what it had computed.
        """
        outputs: dict[str, Any] = {}
        for core_outputs in results.values():
            for output in core_outputs.outputs:
                outputs.setdefault(output.request_id, output)
        cached = plan.scheduled_cached_reqs
        planned = {new.req_id: (new.num_computed_tokens, new.block_ids) for new in plan.scheduled_new_reqs}
        planned.update(
            zip(cached.req_ids, zip(cached.num_computed_tokens, cached.new_block_ids, strict=True), strict=True)
        )
        for key, scheduled in plan.num_scheduled_tokens.items():
            position, tables = planned[key]
            if not self._journal.knows(key):  # it had ended when the pass began: nothing is kept of it any more
                yield Member(key, position, scheduled)
                continue
            admitted = key in whole
            output = outputs.get(key)
            tokens: list[int] = []
            if output is not None:
                tokens = output.new_token_ids if copied is None else copied.get(key, [])
            drafted, invalid = self._drafts(plan, key, admitted)
            if self._follows:
                position = self._position(key, position, admitted)
                self._reached[key] = position + (len(tokens) if drafted and tokens else scheduled)
            reason = str(output.finish_reason) if output is not None and output.finish_reason is not None else None
            grants = list(self._kv.grants(key, whole.get(key, tables), whole=admitted)) if self._kv.known else []
            cached_from = self._sources.of(key, self._prefills.pop(key, None), position) if admitted else {}
            yield Member(
                key=key,
                position=position,
                scheduled=scheduled,
                drafted=drafted,
                tokens=tokens,
                reason=reason,
                invalid=invalid,
                cached_from=cached_from,
                blocks=[block for _, _, blocks in grants for block in blocks] if self._kv.one_table else [],
                groups=[] if self._kv.one_table else grants,
            )

    def _drafts(self, plan: Any, key: str, admitted: bool) -> tuple[int, int]:
        """How many drafts of a request were scheduled, and how many of these were placeholders.

        A draft of −1 is a placeholder; but of a request that runs, vLLM schedules ahead with nothing else: the drafts
        are with its workers, and vLLM counts those that it discards.
        """
        drafts = plan.scheduled_spec_decode_tokens.get(key, ())
        invalid = (plan.num_invalid_spec_tokens or {}).get(key, 0)
        if admitted or not self._ahead:
            invalid = max(invalid, list(drafts).count(-1))
        return len(drafts), min(invalid, len(drafts))

    def _position(self, key: str, planned: int, admitted: bool) -> int:
        """Where a member stands: where its KV reaches, which a schedule may have guessed too far."""
        reached = self._reached.get(key)
        if admitted or reached is None:
            return planned
        if planned < reached:
            raise AdapterError(
                f"request {key} computes again from position {planned}, after {reached} (KV that was not loaded): no"
                " record of a trace says that"
            )
        return reached if self._guesses else planned
