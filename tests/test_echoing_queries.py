"""No query gives back what it is asked with: such a figure would say nothing of a run."""

import inspect
from pathlib import Path

import pytest
from drawing import SIZE, draw
from tracereel.film.colours import RequestColours
from tracereel.film.components.block_pool import BlockPool
from tracereel.film.phrases import Phrasebook
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.stage import Box
from tracereel.film.storyboards import storyboard
from tracereel.trace.analysis.comparable import NotComparableError
from tracereel.trace.analysis.queries import QUERIES, Run, slot_ranges
from tracereel.trace.export.merge import merge
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS

RECORDED = (
    *("film/cpu/continuous-1", "film/cpu/static-1", "paging/cpu/prefix-caching-1", "chunked/cpu/chunked-1"),
    "vllm-kinds/cpu/sliding-window",
)
PROBES = (0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 30, 31)
MANY = 3
"""An argument that comes back so often, and is different each time, comes back."""
MANY_SLOTS = Settings(recordings=Path(__file__).parent / "data" / "h100")
OTHERS = 4
FIXED = {
    "first": 2,
    "second": 3,
    "end": 9,
    "from_ns": 0,
    "first_slot": 0,
    "last_slot": 3,
    "percentile": 50,
    "film_s": 4.0,
    "engine_s": 2.5,
    "low": 20.0,
    "high": 900.0,
    "share": 0.25,
    "columns": 9,
    "column": 1,
    "row": 1,
    "nth": 1,
    "base": 1,
    "rows": 2,
    "shown": 1,
    "index": 0,
    "numerator": 1,
    "across": "",
    "metric": "itl",
    "part": "refilling_slots",
    "which": "0-1",
    "slots": 4,
    "before": 1,
    "after": 1,
    "until_ns": 2**40,
    "stage": "decode",
}


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    """The runs that a query may be asked of: none, one, and several."""
    merged = tmp_path_factory.mktemp("merged") / "run.jsonl"
    merge(sorted((PACKAGE_RECORDINGS / "replicas" / "cpu").glob("*.zst")), merged)
    runs = [Run.read(path) for path in (*(PACKAGE_RECORDINGS / f"{name}.jsonl.zst" for name in RECORDED), merged)]
    sweep = [Run.read(path) for path in sorted((PACKAGE_RECORDINGS / "sweep" / "cpu").glob("continuous-*-1.jsonl.zst"))]
    assert len(sweep) > 2
    return [[], *([run] for run in runs), runs[1::-1], sweep]


def numbers_of(function):
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.annotation in (int, float, "int", "float")]


def fixed(runs, wanted):
    """What the other arguments are: at several instants, of many requests where one is asked for."""
    end_ns = runs[0].timeline.end_ns if runs else 8
    requests = range(len(runs[0].trace.arrivals)) if runs and "request" in wanted else [0]
    for now_ns in (end_ns // 2, end_ns // 16, 3 * end_ns // 4, end_ns) if "t_ns" in wanted else (end_ns // 2,):
        for request in requests:
            yield {**FIXED, "t_ns": now_ns, "to_ns": now_ns, "request": request}


def probed(function, name, runs):
    """Which numbers a query answers in a place, and what: for up to so many values of its other arguments."""
    wanted = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    found = []
    for others in fixed(runs, wanted):
        answers = {}
        for probe in PROBES:
            number = others.get(name, 0) + probe if name.endswith("_ns") else probe
            args = {key: number if key == name else others[key] for key in wanted}
            try:
                answers[number] = function(*runs, **args)[0]
            except (ValueError, IndexError, TypeError, KeyError, ZeroDivisionError, NotComparableError):
                continue
        if answers:
            found.append(answers)
        if len(found) == OTHERS:
            break
    return found


def gives_back(function, name, groups):
    """Does a query give back that argument, whatever the runs and the other arguments are?"""
    answered = [answers for runs in groups for answers in probed(function, name, runs)]
    assert answered, f"{function.__name__}: no run answers; name its other arguments in FIXED"
    many = [answers for answers in answered if len(answers) >= MANY]
    return bool(many) and all(sum(value == number for number, value in found.items()) >= MANY for found in many)


@pytest.mark.slow
def test_no_query_gives_back_its_argument(groups):
    asked = [(query, name) for query, function in QUERIES.items() for name in numbers_of(function)]
    assert len(asked) > 50
    echoing = [f"{query}({name})" for query, name in asked if gives_back(QUERIES[query], name, groups)]
    assert not echoing


def test_a_query_that_does_is_found(groups):
    def shown_of_slots(run, *, shown: int):
        return min(run.trace.header.slots, shown), (1, 1)

    def marked(*, value: float):
        return value, (0, 0)

    assert gives_back(shown_of_slots, "shown", groups)
    assert gives_back(marked, "value", groups)


def test_slots_are_counted_of_those_that_the_run_has(groups):
    run = groups[1][0]
    slots = run.trace.header.slots
    assert run.measure("slots_drawn", which="0,2-3,3").value == 3
    assert run.measure("slots_drawn", which=slot_ranges(range(slots))).value == slots
    assert slot_ranges([5, 0, 1, 2, 7]) == "0-2,5,7"
    for wrong in ("", "x", "-1", f"0-{slots}", "3-1", "0,", "0-1-2", "0-999999999"):
        with pytest.raises(ValueError, match="slots"):
            run.measure("slots_drawn", which=wrong)


def figures_of(query, paint):
    _, phrases = draw(paint, SIZE)
    return [figure for phrase in phrases for figure in phrase.figures if figure.source.query == query]


@pytest.mark.slow
@pytest.mark.parametrize("scene", ["decode_batching", "where_it_hurts"])
def test_the_slots_that_are_counted_are_those_with_a_row(scene):
    (beat,) = storyboard(scene, Show(MANY_SLOTS, SIZE))
    grid, counted = beat.picture.__self__.grid, 0
    for tenth in range(11):
        for figure in figures_of(
            "slots_drawn", lambda canvas, at=tenth / 10: beat.picture(canvas, beat.clock.film_s * at)
        ):
            which = dict(figure.source.args)["which"]
            assert which == slot_ranges(grid.drawn(figure.source.value))
            counted += 1
    assert counted


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["ttft", "itl"])
def test_what_an_axis_says_is_what_it_has_there(metric):
    (beat,) = storyboard("latency", Show(Settings(), SIZE))
    axis = beat.picture.__self__.axes[metric]
    figures = figures_of(
        "log_axis_value" if axis.logarithmic else "axis_value", lambda canvas: beat.picture(canvas, beat.clock.film_s)
    )
    own = [f for f in figures if dict(f.source.args)["high"] in (axis.high, axis.high / 1000)]
    marks = [
        mark / (1000 if dict(f.source.args)["high"] != axis.high else 1) for mark in axis.marks(5) for f in own[:1]
    ]
    assert own
    for figure in own:
        assert any(float(figure.text) == pytest.approx(mark) for mark in marks)
        assert figure.source.value == pytest.approx(float(figure.text), rel=1e-6)


def test_a_block_of_the_pool_has_the_number_of_its_place(groups):
    run = groups[3][0]
    pool = BlockPool(run, Phrasebook(), RequestColours([run.trace]))
    figures = figures_of("block_in_pool", lambda canvas: pool.paint_pool(canvas, Box(0, 0, 1900, 1000), 0))
    assert [figure.source.value for figure in figures] == list(range(run.trace.header.kv_blocks))
