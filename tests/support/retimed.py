"""Runs of the fake model whose steps take the times that a test wants."""

import json
from pathlib import Path

import fakes
from tracereel.engine.config import EngineConfig
from tracereel.trace.format.events import RunInfo
from tracereel.trace.format.recorder import Recorder
from tracereel.trace.state.columns import Trace


def record(path: Path, policy: str, *, slots: int = 4, repeat: int = 0, step_ns=lambda record: 1_000_000) -> Trace:
    """A run of the fake model, its steps given the times of `step_ns` one right after the other."""
    config = EngineConfig(policy=policy, max_num_seqs=slots, max_num_batched_tokens=64, num_blocks=200, block_size=4)
    run = RunInfo(suite="test", case=policy, repeat=repeat, repeats=5)
    with Recorder(path, fakes.header(config, run=run)) as recorder:
        engine = fakes.make_engine(config, recorder)
        for request in fakes.make_requests(12):
            engine.add(request, arrival_ns=0)
        while engine.has_work:
            engine.step()
    return retimed(path, step_ns)


def retimed(path: Path, step_ns) -> Trace:
    lines, now = [], 0
    for line in path.read_bytes().splitlines():
        entry = json.loads(line)
        if entry["event"] == "arrival":
            entry |= {"arrival_ns": now, "submitted_ns": now}
        if entry["event"] == "step":
            entry |= {"start_ns": now, "scheduled_ns": now, "end_ns": now + step_ns(entry)}
            now = entry["end_ns"]
        if entry["event"] == "end":
            entry["at_ns"] = max(entry["at_ns"], now)
        lines.append(json.dumps(entry))
    path.write_text("\n".join(lines) + "\n")
    fakes.seal(path)
    return Trace.read(path)
