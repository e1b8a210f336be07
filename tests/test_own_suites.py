"""Whatever suite somebody records, each scene shows it truly or says in one line what it lacks."""

import re

import pytest
from films import SIZES
from own_suites import Suites
from tracereel.film.frames import BeatFrames
from tracereel.film.layout import faults
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.storyboards import names, storyboard
from tracereel.trace.analysis.comparable import NotComparableError
from tracereel.trace.check.invariants import check
from tracereel.trace.format.storage import TraceError

pytestmark = pytest.mark.long
SEEDS = (*range(12), 44)
LOOKS = 25


def shown(name, show):
    """The beats of a scene; none where it says that the recordings lack what it shows."""
    try:
        return storyboard(name, show)
    except (TraceError, NotComparableError):
        return []


def slanting(fault):
    """Is it of a line that slants? The sides that are known of it are those of a box around it."""
    line = re.search(r"a line at \((\d+), (\d+)\) to \((\d+), (\d+)\)", fault)
    left, top, right, bottom = map(int, line.groups()) if line else (0, 0, 0, 0)
    return min(right - left, bottom - top) > 8


@pytest.mark.parametrize("seed", SEEDS)
def test_every_scene_shows_it_or_says_what_is_missing(seed, tmp_path):
    """No sentence that is false of it, no figure that is printed as nothing, no words on words."""
    Suites(tmp_path, seed).record()
    for path in tmp_path.rglob("*.jsonl"):
        assert not check(path).violations, path
    settings, seen = Settings(recordings=tmp_path), set()
    for i, name in enumerate(names()):
        show = Show(settings, list(SIZES.values())[(seed + i) % len(SIZES)])
        for beat in shown(name, show):
            drawn, film_s = [], beat.clock.film_s
            painted = BeatFrames(beat, show, watch=drawn.append)
            for look in range(LOOKS + 1):
                painted.at(min(film_s * look / LOOKS, film_s - 0.05))
                found = [fault for fault in faults(drawn, show.stage.safe) if not slanting(fault)]
                assert not found, f"{name}, {film_s * look / LOOKS:.1f} s: {found[0]}"
                drawn.clear()
            seen.add(beat.name)
    assert len(seen) >= 4
