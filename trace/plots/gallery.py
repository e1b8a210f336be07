"""All figures by name, and which of them some runs can give."""

from collections.abc import Callable, Sequence

from matplotlib.figure import Figure
from tracereel.trace.analysis.compare import Group
from tracereel.trace.analysis.model_words import named_model
from tracereel.trace.plots import batches, runs
from tracereel.trace.plots.bounds import bounds
from tracereel.trace.plots.names import NAMES
from tracereel.trace.plots.style import Theme, footnote

_DRAWN = (runs.slots, runs.tokens, runs.latency, runs.queue, bounds, batches.batch, batches.steps)
FIGURES: dict[str, Callable[[Sequence[Group], Theme], Figure]] = dict(zip(NAMES, _DRAWN, strict=True))


class NoFigureError(Exception):
    """The runs cannot give a figure; the message is one line."""


def missing(name: str, groups: Sequence[Group]) -> str | None:
    """What the runs lack for a figure, or None."""
    traces = [trace for group in groups for trace in group.traces]
    if empty := next((trace for trace in traces if not trace.steps.first_token[-1]), None):
        return f"{empty.path} holds no output token"
    if name == "steps" and not batches.measures_steps(groups):
        return f"no run has {batches.FEWEST_STEPS} steps that decode the same number of sequences and nothing else"
    if name == "batch" and len(batches.slot_counts(groups)) < 2:
        return "it needs runs with different numbers of slots, such as those of `tracereel record --suite sweep`"
    return None


def draw(name: str, groups: Sequence[Group], theme: Theme) -> Figure:
    """Draw a figure, within `style.themed`. Raises NoFigureError where the runs do not have what it needs."""
    if fault := missing(name, groups):
        raise NoFigureError(f"{name}: {fault}")
    groups = batches.in_order(groups)
    figure = FIGURES[name](groups, theme)
    header = groups[0].traces[0].header
    count = header.device.threads
    threads = f", {count} thread{'s' if count > 1 else ''}" if count else ""
    model = f"{named_model(header.model)}, {header.model.weights} weights"
    traces = [trace for group in groups for trace in group.traces]
    digests = sorted(trace.name for trace in traces)
    seen = ", ".join(digests[:3]) + (f" and {len(digests) - 3} more" if len(digests) > 3 else "")
    workload = f"{header.workload.name}, {header.workload.arrivals}" if header.workload.arrivals else ""
    made_of = f"{'trace' if len(digests) == 1 else 'traces'} {seen}"
    said = f"{model} · {header.device.name}{threads} · {workload or header.workload.name} · {made_of}"
    footnote(figure, said, [f"{trace.name}: {caveat}" for trace in traces for caveat in trace.caveats], theme)
    return figure
