"""A real browser, and pages of the player in it; nothing may be said on its console."""

import dataclasses
import hashlib
import shutil
from contextlib import ExitStack

import fakes
import msgspec
import pytest
from tracereel.engine.config import EngineConfig
from tracereel.player.page import build_page
from tracereel.trace.export.merge import merge
from tracereel.trace.format.events import ParallelInfo
from tracereel.trace.format.recorder import Recorder
from tracereel.trace.state.columns import Trace

QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
READY = "html[data-ready=true]"


def pytest_collection_modifyitems(items):
    """Whatever starts a browser is slow."""
    for item in items:
        if "chromium" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def chromium():
    """Chromium, driven by Playwright; tests that need it are skipped where one of the two is not here."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the dev extra")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs a browser on the path: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium, tmp_path):
    """open_page(paths, "#hash", viewport=…) -> the page, ready; at the end its console must have stayed empty."""
    said = []
    with ExitStack() as stack:

        def open_(paths, link="", *, html=None, **context):
            file = tmp_path / "page.html"
            file.write_text(html or build_page([Trace.read(path) for path in paths]), "utf-8")
            settings = {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark", **context}
            browser = stack.enter_context(chromium.new_context(**settings))
            page = browser.new_page()
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
            page.goto(file.as_uri() + link)
            page.wait_for_selector(READY, timeout=120_000)
            return page

        yield open_
    assert said == []


def settled(page):
    """Wait until what was asked for is drawn."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


STRANGE = [
    "🎬👩‍👩‍👧",
    "漢字",
    "עברית",
    "a\x00\x1b[31m\u202e\u2028\u200b\ufffd",
    "",
    "\n\t\r\n",
    "</script><b>&amp;",
    "W" * 300,
]


class StrangeText:
    """A text for each token such as no model should give."""

    def text(self, token_id, last=False):
        return STRANGE[token_id % len(STRANGE)]


def record(path, *, requests=6, slots=3, longest=12, new_stream=fakes.FakeText, prompt=None):
    """Record a run of the fake model by the real engine."""
    config = EngineConfig(
        policy="continuous",
        max_num_seqs=slots,
        max_num_batched_tokens=max(64, slots),
        num_blocks=64 * slots,
        block_size=4,
        max_model_len=128,
    )
    with Recorder(path, fakes.header(config)) as recorder:
        engine = fakes.make_engine(config, recorder)
        engine._new_stream = new_stream
        for asked in fakes.make_requests(requests, longest=longest):
            engine.add(asked if prompt is None else dataclasses.replace(asked, prompt=prompt))
        while engine.has_work:
            engine.step()


def without(path, *fields):
    """Take fields out of every record: what a source cannot know is absent."""
    records = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    for record_ in records:
        for name in fields:
            record_.pop(name, None)
    body = b"".join(msgspec.json.encode(record_) + b"\n" for record_ in records[:-1])
    records[-1]["digest"] = hashlib.sha256(body).hexdigest()
    path.write_bytes(body + msgspec.json.encode(records[-1]) + b"\n")


def small(path):
    fakes.record_small_run(path)


def one_request(path):
    record(path, requests=1, slots=1)


def many_requests(path):
    record(path, requests=500, slots=256, longest=6)


def strange_texts(path):
    record(path, requests=12, slots=4, new_stream=StrangeText, prompt="".join(STRANGE))


def no_texts(path):
    record(path)
    without(path, "texts", "prompt")


def no_kv(path):
    record(path)
    without(path, "kv_used", "blocks", "kv_blocks", "kv_block_tokens", "tokens", "scheduled_ns")


def cut_off(path):
    record(path, requests=20)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def no_requests(path):
    record(path, requests=0)


def merged(path):
    """Two replicas of one engine that took turns with the steps, merged."""
    config = EngineConfig(max_num_seqs=3, max_num_batched_tokens=24, num_blocks=60, block_size=4, max_model_len=64)
    parts = [path.with_name(f"replica-{i}.jsonl") for i in range(2)]
    heads = [msgspec.structs.replace(fakes.header(config), parallel=ParallelInfo(data=2, replica=i)) for i in range(2)]
    with ExitStack() as stack:
        recorders = [stack.enter_context(Recorder(part, head)) for part, head in zip(parts, heads, strict=True)]
        engines = [fakes.make_engine(config, recorder) for recorder in recorders]
        for i, asked in enumerate(fakes.make_requests(14)):
            engines[i % 2].add(asked)
        while any(engine.has_work for engine in engines):
            for engine in engines:
                engine.step()
    merge(parts, path)


KINDS = (small, one_request, many_requests, strange_texts, no_texts, no_kv, cut_off, no_requests, merged)


@pytest.fixture(scope="session", params=KINDS, ids=lambda kind: kind.__name__)
def any_trace(request, tmp_path_factory):
    """A valid trace of each kind that there can be."""
    path = tmp_path_factory.mktemp("any") / f"{request.param.__name__}.jsonl"
    request.param(path)
    return path
