"""KV cache paging: the pool of blocks as it was: taken, shared and returned; lost in a preemption, and computed again.

What the viewer should understand: the memory of a running request is not one piece but a list of blocks, and that list
is what makes room for more requests. Beat one: a request reads its prompt and takes blocks from the pool, a few tokens
each; its block table says where they are. Beat two: the next request begins with the same text, and its table points to
the very same blocks; they light up in both colours and are computed once. Beat three: a request that has finished gives
its blocks back, but not those that others still use. Beat four: every block is held, one more is needed, and a request
loses its slot and its blocks and waits again. Beat five: it is back; what still lay in the pool is taken as it is, the
rest is computed a second time. At the end what sharing saved, against the same requests without it.
"""

from collections.abc import Collection

import numpy as np
from tracereel.film.beat import Beat, Caption
from tracereel.film.beats.stretch import require_all_slots, shown_stretch
from tracereel.film.canvas import Canvas
from tracereel.film.clock import Script, ease
from tracereel.film.colours import RequestColours
from tracereel.film.components.block_looks import paint_free, paint_freed, paint_reserved
from tracereel.film.components.block_pool import BlockPool
from tracereel.film.lettering import width
from tracereel.film.phrases import Phrase, figure, quote
from tracereel.film.registry import FULL_LENGTH, scene
from tracereel.film.show import Show
from tracereel.film.stage import Box, Shape, Spot
from tracereel.film.theme import DIM, HEADED, HEADING, OVER_PANEL, REQUESTS, SMALL, STRONG, TEXT, Colour
from tracereel.trace.analysis.comparable import require_comparable
from tracereel.trace.analysis.moments import Eviction, Release, Sharing, first_eviction, first_release, first_sharing
from tracereel.trace.analysis.queries import Run
from tracereel.trace.format.storage import TraceError

SUITE = "paging"
_MARK_S = 0.4
_LEGEND, _LEGEND_GAP, _OVER_LEGEND = 36.0, 14.0, 24.0
"""What a row of the legend takes, what is between two of its entries, and what is free above it in a wide frame."""
_TO_WORDS = 36.0
"""From the left edge of a look in the legend to its words."""
_WAITING, _OVER_WAITING, _WAITING_NARROW = 48.0, 28.0, 46.0
"""How high the waiting queue is, and what is free above it, in a wide frame; how high it is in another one."""
_HEADED_NARROW = 44.0
"""What the pool's heading takes above it in a frame that is not wide."""
_AROUND_TABLES = {Shape.TALL: (92.0, 40.0), Shape.SQUARE: (68.0, 14.0)}
"""What is above the tables, their heading in it, and below them."""


def stretch_of_the_blocks(show: Show) -> Beat:
    """The beat of the stretch that the settings ask for. Raises WindowError where it cannot be shown, TraceError."""
    require_all_slots(show, "kv_cache_paging")
    shown = shown_stretch(show, "prefix-caching", suite=SUITE)
    run, say, clock = shown.run, show.say.say, shown.clock
    _require_blocks(run)
    held = figure(run.measure("kv_used", t_ns=shown.stretch.to_ns), ",d")
    counted = say("kv_cache_paging.stretch_sum", **shown.counted, used=held)
    picture = PagingPicture(run, show, RequestColours([run.trace]))

    def paint(canvas: Canvas, film_s: float) -> None:
        picture.paint(canvas, clock.engine_ns(film_s))

    captions = shown.captions(shown.name, counted)
    name, still_s = say("kv_cache_paging.name"), shown.runs_s + 1
    return Beat("kv_cache_paging", name, captions, clock, (run,), paint, still_s=still_s)


def _require_blocks(run: Run) -> None:
    if not run.trace.header.kv_blocks or not (len(run.trace.grants.block) or len(run.trace.group_grants.block)):
        raise TraceError(run.trace.path, "does not say which KV blocks its requests held")


@scene("kv_cache_paging", suite=SUITE, order=90, films=(FULL_LENGTH,), stretch=stretch_of_the_blocks)
def kv_cache_paging(show: Show) -> Beat:
    """The beat of the run with prefix caching, and the one without where it is there.

    Raises TraceError where the recording does not say its KV blocks.
    """
    return Storyboard(show).beat()


class PagingPicture:
    """Draws the pool, the block tables and the waiting queue at an engine time."""

    def __init__(self, run: Run, show: Show, colours: RequestColours):
        self.run, self.stage, self.say = run, show.stage, show.say.say
        self.pool = BlockPool(run, show.say, colours)

    def places(self) -> tuple[Box, Box, Box]:
        """Where pool, tables and waiting queue stand, below a heading each."""
        content, shape = self.stage.content, self.stage.shape
        if shape is Shape.WIDE:
            left, right = content.columns((44, 56), 64)
            legend = _LEGEND * len(self._legend_rows(left.w))
            pool = Box(left.x, left.y + HEADED, left.w, left.h - HEADED - _OVER_LEGEND - legend)
            tables = Box(right.x, right.y + HEADED, right.w, right.h - HEADED - _WAITING - _OVER_WAITING)
            waiting = Box(right.x, right.bottom - _WAITING, right.w, _WAITING)
            return pool, tables, waiting
        high = 0.43 if shape is Shape.TALL else 0.37
        if self.pool.groups is not None:
            high -= 0.12  # for the tables, of which each request has several
        pool = Box(content.x, content.y + _HEADED_NARROW, content.w, content.h * high - _HEADED_NARROW)
        legend = _LEGEND * len(self._legend_rows(content.w))
        over, under = _AROUND_TABLES[shape]
        top = pool.bottom + over + legend
        waiting = Box(content.x, content.bottom - _WAITING_NARROW, content.w, _WAITING_NARROW)
        tables = Box(content.x, top, content.w, waiting.y - under - top)
        return pool, tables, waiting

    def where(self, request: int, now_ns: int) -> list[Spot]:
        """The row of a request among the tables, or its place in the queue."""
        _, tables, waiting = self.places()
        return [
            *self.pool.tables_where(request, tables, now_ns),
            *self.pool.waiting_where(request, waiting, now_ns),
        ]

    def paint(self, canvas: Canvas, now_ns: int, marked: Collection[int] = (), lit: float = 0.0) -> None:
        """Draw pool, tables and queue at an engine time, some blocks pointed at."""
        run, say = self.run, self.say
        pool, tables, waiting = self.places()
        wide = canvas.text(say("kv_cache_paging.pool_head"), pool.x, pool.y - OVER_PANEL, HEADING, TEXT)
        held = say(
            "kv_cache_paging.held_of",
            used=figure(run.measure("kv_used", t_ns=now_ns), ",d"),
            blocks=figure(run.measure("header", field="kv_blocks"), ",d"),
        )
        canvas.text(held, pool.right, pool.y - OVER_PANEL, STRONG, TEXT, align=1)
        if self.pool.blocks < (run.trace.header.kv_blocks or 0):
            count = figure(run.measure("blocks_beyond", shown=self.pool.blocks), ",d")
            canvas.text(
                say("kv_cache_paging.more_blocks", count=count), pool.x + wide + 20, pool.y - OVER_PANEL, SMALL, DIM
            )
        self.pool.paint_pool(canvas, pool, now_ns, marked, lit)
        self._legend(canvas, Box(pool.x, pool.bottom + _LEGEND_GAP, pool.w, 34))
        canvas.text(say("kv_cache_paging.tables_head"), tables.x, tables.y - OVER_PANEL, HEADING, TEXT)
        slots = run.trace.header.slots
        shown = len(self.pool.rows_of(tables))
        if shown < slots:
            more = say("kv_cache_paging.more_tables", count=figure(run.measure("slots_beyond", shown=shown)))
            canvas.text(more, tables.right, tables.y - OVER_PANEL, SMALL, DIM, align=1)
        self.pool.paint_tables(canvas, tables, now_ns, marked, lit)
        self.pool.paint_waiting(canvas, waiting, now_ns)

    def _legend_rows(self, room: float) -> list[list[tuple[str, float]]]:
        """What the looks of a block are called, in rows no wider than the room: each key with its place in its row."""
        caches = bool(self.run.measure("caches_prefixes").value)
        rows: list[list[tuple[str, float]]] = [[]]
        x = 0.0
        early = ("freed",) if self.run.trace.header.kv_groups else ()
        for key in ("held", "reserved", "shared", *early, "kept" if caches else "was_held", "free"):
            wide = _TO_WORDS + width(self.say(f"kv_cache_paging.{key}").text, SMALL)
            if rows[-1] and x + wide > room:
                rows.append([])
                x = 0.0
            rows[-1].append((key, x))
            x += wide + _LEGEND_GAP
        return rows

    def _legend(self, canvas: Canvas, box: Box) -> None:
        """What the looks of a block mean."""
        one, other = REQUESTS[:2]
        looks: dict[str, tuple[Colour, ...]] = {"held": (one,), "shared": (one, other)}
        for i, row in enumerate(self._legend_rows(box.w)):
            for key, x in row:
                swatch = Box(box.x + x, box.y + 6 + _LEGEND * i, 28, 24)
                if key == "freed":
                    paint_freed(canvas, swatch, one)
                elif key == "reserved":
                    paint_reserved(canvas, swatch, one, 0.4)
                elif key not in looks:
                    paint_free(canvas, swatch, None if key == "free" else one)
                for band, colour in zip(swatch.rows(2 if key == "shared" else 1, 0), looks.get(key, ()), strict=False):
                    canvas.box(*band.sides, colour)
                canvas.text(self.say(f"kv_cache_paging.{key}"), swatch.x + _TO_WORDS, swatch.y + 21, SMALL, DIM)


class Storyboard:
    """The clock, the captions, and what is drawn when."""

    def __init__(self, show: Show):
        self.say = show.say.say
        recordings = show.recordings_of(SUITE)
        case = recordings.preferred("prefix-caching")
        self.run = run = show.run(case, SUITE)
        _require_blocks(run)
        self.plain = show.run("no-prefix-caching", SUITE) if recordings.has("no-prefix-caching") else None
        if self.plain is not None:
            require_comparable([run.trace, self.plain.trace], across=("config.enable_prefix_caching",))
        self.picture = PagingPicture(run, show, show.colours(SUITE))
        self.sharing, self.eviction = first_sharing(run.timeline), first_eviction(run.timeline)
        self.captions: list[Caption] = []
        self.marks: list[tuple[float, float, tuple[int, ...]]] = []
        self._write_script()

    def _before(self, at_ns: int) -> int:
        """The end of the last step that has ended by then; the run's begin where none has."""
        ended = self.run.timeline.steps_ended(at_ns)
        return int(self.run.trace.steps.end_ns[ended - 1]) if ended else self.run.timeline.begin_ns

    def _within(self, at_ns: int) -> int:
        """The middle of the step that starts then."""
        step = max(self.run.timeline.steps_started(at_ns) - 1, 0)
        return (at_ns + int(self.run.trace.steps.end_ns[step])) // 2

    def _caption(self, script: Script, key: str, **phrases: Phrase) -> None:
        """Say something, once what was said before has been read: the film waits for it."""
        if self.captions and self._unread_s(script) > 0:
            script.hold(self._unread_s(script))
        self.captions.append(Caption(script.film_s, self.say(f"kv_cache_paging.{key}", **phrases)))

    def _unread_s(self, script: Script) -> float:
        """For how long the last caption has to stay on until it has been read."""
        return self.captions[-1].read_s - script.film_s

    def _name(self, request: int) -> Phrase:
        return quote(self.run.measure("request_name", request=request))

    def _write_script(self) -> None:
        run, steps = self.run, self.run.trace.steps
        script = Script(run.timeline.begin_ns)
        blocks = figure(run.measure("header", field="kv_blocks"), ",d")
        if run.trace.header.kv_groups:
            self._caption(script, "pool_of_groups", blocks=blocks, groups=figure(run.measure("kv_groups")))
        else:
            self._caption(script, "pool", blocks=blocks, tokens=figure(run.measure("header", field="kv_block_tokens")))
        first = int(steps.end_ns[0])
        until_ns = min(first, self._before(self.sharing.at_ns)) if self.sharing else first
        script.run(until_ns, max(2.8, self._unread_s(script)))
        if self.sharing:
            self._share(script, self.sharing)
        ended = next((at for at in run.timeline.ended_times if at > script.at_ns), None)
        if ended is not None and (self.eviction is None or ended < self.eviction.at_ns):
            script.run(ended, 2.0)
            request = run.timeline.ended_order[run.timeline.ended_times.index(ended)]
            self._caption(script, "returned", request=self._name(request))
            script.hold(2.3)
        release = first_release(run.timeline, script.at_ns)
        if release and (self.eviction is None or release.at_ns < self.eviction.at_ns):
            self._free(script, release)
        if self.eviction:
            self._evict(script, self.eviction)
        # Not to the very end, where all that is left to see is an empty pool.
        full = int(np.flatnonzero(steps.running == steps.running.max())[-1])
        if self.plain:
            self._caption(
                script,
                "verdict",
                shared=figure(run.measure("prefill_tokens"), ",d"),
                plain=figure(self.plain.measure("prefill_tokens"), ",d"),
            )
        script.run(int(steps.end_ns[full]), max(2.2, self._unread_s(script) - 1.9)).hold(1.9)
        self.clock = script.clock()

    def _share(self, script: Script, sharing: Sharing) -> None:
        run = self.run
        script.run(self._within(sharing.at_ns), 0.6)
        self._caption(
            script,
            "shares",
            second=self._name(sharing.request),
            first=self._name(sharing.owner),
            tokens=figure(run.measure("cached_tokens", request=sharing.request, t_ns=sharing.at_ns)),
            blocks=figure(run.measure("shared_blocks", request=sharing.request, t_ns=sharing.at_ns)),
        )
        self.marks.append((script.film_s, script.film_s + 3.2, sharing.blocks))
        self.still_s = script.film_s + 1.5
        script.hold(3.2)

    def _free(self, script: Script, release: Release) -> None:
        script.run(self._within(release.at_ns), 1.4)
        freed = self.run.measure("blocks_freed_early", request=release.request, t_ns=release.at_ns)
        self._caption(script, "frees", request=self._name(release.request), blocks=figure(freed))
        script.hold(2.4)

    def _evict(self, script: Script, eviction: Eviction) -> None:
        run, at_ns = self.run, eviction.at_ns
        full_ns = self._before(at_ns)
        script.run(full_ns, 2.6)
        lost = run.timeline.at(full_ns).blocks_of(eviction.request)
        used = figure(run.measure("kv_used", t_ns=full_ns), ",d")
        blocks = figure(run.measure("header", field="kv_blocks"), ",d")
        # That one more block is needed follows where all are held.
        key = "preempted" if used.text == blocks.text and not run.trace.header.kv_groups else "held_when_preempted"
        self._caption(script, key, used=used, blocks=blocks, request=self._name(eviction.request))
        self.marks.append((script.film_s, script.film_s + 2.0, lost))
        # What is said is so until the blocks are gone: read by then, and no longer said.
        script.hold(max(2.0, self._unread_s(script)))
        self._caption(script, "out", request=self._name(eviction.request))
        script.run(self._within(at_ns), 0.5).hold(0.4)
        if eviction.back_ns is None:
            return
        script.run(self._within(eviction.back_ns), max(2.6, self._unread_s(script)))
        again = figure(run.measure("recomputed_tokens", request=eviction.request, t_ns=eviction.back_ns))
        cached = figure(run.measure("cached_tokens", request=eviction.request, t_ns=eviction.back_ns))
        self._caption(script, "back", request=self._name(eviction.request), cached=cached, again=again)
        tokens = int(run.measure("cached_tokens", request=eviction.request, t_ns=eviction.back_ns).value)
        found = self.picture.pool.first_blocks(eviction.request, eviction.back_ns, tokens)
        self.marks.append((script.film_s, script.film_s + 2.4, found))
        script.hold(2.4)
        step = run.timeline.steps_started(eviction.back_ns)
        script.run(int(run.trace.steps.end_ns[min(step, len(run.trace.steps) - 1)]), max(0.6, self._unread_s(script)))

    def paint(self, canvas: Canvas, film_s: float) -> None:
        """Draw pool, tables and queue at a second of film."""
        self.picture.paint(canvas, self.clock.engine_ns(film_s), *self._mark(film_s))

    def where(self, run: Run, request: int, film_s: float) -> list[Spot]:
        """Where a request of the run that is shown stands."""
        return self.picture.where(request, self.clock.engine_ns(film_s)) if run is self.run else []

    def _mark(self, film_s: float) -> tuple[tuple[int, ...], float]:
        """The blocks that are pointed at, and how strongly."""
        for from_s, until_s, blocks in self.marks:
            if from_s <= film_s < until_s:
                return blocks, min(ease((film_s - from_s) / _MARK_S), ease((until_s - film_s) / _MARK_S))
        return (), 0.0

    def beat(self) -> Beat:
        """The beat."""
        runs = (self.run, self.plain) if self.plain else (self.run,)
        name = self.say("kv_cache_paging.name")
        still_s = self.still_s if self.sharing else None
        told = tuple(self.captions), self.clock, runs
        return Beat("kv_cache_paging", name, *told, self.paint, still_s=still_s, where=self.where)
