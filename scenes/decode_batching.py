"""Decode batching: slots against time, a token a cell, and what a freed slot is worth.

What the viewer should understand: a batch is a table whose rows are slots and whose columns are steps. Beat one: close
up, each step writes one token in every row. Beat two: a request ends; its row is not lost, in the very next step it
belongs to somebody else. Beat three: from afar, the same requests in static batches beside it on the same clock, where
rows stay empty until the longest member of the batch has ended; the empty slot-steps of both are counted.
"""

from tracereel.scenes.clock import Script, ease
from tracereel.scenes.components.canvas import Canvas
from tracereel.scenes.components.lettering import wrap
from tracereel.scenes.components.slot_grid import SlotGrid, View, first_handover
from tracereel.scenes.phrases import figure, quote
from tracereel.scenes.reel import ReelScene
from tracereel.scenes.stage import Box, Caption, Chrome
from tracereel.scenes.theme import BODY, CONTINUOUS, DIM, HEADING, IDLE_SLOT, SMALL_STRONG, STATIC, TEXT
from tracereel.trace.measured import Run

PULL_S = 2.2
_CLOSE_STEPS = {True: 13, False: 7}
"""Steps in view close up, in a wide frame and in others."""
_MOST_LINES = 4


def decode_batching(reel: ReelScene) -> None:
    """Tell the beat with the continuous run and the static run of the same requests."""
    _Beat(reel).play()


class _Beat:
    """One telling: the clock, the views, and what is drawn when."""

    def __init__(self, reel: ReelScene):
        self.reel, self.stage, self.say = reel, reel.stage, reel.say.say
        self.run, self.static = reel.run("continuous"), reel.run("static")
        self.grids = SlotGrid(self.run, reel.say), SlotGrid(self.static, reel.say)
        steps = self.run.trace.steps
        self.handover = first_handover(self.run, int(steps.end_ns[min(4, len(steps) - 1)]))
        self._write_script()
        whole = max(self.run.timeline.end_ns, self.static.timeline.end_ns)
        self.far = View(0, whole * 1.01)
        shown = steps.end_ns[: min(60, len(steps))] - steps.start_ns[: min(60, len(steps))]
        self.close_span = float(sorted(shown.tolist())[len(shown) // 2]) * _CLOSE_STEPS[self.stage.wide]

    def _write_script(self) -> None:
        steps = self.run.trace.steps
        last = len(steps) - 1
        script = Script()
        script.run(int(steps.end_ns[min(4, last)]), 5.5)
        self.step_s = 2.8
        handover = self.handover
        self.ends_s = self.retaken_s = script.film_s
        if handover is not None:
            script.run(max(handover.ended_ns - 30_000_000, 0), 3.2)
            self.ends_s = script.film_s
            script.run(handover.ended_ns, 0.9).hold(0.7)
            self.retaken_s = script.film_s
            script.run(int(steps.end_ns[handover.taken_step]), 1.6).hold(1.6)
            script.run(int(steps.end_ns[min(handover.taken_step + 4, last)]), 1.6)
        self.pull_s = script.film_s
        whole = max(self.run.timeline.end_ns, self.static.timeline.end_ns)
        script.run(script.clock().engine_ns(script.film_s) + whole // 40, PULL_S)
        self.same_s = script.film_s
        script.run(whole, 8.5)
        self.verdict_s = script.film_s
        script.hold(3.2)
        self.clock = script.clock()

    def _captions(self) -> tuple[Caption, ...]:
        say, run = self.say, self.run
        captions = [
            Caption(0.0, say("decode_batching.row", slots=figure(run.measure("slots")))),
            Caption(self.step_s, say("decode_batching.step")),
        ]
        if self.handover is not None:
            left, came = (
                quote(run.measure("request_name", request=request))
                for request in (self.handover.left, self.handover.came)
            )
            captions.append(Caption(self.ends_s, say("decode_batching.ends", first=left)))
            captions.append(Caption(self.retaken_s, say("decode_batching.retaken", first=left, second=came)))
        end = max(self.run.timeline.end_ns, self.static.timeline.end_ns)
        captions += [
            Caption(self.pull_s, say("decode_batching.same")),
            Caption(self.same_s + 1.8, say("decode_batching.static_is")),
            Caption(
                self.verdict_s,
                say(
                    "decode_batching.verdict",
                    static=figure(self.static.measure("idle_slot_steps", t_ns=end), ",d"),
                    continuous=figure(self.run.measure("idle_slot_steps", t_ns=end), ",d"),
                ),
            ),
        ]
        return tuple(captions)

    def play(self) -> None:
        """Play it."""
        reel = self.reel
        runs = (self.run, self.static)
        chrome = Chrome(self.stage, reel.say, self.say("decode_batching.name"), self._captions(), self.clock, runs)

        def paint(canvas: Canvas, film_s: float) -> None:
            self.paint(canvas, film_s)
            chrome.paint(canvas, film_s)

        reel.replay(paint, self.clock.film_s, runs)

    def _view(self, now_ns: int, pulled: float) -> View:
        """Close up the newest steps, pulled back the whole of both runs."""
        close_to = max(self.close_span, now_ns + self.close_span * 0.12)
        close = View(close_to - self.close_span, close_to)
        return close if not pulled else close.towards(self.far, pulled)

    def paint(self, canvas: Canvas, film_s: float) -> None:
        """Draw the grids at a second of film."""
        now_ns = self.clock.engine_ns(film_s)
        pulled = ease((film_s - self.pull_s) / PULL_S)
        content = self.stage.content
        head = 62.0
        half = (content.h - 2 * head - 34) / 2
        above = Box(content.x, content.y + head, content.w, half)
        below = Box(content.x, above.bottom + 34 + head, content.w, half)
        full = Box(content.x, content.y + head, content.w, content.h - head)
        grid, static_grid = self.grids
        view = self._view(now_ns, pulled)
        if pulled:
            with canvas.faded(pulled):
                self._head(canvas, above, self.static, now_ns, "static")
                static_grid.paint(canvas, above, view, now_ns)
        box = full.towards(below, pulled)
        self._head(canvas, box, self.run, now_ns, "continuous")
        grid.paint(canvas, box, view, now_ns)
        self._done(canvas, below, view, now_ns)
        self._spotlight(canvas, box, view, film_s)

    def _head(self, canvas: Canvas, box: Box, run: Run, now_ns: int, key: str) -> None:
        say = self.say
        y = box.y - 20
        canvas.text(say(f"decode_batching.{key}"), box.x, y, HEADING, CONTINUOUS if key == "continuous" else STATIC)
        idle = say("decode_batching.idle", count=figure(run.measure("idle_slot_steps", t_ns=now_ns), ",d"))
        tokens = say("decode_batching.tokens", count=figure(run.measure("output_tokens", t_ns=now_ns), ",d"))
        wide = canvas.text(idle, box.right, y, SMALL_STRONG, DIM, align=1)
        canvas.box(box.right - wide - 34, y - 20, 22, 22, IDLE_SLOT)
        canvas.text(tokens, box.right - (390 if self.stage.wide else 350), y, SMALL_STRONG, TEXT, align=1)

    def _done(self, canvas: Canvas, box: Box, view: View, now_ns: int) -> None:
        """When the continuous run is through, say so beside it, where there is room."""
        end_ns = self.run.timeline.end_ns
        x = box.x + box.w * (end_ns - view.from_ns) / (view.to_ns - view.from_ns)
        phrase = self.say(
            "decode_batching.done",
            requests=figure(self.run.measure("num_requests")),
            seconds=figure(self.run.measure("engine_time_s", t_ns=end_ns), ".1f"),
        )
        shown = ease((now_ns - end_ns) / (0.02 * (view.to_ns - view.from_ns)))
        lines = wrap(phrase.text, BODY, max(box.right - x - 44, 1))
        if shown > 0 and len(lines) <= _MOST_LINES:
            top = box.y + box.h / 2 + 10 - (len(lines) - 1) * 21
            for i, line in enumerate(lines):
                canvas.text(phrase, x + 28, top + i * 42, BODY, TEXT, shown, part=line)

    def _spotlight(self, canvas: Canvas, box: Box, view: View, film_s: float) -> None:
        """A frame around the slot that is freed and retaken."""
        handover = self.handover
        if handover is None:
            return
        shown = min(ease((film_s - self.ends_s - 0.6) / 0.4), ease((self.pull_s - film_s) / 0.5))
        if shown <= 0:
            return
        steps = self.run.trace.steps
        before = handover.taken_step - 1
        seat = self.grids[0].seat_box(
            box, view, handover.slot, int(steps.start_ns[before]), int(steps.end_ns[handover.taken_step])
        )
        canvas.card(seat.x - 5, seat.y - 5, seat.w + 10, seat.h + 10, (1.0, 1.0, 1.0), shown, radius=10, outline=4)


class DecodeBatching(ReelScene):
    """Slots against time, alone."""

    def construct(self) -> None:
        """Tell it."""
        decode_batching(self)
