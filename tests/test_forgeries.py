"""Whoever forges a film is found out: each forgery is made, and `verify` has to see it."""

import msgspec
import numpy as np
import pytest
from forging import copied, frames_of, repainted, replaced, restamped, retagged
from PIL import Image, ImageDraw, ImageFont
from tracereel.cli.main import main
from tracereel.film.ledger import read_ledger
from tracereel.film.ledger_comparison import ledger_faults
from tracereel.film.lettering import font_path
from tracereel.film.provenance import stamp
from tracereel.film.recipe import Recipe
from tracereel.film.redrawing import Redrawing, Traces
from tracereel.film.verification import verify
from tracereel.trace.analysis.queries import evaluate

pytestmark = pytest.mark.long
_RATE = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("films")


def film_of(scene, folder, recordings):
    options = ("--recordings", str(recordings), "--fps", str(_RATE), "--size", "480x270", "--media", str(folder))
    assert main(("render", scene, *options)) == 0
    (film,) = folder.glob(f"videos/{scene}/*/*.mp4")
    return film


@pytest.fixture(scope="module")
def film(folder, film_recordings):
    """A race on one clock, and ratios of pairs."""
    return film_of("throughput_comparison", folder, film_recordings)


@pytest.fixture(scope="module")
def other(folder, film_recordings):
    return film_of("latency", folder, film_recordings)


@pytest.fixture(scope="module")
def pictures(film):
    return frames_of(film)


def faults_of(film, recordings):
    return verify(film, [recordings]).faults


def test_the_films_themselves_have_no_fault(film, other, film_recordings):
    for each in (film, other):
        verdict = verify(each, [film_recordings])
        assert not verdict.faults, verdict.faults[:3]
        assert verdict.compared > 30
        assert not verdict.notes


# Other pictures under the film's own tags.


def lettered(frame, text, at, size):
    image = Image.fromarray(frame)
    ImageDraw.Draw(image).text(at, text, font=ImageFont.truetype(font_path("sans"), size), fill=(235, 240, 245))
    return np.asarray(image)


def with_a_number(pictures):
    half = len(pictures) // 2
    return [lettered(p, "9.9", (300, 110), 24) if half <= i < half + 3 else p for i, p in enumerate(pictures)]


def with_black_frames(pictures):
    return [np.zeros_like(p) if 30 <= i < 33 else p for i, p in enumerate(pictures)]


def with_a_longer_bar(pictures):
    changed = [p.copy() for p in pictures]
    for p in changed[40:44]:
        p[130:138, 200:212] = (79, 211, 238)
    return changed


FORGED = {
    "a number painted over": with_a_number,
    "black frames": with_black_frames,
    "a bar of another length": with_a_longer_bar,
    "two seconds cut": lambda pictures: pictures[:20] + pictures[20 + 2 * _RATE :],
    "the second half gone": lambda pictures: pictures[: len(pictures) // 2],
    "a frame too many": lambda pictures: [*pictures, pictures[-1]],
    "frames exchanged": lambda pictures: [*pictures[:20], *pictures[28:36], *pictures[20:28], *pictures[36:]],
}


@pytest.mark.parametrize("what", FORGED)
def test_other_pictures_under_the_same_tags(what, film, pictures, film_recordings, tmp_path):
    forged = repainted(film, tmp_path, FORGED[what](pictures))
    faults = faults_of(forged, film_recordings)
    assert any("picture is not" in fault or "frames too" in fault for fault in faults), faults


def test_pictures_encoded_once_more_are_the_same(film, pictures, film_recordings, tmp_path):
    assert not faults_of(repainted(film, tmp_path, pictures), film_recordings)


def test_a_slower_film(film, pictures, film_recordings, tmp_path):
    faults = faults_of(repainted(film, tmp_path, pictures, slower=3), film_recordings)
    assert any("it belongs at" in fault for fault in faults), faults


def test_a_file_that_was_cut_off(film, film_recordings, tmp_path):
    forged = copied(film, tmp_path)
    data = forged.read_bytes()
    forged.write_bytes(data[: len(data) * 2 // 3])
    faults = faults_of(forged, film_recordings)
    assert any("too early" in fault or "decoded" in fault for fault in faults), faults


def test_two_films_joined_and_anothers_pictures(film, other, pictures, film_recordings, tmp_path):
    joined = repainted(film, tmp_path / "joined", pictures + frames_of(other))
    assert any("frames too many" in fault for fault in faults_of(joined, film_recordings))
    swapped = repainted(film, tmp_path / "swapped", (frames_of(other) * 2)[: len(pictures)])
    assert any("the picture is not" in fault for fault in faults_of(swapped, film_recordings))


def test_a_moving_picture_repainted_and_shortened(film, film_recordings, tmp_path):
    gif = tmp_path / "clip.gif"
    assert main(("clip", str(film), str(gif), "--from", "2", "--to", "12", "--fps", "4", "--width", "360")) == 0
    assert not faults_of(gif, film_recordings)
    with Image.open(gif) as image:
        frames, stands = [], []
        for i in range(image.n_frames):
            image.seek(i)
            frames.append(np.asarray(image.convert("RGB")))
            stands.append(image.info["duration"])
        comment = image.info["comment"]
    facts = msgspec.json.decode(comment, type=dict[str, str])

    def forge(name, frames, stands):
        target = copied(gif, tmp_path / name)
        first, *rest = (Image.fromarray(frame) for frame in frames)
        first.save(target, save_all=True, append_images=rest, duration=stands, loop=0)
        stamp(target, {name.removeprefix("tracereel_"): value for name, value in facts.items()})
        return faults_of(target, film_recordings)

    painted = [lettered(p, "9.9", (200, 80), 22) if 10 <= i < 14 else p for i, p in enumerate(frames)]
    assert any("the picture is not" in fault for fault in forge("painted", painted, stands))
    half = len(frames) // 2
    assert any("lasts" in fault or "the picture" in fault for fault in forge("half", frames[:half], stands[:half]))


# What goes with the film.


@pytest.mark.parametrize("suffix", [".srt", ".vtt", ".chapters.vtt"])
def test_captions_that_say_something_else(film, film_recordings, tmp_path, suffix):
    forged = copied(film, tmp_path)
    path = forged.with_suffix(suffix)
    lines = path.read_text().splitlines()
    at = max(i for i, line in enumerate(lines) if line and "-->" not in line)
    lines[at] += " Twice as fast."
    path.write_text("\n".join(lines))
    assert any(fault.startswith(f"{path.name}, line {at + 1}") for fault in faults_of(forged, film_recordings))


def test_a_still_that_shows_something_else(film, film_recordings, tmp_path):
    forged = copied(film, tmp_path)
    path = forged.with_suffix(".png")
    with Image.open(path) as image:
        painted = lettered(np.asarray(image.convert("RGB")), "9.9", (300, 110), 24)
    Image.fromarray(painted).save(path)
    assert any(fault.startswith(path.name) for fault in faults_of(forged, film_recordings))


@pytest.mark.parametrize("tag", ["title", "artist", "tracereel_award"])
def test_a_tag_that_was_added(film, film_recordings, tmp_path, tag):
    faults = faults_of(retagged(film, tmp_path, {tag: "the fastest engine"}), film_recordings)
    assert any(tag.removeprefix("tracereel_") in fault and "the fastest engine" in fault for fault in faults), faults


def test_a_title_that_was_edited(film, film_recordings, tmp_path):
    faults = faults_of(retagged(film, tmp_path, {}, {"Throughput": "Twice as fast"}), film_recordings)
    assert any("Twice as fast" in fault for fault in faults), faults


# A ledger that was changed and stamped into the film again.


@pytest.fixture(scope="module")
def remade(film, film_recordings):
    """The film made again, each frame entered into its ledger."""
    ledger, _ = read_ledger(film)
    redrawing = Redrawing(Recipe.read(ledger.provenance), Traces([film_recordings]))
    for i in range(len(redrawing.shown)):
        redrawing.frame(i, drawn=False)
    return ledger, redrawing


def of_query(name, **changes):
    """Every claim of a query, changed: values are given, or computed from the claim."""

    def change(claims):
        found = [claim for claim in claims if claim.query.startswith(name)]
        assert found, name
        new = {
            id(claim): {key: value(claim) if callable(value) else value for key, value in changes.items()}
            for claim in found
        }
        return [replaced(claim, **new[id(claim)]) if id(claim) in new else claim for claim in claims]

    return change


def times_three(claim):
    return f"{3 * float(claim.value):.2f}"


LEDGERS = {
    "any frame range": of_query("throughput_ratio_median", first=lambda claim: claim.first - 5),
    "a range of all frames": of_query("throughput_ratio_median", first=0),
    "claims removed": lambda claims: [claim for claim in claims if claim.query != "throughput_ratio_median"],
    "no claims": lambda claims: [],
    "a claim given twice": lambda claims: [*claims, replaced(claims[0], first=1, last=2)],
    "the clock three times": of_query(
        "engine_time_s",
        value=lambda claim: 3 * claim.value,
        args=lambda claim: {"t_ns": 3 * claim.args["t_ns"]},
        shown=times_three,
        text=lambda claim: claim.text.replace(claim.shown, times_three(claim)),
    ),
    "a padded format": of_query("engine_time_s", style="9>6.2f", shown=lambda claim: f"{claim.value:9>6.2f}"),
    "a rounded format": of_query("throughput_ratio_median", style=".0f", shown=lambda claim: f"{claim.value:.0f}"),
    "hexadecimal": of_query("output_tokens", style="x", shown=lambda claim: f"{claim.value:x}"),
    "more digits": of_query("throughput_ratio_median", text=lambda claim: f"1{claim.text}"),
    "no text": of_query("throughput_ratio_median", text=""),
    "text that was cut": of_query("throughput_ratio_median", text="9.9…"),
    "other lines": of_query("throughput_ratio_median", lines=(1, 1)),
    "the best pair five times": of_query(
        "throughput_ratio_median", traces=lambda claim: (claim.traces[0],) * 5 + (claim.traces[5],) * 5
    ),
    "a ratio upside down": of_query(
        "throughput_ratio", traces=lambda claim: (*claim.traces[5:], *claim.traces[:5]), args={"numerator": 5}
    ),
}


@pytest.mark.parametrize("what", LEDGERS)
def test_a_ledger_that_was_changed(what, remade):
    ledger, redrawing = remade
    assert not ledger_faults(ledger, redrawing)
    changed = msgspec.structs.replace(ledger, claims=LEDGERS[what](ledger.claims))
    assert ledger_faults(changed, redrawing)


def test_a_row_that_is_fed_from_another_case(remade, film_recordings):
    """The figure is true of the other case's trace: a query by itself finds nothing wrong."""
    ledger, redrawing = remade
    runs = redrawing.show.read
    claim = next(claim for claim in ledger.claims if claim.query == "output_throughput" and len(claim.traces) == 1)
    other = next(
        digest for digest, run in runs.items() if run.trace.header.policy != runs[claim.traces[0]].trace.header.policy
    )
    value, lines = evaluate(claim.query, [runs[other]], claim.args)
    fed = replaced(claim, traces=(other,), value=value, lines=lines)
    claims = [fed if each is claim else each for each in ledger.claims]
    assert ledger_faults(msgspec.structs.replace(ledger, claims=claims), redrawing)


def test_a_ledger_stamped_again_is_held_to_the_traces(film, film_recordings, tmp_path):
    change = of_query("throughput_ratio_median", value=9.9, shown="9.90", text="9.90×")
    forged = restamped(film, tmp_path, lambda ledger: msgspec.structs.replace(ledger, claims=change(ledger.claims)))
    faults = faults_of(forged, film_recordings)
    assert not any("not the ledger" in fault for fault in faults), "anybody can stamp"
    assert any("throughput_ratio_median" in fault for fault in faults)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("device", "NVIDIA H100 80GB HBM3"),
        ("engine", "another engine"),
        ("workload", "harder 000000000000"),
        ("made_with", "tracereel, verified by an auditor"),
        ("job", "verified by an auditor"),
        ("award", "the fastest engine"),
    ],
)
def test_a_provenance_that_was_rewritten(film, film_recordings, tmp_path, name, text):
    def change(ledger):
        return msgspec.structs.replace(ledger, provenance={**ledger.provenance, name: text})

    faults = faults_of(restamped(film, tmp_path, change), film_recordings)
    assert any(text in fault for fault in faults), faults


def test_a_film_that_does_not_say_how_it_was_made_is_not_verified(film, film_recordings, tmp_path):
    def change(ledger):
        facts = {name: text for name, text in ledger.provenance.items() if name != "scene"}
        return msgspec.structs.replace(ledger, provenance=facts)

    faults = faults_of(restamped(film, tmp_path, change), film_recordings)
    assert any("cannot be made again" in fault for fault in faults)


def test_another_version_of_the_code_is_said(film, film_recordings, tmp_path):
    def change(ledger):
        return msgspec.structs.replace(ledger, provenance={**ledger.provenance, "code": "0" * 64})

    verdict = verify(restamped(film, tmp_path, change), [film_recordings])
    assert any("another version of the code" in note for note in verdict.notes)
    assert not verdict.faults
