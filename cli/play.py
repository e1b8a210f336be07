"""Play recordings in a browser: one HTML file that needs no network, to stop, step, zoom into and compare.

Give one run, or the runs of several cases, the baseline first; files and folders may be mixed. All of them are put
into the page. The median runs of two cases are shown first: of many cases static and continuous, else the first two
that may be compared. Without a name the films' own two cases are played.
Prints the file's path; `tracereel verify FILE.html` checks it against the recordings.
"""

import argparse
from pathlib import Path

from tracereel.cli.terminal import say


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `play`."""
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="trace files or folders, baseline first")
    parser.add_argument("--out", type=Path, default=Path("player.html"), help="the file (default: player.html)")
    parser.add_argument("--language", default="en", help="of the page's words at first: en or zh (default: en)")
    parser.add_argument(
        "--film", type=Path, metavar="FILM", help="a film of some of the runs: the page names its seconds"
    )
    parser.add_argument("--open", action="store_true", help="open it in the browser")
    parser.add_argument("--serve", action="store_true", help="serve it on 127.0.0.1 until Ctrl-C, write no file")
    parser.add_argument("--port", type=int, default=0, help="port of --serve (default: a free one)")


def run(args: argparse.Namespace) -> int:
    """Make the page; write it, open it, or serve it."""
    import webbrowser

    from tracereel.cli.files import trace_files
    from tracereel.player.errors import PlayerError
    from tracereel.player.film import film_entry
    from tracereel.player.page import build_page
    from tracereel.player.server import serving
    from tracereel.trace.format.storage import replace_text
    from tracereel.trace.state.columns import Trace

    paths = list(trace_files(args.runs)) if args.runs else _own_runs()
    film = film_entry(args.film) if args.film is not None else None
    page = build_page([Trace.read(path) for path in paths], args.language, film)
    if args.serve:
        with serving(page, args.port) as (url, serve):
            say(url)
            if args.open:
                webbrowser.open(url)
            serve()
        return 0
    replace_text(args.out, page)
    say(args.out)
    if args.open and not webbrowser.open(args.out.resolve().as_uri()):
        raise PlayerError(f"no browser was found; open {args.out} by hand")
    return 0


def _own_runs() -> list[Path]:
    """The film's static and continuous runs, the median of each."""
    from tracereel.trace.analysis.pairs import median_run
    from tracereel.trace.recordings.index import RecordingIndex

    index = RecordingIndex()
    cases = [case for case in ("static", "continuous") if index.has(case)] or [index.recordings[0].case]
    return [median_run([recording.read() for recording in index.case(case)]).path for case in cases]
