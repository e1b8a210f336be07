"""A scene of your own: one bar for each slot; a bar is lit while a request holds the slot.

    manim -pql examples/scene.py

docs/scenes.md explains it.
"""

from tracereel.film.beat import Beat, Caption
from tracereel.film.clock import Script
from tracereel.film.phrases import figure
from tracereel.film.registry import scene
from tracereel.film.theme import DECODE, FIGURE, PANEL, TEXT
from tracereel.scenes.film_scene import FilmScene


@scene("running", words={"en": {"name": "Running", "slots": "A bar is a slot; a running request has one."}})
def running(show):
    run = show.run(show.recordings.preferred("continuous"))
    timeline, slots = run.timeline, run.trace.header.slots
    clock = Script(timeline.begin_ns).run(timeline.end_ns, 6.0).hold(1.0).clock()
    number, bars = show.stage.content.shares([1, 5], 12)

    def picture(canvas, film_s):
        t_ns = clock.engine_ns(film_s)
        state = timeline.at(t_ns)
        for i, box in enumerate(bars.columns([1] * slots, 4)):
            canvas.card(*box.sides, DECODE if i < state.num_running else PANEL)
        canvas.text(figure(run.measure("running", t_ns=t_ns)), number.x, number.bottom - 24, FIGURE, TEXT)

    captions = (Caption(0.0, show.say.say("running.slots")),)
    return Beat("running", show.say.say("running.name"), captions, clock, (run,), picture)


class Running(FilmScene):
    name = "running"
