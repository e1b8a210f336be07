"""A small seeded slice of `benchmarks/campaign.py`: no damage ends in a traceback, a hang or a lost file."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).resolve().parents[1] / "benchmarks" / "campaign.py"


def campaign(keep: Path, *parts: str) -> tuple[int, str]:
    """The exit code and what was printed."""
    asked = [option for part in parts for option in ("--part", part)]
    command = [sys.executable, str(CAMPAIGN), "--seed", "1", "--keep", str(keep), *asked]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads a child's memory from /proc")
def test_a_slice_of_the_campaign_ends_with_none_bad(tmp_path):
    counts = {"traces": 8, "ledgers": 6, "files": 12, "renders": 2}
    code, said = campaign(tmp_path, *(f"{name}={count}" for name, count in counts.items()))
    assert code == 0, said[-3000:]
    assert said.endswith("0 bad\n")
    for name, count in counts.items():
        assert re.search(rf"^{name}: {count} trials in \d+ s, 0 bad", said, re.MULTILINE), said[-3000:]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_command_that_fails_is_bad_and_its_input_is_kept(tmp_path):
    # In the forked children alone: the campaign itself runs each command once.
    broken = "import os, runpy, sys, tracereel.cli.check as c\npid = os.getpid()\n"
    broken += "c.run = lambda args: 0 if os.getpid() == pid else os._exit(3)\n"
    broken += f"sys.path.insert(0, {str(CAMPAIGN.parent)!r})\nsys.argv = sys.argv[1:]\n"
    broken += f"runpy.run_path({str(CAMPAIGN)!r}, run_name='__main__')\n"
    command = [sys.executable, "-c", broken, "campaign.py", "--part", "traces=1", "--keep", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "exit code 3" in done.stdout
    assert "the commands after it were not tried" in done.stdout
    (kept,) = tmp_path.iterdir()
    assert any(path.name.startswith("damaged.jsonl") for path in kept.iterdir())
