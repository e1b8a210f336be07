"""The header of traces that a test writes record by record."""

from typing import Any

import msgspec
from tracereel.trace.format.events import Clock, DeviceInfo, EngineInfo, Header, ModelInfo, WorkloadInfo

_HEADER = Header(
    schema=1,
    engine=EngineInfo(name="made by hand", version="1"),
    policy="continuous",
    slots=2,
    model=ModelInfo(name="none", weights="random", dtype="fp32"),
    device=DeviceInfo(kind="cpu", name="none"),
    workload=WorkloadInfo(name="a few requests"),
    clock=Clock(monotonic_ns=0, wall_ns=0),
    kv_block_tokens=4,
)


def header(**fields: Any) -> Header:
    """A header with these fields."""
    return msgspec.structs.replace(_HEADER, **fields)
