"""An engine adapter: records an engine that knows nothing of tracereel, without a change to it.

    python examples/engine_adapter.py run.jsonl
    tracereel check --strict run.jsonl

`ToyEngine` stands for somebody else's engine. `attach` wraps two of its methods, reports what went in and out to a
`Journal`, which gives requests their numbers and slots, and hands the records to a `Recorder`. An adapter imports the
engine and `tracereel.trace`, and of `tracereel.engine` nothing but `adapters.journal`.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tracereel.engine.adapters.journal import Journal, Member, Moment
from tracereel.trace import SCHEMA_VERSION, Recorder
from tracereel.trace.format.events import DeviceInfo, EngineInfo, Header, ModelInfo, WorkloadInfo
from tracereel.trace.format.recorder import start_clock


class ToyEngine:
    """Two requests at a time; a token of its answer is the length of what it has so far."""

    max_batch = 2

    def __init__(self) -> None:
        self.queue: list[str] = []
        self.batch: list[str] = []
        self.tokens: dict[str, list[int]] = {}
        self.wanted: dict[str, int] = {}
        self.prompts: dict[str, int] = {}

    def submit(self, name: str, prompt: list[int], wanted: int) -> None:
        """Put a request into the queue."""
        self.queue.append(name)
        self.tokens[name], self.wanted[name], self.prompts[name] = list(prompt), wanted, len(prompt)

    def step(self) -> dict[str, int]:
        """Compute one token for each request of the batch; returns them."""
        while self.queue and len(self.batch) < self.max_batch:
            self.batch.append(self.queue.pop(0))
        new = {name: len(self.tokens[name]) for name in self.batch}
        for name, token in new.items():
            self.tokens[name].append(token)
        self.batch = [name for name in self.batch if self.done(name) < self.wanted[name]]
        return new

    def done(self, name: str) -> int:
        """Output tokens of a request so far."""
        return len(self.tokens[name]) - self.prompts[name]


@contextmanager
def attach(engine: ToyEngine, path: Path) -> Iterator[None]:
    """Record what the engine does inside the block. Raises RecordingError."""
    journal = Journal(engine.max_batch)
    submit, step = engine.submit, engine.step
    with Recorder(path, _header(engine)) as recorder:

        def recorded_submit(name: str, prompt: list[int], wanted: int) -> None:
            at_ns = recorder.now_ns()
            recorder.record(
                journal.arrive(
                    name,
                    id=name,
                    arrival_ns=at_ns,
                    submitted_ns=at_ns,
                    prompt_tokens=len(prompt),
                    max_tokens=wanted,
                )
            )
            submit(name, prompt, wanted)

        def recorded_step() -> dict[str, int]:
            had = {name: engine.done(name) for name in engine.tokens}
            start_ns = recorder.now_ns()
            new = step()
            members = [
                Member(
                    name,
                    position=engine.prompts[name] + had[name] - 1 if had[name] else 0,
                    scheduled=1 if had[name] else engine.prompts[name],
                    tokens=[token],
                    reason="length" if engine.done(name) == engine.wanted[name] else None,
                )
                for name, token in new.items()
            ]
            recorder.record(journal.step(Moment(start_ns=start_ns, end_ns=recorder.now_ns()), members))
            return new

        engine.submit, engine.step = recorded_submit, recorded_step  # type: ignore[method-assign]
        try:
            yield
        finally:
            engine.submit, engine.step = submit, step  # type: ignore[method-assign]


def _header(engine: ToyEngine) -> Header:
    """What is known of the run; what is not known is left out."""
    return Header(
        schema=SCHEMA_VERSION,
        engine=EngineInfo(name="toy", version="1"),
        policy="continuous",
        slots=engine.max_batch,
        model=ModelInfo(name="toy", weights="random", dtype="int"),
        device=DeviceInfo(kind="cpu", name="a toy"),
        workload=WorkloadInfo(name="three questions"),
        clock=start_clock(),
    )


def main(path: Path) -> None:
    """Record three requests in two slots."""
    engine = ToyEngine()
    with attach(engine, path):
        for number, wanted in enumerate((3, 5, 2)):
            engine.submit(f"question-{number}", [1, 2, 3, 4], wanted)
        while engine.queue or engine.batch:
            engine.step()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
