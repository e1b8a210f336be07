"""A stretch of one run in place of a whole scene: what is asked for, what is drawn and counted, what is refused."""

import re
from pathlib import Path

import pytest
from tracereel.cli.main import main
from tracereel.film.frames import BeatFrames
from tracereel.film.registry import registered
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.storyboards import names, storyboard
from tracereel.film.verification import verify
from tracereel.film.window import Window, WindowError
from tracereel.trace.analysis.queries import Run
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS

SIZE = (320, 180)


@pytest.fixture(scope="module")
def run(film_recordings):
    return Run.read(film_recordings / "continuous-2.jsonl.zst")


def beat_of(recordings, scene="decode_batching", **asked):
    show = Show(Settings.read({"recordings": str(recordings), **asked}), SIZE)
    (beat,) = storyboard(scene, show)
    return show, beat


def counted(run, from_ns, to_ns, first, last):
    """Steps, output tokens and ends, counted one by one."""
    steps, stays = run.trace.steps, run.trace.residencies
    inside = [i for i in range(len(steps)) if from_ns < steps.end_ns[i] <= to_ns]
    tokens = 0
    for i in inside:
        members = steps.members(i)
        for entry in range(members.start, members.stop):
            if first <= steps.member_slot[entry] <= last:
                tokens += int(steps.member_sampled[entry])
    ended = sum(
        from_ns < stays.to_ns[i] <= to_ns and first <= stays.slot[i] <= last and not stays.preempted[i]
        for i in range(len(stays.slot))
    )
    return [len(inside), tokens, ended]


def test_the_run_the_time_and_the_slots_are_those_asked_for(run, film_recordings):
    asked = {"run": run.trace.digest[:12], "from": "2.25", "to": "4.000000001", "slots": "2-5"}
    show, beat = beat_of(film_recordings, **asked)
    assert [shown.trace.digest for shown in beat.runs] == [run.trace.digest] == list(show.shown)
    assert beat.clock.engine_ns(0) == 2_250_000_000
    assert beat.clock.engine_ns(beat.clock.film_s) == 4_000_000_001
    values = [figure.source.value for figure in beat.captions[1].phrase.figures]
    assert values == counted(run, 2_250_000_000, 4_000_000_001, 2, 5)
    assert all(values)


def test_the_pipeline_of_a_stretch_is_that_of_its_run_and_time(run, film_recordings):
    asked = {"run": run.trace.digest[:12], "from": "2.25", "to": "4"}
    show, beat = beat_of(film_recordings, "pipeline_flow", **asked)
    assert [shown.trace.digest for shown in beat.runs] == [run.trace.digest] == list(show.shown)
    assert (beat.clock.engine_ns(0), beat.clock.engine_ns(beat.clock.film_s)) == (2_250_000_000, 4_000_000_000)
    slots = run.trace.header.slots
    values = [figure.source.value for figure in beat.captions[-1].phrase.figures]
    assert values == counted(run, 2_250_000_000, 4_000_000_000, 0, slots - 1)


def test_what_was_before_a_stretch_stands_still_when_it_begins(run, film_recordings):
    _, beat = beat_of(film_recordings, "pipeline_flow", **{"run": run.trace.digest[:12], "from": "2.25", "to": "4"})
    moves = beat.picture.__self__.moves
    state = run.timeline.at(2_250_000_000)
    assert any(state.occupancy)
    shown = [move for i in range(round(beat.clock.film_s * 20) + 1) for move in moves.under_way(i / 20)]
    assert shown
    assert all(2_250_000_000 <= move.now.at_ns <= 4_000_000_000 for move in shown)


def test_the_blocks_of_a_stretch_are_those_of_its_run_and_time():
    folder = PACKAGE_RECORDINGS / "paging" / "cpu"
    chosen = Run.read(folder / "no-prefix-caching-2.jsonl.zst")
    begin, end = chosen.timeline.begin_ns, chosen.timeline.end_ns
    from_ns, to_ns = begin + (end - begin) // 4, begin + (end - begin) // 2
    asked = {"run": chosen.trace.digest[:12], "from": f"{from_ns / 1e9:.9f}", "to": f"{to_ns / 1e9:.9f}"}
    show, beat = beat_of(folder, "kv_cache_paging", **asked)
    assert [shown.trace.digest for shown in beat.runs] == [chosen.trace.digest]
    values = [figure.source.value for figure in beat.captions[-1].phrase.figures]
    held = chosen.timeline.at(to_ns).kv_used
    assert values == [*counted(chosen, from_ns, to_ns, 0, chosen.trace.header.slots - 1), held]
    texts = []
    frames = BeatFrames(beat, show, note=lambda phrase, text: texts.append(text))
    frames.at(beat.clock.film_s - 0.5)
    assert any(str(held) in text for text in texts)


def test_slots_outside_the_range_are_not_drawn(run, film_recordings):
    asked = {"run": run.trace.digest[:12], "from": "2.25", "to": "2.4"}
    notes = {}
    for slots in ("0-7", "2-5"):
        seen = notes[slots] = []
        show, beat = beat_of(film_recordings, **asked, slots=slots)
        frames = BeatFrames(beat, show, note=lambda phrase, text, seen=seen: seen.append(phrase))
        frames.at(beat.clock.film_s)
    requests = {
        slots: {dict(f.source.args)["request"] for p in seen for f in p.figures if f.source.query == "output_text"}
        for slots, seen in notes.items()
    }
    t_ns = 2_400_000_000
    at = [occupant.request for occupant in run.timeline.at(t_ns).occupancy]
    assert requests["2-5"] == set(at[2:6])
    assert requests["0-7"] == set(at)


def test_a_stretch_that_cannot_be_shown_is_refused_by_name(run, film_recordings):
    cases = {
        "--from": {"from": "1e3"},
        "--run": {"run": "XYZ"},
        "--slots: '5-2' ends before it begins": {"slots": "5-2"},
        "--from, --to: 3 s is not before 3 s": {"from": "3", "to": "3"},
    }
    for line, asked in cases.items():
        with pytest.raises(WindowError, match=line.replace("(", r"\(")):
            Window.read(asked)
    for line, asked in {"has nothing from 300 s": {"from": "300"}, "has no slot 8": {"slots": "0-8"}}.items():
        with pytest.raises(WindowError, match=line):
            beat_of(film_recordings, **asked)
    assert Window.read({"recordings": "x"}) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("latency", "--from", "3"), "latency shows whole runs: --run, --from, --to and --slots are for pipeline_flow"),
        (("pipeline_flow", "--slots", "0-1"), "--slots: pipeline_flow shows every slot; decode_batching shows some"),
        (("--all", "--slots", "0-1"), "--all and --part render whole scenes"),
        (("decode_batching", "--run", "abcd"), "no trace there has a digest that begins with abcd"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(film_recordings, capsys, arguments, line):
    try:
        code = main(("render", *arguments, "--recordings", str(film_recordings)))
    except SystemExit as ended:  # what the scene itself refuses ends plain `manim` too
        code = ended.code
    assert code == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1


def test_every_scene_without_a_stretch_says_which_have_one(film_recordings, capsys):
    able = [scene.name for scene in registered() if scene.stretch is not None]
    whole = set(names()) - set(able)
    assert {"continuous_batching", "full_length", "latency"} <= whole
    for name in sorted(whole):
        with pytest.raises(WindowError) as refused:
            beat_of(film_recordings, name, **{"from": "3"})
        assert str(refused.value).endswith(
            f"shows whole runs: --run, --from, --to and --slots are for {', '.join(able)}"
        )
    with pytest.raises(SystemExit):
        main(("render", "--help"))
    listed = re.search(r"a stretch of one run:\s+for (.+?)\n\n", capsys.readouterr().out, re.DOTALL)[1]
    assert set(re.findall(r"[a-z]+_[a-z_]+", listed)) == set(able)


@pytest.mark.slow
def test_a_stretch_is_rendered_beside_the_scene_and_verified(film_recordings, tmp_path, capsys):
    options = ("--from", "2.5", "--to", "2.6", "--slots", "0-1", "--fps", "2", "--size", "256x144")
    paths = ("--recordings", str(film_recordings), "--media", str(tmp_path))
    assert main(("render", "decode_batching", *options, *paths)) == 0
    film = Path(capsys.readouterr().out.splitlines()[-1])
    assert film.name == "DecodeBatching-from-2_5-to-2_6-slots-0-1.mp4"
    verdict = verify(film, [film_recordings])
    assert verdict.claims
    assert not verdict.faults, verdict.faults[:3]
