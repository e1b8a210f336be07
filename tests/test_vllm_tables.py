"""What the vLLM adapter makes of vLLM's block tables, with stand-ins of the same shape: vLLM itself is not here."""

import sys
from dataclasses import make_dataclass
from enum import StrEnum
from types import SimpleNamespace

import numpy as np
import pytest
import vllm_stand_in
from tracereel.engine.adapters import AdapterError
from tracereel.engine.adapters.vllm.experts import expert_counts
from tracereel.engine.adapters.vllm.kv import KvCache, kv_group, runs, whole_tables
from tracereel.engine.adapters.vllm.pieces import piece, require
from tracereel.engine.adapters.vllm.sources import Sources
from tracereel.engine.adapters.vllm.transfers import transfers_told


def test_places_that_hold_no_block_part_a_table_into_runs():
    assert list(runs([0, 0, 3, 4, 0, 6], 2)) == [(4, [2, 3]), (7, [5])]
    assert list(runs([0, 0], 0)) == []
    assert list(runs([1], 5)) == [(5, [0])]


def block(number):
    return SimpleNamespace(block_id=number, is_null=number == 0)


class Manager:
    """As vLLM's managers of one kind of KV: blocks leave in `_remove_blocks_in_range`, or all at once in `free`."""

    kv_cache_group_id = 1

    def __init__(self, pool):
        self.block_pool = pool

    def _remove_blocks_in_range(self, request_id, blocks):
        self.block_pool.free_blocks(blocks)

    def free(self, request_id, blocks):
        self.block_pool.free_blocks(blocks)


def test_only_blocks_that_leave_a_running_request_are_told_with_their_request_and_group():
    returned = []
    kv = cache(SlidingWindowSpec(), SinkFullAttentionSpec(), free_blocks=returned.extend)
    manager = Manager(kv.pool)
    manager._remove_blocks_in_range("before", [block(4)])
    kv.watch(True)
    manager._remove_blocks_in_range("a", iter([block(3), block(0), block(2)]))
    manager.free("b", [block(5)])
    assert kv.take_freed() == [("a", 1, [2, 1])]
    assert kv.take_freed() == []
    kv.watch(False)
    manager._remove_blocks_in_range("after", [block(6)])
    assert kv.take_freed() == []
    assert [each.block_id for each in returned] == [4, 3, 0, 2, 5, 6]


def test_a_fault_while_blocks_leave_does_not_reach_vllm():
    returned = []
    kv = cache(SlidingWindowSpec(), SinkFullAttentionSpec(), free_blocks=returned.extend)
    kv.watch(True)
    Manager(kv.pool)._remove_blocks_in_range("a", ["no block"])
    assert returned == ["no block"]
    with pytest.raises(AdapterError, match="blocks that leave early cannot be told"):
        kv.take_freed()


def test_without_a_manager_that_frees_early_the_tables_of_groups_are_not_known():
    assert cache(SlidingWindowSpec(), SinkFullAttentionSpec(), manager=object).known is False


class FullAttentionSpec:
    block_size, sliding_window = 16, 64


class RSWASpec(FullAttentionSpec):
    pass


class BaseManager:
    def remove_skipped_blocks(self, request_id):
        pass


class RSWAManager(BaseManager):
    def remove_skipped_blocks(self, request_id):
        pass


def test_full_attention_with_a_rule_of_its_own_for_what_leaves_has_a_group():
    """As R-SWA, which keeps the prompt and a window of what was generated."""
    assert cache(FullAttentionSpec(), manager=BaseManager).one_table
    kv = cache(RSWASpec(), manager=RSWAManager)
    assert not kv.one_table
    assert [group.kind for group in kv.groups] == ["rswa"]
    assert not cache(FullAttentionSpec(), manager=RSWAManager).one_table


def plan(new=(), resumed=(), cached=()):
    return SimpleNamespace(
        scheduled_new_reqs=[SimpleNamespace(req_id=key, block_ids=ids) for key, ids in new],
        scheduled_cached_reqs=SimpleNamespace(
            req_ids=[key for key, _ in cached], new_block_ids=[ids for _, ids in cached], resumed_req_ids=set(resumed)
        ),
    )


def test_tables_of_admitted_requests_are_as_they_were_when_the_schedule_was_made():
    """vLLM's model runner keeps these very lists and appends the blocks of later steps to them."""
    first, back, running = [1, 2], [7], [9]
    tables = whole_tables(plan([("a", (first,))], ["b"], [("b", (back,)), ("c", (running,))]))
    first.append(3)
    back.append(8)
    assert tables == {"a": ([1, 2],), "b": ([7],)}


class SlidingWindowSpec:
    block_size, sliding_window = 32, 64


class SinkFullAttentionSpec:
    block_size = 16


def cache(*specs, holding=(), free_blocks=lambda blocks: None, manager=lambda: Manager(None)):
    pool = SimpleNamespace(num_gpu_blocks=11, free_blocks=free_blocks, get_num_free_blocks=lambda: 4)
    manager = SimpleNamespace(
        block_pool=pool,
        coordinator=SimpleNamespace(single_type_managers=(manager(),)),
        get_block_ids=lambda request_id: ([0, 4], [5]),
    )
    groups = [SimpleNamespace(kv_cache_spec=spec, layer_names=["layer"]) for spec in specs]
    return KvCache(
        SimpleNamespace(
            kv_cache_manager=manager,
            kv_cache_config=SimpleNamespace(kv_cache_groups=groups),
            block_size=16,
            connector=object() if holding else None,
            kv_holding_waiting=list(holding),
        )
    )


def test_groups_are_named_by_what_their_layers_keep():
    windows = kv_group(SimpleNamespace(kv_cache_spec=SlidingWindowSpec(), layer_names=["a", "b"]), 16)
    assert (windows.kind, windows.layers, windows.block_tokens, windows.window) == ("sliding_window", 2, 32, 64)
    sink = kv_group(SimpleNamespace(kv_cache_spec=SinkFullAttentionSpec(), layer_names=["a"]), 16)
    assert sink.kind == "sink_full_attention"
    # Full attention keeps all KV, whatever window its layers look at; layers of one type may differ in size.
    full = kv_group(SimpleNamespace(kv_cache_spec=FullAttentionSpec(), layer_names=["a"]), 16)
    assert (full.kind, full.window) == ("full", None)
    uniform = SimpleNamespace(block_size=16, kv_cache_specs={"a": SlidingWindowSpec(), "b": SlidingWindowSpec()})
    both = kv_group(SimpleNamespace(kv_cache_spec=uniform, layer_names=["a", "b"]), 16)
    assert (both.kind, both.block_tokens, both.window) == ("sliding_window", 16, 64)


def test_a_table_grows_by_group_and_a_readmitted_request_begins_again():
    kv = cache(SlidingWindowSpec(), SinkFullAttentionSpec())
    assert not kv.one_table
    assert kv.known
    assert list(kv.grants("a", ([0, 2], [3]), whole=True)) == [(0, 1, [1]), (1, 0, [2])]
    assert list(kv.grants("a", ([4], []), whole=False)) == [(0, 2, [3])]
    assert list(kv.grants("a", None, whole=False)) == []
    assert list(kv.grants("a", ([5], [6]), whole=True)) == [(0, 0, [4]), (1, 0, [5])]


def test_requests_that_wait_for_kv_from_elsewhere_are_told_with_the_blocks_they_hold():
    def waits(key, status, computed):
        return SimpleNamespace(request_id=key, status=SimpleNamespace(name=status), num_computed_tokens=computed)

    holding = [waits("a", "WAITING_FOR_REMOTE_KVS", 0), waits("b", "WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR", 0)]
    told = [("a", "waiting_for_remote_kvs", [3, 4])]
    assert cache(SlidingWindowSpec(), holding=holding).loads() == told
    holding.append(waits("c", "PREEMPTED", 16))
    assert cache(SlidingWindowSpec(), holding=holding).loads() == [*told, ("c", "preempted", [3, 4])]
    assert cache(SlidingWindowSpec()).loads() == []


def test_what_this_vllm_lacks_is_named_in_one_line(monkeypatch):
    with vllm_stand_in.installed():
        whole = vllm_stand_in.scheduler_of(vllm_stand_in.config())
        require(whole)
        del whole.kv_cache_manager.block_pool.get_num_free_blocks
        del whole.vllm_config.model_config.quantization
        less = make_dataclass("NewRequestData", ["req_id", "num_computed_tokens"])
        monkeypatch.setattr(sys.modules["vllm.v1.core.sched.output"], "NewRequestData", less)
        monkeypatch.setattr(sys.modules["vllm.v1.engine"], "EngineCoreOutput", type("EngineCoreOutput", (), {}))
        with pytest.raises(AdapterError) as said:
            require(whole)
    for name in (
        "Scheduler.kv_cache_manager.block_pool.get_num_free_blocks",
        "Scheduler.vllm_config.model_config.quantization",
        "NewRequestData.block_ids",
        "EngineCoreOutput.finish_reason",
    ):
        assert name in str(said.value)
    assert "\n" not in str(said.value)
    with pytest.raises(AdapterError, match="json:no_such_thing"):
        piece("json:no_such_thing")
    with pytest.raises(AdapterError, match=r"json:JSONDecoder\.no_such_thing"):
        piece("json:JSONDecoder.no_such_thing")


class Tier(StrEnum):
    HOST, DISK, EXTERNAL_UNSPECIFIED = "host", "disk", "external_unspecified"


class Connector:
    """As vLLM's connectors, which say from which tier of theirs a request's KV comes."""

    def __init__(self, tiers):
        self.tiers = tiers

    def get_external_cache_hit_sources(self, request, tokens):
        return self.tiers


@pytest.mark.parametrize(
    ("tiers", "local", "external", "cached", "told"),
    [
        ({Tier.HOST: 32, Tier.DISK: 16}, 16, 48, 64, {"local": 16, "host": 32, "disk": 16}),
        ({Tier.EXTERNAL_UNSPECIFIED: 48}, 0, 48, 48, {"external": 48}),
        ({Tier.HOST: 16}, 0, 48, 48, {"external": 48}),  # which does not add up
        ({Tier.HOST: 48}, 16, 48, 63, {"local": 16, "external": 47}),  # the last token is computed all the same
        ({Tier.HOST: 48}, 0, 48, 32, {}),  # vLLM's note is of something else
    ],
)
def test_cached_tokens_are_told_by_the_tier_that_the_connector_names(tiers, local, external, cached, told):
    connector = Connector(tiers)
    sources = Sources(connector)
    sources.watch(True)
    assert connector.get_external_cache_hit_sources(SimpleNamespace(request_id="a"), external) is tiers
    prefill = SimpleNamespace(num_local_cached_tokens=local, num_external_cached_tokens=external)
    assert sources.of("a", prefill, cached) == told


def test_without_a_tier_or_a_connector_what_is_not_local_is_external():
    prefill = SimpleNamespace(num_local_cached_tokens=16, num_external_cached_tokens=32)
    assert Sources(None).of("a", prefill, 48) == {"local": 16, "external": 32}
    sources = Sources(connector := Connector({Tier.HOST: 32}))
    sources.watch(True)
    connector.get_external_cache_hit_sources(SimpleNamespace(request_id="a"), 32)
    sources.forget("a")  # and another request may come by its name
    assert sources.of("a", prefill, 48) == {"local": 16, "external": 32}
    assert sources.of("b", None, 48) == {}


def test_experts_are_counted_by_layer_over_what_the_outputs_tell():
    def output(rows):
        return SimpleNamespace(routed_experts=None if rows is None else np.array(rows, dtype=np.uint8))

    # (tokens, layers, experts of a token): a prompt of two tokens, a request without anything told, one new token.
    outputs = [output([[[0, 0], [0, 3]], [[0, 0], [3, 1]]]), output(None), output([[[0, 0], [2, 3]]])]
    assert expert_counts(outputs, 5) == [[], [1, 1, 1, 3, 0]]
    assert expert_counts([output([[[0]]])], 2) == [[1, 0]]  # one expert a token: the first one it may be
    assert expert_counts([output(None), SimpleNamespace()], 5) == []


def test_transfers_are_told_by_the_connector_that_counts_each():
    def output(data):
        return SimpleNamespace(kv_connector_output=SimpleNamespace(kv_connector_stats=SimpleNamespace(data=data)))

    nixl = {"transfer_duration": [0.002, 0.0005], "bytes_transferred": [4096, 512], "num_failed_transfers": []}
    told = transfers_told(output(nixl))
    nixl["transfer_duration"].append(1.0)  # which the adapter does not see: vLLM adds to its lists
    assert told == [(2_000_000, 4096), (500_000, 512)]
    several = {"NixlConnector": SimpleNamespace(data={"transfer_duration": [0.001], "bytes_transferred": [64]})}
    assert transfers_told(output(several | {"Other": SimpleNamespace(data={"types": {}})})) == [(1_000_000, 64)]
    assert transfers_told(SimpleNamespace(kv_connector_output=None)) == []
    assert transfers_told(output(None)) == transfers_told(SimpleNamespace()) == []
    assert transfers_told(SimpleNamespace(kv_connector_output=SimpleNamespace(kv_connector_stats=None))) == []
