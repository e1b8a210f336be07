"""Pin the output lengths of prompt files: how long the model's own greedy answers are.

Answers each prompt up to the model's end token, or to --max-tokens, and writes the answer's length into the file. Every
policy then decodes the same number of tokens.
"""

import argparse
from pathlib import Path

from tracereel.cli.openmp import yield_the_cores
from tracereel.cli.progress import ProgressReport
from tracereel.cli.terminal import say


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `pin`."""
    parser.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="a prompt file: JSON Lines with id and prompt; rewritten in place",
    )
    parser.add_argument("--max-tokens", type=int, default=160, help="stop an answer here (default: 160)")
    parser.add_argument("--device", help="torch device: cpu, cuda (default: cuda where there is one, else cpu)")
    parser.add_argument("--dtype", help="bf16 or fp32 (default: bf16 where the device computes in it)")
    parser.add_argument(
        "--model",
        help="a GGUF file, a folder in Hugging Face's layout, a name on its hub, or random:NAME for a known geometry"
        " with random weights (default: the model that `tracereel fetch` keeps)",
    )


def run(args: argparse.Namespace) -> int:
    """Answer every prompt, write the lengths, print the answers."""
    yield_the_cores()
    from tracereel.engine.loading import load_model
    from tracereel.engine.pinning import pin_lengths
    from tracereel.engine.workload_files import read_prompts, write_prompts

    contents = [read_prompts(file) for file in args.files]
    loaded = load_model(args.model, args.device, args.dtype)
    for file, prompts in zip(args.files, contents, strict=True):
        with ProgressReport() as progress:
            answers = pin_lengths(prompts, loaded, args.max_tokens, progress)
        write_prompts(file, [answer.prompt for answer in answers])
        for answer in answers:
            say(f"{answer.prompt.id} ({answer.prompt.output_tokens} tokens, {answer.reason}): {answer.text!r}")
    return 0
