"""Block tables by group of layers: blocks that leave early, requests that hold blocks while they wait."""

import by_hand
import msgspec
import pytest
from tracereel.film.components.special_facts import special_rows
from tracereel.film.phrases import Phrasebook
from tracereel.trace.analysis.queries import Run
from tracereel.trace.analysis.special import special_facts
from tracereel.trace.check.invariants import check
from tracereel.trace.format.events import (
    Admission,
    Arrival,
    Ending,
    GraphPadding,
    GroupGrant,
    GroupRelease,
    KvGroup,
    Loading,
    Step,
    Transfer,
)
from tracereel.trace.format.recorder import Recorder
from tracereel.trace.state.columns import Trace
from tracereel.trace.state.timeline import Timeline

HEADER = by_hand.header(
    kv_blocks=8,
    kv_groups=[KvGroup(kind="full", layers=1), KvGroup(kind="sliding_window", layers=5, window=4)],
)


def events():
    """One request of eight prompt tokens, whose first block leaves the window's table; the other's KV is on its way."""
    common = {"slots": [0], "phases": "P", "computed": [4], "sampled": [0], "requests": [0], "running": 1, "waiting": 1}
    return [
        Arrival(request=0, id="a", arrival_ns=0, submitted_ns=0, prompt_tokens=9, max_tokens=1, lora="poet"),
        Arrival(request=1, id="b", arrival_ns=0, submitted_ns=0, prompt_tokens=3, max_tokens=1),
        Step(
            **common,
            index=0,
            start_ns=1,
            end_ns=2,
            positions=[0],
            admitted=[Admission(request=0, slot=0)],
            group_blocks=[
                GroupGrant(request=0, group=0, place=0, blocks=[0]),
                GroupGrant(request=0, group=1, place=0, blocks=[1]),
            ],
            loading=[Loading(request=1, state="waiting_for_remote_kvs", blocks=[7])],
            kv_used=3,
            graph=GraphPadding(mode="full", padding=4),
        ),
        Step(
            **common,
            index=1,
            start_ns=2,
            end_ns=3,
            positions=[4],
            freed=[GroupRelease(request=0, group=1, blocks=[1])],
            group_blocks=[
                GroupGrant(request=0, group=0, place=1, blocks=[2]),
                GroupGrant(request=0, group=1, place=1, blocks=[1]),
            ],
            loading=[Loading(request=1, state="waiting_for_remote_kvs", blocks=[7])],
            kv_used=4,
        ),
        Step(
            index=2,
            start_ns=3,
            end_ns=4,
            requests=[0, 1],
            slots=[0, 1],
            phases="PP",
            positions=[8, 2],
            computed=[1, 1],
            sampled=[1, 1],
            running=2,
            waiting=0,
            admitted=[Admission(request=1, slot=1, cached=2, cached_from={"external": 2})],
            group_blocks=[
                GroupGrant(request=0, group=0, place=2, blocks=[3]),
                GroupGrant(request=0, group=1, place=2, blocks=[4]),
                GroupGrant(request=1, group=0, place=0, blocks=[7]),
            ],
            kv_used=6,
            finished=[Ending(request=0, reason="length"), Ending(request=1, reason="length")],
        ),
    ]


def written(path, records, header=HEADER):
    recorder = Recorder(path, header)
    for record in records:
        recorder.record(record)
    recorder.close()
    return path


def test_tables_by_group_are_valid_and_can_be_asked_for_at_any_instant(tmp_path):
    path = written(tmp_path / "groups.jsonl", events())
    assert check(path).violations == []
    timeline = Timeline(Trace.read(path))
    assert timeline.at(1).group_tables(0) == ({0: 0}, {0: 1})
    assert timeline.at(2).group_tables(0) == ({0: 0, 1: 2}, {1: 1})
    assert timeline.at(2).block_holders == {0: (0,), 1: (0,), 2: (0,)}
    assert timeline.at(3).group_tables(1) == ({0: 7}, {})
    assert timeline.at(4).group_tables(0) == ()


def replaced(records, index, **changes):
    at = next(i for i, record in enumerate(records) if isinstance(record, Step) and record.index == index)
    return [*records[:at], msgspec.structs.replace(records[at], **changes), *records[at + 1 :]]


@pytest.mark.parametrize(
    ("index", "changes", "said"),
    [
        (1, {"kv_used": 3}, "kv_used is 3, the block tables hold 4"),
        (1, {"loading": []}, "kv_used is 4, the block tables hold 3"),
        (1, {"freed": []}, "block 1 is given to request 0 but held by another"),
        (1, {"freed": [GroupRelease(request=0, group=1, blocks=[5])]}, "block 5 leaves request 0"),
        (1, {"freed": [GroupRelease(request=0, group=0, blocks=[1])]}, "whose table of group 0 has it not"),
        (1, {"group_blocks": [GroupGrant(request=0, group=0, place=0, blocks=[2])]}, "at place 0 of group 0 already"),
        (0, {"group_blocks": [GroupGrant(request=0, group=2, place=0, blocks=[1])]}, "group 2 of 2"),
        (0, {"group_blocks": [GroupGrant(request=0, group=0, place=0, blocks=[8])]}, "block 8 of 8"),
        (0, {"group_blocks": [GroupGrant(request=1, group=0, place=0, blocks=[0])]}, "but does not run"),
        (2, {"loading": [Loading(request=0, state="loading", blocks=[6])]}, "waits for KV but is not in the queue"),
        (
            2,
            {"admitted": [Admission(request=1, slot=1, cached=2, cached_from={"local": 1})]},
            "does not add up to the 2 cached",
        ),
        (1, {"invalid_drafts": [1]}, "more invalid drafts than drafts"),
        (1, {"invalid_drafts": [1, 1]}, "invalid_drafts: 2 entries for 1 requests"),
    ],
)
def test_what_cannot_be_is_said(tmp_path, index, changes, said):
    path = written(tmp_path / "wrong.jsonl", replaced(events(), index, **changes))
    assert any(said in violation.message for violation in check(path).violations), check(path).violations


def test_inspect_and_the_title_card_say_what_only_some_engines_say_and_nothing_where_they_do_not(tmp_path):
    records = replaced(events(), 2, drafted=[2, 0], invalid_drafts=[1, 0])
    facts = special_facts(written(tmp_path / "special.jsonl", records))
    assert facts == {
        "kv_groups": "full × 1, sliding_window × 5",
        "kv_blocks_freed_early": "1",
        "lora_requests": "poet 1",
        "cached_tokens_by_source": "external 2",
        "requests_that_waited_for_kv": "1",
        "drafts": "0 of 2 accepted, 1 invalid",
        "graphs": "full 1 steps",
        "graph_padding": "4",
    }
    rows = special_rows(Run.read(tmp_path / "special.jsonl"), Phrasebook().say, room=2000)
    assert [(row.name.text, row.value.text) for row in rows] == [
        ("routing", "LoRA requests: poet 1"),
        ("scheduling", "0 of 2 drafts accepted, 1 invalid · graph steps: full 1; positions of padding: 4"),
        ("KV cache", "cached tokens: external 2 · requests that waited for KV: 1"),
    ]
    plain = msgspec.structs.replace(HEADER, kv_groups=[])
    assert special_facts(written(tmp_path / "plain.jsonl", events()[1:1], plain)) == {}


def test_inspect_says_how_unevenly_experts_were_taken(tmp_path):
    told = replaced(events(), 2, experts=[[], [3, 1, 0, 0], [1, 1, 1, 1]])
    path = written(tmp_path / "experts.jsonl", replaced(told, 1, experts=[[], [3, 1, 0, 0], [1, 1, 1, 1]]))
    assert check(path).ok, check(path).violations
    assert special_facts(path)["experts"] == "2 layers × 4, busiest of a layer 3.00 × the mean"


def test_knobs_are_said_where_they_are_set_and_the_order_of_arrival_is_none(tmp_path):
    config = {"scheduling_policy": "priority", "prefill_schedule_interval": 4, "max_model_len": 256}
    path = written(tmp_path / "knobs.jsonl", [], msgspec.structs.replace(HEADER, kv_groups=[], config=config))
    assert special_facts(path) == {"scheduling": "scheduling_policy priority, prefill_schedule_interval 4"}
    config = {"scheduling_policy": "fcfs", "max_model_len": 256}
    path = written(tmp_path / "none.jsonl", [], msgspec.structs.replace(HEADER, kv_groups=[], config=config))
    assert special_facts(path) == {}


def test_transfers_are_counted_and_timed(tmp_path):
    moved = [Transfer(duration_ns=3_000_000, bytes=4096), Transfer(duration_ns=1_000_000, bytes=512)]
    path = written(tmp_path / "moved.jsonl", replaced(events(), 1, transfers=moved))
    assert check(path).ok, check(path).violations
    assert special_facts(path)["kv_transfers"] == "2, median 2.00 ms, 4,608 bytes in all"
