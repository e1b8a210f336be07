"""Computes the figures of recordings from their raw lines: python tests/recompute.py RUN.jsonl.zst ...

Imports nothing of the project, so that a fault of its code cannot hide here. Definitions: trace/SCHEMA.md.
"""

import json
import sys
from pathlib import Path

import zstandard

NOT_ANSWERED = ("abort", "rejected", "error")


def records(path):
    """The records of a file, as they were written."""
    text = zstandard.ZstdDecompressor().stream_reader(Path(path).read_bytes()).read()
    return [json.loads(line) for line in text.splitlines()]


def distribution(values):
    """n, mean and percentiles; None of no value at all."""
    values, n = sorted(values), len(values)
    result = {"n": n, "mean": sum(values) / n if n else None}
    for percent in (50, 90, 99):
        at = max(n - 1, 0) * percent / 100
        low, high = (values + values[-1:])[int(at) : int(at) + 2] if n else (0, 0)
        result[f"p{percent}"] = low + (high - low) * (at - int(at)) if n else None
    return result


def spans(steps):
    """(start, end) of each step: the device's, chained and laid as late as no token came after the host had it."""
    host = [(step["start_ns"], step["end_ns"]) for step in steps]
    if not any("device_ns" in step for step in steps):
        return host
    chains, before, result, next_begin = [], None, [], None
    for i, step in enumerate(steps):
        follows = before is not None and "device_ns" in step and "device_ns" in before and "device_gap_ns" in step
        if not (follows and step["index"] == before["index"] + 1 and i % 4096):
            chains.append([])
        chains[-1].append(step)
        before = step
    for chain in reversed(chains):
        ends, at = [], 0
        for k, step in enumerate(chain):
            at += step.get("device_ns", step["end_ns"] - step["start_ns"]) + (step["device_gap_ns"] if k else 0)
            ends.append(at)
        begin = min(step["end_ns"] - end for step, end in zip(chain, ends, strict=True))
        begin = next_begin = begin if next_begin is None else min(begin, next_begin - ends[-1])
        took = [step.get("device_ns", step["end_ns"] - step["start_ns"]) for step in chain]
        result = [(begin + end - time, begin + end) for time, end in zip(took, ends, strict=True)] + result
    known = [s["end_ns"] - s["latency_ns"] if "latency_ns" in s else s["start_ns"] for s in steps]
    if any(start < at - 1_000_000 for (start, _), at in zip(result, known, strict=True)):
        return host
    return [(min(max(start, at), end), end) for (start, end), at in zip(result, known, strict=True)]


def figures(path):
    """Every figure of a recording by the name of its metric."""
    lines = records(path)
    header, steps = lines[0], [line for line in lines if line["event"] == "step"]
    arrived = {line["request"]: line["arrival_ns"] for line in lines if line["event"] == "arrival"}
    times, slots = spans(steps), header["slots"]
    tokens, admitted, ended = {request: [] for request in arrived}, {}, {}
    for step, (start, end) in zip(steps, times, strict=True):
        for request, count in zip(step["requests"], step["sampled"], strict=True):
            tokens[request] += [end] * count
        for admission in step.get("admitted", ()):
            admitted.setdefault(admission["request"], start)
        ended.update({ending["request"]: ending["reason"] for ending in step.get("finished", ())})
    ended.update({line["request"]: line["reason"] for line in lines if line["event"] == "finish"})
    done = [r for r in arrived if ended.get(r, "abort") not in NOT_ANSWERED and tokens[r]]
    count, busy = sum(map(len, tokens.values())), [len(step["requests"]) for step in steps]
    seconds = (max(max(at) for at in tokens.values() if at) - min(arrived.values())) / 1e9
    lengths = [len(tokens[request]) for request in sorted(arrived)]
    ceiling = slots * sum(max(lengths[i : i + slots]) for i in range(0, len(lengths), slots)) / count
    first, last, took = {r: tokens[r][0] for r in done}, {r: tokens[r][-1] for r in done}, [e - s for s, e in times]
    gaps = [after - at for r in done for at, after in zip(tokens[r], tokens[r][1:], strict=False)]
    samples = {
        "ttft_ms": [first[r] - arrived[r] for r in done], "e2el_ms": [last[r] - arrived[r] for r in done],
        "tpot_ms": [(last[r] - first[r]) / (len(tokens[r]) - 1) for r in done if len(tokens[r]) > 1],
        "queue_ms": [admitted[r] - arrived[r] for r in done if r in admitted], "itl_ms": gaps, "step_ms": took,
    }  # fmt: skip
    return {
        "requests": len(arrived), "completed": len(done), "output_tokens": count, "duration_s": seconds,
        "output_throughput": count / seconds, "request_throughput": len(done) / seconds, "steps": len(steps),
        "mean_batch": sum(busy) / len(steps), "slot_steps": slots * len(steps),
        "idle_slot_steps": slots * len(steps) - sum(busy), "refill_ceiling": ceiling,
        "slot_occupancy": sum(n * t for n, t in zip(busy, took, strict=True)) / (slots * sum(took)),
        "padding": sum(step.get("padding", 0) for step in steps),
        "preemptions": sum(len(step.get("preempted", ())) for step in steps),
        "waiting_peak": max(step["waiting"] for step in steps),
        **{name: distribution([value / 1e6 for value in values]) for name, values in samples.items()},
    }  # fmt: skip


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(json.dumps({"file": name, **figures(name)}))
