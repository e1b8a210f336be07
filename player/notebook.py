"""The player and the films in a notebook: `show(run, …)` and `film(scene, …)`.

What they give displays itself (`_repr_html_`) and stays in the notebook's file: it is still there after `nbconvert`,
with no kernel and no file next to it.
"""

import base64
import html
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tracereel.player.errors import PlayerError
from tracereel.player.page import build_page
from tracereel.trace.recordings.index import traces_below
from tracereel.trace.state.columns import Trace


@dataclass(frozen=True)
class Player:
    """A page of the player; in a notebook it shows itself."""

    page: str
    height: int

    def _repr_html_(self) -> str:
        # In a sandbox: the page's script can reach neither the notebook nor its cookies.
        return (
            f'<iframe srcdoc="{html.escape(self.page)}" title="tracereel player"'
            ' sandbox="allow-scripts allow-downloads" allow="clipboard-write *"'
            f' style="width:100%;height:{self.height}px;border:0"></iframe>'
        )


@dataclass(frozen=True)
class Film:
    """A rendered film; in a notebook it shows itself."""

    path: Path

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.path.read_bytes()).decode()
        return f'<video controls style="width:100%" src="data:video/mp4;base64,{data}"></video>'


def show(*runs: Path | str | Trace, height: int = 900, language: str = "en") -> Player:
    """The player with these runs: trace files, folders of them, or traces; the baseline first.

    `height` is the frame's, in pixels. Raises PlayerError where they cannot be played, TraceError where a file cannot
    be read.
    """
    traces: list[Trace] = []
    for run in runs:
        if isinstance(run, Trace):
            traces.append(run)
        else:
            path = Path(run)
            traces += [Trace.read(file) for file in (traces_below(path) if path.is_dir() else [path])]
    return Player(build_page(traces, language), height)


def film(scene: str, *, recordings: Path | str | None = None, quality: str = "l") -> Film:
    """Render a scene as `tracereel render` does, in a process of its own, from `recordings` or the package's.

    Raises PlayerError with what the command said where it cannot be rendered.
    """
    command = [sys.executable, "-m", "tracereel.cli.main", "render", scene, "--quality", quality]
    command += ["--recordings", str(recordings)] if recordings is not None else []
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise PlayerError(said[-1] if said else f"rendering {scene} ended with exit code {done.returncode}")
    return Film(Path(done.stdout.strip().splitlines()[-1]))
