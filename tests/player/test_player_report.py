"""A report in a real browser: nothing is refused by its policy, the player runs in it, and it fits every width."""

import pytest
from tracereel.cli.main import main


@pytest.fixture(scope="module")
def report_file(film_recordings, tmp_path_factory):
    pytest.importorskip("matplotlib")
    out = tmp_path_factory.mktemp("report") / "report.html"
    runs = [str(film_recordings / f"{case}-{i}.jsonl.zst") for case in ("static", "continuous") for i in (1, 2)]
    assert main(("report", *runs, "--out", str(out))) == 0
    return out


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_the_player_runs_in_it_and_nothing_is_refused(chromium, report_file, width, scheme):
    said = []
    with chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme) as context:
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
        page.goto(report_file.as_uri())
        page.locator("iframe").scroll_into_view_if_needed()
        frame = page.frame_locator("iframe")
        frame.locator("html[data-ready=true]").wait_for(state="attached", timeout=20_000)
        frame.locator("#longest-wait").click()
        frame.locator("#request").wait_for(state="visible")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        seen = "dark" if scheme == "dark" else "light"
        assert page.locator(f"img.{seen}").first.is_visible()
        assert page.locator("figure img:visible").count() == page.locator(f"img.{seen}").count() >= 4
        page.emulate_media(media="print", color_scheme="dark")
        assert page.locator("img.light").first.is_visible()
        assert not page.locator("img.dark").first.is_visible()
    assert said == []
