"""An export format: a trace as a file for https://www.speedscope.app, one profile a slot.

    python examples/export_format.py trace/recordings/film/cpu/continuous-1.jsonl.zst run.speedscope.json

An export reads the columns of a `Trace` and writes through `LineWriter`, which puts the file in its place only when it
is whole. Speedscope's format: https://github.com/jlfwong/speedscope/wiki/Importing-from-custom-sources
"""

import json
import sys
from pathlib import Path

from tracereel.trace import Trace
from tracereel.trace.format.storage import LineWriter

Event = dict[str, str | int]


def speedscope(trace: Trace) -> dict[str, object]:
    """The file's content: in each slot a request encloses its prefill and decode steps. Times are nanoseconds."""
    names = ["prefill", "decode", *(arrival.id for arrival in trace.arrivals)]
    steps, end_ns = trace.steps, trace.span_ns[1]
    spans: list[list[tuple[int, int, int]]] = [[] for _ in range(trace.header.slots)]  # (from, to, frame) a slot
    held = trace.residencies
    for request, slot, from_ns, to_ns in zip(held.request, held.slot, held.from_ns, held.to_ns, strict=True):
        spans[slot].append((int(from_ns), min(int(to_ns), end_ns), 2 + int(request)))
    for step, slot, decodes in zip(steps.member_step, steps.member_slot, steps.member_decode, strict=True):
        spans[slot].append((int(steps.start_ns[step]), int(steps.end_ns[step]), int(decodes)))
    profiles = [
        {
            "type": "evented",
            "name": f"slot {slot}",
            "unit": "nanoseconds",
            "startValue": 0,
            "endValue": end_ns,
            "events": _nested(own),
        }
        for slot, own in enumerate(spans)
    ]
    return {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "name": f"{trace.header.engine.name}, {trace.header.policy}, trace {trace.digest}",
        "exporter": "tracereel",
        "shared": {"frames": [{"name": name} for name in names]},
        "profiles": profiles,
    }


def _nested(spans: list[tuple[int, int, int]]) -> list[Event]:
    """Spans as opening and closing events in the order of time, an outer span around those within it."""
    events: list[Event] = []
    still_open: list[tuple[int, int]] = []  # (end, frame), the innermost last

    def close_until(at: int) -> None:
        while still_open and still_open[-1][0] <= at:
            end, frame = still_open.pop()
            events.append({"type": "C", "frame": frame, "at": end})

    for start, end, frame in sorted(spans, key=lambda span: (span[0], -span[1], -span[2])):
        close_until(start)
        events.append({"type": "O", "frame": frame, "at": start})
        still_open.append((end, frame))
    close_until(sys.maxsize)
    return events


def write_speedscope(trace: Trace, path: Path) -> None:
    """Write the trace to `path`, whole or not at all. Raises OSError."""
    with LineWriter(path) as writer:
        writer.write(json.dumps(speedscope(trace)).encode() + b"\n")


if __name__ == "__main__":
    write_speedscope(Trace.read(Path(sys.argv[1])), Path(sys.argv[2]))
