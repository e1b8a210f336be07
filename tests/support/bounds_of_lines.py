"""What bound each step, from the raw lines alone: the rule of trace/SCHEMA.md written down a second time."""

import json
from pathlib import Path

import zstandard


def bounds_of_lines(path: Path) -> list[str]:
    """The bound of each step by name."""
    text = zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read()
    header, *records = map(json.loads, text.splitlines())
    arrivals = {record["request"]: record for record in records if record["event"] == "arrival"}
    cancelled = {record["request"]: record["at_ns"] for record in records if record["event"] == "finish"}
    steps = [record for record in records if record["event"] == "step"]
    splits = any(p == "P" and not s for step in steps for p, s in zip(step["phases"], step["sampled"], strict=True))
    admissions = [(i, admitted["request"]) for i, step in enumerate(steps) for admitted in step.get("admitted", ())]
    running, preempted, ended, output = set(), set(), set(), dict.fromkeys(arrivals, 0)
    found = []
    for i, step in enumerate(steps):
        running -= set(step.get("preempted", ()))
        preempted |= set(step.get("preempted", ()))
        entered = {admitted["request"] for admitted in step.get("admitted", ())}
        running, preempted = running | entered, preempted - entered
        loading = {each["request"] for each in step.get("loading", ())}
        gone = ended | {request for request, at_ns in cancelled.items() if at_ns <= step["start_ns"]}
        came = {request for request, arrival in arrivals.items() if arrival["arrival_ns"] <= step["start_ns"]}
        line = came - running - gone - loading
        later = [request for at, request in admissions if at > i and request in line]
        order = sorted(line, key=lambda r: (arrivals[r].get("priority", 0), r not in preempted, r))
        tokens = [arrivals[request]["prompt_tokens"] + output[request] for request in (later or order)[:1]]
        found.append(bound_of(header, step, splits, tokens, bool(loading)))
        for request, count in zip(step["requests"], step["sampled"], strict=True):
            output[request] += count
        ended |= {ending["request"] for ending in step.get("finished", ())}
        running -= ended
    return found


def bound_of(header: dict, step: dict, splits: bool, tokens: list[int], loads: bool) -> str:
    """The first line of the rule that is true; `tokens` are those of the next in line, empty where nobody is."""
    budget, computed = header.get("token_budget"), sum(step["computed"])
    pool, size, used = header.get("kv_blocks"), header.get("kv_block_tokens"), step.get("kv_used")
    knows_blocks = None not in (pool, size, used)
    if not step["waiting"]:
        return "nobody_waiting"
    if step["running"] >= header["slots"]:
        return "slots"
    if header["policy"] in ("static", "dynamic") and "D" in step["phases"]:
        return "policy"
    if step.get("preempted"):
        return "kv_blocks"
    if budget is not None and computed >= budget:
        return "token_budget"
    if not tokens:
        return "kv_loading" if loads else "unknown"
    if knows_blocks and pool - used < blocks_for(header, tokens[0]):
        return "kv_blocks"
    if budget is not None and "P" in step["phases"] and not splits and tokens[0] > budget - computed:
        return "token_budget"
    return "policy" if budget is not None and knows_blocks else "unknown"


def blocks_for(header: dict, tokens: int) -> int:
    """Blocks that so many tokens take, in all groups together."""
    size = header["kv_block_tokens"]
    total = 0
    for group in header.get("kv_groups", [{}]):
        each = group.get("block_tokens", size)
        most = (group["window"] - 2 + header["token_budget"] + each) // each + 1 if "window" in group else tokens
        total += min((tokens + each - 1) // each, most)
    return total
