"""The page as a file: what is in it, what it costs, and that nothing in it can be changed unnoticed."""

import base64
import gzip
import hashlib
import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress

import numpy as np
import pytest
import zstandard
from tracereel.cli.main import main
from tracereel.player import server
from tracereel.player.errors import PlayerError
from tracereel.player.page import all_words, build_page, page_data
from tracereel.player.program import bundle
from tracereel.player.server import serving
from tracereel.player.spans import spans_of
from tracereel.trace.analysis.queries import Run
from tracereel.trace.state.columns import Trace


@pytest.fixture(scope="module")
def film(film_recordings):
    return [film_recordings / f"{case}-1.jsonl.zst" for case in ("static", "continuous")]


@pytest.fixture(scope="module")
def page(film):
    return build_page([Trace.read(path) for path in film])


def verdict(capsys, tmp_path, text, traces):
    file = tmp_path / "page.html"
    file.write_text(text, "utf-8")
    code = main(["verify", str(file), "--trace", *map(str, traces)])
    return code, capsys.readouterr()


@pytest.mark.slow
def test_the_films_two_runs_take_less_than_250_kilobytes(page, tmp_path):
    assert len(page.encode()) < 250_000
    assert main(["play", "--out", str(tmp_path / "default.html")]) == 0
    assert (tmp_path / "default.html").stat().st_size < 250_000


def opening(paths):
    data = page_data([Run.read(path) for path in paths], "en")
    entries = {entry.key: entry for entry in data.runs}
    return [(entries[key].case, entries[key].median) for key in data.opening]


@pytest.mark.slow
def test_of_many_cases_the_two_that_can_be_compared_are_shown_first(film_recordings):
    files = {case: film_recordings / f"{case}-1.jsonl.zst" for case in ("continuous", "online", "same-position")}
    assert opening(files.values()) == [("continuous", True), ("same-position", True)]
    files["static"] = film_recordings / "static-1.jsonl.zst"
    assert opening(files.values()) == [("static", True), ("continuous", True)]
    assert opening([files["continuous"], files["static"]]) == [("continuous", True), ("static", True)], "as given"
    assert opening([files["online"], files["static"]]) == [("online", True), ("static", True)]
    assert opening([files["online"]]) == [("online", True)]


def test_repeats_of_one_case_open_side_by_side(film_recordings):
    assert len(opening([film_recordings / f"static-{i}.jsonl.zst" for i in (1, 2, 3)])) == 2


def test_the_same_traces_give_the_same_page(film, page):
    assert build_page([Trace.read(path) for path in film]) == page


def test_the_page_needs_nothing_from_elsewhere(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert not re.search(r'(?:src|href)="(?!#)', page.split("<script")[0])


def test_a_page_is_what_the_traces_say(capsys, tmp_path, film, page):
    code, said = verdict(capsys, tmp_path, page, film)
    assert code == 0, said
    assert "2 run(s)" in said.out


@pytest.mark.parametrize(
    ("what", "change", "fault"),
    [
        (
            "a figure",
            lambda t: re.sub(r'("label":"metric_output_throughput".*?"value":)[\d.]+', r"\g<1>999.5", t, count=1),
            "999.5",
        ),
        (
            "how it is shown",
            lambda t: re.sub(r'("label":"metric_steps".*?"shown":)"[\d,]+"', r'\1"7"', t, count=1),
            "shows '7'",
        ),
        (
            "a label",
            lambda t: t.replace('"label":"metric_steps"', '"label":"metric_requests"', 1),
            "runs: not what is made",
        ),
        ("a name", lambda t: t.replace('"name":"static 1"', '"name":"continuous 9"'), "runs: not what is made"),
        ("a word", lambda t: t.replace("is ahead by {tokens}", "is behind by {tokens}"), "words: not what is made"),
        ("the program", lambda t: t.replace("other - one", "one - other"), "program"),
        ("a column", lambda t: repacked(t), "columns are not what the trace says"),
    ],
    ids=lambda part: part if isinstance(part, str) and " " in part else "",
)
def test_whatever_is_changed_in_a_page_is_found(capsys, tmp_path, film, page, what, change, fault):
    changed = change(page)
    assert changed != page, what
    code, said = verdict(capsys, tmp_path, changed, film)
    assert code == 1, what
    assert fault in said.out


def repacked(text):
    """One run's columns with another token in them."""
    packed = re.search(r'id="columns-[0-9a-f]{12}">([^<]+)<', text)[1]
    content = bytearray(gzip.decompress(base64.b64decode(packed)))
    content[-5] ^= 1
    return text.replace(packed, base64.b64encode(gzip.compress(bytes(content), mtime=0)).decode())


def test_a_page_of_other_traces_is_not_verified(capsys, tmp_path, film, page):
    code, said = verdict(capsys, tmp_path, page, film[:1])
    assert code == 1
    assert "is not among the traces given" in said.out


@pytest.mark.parametrize(
    "text", ["", "<html></html>", '<script type="application/json" id="tracereel-data">{}</script>']
)
def test_what_is_no_page_is_refused_in_a_line(capsys, tmp_path, film, text):
    code, said = verdict(capsys, tmp_path, text, film)
    assert code == 2
    assert said.err.count("\n") == 1


def test_spans_say_what_the_members_say(any_trace):
    trace = Trace.read(any_trace)
    steps, spans, slots = trace.steps, spans_of(trace), trace.header.slots
    places = [np.flatnonzero(steps.replica == place) for place in range(max(len(trace.header.replicas), 1))]
    ordinal = {int(step): k for own in places for k, step in enumerate(own)}
    said = set()
    for i in range(len(spans.slot)):
        own = places[int(steps.replica[spans.step[i]])]
        for k in range(int(spans.length[i])):
            step = int(own[ordinal[int(spans.step[i])] + k])
            said.add((step, int(spans.slot[i]), int(spans.request[i]), int(spans.position[i]) + k))
    members = zip(steps.member_step, steps.member_slot, steps.member_request, steps.member_position, strict=True)
    assert said == {tuple(map(int, member)) for member in members}
    assert all(0 <= slot < slots for _, slot, _, _ in said)


def test_both_languages_have_all_words():
    words = all_words()
    assert words["en"].keys() == words["zh"].keys()
    for key, text in words["en"].items():
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", words["zh"][key])), key


def test_play_writes_a_page_and_says_where(capsys, tmp_path, film):
    out = tmp_path / "deep" / "run.html"
    assert main(["play", str(film[1]), "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    data = json.loads(re.search(r'id="tracereel-data">(.*?)</script>', out.read_text("utf-8"))[1])
    assert [run["digest"] for run in data["runs"]] == [Trace.read(film[1]).digest]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["{trace}", "{trace}"], "name it once"),
        (["{trace}", "--language", "xx"], "language: 'xx' is not one of en, zh"),
        (["{folder}/none.jsonl"], "cannot be read"),
        (["{trace}", "--out", "{folder}"], "it is a folder"),
        (["{trace}", "--serve", "--port", "70000"], "port: 70000"),
    ],
)
def test_what_cannot_be_played_is_one_line(capsys, tmp_path, film, arguments, fault):
    filled = [part.format(trace=film[0], folder=tmp_path) for part in arguments]
    assert main(["play", *filled]) == 2
    said = capsys.readouterr()
    assert fault in said.err
    assert said.err.count("\n") == 1


def changed(path, old, new):
    """A recording with one thing in it changed, its digest made to fit."""
    text = zstandard.ZstdDecompressor().stream_reader(path.open("rb")).read().decode()
    assert old in text
    *lines, end = text.replace(old, new, 1).splitlines(keepends=True)
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    return "".join(lines) + re.sub(r'"digest":"[0-9a-f]+"', f'"digest":"{digest}"', end)


def test_where_a_recording_contradicts_itself_is_said_on_the_page(tmp_path, film):
    path = tmp_path / "broken.jsonl"
    path.write_text(changed(film[0], '"waiting":40', '"waiting":39'))
    data = json.loads(re.search(r'id="tracereel-data">(.*?)</script>', build_page([Trace.read(path)]))[1])
    assert any("waiting" in note for note in data["runs"][0]["notes"])


@pytest.mark.parametrize(
    ("modules", "fault"),
    [
        ({"app.js": 'import { a } from "./b.js";\n'}, "is not there"),
        ({"app.js": 'import { a } from "./b.js";\n', "b.js": 'import { c } from "./app.js";\n'}, "needs it itself"),
        ({"app.js": 'import * as b from "./b.js";\n', "b.js": ""}, "not bundled"),
        ({"app.js": "export default 1;\n"}, "not bundled"),
        ({"app.js": 'const x = "</script>";\n'}, "would end the script"),
    ],
)
def test_modules_that_would_be_bundled_wrongly_are_refused(modules, fault):
    with pytest.raises(PlayerError, match=fault):
        bundle(modules, "app.js")


def test_the_server_answers_this_machine_alone_with_the_page_alone():
    with serving("the page") as (url, serve):
        threading.Thread(target=serve, daemon=True).start()
        with urllib.request.urlopen(url) as answer:
            assert answer.read() == b"the page"
            assert answer.headers["X-Frame-Options"] == "DENY"
        for path, host, code in (("etc/passwd", None, 404), ("", "evil.example", 421)):
            request = urllib.request.Request(url + path, headers={"Host": host} if host else {})
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(request)
            assert refused.value.code == code
        with pytest.raises(PlayerError, match="cannot be listened on"), serving("", int(url.split(":")[-1].strip("/"))):
            pass
        address = socket.getaddrinfo("127.0.0.1", 0)[0][4][0]
        assert url.startswith(f"http://{address}:")


def test_a_browser_that_sends_a_byte_now_and_then_has_only_its_time(monkeypatch):
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.3)
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 3)
    with serving("the page") as (url, serve):
        threading.Thread(target=serve, daemon=True).start()
        address = ("127.0.0.1", int(url.split(":")[-1].strip("/")))
        slow = [socket.create_connection(address, timeout=5) for _ in range(5)]
        by = time.monotonic() + 5
        for connection in slow:  # two find no room, three have no more time
            with suppress(ConnectionError):
                while time.monotonic() < by:
                    connection.sendall(b"G")
                    connection.settimeout(0.05)
                    with suppress(TimeoutError):
                        assert connection.recv(1) == b""
                        break
            assert time.monotonic() < by
            connection.close()
        with urllib.request.urlopen(url) as answer:
            assert answer.read() == b"the page"


@pytest.mark.slow
@pytest.mark.parametrize("absent", ["manim", "torch", "av", "cairo", "tracereel.engine", "playwright"])
def test_a_page_is_made_without(absent):
    code = f"import sys, tracereel.player.page, tracereel.player.verification; sys.exit({absent!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
