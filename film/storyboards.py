"""What each scene and each film shows: its beats, one after the other.

Importing this module registers the package's scenes. Knows the registry and shows; draws nothing.
"""

import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from tracereel.film.beat import Beat
from tracereel.film.beats import (
    batch_size_sweep,
    chunked_prefill,
    cut_out_the_red,
    decode_batching,
    end_card,
    engine_race,
    kv_cache_paging,
    latency,
    pipeline_flow,
    same_position,
    speedup_waterfall,
    throughput_comparison,
    title_card,
    two_of_eight,
    where_it_hurts,
    you_are,
)
from tracereel.film.follow import FOOT, Follow
from tracereel.film.registry import CONTINUOUS_BATCHING, FULL_LENGTH, BeatMaker, find, registered, scenes_of
from tracereel.film.show import Show
from tracereel.film.window import WindowError
from tracereel.trace.analysis.comparable import NotComparableError
from tracereel.trace.format.storage import TraceError

PACKAGE_BEATS = (
    *(title_card, two_of_eight, pipeline_flow, decode_batching, you_are, same_position, cut_out_the_red),
    *(throughput_comparison, latency, speedup_waterfall, batch_size_sweep, chunked_prefill, kv_cache_paging),
    *(where_it_hurts, engine_race, end_card),
)
"""The modules that register the package's scenes."""


_FROM_PAIRS = ("two_of_eight", "cut_out_the_red")
"""Scenes that set a static run against a continuous one."""
_WHERE_KNOWN = ("you_are", "same_position")
"""Scenes that the film leaves out where the runs do not hold what they show, such as the answers' texts."""
_WITHOUT_PAIRS = ("opening", "pipeline_flow", "throughput_comparison")
"""What the film shows in their place where the recordings have no such two runs."""


def continuous_batching(show: Show) -> list[Beat]:
    """Continuous batching: the film.

    It begins with a static batch that empties; where the recordings have none, with the title card. A scene is left out
    where a case that it needs was not recorded. Raises TraceError and NotComparableError as its scenes do.
    """
    has = show.recordings.has
    chosen = [scene for scene in scenes_of(CONTINUOUS_BATCHING) if all(map(has, scene.needs))]
    try:
        paired = {name: find(name).make(show) for name in _FROM_PAIRS} if has("static") and has("continuous") else {}
    except TraceError:
        paired = {}
    left_out = _WITHOUT_PAIRS if paired else _FROM_PAIRS
    beats = []
    for scene in chosen:
        if scene.name in left_out:
            continue
        try:
            beats.append(paired.get(scene.name) or scene.make(show))
        except TraceError:
            if scene.name not in _WHERE_KNOWN:
                raise
    return beats


def full_length(show: Show) -> list[Beat]:
    """Continuous batching at full length: every scene that has recordings, and one request followed through them all.

    Raises TraceError where there are no recordings at all.
    """
    beats: list[Beat] = []
    lower = show.on(replace(show.stage, foot=FOOT), FULL_LENGTH)
    for scene in scenes_of(FULL_LENGTH):
        try:
            beats.append(scene.make(lower))
        except (TraceError, NotComparableError):
            if not beats:
                raise
    return _followed(show, beats)


def _followed(show: Show, beats: list[Beat]) -> list[Beat]:
    """The beats with the request that is followed: the one whose turn in a slot is seen close up, else the first."""
    runs, request = beats[0].runs, 0
    if show.recordings.has("continuous"):
        runs = (show.run("continuous"),)
        with suppress(ValueError):
            request = int(runs[0].measure("handover_request", **decode_batching.handover_of(runs[0])).value)
    trace = runs[0].trace
    if not trace.arrivals:
        return beats
    asked, workload = trace.arrivals[request].id, trace.header.workload.name
    return [
        replace(beat, follow=Follow.of(beat.runs, asked, workload, show.say, show.colours(find(beat.name).suite)))
        if beat.framed and all(run.trace.arrivals for run in beat.runs)
        else beat
        for beat in beats
    ]


FILMS: dict[str, Callable[[Show], list[Beat]]] = {
    CONTINUOUS_BATCHING: continuous_batching,
    FULL_LENGTH: full_length,
}
"""The films by name: each is several scenes' beats, one after the other."""


def names() -> tuple[str, ...]:
    """All films and scenes, the films first."""
    return (*FILMS, *(scene.name for scene in registered()))


def about(name: str) -> str:
    """What a scene or a film is about, in one line. Raises UnknownSceneError."""
    text = FILMS[name].__doc__ if name in FILMS else sys.modules[find(name).make.__module__].__doc__
    return (text or "").strip().partition("\n")[0]


def storyboard(name: str, show: Show) -> list[Beat]:
    """The beats of a scene or a film.

    Raises UnknownSceneError that lists all names, TraceError or NotComparableError where the recordings that it needs
    are not there, WindowError where a stretch is asked for that cannot be shown.
    """
    if show.settings.window is not None:
        return [_stretch_maker(name)(show)]
    if name in FILMS:
        return FILMS[name](show)
    return [find(name).make(show)]


def _stretch_maker(name: str) -> BeatMaker:
    """What shows a stretch in a scene."""
    make = None if name in FILMS else find(name).stretch
    if make is None:
        able = ", ".join(scene.name for scene in registered() if scene.stretch is not None)
        raise WindowError(f"{name} shows whole runs: --run, --from, --to and --slots are for {able}")
    return make
