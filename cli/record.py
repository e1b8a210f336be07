"""Record suites, or one run of any workload: run the engine and record every step.

A suite says which runs belong together. Its repeats are interleaved, and they replace earlier recordings only when all
of them are whole. After an interruption the same command keeps the whole recordings and continues. It re-records only
what is stale: recordings of another engine, model or suite than the present ones. Prints the files, and what moved
against the earlier recordings.

With --workload it records one run of a workload file: a prompt file (JSON Lines with id and prompt,
pinned by `tracereel pin`; client says whose request it is), a CSV file with TIMESTAMP, ContextTokens,
GeneratedTokens, JSON Lines with timestamp, input_length, output_length, hash_ids (Mooncake's; Bailian's are known by
their fields), or a TOML file that describes a synthetic workload. The file may be a pipe, and packed with gzip or zstd:

    requests = 64
    seed = 1
    arrivals = { kind = "poisson", rate = 4.0 }       # or fixed; bursts with burst = 8; at once
    prompt_tokens = { kind = "lognormal", mean = 120, sigma = 0.6, max = 800 }
    output_tokens = { kind = "geometric", mean = 60, max = 200 }         # or fixed with mean; uniform with min, max
    clients = { heavy = 8, light = 1 }                # whose each request is, drawn by weight: for the policy fair

With --engine those engines run a suite's workload instead: all requests at once, in interleaved repeats, one engine
at a time. vllm and transformers must be installed here, or TRACEREEL_VLLM_PYTHON and TRACEREEL_TRANSFORMERS_PYTHON
must name interpreters that have them. All recordings of the suite NAME-engines are re-recorded.

Where a file gives only lengths, a seed makes up token ids as prompts. The command says what it leaves out, scales or
clips, and the trace records it.
"""

import argparse
import contextlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracereel.cli.openmp import yield_the_cores
from tracereel.cli.progress import ProgressReport
from tracereel.cli.terminal import say, warn

if TYPE_CHECKING:
    from tracereel.engine.staleness import Planned
    from tracereel.trace.state.columns import Trace


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `record`."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--suite",
        nargs="+",
        default=["film"],
        metavar="SUITE",
        help="suites of the package, or .toml files of your own (default: film)",
    )
    what.add_argument("--workload", type=Path, metavar="FILE", help="record one run of this workload instead")
    parser.add_argument(
        "--out",
        type=Path,
        help="of suites: folder for the recordings, with one in it for each suite where there are several (default: the"
        " package's own recordings); of a workload: the trace file, .jsonl or .jsonl.zst (default: named after the"
        " workload and the policy, here)",
    )
    parser.add_argument(
        "--engine",
        type=_engine_names,
        metavar="NAME[,NAME]",
        help="of suites: record these engines for a comparison, with the default model in bf16 (default: tracereel"
        " alone, under the suite's policies)",
    )
    parser.add_argument("--all", action="store_true", help="re-record everything, not only what is stale")
    parser.add_argument(
        "--dry-run", action="store_true", help="only say which recordings are stale; exit code 1 where some are"
    )
    parser.add_argument("--device", help="torch device: cpu, cuda (default: cuda where there is one, else cpu)")
    parser.add_argument("--dtype", help="bf16 or fp32 (default: bf16 where the device computes in it)")
    parser.add_argument(
        "--model",
        help="a GGUF file, a folder in Hugging Face's layout, a name on its hub, or random:NAME for a known geometry"
        " with random weights (default: the model that `tracereel fetch` keeps)",
    )
    load = parser.add_argument_group("with --workload: how requests come")
    load.add_argument("--limit", type=int, metavar="N", help="only the first N requests")
    load.add_argument("--time-unit", metavar="UNIT", help="of a trace of Mooncake's fields: s, ms, us or ns")
    load.add_argument(
        "--hash-block-tokens", type=int, metavar="N", help="of such a trace: tokens that a hash id stands for"
    )
    pace = load.add_mutually_exclusive_group()
    pace.add_argument(
        "--time-scale", type=float, metavar="F", help="multiply arrival times by F: 0.5 is twice the load"
    )
    pace.add_argument(
        "--rate",
        type=float,
        metavar="R",
        help="scale arrival times to R requests/s; requests that all come together become a Poisson process",
    )
    engine = parser.add_argument_group("with --workload: the engine")
    engine.add_argument("--policy", metavar="NAME", help="how it batches (default: continuous)")
    for option, (_, text) in _LIMITS.items():
        engine.add_argument(option, type=int, metavar="N", help=text)
    engine.add_argument("--prefix-caching", action="store_true", default=None, help="share blocks of equal prefixes")


_ENGINES = ("tracereel", "vllm", "transformers")


def _engine_names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in _ENGINES]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(_ENGINES)}")
    return names


_LIMITS = {
    "--slots": ("max_num_seqs", "sequences in the batch (default: 8)"),
    "--token-budget": ("max_num_batched_tokens", "tokens computed in a step (default: 512)"),
    "--kv-blocks": ("num_blocks", "KV blocks of the pool (default: 256)"),
    "--block-tokens": ("block_size", "tokens that a block holds (default: 16)"),
    "--max-model-len": ("max_model_len", "tokens of one sequence; longer prompts are clipped to it (default: 2048)"),
    "--max-wait-ms": ("max_wait_ms", "longest wait for a batch to fill, under dynamic (default: 100)"),
}


def run(args: argparse.Namespace) -> int:
    """Record and print the files."""
    if args.engine:
        return _engines(args)
    yield_the_cores()
    return _suites(args) if args.workload is None else _workload(args)


def _suites(args: argparse.Namespace) -> int:
    from tracereel.engine.config import ConfigError
    from tracereel.engine.loading import load_model
    from tracereel.engine.staleness import obsolete, plan
    from tracereel.engine.suite import suite_named
    from tracereel.engine.suite_recording import record_suite
    from tracereel.trace.recordings.index import PACKAGE_RECORDINGS, device_folder

    pace = {name: getattr(args, name) for name in ("limit", "time_scale", "rate", "time_unit", "hash_block_tokens")}
    for name in [*_settings(args), *(name for name, value in pace.items() if value is not None)]:
        raise ConfigError(f"{name}: is for --workload; a suite's file says it for a suite")
    suites = [suite_named(name) for name in args.suite]
    loaded = load_model(args.model, args.device, args.dtype)
    stale = False
    for suite in suites:
        out = args.out or PACKAGE_RECORDINGS / suite.name / device_folder(loaded.device)
        if args.out and len(suites) > 1:
            out = args.out / suite.name
        planned = plan(suite, loaded, out)
        chosen = [each for each in planned if each.stale or args.all]
        _say_what_is_stale(suite.name, planned, len(chosen))
        stale = stale or any(each.stale for each in planned)
        if args.dry_run or not chosen:
            continue
        before = _whole_traces(each.path for each in chosen)
        with ProgressReport() as progress:
            files = record_suite(suite, loaded, out, progress, [(each.repeat, each.case) for each in chosen])
        for path in obsolete(suite, out):
            path.unlink()
        for file in files:
            say(file)
        if before:
            _show_differences(before, _whole_traces(files))
    return 1 if args.dry_run and stale else 0


def _engines(args: argparse.Namespace) -> int:
    from tracereel.engine.config import ConfigError
    from tracereel.engine.loading import choose_device, device_info
    from tracereel.engine.model_store import require_model
    from tracereel.engine.race import record_engines, suite_name
    from tracereel.engine.suite import suite_named
    from tracereel.engine.weights import open_weights
    from tracereel.trace.recordings.index import PACKAGE_RECORDINGS, device_folder

    if args.workload is not None or _settings(args):
        raise ConfigError("engine: --engine records suites; --workload is for tracereel's own engine")
    for name in ("device", "dtype", "model"):
        if getattr(args, name) is not None:
            raise ConfigError(
                f"{name}: engines are recorded on the best device there is, in bf16, with the default model"
            )
    suites = [suite_named(name) for name in args.suite]
    model = require_model()
    tokenizer = open_weights(model).tokenizer()
    device = device_folder(device_info(choose_device(None)))
    for suite in suites:
        out = args.out or PACKAGE_RECORDINGS / suite_name(suite) / device
        if args.out and len(suites) > 1:
            out = args.out / suite_name(suite)
        with ProgressReport() as progress:
            files = record_engines(suite, args.engine, model, tokenizer, out, progress)
        for file in files:
            say(file)
    return 0


def _say_what_is_stale(suite: str, planned: "Sequence[Planned]", chosen: int) -> None:
    reasons = Counter(each.stale for each in planned if each.stale)
    for reason, count in reasons.items():
        warn(f"{suite}: {count} of {len(planned)} recordings stale: {reason}")
    if not chosen:
        warn(f"{suite}: all {len(planned)} recordings are of this engine, model and suite; --all re-records them")
    elif not reasons:
        warn(f"{suite}: no recording is stale; all {len(planned)} are re-recorded")
    elif chosen < len(planned):
        warn(
            f"{suite}: the other {len(planned) - chosen} stay; new recordings belong to none of their repeats and make"
            " no pairs with them; --all re-records everything"
        )


def _whole_traces(paths: "Iterable[Path]") -> "list[Trace]":
    """The traces that are there and can be read."""
    from tracereel.trace.format.storage import TraceError
    from tracereel.trace.state.columns import Trace

    found = []
    for path in paths:
        with contextlib.suppress(TraceError):
            found.append(Trace.read(path))
    return [trace for trace in found if trace.cut is None]


def _show_differences(before: "Sequence[Trace]", after: "Sequence[Trace]") -> None:
    from tracereel.cli import diff
    from tracereel.cli.tables import Page
    from tracereel.trace.analysis.comparable import NotComparableError
    from tracereel.trace.analysis.diff import NothingInCommonError, differences

    try:
        for difference in differences(before, after):
            diff.show(Page(), difference)
    except (NotComparableError, NothingInCommonError) as error:
        warn(f"no difference is shown: {error}")


def _workload(args: argparse.Namespace) -> int:
    from tracereel.engine.config import ConfigError, EngineConfig
    from tracereel.engine.policies import policy_named
    from tracereel.engine.workload_files import read_workload

    config = EngineConfig(**_settings(args))
    policy_named(config.policy)
    workload = read_workload(
        args.workload, args.limit, time_unit=args.time_unit, hash_block_tokens=args.hash_block_tokens
    )
    if args.time_scale is not None:
        workload = workload.scaled(args.time_scale)
    if args.rate is not None:
        workload = workload.at_rate(args.rate)
    workload = workload.clipped(config.max_model_len)
    out = args.out or Path(f"{args.workload.stem}-{config.policy}.jsonl.zst")
    if not out.name.endswith((".jsonl", ".jsonl.zst")):
        raise ConfigError(f"out: {out} does not end in .jsonl or .jsonl.zst")
    # Only now, as torch takes seconds: a file that is no workload is refused at once, and a pipe is emptied.
    from tracereel.engine.loading import load_model
    from tracereel.engine.recording import record_workload

    loaded = load_model(args.model, args.device, args.dtype)
    warn(f"{len(workload.requests)} requests, {workload.arrivals}")
    for note in workload.notes:
        warn(note)
    total = len(workload.requests)
    with ProgressReport() as progress:
        record_workload(loaded, config, workload, out, lambda done: progress(config.policy, done, total))
    say(out)
    return 0


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """The engine's settings that were given, by their names in EngineConfig."""
    named = {field: getattr(args, option[2:].replace("-", "_")) for option, (field, _) in _LIMITS.items()}
    named |= {"policy": args.policy, "enable_prefix_caching": args.prefix_caching}
    return {field: value for field, value in named.items() if value is not None}
