"""Whatever suite somebody records, each scene shows it truly or says in one line what it lacks."""

import random
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
SEEDS, CUT = (*range(12), 44), (101, 103, 106, 109, 111, 151)
LOOKS = 25


def shown(name, show):
    """The beats of a scene; none where it says that the recordings lack what it shows."""
    try:
        return storyboard(name, show)
    except (TraceError, NotComparableError):
        return []


def through(fault):
    """Does a line really pass through the words? Not one that only comes near, nor one that slants: the sides that are
    known of it are those of a box around it."""
    words, line = (tuple(map(int, sides)) for sides in re.findall(r"at \((\d+), (\d+)\) to \((\d+), (\d+)\)", fault))
    slants = min(line[2] - line[0], line[3] - line[1]) > 8
    return not slants and words[0] < line[2] and words[2] > line[0] and words[1] < line[3] and words[3] > line[1]


@pytest.mark.parametrize("seed", SEEDS)
def test_every_scene_shows_it_or_says_what_is_missing(seed, tmp_path):
    """No sentence that is false of it, no figure that is printed as nothing, no words on words."""
    Suites(tmp_path, seed).record()
    assert len(looked_through(tmp_path, seed)) >= 4


@pytest.mark.parametrize("seed", CUT)
def test_so_it_is_with_recordings_that_were_cut_off(seed, tmp_path):
    Suites(tmp_path, seed).record()
    rng = random.Random(seed)
    for path in sorted(tmp_path.rglob("*.jsonl")):
        if rng.random() < 0.5:
            content = path.read_bytes()
            header = len(content.partition(b"\n")[0]) + 1
            path.write_bytes(content[: rng.randrange(header, len(content))])
    looked_through(tmp_path, seed)


def looked_through(folder, seed):
    """The names of the beats that are shown of the recordings in a folder: each looked at all along, in some shape."""
    for path in folder.rglob("*.jsonl"):
        assert not check(path).violations, path
    settings, seen = Settings(recordings=folder), set()
    for i, name in enumerate(names()):
        show = Show(settings, list(SIZES.values())[(seed + i) % len(SIZES)])
        for beat in shown(name, show):
            drawn, film_s = [], beat.clock.film_s
            painted = BeatFrames(beat, show, watch=drawn.append)
            for look in range(LOOKS + 1):
                painted.at(min(film_s * look / LOOKS, film_s - 0.05))
                found = [
                    fault for fault in faults(drawn, show.stage.safe) if "by a line" not in fault or through(fault)
                ]
                assert not found, f"{name}, {film_s * look / LOOKS:.1f} s: {found[0]}"
                drawn.clear()
            seen.add(beat.name)
    return seen
