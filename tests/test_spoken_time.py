"""What a film says about time is what its frames show: another time is refused when it is drawn, and seen in a film."""

import msgspec
import pytest
from films import rendered
from tracereel.film import beat as beats
from tracereel.film.beat import Beat, Caption
from tracereel.film.clock import Script
from tracereel.film.frames import BeatFrames
from tracereel.film.ledger import read_ledger
from tracereel.film.passages import Instant, instants_in, instants_of, passages_of, same_instants
from tracereel.film.phrases import figure, words
from tracereel.film.registry import _scenes, scene
from tracereel.film.schedule import schedule
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.spoken_time import LyingClockError
from tracereel.film.storyboards import storyboard
from tracereel.film.theme import FIGURE, TEXT
from tracereel.film.verification import verify
from tracereel.trace.analysis.queries import measure
from tracereel.trace.recordings.index import ENVIRONMENT

SIZE, RATE = (256, 144), 4
LIES = {
    "another instant": lambda run, clock, film_s: figure(run.measure("engine_time_s", t_ns=999 * 10**9), ".2f"),
    "an instant of before": lambda run, clock, film_s: figure(
        run.measure("engine_time_s", t_ns=clock.engine_ns(film_s * 0.9)), ".2f"
    ),
    "another pace": lambda run, clock, film_s: figure(measure("slowdown", [], film_s=9.0, engine_s=1.0), ".1f"),
}


@pytest.fixture
def lying(film_recordings, monkeypatch):
    """Registers a scene that says what a function gives, next to its true clock."""
    monkeypatch.setenv(ENVIRONMENT, str(film_recordings))
    before = dict(_scenes)

    def register(lie):
        @scene("lying_clock")
        def lying_clock(show):
            run = show.run("continuous")
            clock = Script(run.timeline.begin_ns).run(run.timeline.end_ns, 3.0).clock()

            def picture(canvas, film_s):
                canvas.text(lie(run, clock, film_s), 100, 300, FIGURE, TEXT)

            return Beat("lying_clock", words("Running"), (Caption(0.0, words("So it was.")),), clock, (run,), picture)

    yield register
    _scenes.clear()
    _scenes.update(before)


@pytest.mark.parametrize("lie", LIES)
def test_another_time_cannot_be_drawn(lying, lie):
    lying(LIES[lie])
    show = Show(Settings(), SIZE)
    (beat,) = storyboard("lying_clock", show)
    with pytest.raises(LyingClockError, match=r"second 1.50 of a beat: .* but the frame shows"):
        BeatFrames(beat, show).at(1.5)


def test_the_frames_own_time_and_that_of_another_run_from_its_own_beginning_can(film_recordings, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, str(film_recordings))
    show = Show(Settings(), SIZE)
    run, other = show.run("continuous"), show.run("static")
    clock = Script(run.timeline.begin_ns).run(run.timeline.end_ns, 3.0).clock()

    def picture(canvas, film_s):
        t_ns = clock.engine_ns(film_s)
        since_ns = t_ns - run.timeline.begin_ns
        for each, at_ns in ((run, t_ns), (other, other.timeline.begin_ns + since_ns)):
            canvas.text(figure(each.measure("engine_time_s", t_ns=at_ns), ".2f"), 100, 300, FIGURE, TEXT)

    said = []
    beat = Beat("both", words("Both"), (Caption(0.0, words("So it was.")),), clock, (run, other), picture)
    BeatFrames(beat, show, note=lambda phrase, text: said.append(text)).at(1.5)
    assert len(said) > 4


@pytest.mark.slow
def test_a_film_whose_clock_lies_is_refused_and_where_it_was_made_it_is_found_out(lying, film_recordings, tmp_path):
    lying(LIES["another instant"])
    with pytest.raises(SystemExit) as ended:
        rendered("lying_clock", SIZE, tmp_path / "refused", RATE)
    assert ended.value.code == 2
    assert not list((tmp_path / "refused").rglob("LyingClock.mp4"))

    with pytest.MonkeyPatch.context() as unchecked:
        unchecked.setattr(beats, "refuse_other_times", lambda *asked: None)
        _, film = rendered("lying_clock", SIZE, tmp_path / "made", RATE)
    faults = verify(film, [film_recordings]).faults
    assert any("engine_time_s says '999.00', but the frame shows" in fault for fault in faults), faults
    _scenes.pop("lying_clock")
    faults = verify(film, [film_recordings]).faults
    assert any("'999.00' is not what the film's clock says" in fault for fault in faults), "without the scene's code"


@pytest.mark.slow
def test_a_ledgers_clock_is_every_frames(film_recordings, monkeypatch, tmp_path):
    monkeypatch.setenv(ENVIRONMENT, str(film_recordings))
    _, film = rendered("decode_batching", SIZE, tmp_path, RATE)
    ledger, _ = read_ledger(film)
    shown = instants_in(ledger.clock)
    assert sorted(shown) == list(range(ledger.frames))
    timed = [claim for claim in ledger.claims if claim.query == "engine_time_s" and "engine time" in claim.text]
    assert len(timed) > 40
    for claim in timed:
        for passage in ledger.clock:
            for frame in range(max(passage.first, claim.first), min(passage.last, claim.last) + 1):
                assert f"{passage.engine_ns(frame) / 1e9:.2f}" == claim.shown


def test_passages_are_as_long_as_frames_follow_evenly(film_recordings, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, str(film_recordings))
    show = Show(Settings(), SIZE)
    film = storyboard("decode_batching", show)
    instants = instants_of(film, schedule(film, 30))
    passages = passages_of(instants)
    assert len(passages) < 40 < len(instants)
    again = instants_in(passages)
    assert [i for i, instant in enumerate(instants) if abs(again[i].at_s - instant.at_s) > 1e-9] == []
    assert [again[i][1:] for i in range(len(instants))] == [instant[1:] for instant in instants]
    assert msgspec.json.decode(msgspec.json.encode(passages), type=list[type(passages[0])]) == passages


def test_a_clips_passages_say_what_its_frames_show():
    """Every third frame, made from the passages of all: rounded, and the same."""
    instants = [Instant(i / 30, 2.5, 10**8, 3 * 10**8, "a") for i in range(75)]
    instants += [Instant(i / 30, 1.0, 3 * 10**8, 3 * 10**8, "a") for i in range(30)]
    part = list(range(16, 105, 3))
    there = instants_in(passages_of(instants))
    made = passages_of([there[frame] for frame in part])
    assert same_instants(made, [instants[frame] for frame in part])
    assert not same_instants(made, [instants[frame + 1] for frame in part[:-1]] + [instants[-1]])
    assert not same_instants(made[:-1], [instants[frame] for frame in part])
