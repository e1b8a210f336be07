"""Record suites: run the engine and write down every step.

A suite says which runs belong together; they are made in turns and replace earlier recordings only when all are whole.
"""

import argparse
from pathlib import Path

from tracereel.cli.progress import ProgressReport


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `record`."""
    parser.add_argument(
        "--suite",
        nargs="+",
        default=["film"],
        metavar="SUITE",
        help="suites of the package, or .toml files of one's own (default: film)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for the recordings, with one in it for each suite where there are several (default: the package's"
        " own recordings)",
    )
    parser.add_argument("--device", help="torch device: cpu, cuda (default: cuda where there is one, else cpu)")
    parser.add_argument("--dtype", help="bf16 or fp32 (default: bf16 where the device computes in it)")
    parser.add_argument(
        "--model",
        help="a GGUF file, a folder in Hugging Face's layout, a name on its hub, or random:NAME for a known geometry"
        " with random weights (default: the model that `tracereel fetch` keeps)",
    )


def run(args: argparse.Namespace) -> int:
    """Record and print the files."""
    from tracereel.engine.loading import load_model
    from tracereel.engine.model_store import require_model
    from tracereel.engine.suite import record_suite, suite_named
    from tracereel.trace.catalogue import PACKAGE_RECORDINGS, device_folder

    suites = [suite_named(name) for name in args.suite]
    loaded = load_model(args.model or require_model(), args.device, args.dtype)
    for suite in suites:
        out = args.out or PACKAGE_RECORDINGS / suite.name / device_folder(loaded.device)
        if args.out and len(suites) > 1:
            out = args.out / suite.name
        with ProgressReport() as progress:
            files = record_suite(suite, loaded, out, progress)
        for file in files:
            print(file)
    return 0
