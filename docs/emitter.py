"""A whole trace from Python's standard library alone: copy the class into your engine and call it.

`python emitter.py run.jsonl` writes the trace of a toy that answers two requests.
"""

import hashlib
import json
import sys
import time


class Emitter:
    """Writes the records of one run, one JSON object a line, and at the end their counts and their SHA-256."""

    def __init__(self, path: str, **header: object):
        self.file, self.digest = open(path, "wb"), hashlib.sha256()  # noqa: SIM115
        self.zero, self.requests, self.steps, self.tokens = time.monotonic_ns(), 0, 0, 0
        clock = {"monotonic_ns": self.zero, "wall_ns": time.time_ns()}
        self.write({"event": "header", "schema": 1, **header, "clock": clock})

    def now(self) -> int:
        """Nanoseconds since the zero that the header names."""
        return time.monotonic_ns() - self.zero

    def write(self, record: dict) -> None:
        """One record, one line."""
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        self.digest.update(line)
        self.file.write(line)

    def arrival(self, **fields: object) -> int:
        """A request arrived; returns its number, which every later record uses."""
        self.requests += 1
        self.write({"event": "arrival", "request": self.requests - 1, **fields})
        return self.requests - 1

    def step(self, **fields: object) -> None:
        """One schedule and one forward pass."""
        self.write({"event": "step", "index": self.steps, **fields})
        self.steps, self.tokens = self.steps + 1, self.tokens + sum(fields["sampled"])

    def close(self) -> None:
        """The end record: without it the file is known to be cut."""
        counts = {"requests": self.requests, "steps": self.steps, "output_tokens": self.tokens}
        self.write({"event": "end", "at_ns": self.now(), **counts, "digest": self.digest.hexdigest()})
        self.file.close()


def main(path: str) -> None:
    """A toy with one slot: a prompt of four tokens, an answer of three, request after request."""
    trace = Emitter(
        path,
        engine={"name": "toy", "version": "1"},
        policy="continuous",
        slots=1,
        model={"name": "toy", "weights": "random", "dtype": "fp32"},
        device={"kind": "cpu", "name": "a toy"},
        workload={"name": "two questions"},
    )
    queue = [trace.arrival(id=f"question-{i}", arrival_ns=0, submitted_ns=trace.now(), prompt_tokens=4) for i in (0, 1)]
    while queue:
        request = queue.pop(0)
        for had, text in enumerate(("one ", "two ", "three")):
            member = {"requests": [request], "slots": [0], "phases": "D" if had else "P"}
            member |= {"positions": [3 + had if had else 0], "computed": [1 if had else 4]}
            outcome = {"sampled": [1], "tokens": [had], "texts": [text], "waiting": len(queue), "running": 1}
            if had == 0:
                outcome["admitted"] = [{"request": request, "slot": 0}]
            if had == 2:
                outcome["finished"] = [{"request": request, "reason": "length"}]
            trace.step(start_ns=trace.now(), end_ns=trace.now(), **member, **outcome)
    trace.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python emitter.py TRACE.jsonl")
    main(sys.argv[1])
