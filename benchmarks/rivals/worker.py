"""One engine in a process of its own: reads jobs, a JSON object a line, answers each with a line that begins with @@.

A job is {"prompts": [[token id, ...], ...], "lengths": [...], "due_s": [...]}: prompt i is submitted `due_s[i]` seconds
after the start and gets exactly `lengths[i]` output tokens, greedy. The answer says, in seconds from the start, when
each request had its first and its last token. Engines are imported only by their own worker: python worker.py NAME
MODEL SLOTS.
"""

import importlib
import json
import sys
from collections.abc import Callable

Answer = dict[str, list[float]]
Run = Callable[[list[list[int]], list[int], list[float]], Answer]


def main() -> None:
    name, model, slots = sys.argv[1:]
    run: Run = importlib.import_module(f"run_{name}").start(model, int(slots))
    print("@@ ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        answer = run(job["prompts"], job["lengths"], job["due_s"])
        print("@@", json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
