"""A metric: the share of computed tokens that were prompt tokens, in `tracereel inspect` and in a scene of its own.

    manim -pql examples/metric_on_screen.py

`register` adds a metric of a whole run; `query` adds a question about an instant. Both give numbers that the ledger
keeps by name; `tracereel verify --scene metric_on_screen.py` asks again.
"""

from tracereel.film.beat import Beat, Caption
from tracereel.film.canvas import Canvas
from tracereel.film.clock import Script
from tracereel.film.phrases import figure
from tracereel.film.registry import scene
from tracereel.film.show import Show
from tracereel.film.theme import FIGURE, PANEL, PREFILL, TEXT
from tracereel.scenes.film_scene import FilmScene
from tracereel.trace.analysis.metrics import Metrics
from tracereel.trace.analysis.queries import Answer, Run, lines_so_far, query
from tracereel.trace.analysis.registry import Metric, register
from tracereel.trace.state.columns import Trace


def share_of_prefill(trace: Trace, steps: int) -> float | None:
    """Prompt tokens / all tokens computed in the first so many steps (0 to 1); None before the first step."""
    members = slice(0, int(trace.steps.first_member[steps]))
    computed, decodes = trace.steps.member_computed[members], trace.steps.member_decode[members]
    total = int(computed.sum())
    return int(computed[~decodes].sum()) / total if total else None


def _of_run(metrics: Metrics) -> float | None:
    return share_of_prefill(metrics.trace, len(metrics.trace.steps))


register(Metric("prefill_share", "prefill share", "", "prompt tokens computed / all tokens computed", of=_of_run))


@query
def prefill_share_so_far(run: Run, *, t_ns: int) -> Answer:
    """The share at engine time t, of the steps that have started; 0 before the first."""
    share = share_of_prefill(run.trace, run.timeline.steps_started(t_ns))
    return 100 * (share or 0.0), lines_so_far(run, t_ns)


WORDS = {
    "en": {
        "name": "Where the computed tokens go",
        "share": "{percent} % of the computed tokens were prompt tokens",
        "said": "Prefill computes a prompt; decode computes one token for each answer.",
    }
}


@scene("metric_on_screen", words=WORDS)
def metric_on_screen(show: Show) -> Beat:
    """A bar that is as long as the share, with the number above it. Raises TraceError without recordings."""
    run = show.run(show.recordings.preferred("continuous"))
    timeline, content, say = run.timeline, show.stage.content, show.say.say
    clock = Script(timeline.begin_ns).run(timeline.end_ns, 6.0).hold(1.0).clock()

    def picture(canvas: Canvas, film_s: float) -> None:
        share = run.measure("prefill_share_so_far", t_ns=clock.engine_ns(film_s))
        top = content.y + content.h / 2
        canvas.card(content.x, top, content.w, 60, PANEL)
        canvas.card(content.x, top, max(content.w * float(share.value) / 100, 24), 60, PREFILL)
        said = say("metric_on_screen.share", percent=figure(share, ".1f"))
        canvas.text(said, content.x, top - 40, FIGURE, TEXT, room=content.w)

    captions = (Caption(0.0, say("metric_on_screen.said")),)
    return Beat("metric_on_screen", say("metric_on_screen.name"), captions, clock, (run,), picture)


class MetricOnScreen(FilmScene):
    """The scene as `manim` finds it."""

    name = "metric_on_screen"
