"""What a run's header says: engine, model, device, and where the trace comes from."""

import datetime

from tracereel.trace.analysis.model_words import named_model
from tracereel.trace.analysis.query import Answer, Run, query


@query
def header(run: Run, *, field: str) -> Answer:
    """A field of the header by its path, such as `device.name`."""
    value: object = run.trace.header
    for name in field.split("."):
        value = getattr(value, name)
    if not isinstance(value, int | float | str):
        raise ValueError(f"header.{field} is absent")
    return value, (1, 1)


@query
def digest(run: Run) -> Answer:
    """The first 12 digits of the trace's digest."""
    return run.trace.name, (1, 1)


@query
def recorded_on(run: Run) -> Answer:
    """The day (UTC) of the recording."""
    moment = datetime.datetime.fromtimestamp(run.trace.header.clock.wall_ns / 1e9, tz=datetime.UTC)
    return moment.date().isoformat(), (1, 1)


@query
def device(run: Run) -> Answer:
    """The device by its own name, and its threads where it is a processor."""
    info = run.trace.header.device
    name = " ".join(info.name.replace("(R)", "").replace("(TM)", "").split())
    threads = f"{info.threads} thread{'s' if info.threads != 1 else ''}"
    return (f"{name}, {threads}" if info.threads else name), (1, 1)


@query
def model(run: Run) -> Answer:
    """The model's name, its dtype, whether it was dequantised, and a word where its weights are not real."""
    info = run.trace.header.model
    return named_model(info) + ("" if info.weights == "real" else " · random weights"), (1, 1)


@query
def engine(run: Run) -> Answer:
    """The engine's name and version."""
    info = run.trace.header.engine
    return f"{info.name} {info.version}", (1, 1)


@query
def replica(run: Run, *, index: int) -> Answer:
    """The number of a merged trace's replica."""
    return run.trace.header.replicas[index].replica, (1, 1)


@query
def policy(run: Run) -> Answer:
    """How the engine batched, in its own word."""
    return run.trace.header.policy, (1, 1)


@query
def record_command(run: Run) -> Answer:
    """The command that records a run's suite again on such a device.

    Raises ValueError where the run is of no suite of this project's engine.
    """
    header = run.trace.header
    if header.run is None or header.engine.name != "tracereel":
        raise ValueError("the run was not recorded by a suite of tracereel")
    # A device's recordings stand under the name of the suite whose film they are, whichever suite has its sizes.
    suite = "film-gpu" if header.run.suite == "film" and header.device.kind == "cuda" else header.run.suite
    model = f" --model random:{header.model.name}" if header.model.weights == "random" else ""
    return f"tracereel record --suite {suite}{model}", (1, 1)


@query
def provenance(*runs: Run) -> Answer:
    """Where runs come from, in words: engine, model, device, workload, and each trace's digest."""
    first = runs[0]
    facts = [
        engine(first)[0],
        model(first)[0],
        device(first)[0],
        first.trace.header.workload.name,
        *sorted(run.trace.name for run in runs),
    ]
    return "; ".join(map(str, facts)), (1, 1)
