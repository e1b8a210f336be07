"""A trace field: the energy that a step took, written, read back, and ignored by readers that do not know it.

    python examples/trace_field.py run.jsonl

A new optional field leaves the schema's version as it is: readers pass over fields that they do not know, and a trace
without the field means "not known". Inside the package the field stands in `Step` itself.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
from tracereel.trace import SCHEMA_VERSION, Recorder
from tracereel.trace.format.events import (
    Admission,
    Arrival,
    DeviceInfo,
    Ending,
    EngineInfo,
    Header,
    ModelInfo,
    Nanoseconds,
    Step,
    WorkloadInfo,
)
from tracereel.trace.format.recorder import start_clock
from tracereel.trace.format.storage import LineReader

Microjoules = Nanoseconds
"""A whole number from 0 to 2^62: a field of a trace always has bounds."""


class MeteredStep(Step, tag="step", tag_field="event", frozen=True, kw_only=True, omit_defaults=True):
    """A step with what it cost. None where the source did not measure it."""

    energy_uj: Microjoules | None = None


def energy_uj(path: Path) -> Iterator[int | None]:
    """The energy of each step of a trace in microjoules, None where the trace does not say. Raises TraceError."""
    decode = msgspec.json.Decoder(MeteredStep).decode
    for _, line in LineReader(path):
        if b'"event":"step"' in line:
            yield decode(line).energy_uj


def record(path: Path) -> None:
    """Record one request of two steps; the second step was measured, the first was not."""
    header = Header(
        schema=SCHEMA_VERSION,
        engine=EngineInfo(name="toy", version="1"),
        policy="continuous",
        slots=1,
        model=ModelInfo(name="toy", weights="random", dtype="fp32"),
        device=DeviceInfo(kind="cpu", name="a toy"),
        workload=WorkloadInfo(name="one question"),
        clock=start_clock(),
    )
    with Recorder(path, header) as recorder:
        recorder.record(Arrival(request=0, id="question", arrival_ns=0, submitted_ns=0, prompt_tokens=4))
        always = {"requests": [0], "slots": [0], "sampled": [1], "waiting": 0, "running": 1}
        prefill = {"phases": "P", "positions": [0], "computed": [4], "admitted": [Admission(request=0, slot=0)]}
        decode = {"phases": "D", "positions": [4], "computed": [1], "finished": [Ending(request=0, reason="length")]}
        recorder.record(MeteredStep(index=0, start_ns=10, end_ns=20, **always, **prefill))
        recorder.record(MeteredStep(index=1, start_ns=20, end_ns=30, **always, **decode, energy_uj=125_000))


if __name__ == "__main__":
    record(Path(sys.argv[1]))
    print(list(energy_uj(Path(sys.argv[1]))))
