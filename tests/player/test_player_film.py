"""The film's seconds in the player: from the film's ledger, both ways, and checked against it."""

import re

import msgspec
import pytest
from tracereel.cli.main import main
from tracereel.film.captions import chapters_of, vtt
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.storyboards import storyboard
from tracereel.player import PlayerError, build_page, verify_page
from tracereel.player.film import film_entry
from tracereel.trace.state.columns import Trace

RATE = 4


@pytest.fixture(scope="module")
def film(film_recordings, tmp_path_factory):
    """A small film of decode_batching, and its beat."""
    folder = tmp_path_factory.mktemp("film")
    options = ("--fps", str(RATE), "--size", "256x144", "--media", str(folder), "--recordings", str(film_recordings))
    assert main(("render", "decode_batching", *options)) == 0
    show = Show(Settings.read({"recordings": str(film_recordings)}), (256, 144))
    (beat,) = storyboard("decode_batching", show)
    return folder / "videos" / "decode_batching" / f"144p{RATE}" / "DecodeBatching.mp4", beat


@pytest.mark.long
def test_a_passage_is_the_beats_clock(film):
    path, beat = film
    entry = film_entry(path)
    assert [chapter.title for chapter in entry.chapters] == ["Decode batching"]
    assert {passage.digest for passage in entry.passages} == {beat.runs[0].trace.digest}
    for passage in entry.passages:
        for second, ns in ((passage.from_s, passage.from_ns), (passage.to_s, passage.to_ns)):
            shown = [beat.clock.engine_ns(second - offset / RATE) for offset in (0, 1)]
            assert min(shown) <= ns <= max(shown)


@pytest.mark.long
def test_the_player_and_the_film_lead_to_each_other(film, open_page):
    path, beat = film
    entry = film_entry(path)
    html = build_page([run.trace for run in beat.runs], film=entry)
    passage = max(entry.passages, key=lambda passage: passage.to_s - passage.from_s)
    second = (passage.from_s + passage.to_s) / 2
    page = open_page([], f"#film={second:.3f}", html=html)
    t = page.evaluate("tracereel.app.clock.t + tracereel.app.lanes[0].run.facts.begin_ns")
    assert page.evaluate("tracereel.app.lanes[0].run.facts.digest") == passage.digest
    assert t == pytest.approx((passage.from_ns + passage.to_ns) / 2, rel=1e-4)
    minutes, seconds = re.fullmatch(r"film (\d+):(\d\d\.\d)", page.text_content("#film-second")).groups()
    assert int(minutes) * 60 + float(seconds) == pytest.approx(second, abs=0.1)
    page.click("#open-film")
    page.click("#chapters button")
    assert page.locator("dialog[open]").count() == 0
    t = page.evaluate("tracereel.app.clock.t + tracereel.app.lanes[0].run.facts.begin_ns")
    assert t == pytest.approx(entry.passages[0].from_ns, abs=1e6)


@pytest.mark.slow
def test_the_words_of_a_films_code_open_its_runs(open_page, film_recordings):
    repeats = [film_recordings / f"{case}-{i}.jsonl.zst" for case in ("static", "continuous") for i in (1, 2)]
    names = [Trace.read(path).name for path in repeats]
    code = f"#tracereel 0.1.0; a model; a CPU; film; {names[0]}; {names[3]}"
    page = open_page(repeats, code)
    assert set(page.evaluate("tracereel.app.lanes.map((lane) => lane.run.facts.key)")) <= {names[0], names[3]}


def test_a_chapters_note_is_the_players_link(film_recordings):
    show = Show(Settings.read({"recordings": str(film_recordings)}), (256, 144))
    (beat,) = storyboard("decode_batching", show)
    text = vtt(chapters_of([(0.5, beat)], beat.clock.film_s + 1))
    assert f"\nNOTE #run={beat.runs[0].trace.name}&t=" in text
    assert text.startswith("WEBVTT\n")


@pytest.mark.slow
def test_verify_holds_the_page_to_the_film_beside_it(film, film_recordings):
    path, beat = film
    traces = [run.trace for run in beat.runs]
    entry = film_entry(path)
    page = path.with_name("player.html")
    page.write_text(build_page(traces, film=entry), "utf-8")
    assert verify_page(page, [film_recordings]).faults == []
    moved = msgspec.structs.replace(entry.passages[0], to_ns=entry.passages[0].to_ns + 1)
    false = msgspec.structs.replace(entry, passages=[moved, *entry.passages[1:]])
    page.write_text(build_page(traces, film=false), "utf-8")
    assert any("seconds are not those of the ledger" in fault for fault in verify_page(page, [film_recordings]).faults)
    away = path.parent.parent / "player.html"
    away.write_text(build_page(traces, film=entry), "utf-8")
    assert any("is not next to the page" in fault for fault in verify_page(away, [film_recordings]).faults)


@pytest.mark.slow
def test_a_film_of_other_runs_is_refused(film, small_trace):
    path, _ = film
    with pytest.raises(PlayerError, match="shows none of these runs"):
        build_page([Trace.read(small_trace)], film=film_entry(path))
