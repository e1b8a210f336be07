"""The documentation's examples run as they stand, and what they write is a valid recording."""

import re
from pathlib import Path

import pytest
from tracereel.trace.check.invariants import check

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.mark.long
def test_the_engines_page_runs(model_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "engine.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == page.count("```python")
    names: dict[str, object] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"docs/engine.md, block {number}", "exec"), names)
    assert len(names["answers"]) == 3
    assert names["story"].finish_reason == "abort"
    assert "abort" in capsys.readouterr().out
    assert check(tmp_path / "questions.jsonl").ok
