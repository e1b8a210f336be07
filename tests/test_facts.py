"""Every sentence on screen is paired with what it rests on, and is refused where that is not true."""

import dataclasses
import re
import tomllib
from contextlib import nullcontext
from pathlib import Path

import msgspec
import pytest
from drawing import SIZE
from tracereel.film.beat import Beat, Caption
from tracereel.film.clock import Script
from tracereel.film.facts import FACTS, NO_FACTS, FalseSentenceError, Order, refuse_false
from tracereel.film.frames import BeatFrames
from tracereel.film.phrases import CATALOGUES, PLAYER, Phrasebook, TypedDigitError, figure, quote, words
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.spoken_time import LyingClockError, refuse_other_times
from tracereel.film.storyboards import storyboard
from tracereel.trace.analysis.moments import first_eviction
from tracereel.trace.analysis.queries import QUERIES, Run
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS

MANY_SLOTS = Settings(recordings=Path(__file__).parent / "data" / "h100")
LANGUAGES = sorted(CATALOGUES.glob("*.toml"))


def sentences(catalogue):
    """The keys of a film's words, labels and headings among them, and what they say."""
    scenes = tomllib.loads(catalogue.read_text(encoding="utf-8"))
    return {f"{scene}.{key}": text for scene, lines in scenes.items() if scene != PLAYER for key, text in lines.items()}


@pytest.mark.parametrize("catalogue", LANGUAGES, ids=lambda path: path.stem)
def test_every_sentence_has_its_predicate_or_states_nothing_but_its_figures(catalogue):
    lacking = sentences(catalogue).keys() - FACTS.keys() - NO_FACTS.keys()
    assert not lacking, f"pair them with a predicate in film/facts.py: {sorted(lacking)}"


def test_what_rests_on_figures_has_figures():
    english = sentences(CATALOGUES / "en.toml")
    for key, why in NO_FACTS.items():
        if "figures" in why:
            assert "{" in english[key], key


def test_the_table_names_what_there_is_and_a_key_once():
    book = Phrasebook()
    assert not FACTS.keys() & NO_FACTS.keys()
    assert all(book.has(key) for key in [*FACTS, *NO_FACTS])
    for key, predicates in FACTS.items():
        assert predicates, key
        for predicate in predicates:
            assert isinstance(predicate, Order) or predicate.query in QUERIES, key


@pytest.mark.parametrize("text", ["twice as fast", "nine hundred", "两个词元", "快二倍", "三行", "翻倍", "1.0"])
def test_a_number_in_words_is_a_number(text):
    with pytest.raises(TypedDigitError):
        words(text)


@pytest.mark.parametrize("text", ["one of them", "两者相同", "一个时钟"])
def test_a_word_that_counts_nothing_is_none(text):
    assert words(text).text == text


@pytest.fixture(scope="module")
def runs(film_recordings):
    return {name: Run.read(film_recordings / f"{name}-1.jsonl.zst") for name in ("continuous", "static", "online")}


SAY = Phrasebook().say


@pytest.mark.parametrize(
    ("key", "true_of", "false_of"),
    [
        ("pipeline_flow.arrive", "online", "continuous"),
        ("pipeline_flow.waits", "continuous", "online"),
        ("pipeline_flow.leave", "continuous", "static"),
        ("pipeline_flow.leave_closed", "static", "continuous"),
        ("pipeline_flow.changes", "continuous", "static"),
        ("two_of_eight.closed", "static", "continuous"),
        ("two_of_eight.moves", "continuous", None),
        ("decode_batching.whole", "static", None),
    ],
)
def test_a_sentence_is_refused_of_a_run_that_it_is_not_true_of(runs, key, true_of, false_of):
    run = runs[true_of]
    refuse_false(SAY(key), [run], [run], run.timeline.end_ns)
    if false_of is not None:
        other = runs[false_of]
        with pytest.raises(FalseSentenceError, match=re.escape(key)):
            refuse_false(SAY(key), [other], [other], other.timeline.end_ns)


@pytest.mark.parametrize(
    ("key", "true_of", "false_of"),
    [
        ("pipeline_flow.arrive", "film/cpu/online-1", "chunked/cpu/chunked-1"),
        ("pipeline_flow.waits", "film/cpu/continuous-1", "paging/cpu/no-prefix-caching-1"),
        ("pipeline_flow.write", "film/cpu/continuous-1", "film/cpu/same-position-1"),
        ("pipeline_flow.write_some", "film/cpu/same-position-1", "film/cpu/continuous-1"),
        ("decode_batching.step", "film/cpu/continuous-1", "vllm-kinds/cpu/speculation"),
    ],
)
def test_a_rule_is_not_said_of_a_run_that_is_an_exception(key, true_of, false_of):
    run, other = (Run.read(PACKAGE_RECORDINGS / f"{name}.jsonl.zst") for name in (true_of, false_of))
    refuse_false(SAY(key), [run], [run], run.timeline.begin_ns)
    with pytest.raises(FalseSentenceError, match=re.escape(key)):
        refuse_false(SAY(key), [other], [other], other.timeline.begin_ns)


@pytest.mark.parametrize(
    ("scene", "recording", "said"),
    [
        ("pipeline_flow", "chunked/cpu/chunked-1", {"pipeline_flow.arrive_free"}),
        ("pipeline_flow", "paging/cpu/no-prefix-caching-1", {"pipeline_flow.at_once"}),
        ("pipeline_flow", "film/cpu/same-position-1", {"pipeline_flow.waits", "pipeline_flow.write_some"}),
        ("decode_batching", "vllm-kinds/cpu/speculation", {"decode_batching.column"}),
    ],
)
def test_of_an_exception_the_sentence_that_is_true_is_said(scene, recording, said):
    settings = Settings(recordings=PACKAGE_RECORDINGS / f"{recording}.jsonl.zst")
    (beat,) = storyboard(scene, show := Show(settings, SIZE))
    frames = BeatFrames(beat, show)
    for caption in beat.captions:  # each is asked where it is drawn
        frames.said_at(caption.from_s)
    assert said <= {stated.key for caption in beat.captions for stated in caption.phrase.stated}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scene", "said"),
    [
        ("two_of_eight", "title.claim_of_engines"),
        ("decode_batching", "decode_batching.same_requests"),
        ("you_are", "you_are.clock_of_engines"),
    ],
)
def test_runs_of_two_engines_are_not_called_one(scene, said):
    show = Show(Settings(device="cpu"), SIZE)
    for run in show.runs("static"):
        engine = msgspec.structs.replace(run.trace.header.engine, version="other")
        header = msgspec.structs.replace(run.trace.header, engine=engine)
        run.trace = dataclasses.replace(run.trace, header=header)
    (beat,) = storyboard(scene, show)
    phrases = []
    frames = BeatFrames(beat, show, note=lambda phrase, text: phrases.append(phrase))
    for film_s in [*(caption.from_s + 0.5 for caption in beat.captions), beat.clock.film_s]:
        frames.said_at(film_s)
    assert said in {stated.key for phrase in phrases for stated in phrase.stated}


def test_that_a_block_is_lacking_is_said_where_all_are_held():
    run = Run.read(PACKAGE_RECORDINGS / "paging" / "cpu" / "prefix-caching-1.jsonl.zst")
    found = first_eviction(run.timeline)
    blocks = figure(run.measure("header", field="kv_blocks"))
    name = quote(run.measure("request_name", request=found.request))
    for at_ns, refused in (
        (found.at_ns - 1, nullcontext()),
        (run.timeline.begin_ns, pytest.raises(FalseSentenceError)),
    ):
        used = figure(run.measure("kv_used", t_ns=at_ns))
        with refused:
            said = SAY("kv_cache_paging.preempted", used=used, blocks=blocks, request=name)
            refuse_false(said, [run], [run], found.at_ns)


def test_a_label_is_refused_of_runs_that_it_is_not_true_of(runs):
    static, continuous = runs["static"], runs["continuous"]
    faster, slower = [static, continuous], [continuous, static]
    trace = quote(static.measure("digest"))
    for key, places, true_of, false_of in (
        ("speedup_waterfall.name", {}, faster, slower),
        ("two_of_eight.name", {}, faster, [continuous]),
        ("cut_out_the_red.whole", {"count": figure(static.measure("slots"))}, faster, [continuous]),
        ("end.one_run", {"requests": figure(static.measure("num_requests"))}, [static], faster),
        ("strip.broken", {"digests": trace}, None, faster),
        ("strip.cut", {"digests": trace}, None, faster),
    ):
        if true_of is not None:
            refuse_false(SAY(key, **places), true_of, true_of, 0)
        with pytest.raises(FalseSentenceError, match=re.escape(key)):
            refuse_false(SAY(key, **places), false_of, false_of, 0)


def test_words_of_the_clock_are_what_it_does(runs):
    run = runs["static"]
    clock = Script(run.timeline.begin_ns).hold(1.0).run(run.timeline.end_ns, 3.0).clock()
    refuse_other_times(SAY("strip.held"), clock, [run], 0.5)
    for key, film_s in (("strip.held", 2.0), ("strip.even", 0.5), ("strip.even", 2.0)):
        with pytest.raises(LyingClockError):
            refuse_other_times(SAY(key), clock, [run], film_s)


def test_a_request_has_ended_only_once_it_has(runs):
    run = runs["continuous"]
    request, at_ns = run.timeline.ended_order[0], run.timeline.ended_times[0]
    phrase = SAY("decode_batching.ends", first=quote(run.measure("request_name", request=request)))
    refuse_false(phrase, [run], [run], at_ns)
    with pytest.raises(FalseSentenceError):
        refuse_false(phrase, [run], [run], at_ns - 1)


def test_the_next_step_is_the_next_one(runs):
    run = runs["continuous"]
    name = {i: quote(run.measure("request_name", request=i)) for i in range(len(run.trace.arrivals))}
    left = run.timeline.ended_order[0]
    end_ns, refused = run.timeline.end_ns, 0
    for came in name:
        try:
            refuse_false(SAY("decode_batching.retaken", first=name[left], second=name[came]), [run], [run], end_ns)
        except FalseSentenceError:
            refused += 1
    assert refused == len(name) - 1


def test_an_order_is_that_of_the_figures_as_they_are_printed(runs):
    both = [runs["static"], runs["continuous"]]
    static, continuous = (figure(run.measure("duration_s"), ".2f") for run in both)
    for key, true in (("answer_shorter", True), ("answer_longer", False), ("answer_equal", False)):
        phrase = SAY(f"you_are.{key}", static=static, continuous=continuous)
        if true:
            refuse_false(phrase, both, both, 0)
        else:
            with pytest.raises(FalseSentenceError):
                refuse_false(phrase, both, both, 0)


def test_the_same_requests_are_of_several_runs_that_may_be_compared(runs):
    phrase = SAY("decode_batching.same")
    refuse_false(phrase, [runs["continuous"], runs["static"]], [], 0)
    for others in ([runs["continuous"]], [runs["continuous"], runs["online"]]):
        with pytest.raises(FalseSentenceError):
            refuse_false(phrase, others, others, 0)


def test_a_film_that_says_what_is_not_true_cannot_be_made(runs):
    run = runs["static"]
    show = Show(Settings(), SIZE)
    clock = Script(run.timeline.begin_ns).run(run.timeline.end_ns, 3.0).clock()
    beat = Beat("lie", SAY("pipeline_flow.name"), (Caption(0.0, SAY("pipeline_flow.leave")),), clock, (run,), _nothing)
    with pytest.raises(FalseSentenceError, match=r"freed_slots_are .*running"):
        BeatFrames(beat, show).at(1.0)


def _nothing(canvas, film_s):
    """Draws nothing."""


@pytest.mark.slow
@pytest.mark.parametrize("settings", [Settings(), MANY_SLOTS], ids=["cpu", "many-slots"])
def test_what_the_films_say_is_true(settings):
    """Each caption at its first second, of every scene that these recordings have."""
    said = set()
    for beat in storyboard("full_length", show := Show(dataclasses.replace(settings), SIZE)):
        frames = BeatFrames(beat, show, note=lambda phrase, text: said.update(each.key for each in phrase.stated))
        for from_s, until, _ in beat.spoken():
            frames.said_at((from_s + until) / 2)
        for caption in beat.captions:
            said.update(each.key for each in caption.phrase.stated)
    assert len(said & FACTS.keys()) > 15


@pytest.mark.parametrize("catalogue", LANGUAGES, ids=lambda path: path.stem)
def test_no_words_name_a_device(catalogue):
    """Which it was only a run can say."""
    named = {
        key for key, text in sentences(catalogue).items() if re.search(r"\b([CGT]PU|[AHBL]\d+|NVIDIA|AMD)\b", text)
    }
    assert not named
