"""The records of a trace, as types: the class is the schema.

A trace is JSON Lines: one `Header`, then `Arrival`, `Step` and `Finish` records in the order in which they were
written, then one `End`. `SCHEMA.md` says in words what every field means; a test holds the two together.

Knows the shape of one record. Does not know how records follow each other (`invariants`), how they are stored
(`storage`) or what they add up to (`metrics`).
"""

from typing import Annotated

import msgspec
from msgspec import Meta

SCHEMA_VERSION = 1

# Bounds: a trace is untrusted, and a field outside them is refused where it stands.
Nanoseconds = Annotated[int, Meta(ge=0, le=2**62)]
"""Nanoseconds, in records since the instant in `Header.clock`."""
Count = Annotated[int, Meta(ge=0, le=2**53)]
Index = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Size = Annotated[int, Meta(ge=1, le=2**20)]
Priority = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
TokensPerStep = Annotated[int, Meta(ge=0, le=1024)]
"""New tokens of one request in one step: more than one only under speculative decoding."""
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Name = Annotated[str, Meta(max_length=512)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{8,64}$")]
Prompt = Annotated[str, Meta(max_length=4_000_000)]
TokenText = Annotated[str, Meta(max_length=65_536)]
Reason = Annotated[str, Meta(pattern="^[a-z][a-z_]{0,31}$")]
Phases = Annotated[str, Meta(pattern="^[PD]*$")]

PREFILL, DECODE = "P", "D"


class EngineInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The program that ran."""

    name: Name
    version: Name
    commit: Name | None = None
    source_digest: Digest | None = None


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The model and the arithmetic that ran it."""

    name: Name
    weights: Annotated[str, Meta(pattern="^(real|random)$")]
    dtype: Name
    digest: Digest | None = None
    architecture: Name | None = None
    parameters: Count | None = None


class DeviceInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where it ran, by the device's own name."""

    kind: Name
    name: Name
    driver: Name | None = None
    threads: Count | None = None
    memory_bytes: Count | None = None


class WorkloadInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was asked of it. A server that takes what comes knows no more than a name."""

    name: Name
    digest: Digest | None = None
    requests: Count | None = None
    arrivals: Name | None = None
    seed: Seed | None = None


class Clock(msgspec.Struct, frozen=True, kw_only=True):
    """The instant called 0 in this file, on two clocks of the recording process."""

    monotonic_ns: Nanoseconds
    wall_ns: Nanoseconds


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Which run of a suite this is; runs with the same `repeat` were made one right after the other."""

    suite: Name
    case: Name
    repeat: Index
    repeats: Index


class ParallelInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the engine is spread over devices; this trace is of data-parallel replica `replica` of `data`."""

    tensor: Size = 1
    pipeline: Size = 1
    data: Size = 1
    replica: Index = 0
    devices: list[Name] = []


class ReplicaInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A replica of a merged trace: its part of the slots and of the blocks, and the trace it came from."""

    replica: Index
    slots: Size
    digest: Digest
    kv_blocks: Index | None = None


class KvGroup(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Layers that share a block table, in a model whose layers do not all keep the same KV."""

    kind: Name
    layers: Index | None = None
    block_tokens: Index | None = None
    window: Index | None = None


class Header(msgspec.Struct, tag="header", tag_field="event", frozen=True, kw_only=True, omit_defaults=True):
    """The first record: all that is needed to know what was measured, and to repeat it."""

    schema: Index
    engine: EngineInfo
    policy: Name
    slots: Size
    model: ModelInfo
    device: DeviceInfo
    workload: WorkloadInfo
    clock: Clock
    token_budget: Index | None = None
    kv_blocks: Index | None = None
    kv_block_tokens: Index | None = None
    kv_groups: Annotated[list[KvGroup], Meta(max_length=256)] = []
    config: dict[Name, bool | int | float | str | None] = {}
    libraries: dict[Name, Name] = {}
    run: RunInfo | None = None
    parallel: ParallelInfo | None = None
    replicas: list[ReplicaInfo] = []


class Arrival(msgspec.Struct, tag="arrival", tag_field="event", frozen=True, kw_only=True, omit_defaults=True):
    """A request came. `request` numbers the requests 0, 1, 2, … in the order of these records."""

    request: Index
    id: Name
    arrival_ns: Nanoseconds
    submitted_ns: Nanoseconds
    prompt_tokens: Index
    prompt: Prompt | None = None
    max_tokens: Index | None = None
    priority: Priority = 0
    lora: Name | None = None
    replica: Index = 0


class Admission(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A waiting request took a slot; the KV of `cached` of its tokens was there already (a prefix-cache hit)."""

    request: Index
    slot: Index
    cached: Index = 0
    cached_from: dict[Name, Index] = {}


class BlockGrant(msgspec.Struct, frozen=True, kw_only=True):
    """KV blocks appended to a request's block table."""

    request: Index
    blocks: list[Index]


class GroupGrant(msgspec.Struct, frozen=True, kw_only=True):
    """KV blocks put into a request's block table of one group of layers, from `place` on."""

    request: Index
    group: Index
    place: Index
    blocks: list[Index]


class GroupRelease(msgspec.Struct, frozen=True, kw_only=True):
    """KV blocks that left a request's block table of one group while the request runs."""

    request: Index
    group: Index
    blocks: list[Index]


class Loading(msgspec.Struct, frozen=True, kw_only=True):
    """A waiting request that holds `blocks` already, because its KV is on the way from elsewhere."""

    request: Index
    state: Reason
    blocks: list[Index]


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """KV that came from elsewhere or went there: how long that took, and how much it was."""

    duration_ns: Nanoseconds
    bytes: Count


class GraphPadding(msgspec.Struct, frozen=True, kw_only=True):
    """How a step was replayed from a captured graph: its mode, and positions added to fit the captured size."""

    mode: Name
    padding: Index


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """A request's last step: why it ended (`stop`, `length`, …)."""

    request: Index
    reason: Reason


class Step(msgspec.Struct, tag="step", tag_field="event", frozen=True, kw_only=True, omit_defaults=True):
    """One schedule and one forward.

    `requests`, `slots`, `phases`, `positions`, `computed`, `sampled`, `drafted` and `invalid_drafts` are columns: one
    entry for each member of the batch. `tokens` and `texts` hold the new output tokens of all members one
    after the other, `sampled` of each.
    """

    index: Index
    start_ns: Nanoseconds
    end_ns: Nanoseconds
    requests: list[Index]
    slots: list[Index]
    phases: Phases
    positions: list[Index]
    computed: list[Index]
    sampled: list[TokensPerStep]
    waiting: Index
    running: Index
    scheduled_ns: Nanoseconds | None = None
    device_ns: Nanoseconds | None = None
    device_gap_ns: Nanoseconds | None = None
    latency_ns: Nanoseconds | None = None
    drafted: list[TokensPerStep] | None = None
    invalid_drafts: list[TokensPerStep] | None = None
    tokens: list[Index] | None = None
    texts: list[TokenText] | None = None
    padding: Index = 0
    admitted: list[Admission] = []
    preempted: list[Index] = []
    finished: list[Ending] = []
    blocks: list[BlockGrant] = []
    freed: list[GroupRelease] = []
    group_blocks: list[GroupGrant] = []
    loading: list[Loading] = []
    transfers: list[Transfer] = []
    kv_used: Index | None = None
    graph: GraphPadding | None = None
    experts: Annotated[list[Annotated[list[Index], Meta(max_length=65_536)]], Meta(max_length=4096)] = []
    replica: Index = 0


class Finish(msgspec.Struct, tag="finish", tag_field="event", frozen=True, kw_only=True, omit_defaults=True):
    """A request ended outside a step: cancelled, or refused."""

    request: Index
    at_ns: Nanoseconds
    reason: Reason


class End(msgspec.Struct, tag="end", tag_field="event", frozen=True, kw_only=True, omit_defaults=True):
    """The last record: its absence says that the file was cut."""

    at_ns: Nanoseconds
    requests: Count
    steps: Count
    output_tokens: Count
    digest: Digest
    dropped: Count = 0


Event = Header | Arrival | Step | Finish | End

encoder = msgspec.json.Encoder()
decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
