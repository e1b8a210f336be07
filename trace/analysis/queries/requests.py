"""One request: its name, its prompt, its output, and how far it has come."""

from tracereel.trace.analysis.query import Answer, Run, lines_of_steps, lines_so_far, query
from tracereel.trace.format.text import request_label


@query
def request_name(run: Run, *, request: int) -> Answer:
    """How a request is called on screen, see `request_label`."""
    return request_label(request), (run.trace.arrival_lines[request],) * 2


@query
def prompt(run: Run, *, request: int) -> Answer:
    """The text of a request's prompt, or its id where the trace does not hold the text."""
    arrival = run.trace.arrivals[request]
    return arrival.prompt if arrival.prompt is not None else arrival.id, (run.trace.arrival_lines[request],) * 2


@query
def output_text(run: Run, *, request: int, first: int, end: int) -> Answer:
    """The text of a request's output tokens from `first` up to but without `end`; empty where it is not known."""
    texts = run.trace.texts_of(request)
    steps = run.trace.steps.token_step[run.trace.tokens_of(request)[first:end]]
    lines = lines_of_steps(run, int(steps[0]), int(steps[-1]) + 1) if len(steps) else (1, 1)
    return ("" if texts is None else "".join(texts[first:end])), lines


@query
def request_output_tokens(run: Run, *, request: int, t_ns: int) -> Answer:
    """Output tokens of a request at engine time t."""
    return run.timeline.at(t_ns).output_tokens_of(request), lines_so_far(run, t_ns)


@query
def position(run: Run, *, request: int, t_ns: int) -> Answer:
    """Tokens of a running request whose KV is there at engine time t."""
    occupancy = run.timeline.at(t_ns).occupancy
    found = next((occupant for occupant in occupancy if occupant is not None and occupant.request == request), None)
    if found is None:
        raise ValueError(f"request {request} does not run at {t_ns} ns")
    return found.computed_tokens, lines_so_far(run, t_ns)


@query
def prompt_tokens(run: Run, *, request: int) -> Answer:
    """Tokens of a request's prompt."""
    return run.trace.arrivals[request].prompt_tokens, (run.trace.arrival_lines[request],) * 2


@query
def request_ttft_ms(run: Run, *, request: int) -> Answer:
    """A request's TTFT, in ms."""
    first = run.timeline.token_times_of(request)[0]
    return (first - run.trace.arrivals[request].arrival_ns) / 1e6, lines_so_far(run, first)
