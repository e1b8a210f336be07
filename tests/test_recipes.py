"""The recipes of CONTRIBUTING.md: each names files that are there, and its worked example does what it says.

Examples run in processes of their own, as a reader runs them: they register policies, metrics and scenes.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tracereel.cli.main import main
from tracereel.film.ledger import read_ledger
from tracereel.trace import Trace
from tracereel.trace.format.events import DECODE, Step, decoder
from tracereel.trace.format.storage import LineReader
from tracereel.trace.recordings.index import RecordingIndex

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def python(*arguments: object, cwd: Path = EXAMPLES) -> str:
    """What Python prints; fails with what it says on the error stream."""
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def steps_of(path: Path) -> list[Step]:
    """The steps of a recording, read record by record."""
    return [event for _, line in LineReader(path) if isinstance(event := decoder.decode(line), Step)]


def test_every_recipe_names_files_that_are_there_and_an_example():
    recipes = GUIDE.split("\n## Recipes\n", 1)[1].split("\n## ")[0].split("\n### ")[1:]
    assert len(recipes) == 7
    shown = set()
    for recipe in recipes:
        paths = re.findall(r"`([a-z_.]+(?:/[\w.-]+)+|[A-Z]+\.md|pyproject\.toml|Makefile)`", recipe)
        there = [path for path in paths if "NAME" not in path]
        assert len(paths) >= 3, recipe
        for path in there:
            assert (ROOT / path).exists(), f"{recipe.splitlines()[0]}: {path}"
        shown |= {path for path in there if path.startswith("examples/")}
    assert shown == {f"examples/{path.name}" for path in EXAMPLES.glob("*.py")}


def test_a_policy_from_outside_orders_the_queue():
    orders = dict(line.split(": ") for line in python("scheduling_policy.py").splitlines())
    came = [f"request-{number}" for number in range(8)]
    assert orders["continuous"].split(", ") == came
    assert orders["last-come-first-served"].split(", ") == came[::-1]


def test_an_export_nests_every_step_in_its_request(small_trace, tmp_path):
    python("export_format.py", small_trace, tmp_path / "run.json")
    written = json.loads((tmp_path / "run.json").read_text())
    names = [frame["name"] for frame in written["shared"]["frames"]]
    opened = []
    for profile in written["profiles"]:
        stack, at = [], profile["startValue"]
        for event in profile["events"]:
            assert at <= event["at"] <= profile["endValue"]
            at = event["at"]
            if event["type"] == "O":
                assert len(stack) == (1 if event["frame"] < 2 else 0), "a step lies in a request, a request in nothing"
                opened.append(names[event["frame"]])
                stack.append(event["frame"])
            else:
                assert stack.pop() == event["frame"]
        assert not stack
    steps = steps_of(small_trace)
    assert opened.count("decode") == sum(step.phases.count(DECODE) for step in steps)
    assert opened.count("prefill") == sum(len(step.phases) - step.phases.count(DECODE) for step in steps)
    admitted = sum(len(step.admitted) for step in steps)
    assert len(opened) == admitted + sum(len(step.phases) for step in steps)


def prefill_share(steps: Iterable[Step]) -> float:
    """The metric of examples/metric_on_screen.py, from the records."""
    phases = [(phase, count) for step in steps for phase, count in zip(step.phases, step.computed, strict=True)]
    return sum(count for phase, count in phases if phase != DECODE) / sum(count for _, count in phases)


def filmed(name: str, film: str, folder: Path) -> Path:
    """The film of an example, rendered by the command that the example gives; `film` is its class."""
    options = ["-ql", "-r", "256,144", "--fps", "2", "--media_dir", folder, "-v", "ERROR", "--progress_bar", "none"]
    python("-m", "manim", *options, f"{name}.py")
    (path,) = folder.rglob(f"{film}.mp4")
    return path


@pytest.mark.slow
def test_a_metric_from_outside_is_shown_and_verified(film_recordings, tmp_path):
    path = film_recordings / "continuous-1.jsonl.zst"
    command = "import metric_on_screen, sys; from tracereel.cli.main import main; sys.exit(main(sys.argv[1:]))"
    facts = json.loads(python("-c", command, "inspect", "--json", path))
    assert facts["prefill_share"] == pytest.approx(prefill_share(steps_of(path)))
    film = filmed("metric_on_screen", "MetricOnScreen", tmp_path)
    claims = [claim for claim in read_ledger(film)[0].claims if claim.query == "prefill_share_so_far"]
    last = max(claims, key=lambda claim: claim.last)
    played = RecordingIndex().recordings
    shown = next(r.path for r in played if Trace.read(r.path, tokens=False).digest in last.traces)
    assert last.value == pytest.approx(100 * prefill_share(steps_of(shown)))
    assert ", 0 fault(s)" in python("-m", "tracereel.cli.main", "verify", "--scene", "metric_on_screen.py", film)
    assert main(["verify", str(film)]) == 1, "without its module nobody can ask the query"


def test_the_guide_to_scenes_shows_the_example():
    # tests/test_render.py renders what the guide shows, and verifies the film.
    code = (EXAMPLES / "scene.py").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "scenes.md").read_text(encoding="utf-8"), re.DOTALL)
    assert shown.strip() == code.split('"""', 2)[2].strip()


def test_a_new_field_is_read_by_who_knows_it_and_ignored_by_all_others(tmp_path, capsys):
    path = tmp_path / "run.jsonl"
    assert python("trace_field.py", path).strip() == "[None, 125000]"
    assert '"energy_uj":125000' in path.read_text()
    assert main(["check", str(path)]) == 0
    assert Trace.read(path).steps.sampled.tolist() == [1, 1]
    capsys.readouterr()
    assert main(["check", "--strict", str(path)]) == 1
    assert "energy_uj" in capsys.readouterr().out


def test_an_adapter_records_an_engine_that_does_not_know_it(tmp_path):
    path = tmp_path / "run.jsonl"
    python("engine_adapter.py", path)
    assert main(["check", "--strict", str(path)]) == 0
    trace = Trace.read(path)
    # A token of the toy is the number of tokens before it.
    answers = [trace.steps.token_id[trace.tokens_of(request)].tolist() for request in range(3)]
    assert answers == [[4, 5, 6], [4, 5, 6, 7, 8], [4, 5]]
    assert trace.steps.batch.tolist() == [2, 2, 2, 2, 2]


def test_another_renderer_has_every_method_of_a_canvas_with_its_parameters():
    code = """
import inspect, json
from renderer import SvgCanvas
from tracereel.film.canvas import Canvas

def parameters(owner, name):
    return list(inspect.signature(getattr(owner, name)).parameters)

methods = [name for name, member in vars(Canvas).items() if inspect.isfunction(member) and name[0] != "_"]
wrong = [name for name in methods if parameters(SvgCanvas, name) != parameters(Canvas, name)]
print(json.dumps([len(methods), wrong]))
"""
    count, wrong = json.loads(python("-c", code))
    assert count > 10
    assert not wrong


@pytest.mark.slow
def test_another_renderer_letters_what_the_painter_letters(tmp_path):
    code = """
import json, sys
from renderer import Settings, Show, frame, storyboard
from tracereel.film.frames import BeatFrames

drawn, painted = set(), set()
svg = frame("decode_batching", 8.0, lambda phrase, text: drawn.add(text))
show = Show(Settings.from_environment(), (1920, 1080))
BeatFrames(storyboard("decode_batching", show)[0], show, note=lambda phrase, text: painted.add(text)).at(8.0)
print(json.dumps([sorted(drawn), sorted(painted), svg]))
"""
    drawn, painted, svg = json.loads(python("-c", code))
    assert len(drawn) > 20
    assert drawn == painted
    texts = {element.text for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")}
    assert len(texts) > 20
