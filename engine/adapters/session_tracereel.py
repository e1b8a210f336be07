"""One recorded run of tracereel's own engine beside others: `python -m tracereel.engine.adapters.session_tracereel`."""

from pathlib import Path

from tracereel.engine.adapters.session import Ask, Session, session_from_command_line
from tracereel.engine.config import EngineConfig
from tracereel.engine.loading import LoadedModel, load_model
from tracereel.engine.recording import Runners
from tracereel.engine.request import Request, SamplingParams
from tracereel.trace.recorder import Recorder


def main() -> None:
    """Load, warm up, run."""
    session = session_from_command_line()
    loaded = load_model(session.model, dtype="bf16")
    runners = Runners(loaded)
    answer(loaded, runners, session, session.warmup, recorded=False)
    answer(loaded, runners, session, session.asks, recorded=True)


def answer(loaded: LoadedModel, runners: Runners, session: Session, asks: list[Ask], *, recorded: bool) -> None:
    """All requests at once, under the policy that the variant names."""
    config = EngineConfig(
        policy=session.variant,
        max_num_seqs=session.slots,
        max_num_batched_tokens=session.token_budget,
        num_blocks=session.kv_blocks,
        block_tokens=session.block_tokens,
        max_model_len=session.max_model_len,
    )
    runner = runners.of(config)
    header = loaded.header(config, runner, session.workload, session.run)
    recorder = Recorder(Path(session.path), header) if recorded else None
    engine = loaded.engine(config, runner=runner, recorder=recorder)
    for ask in asks:
        sampling = SamplingParams(max_tokens=ask.output_tokens, min_tokens=ask.output_tokens)
        engine.add(Request(ask.id, tuple(ask.prompt_ids), sampling, ask.prompt), arrival_ns=0)
    while engine.has_work:
        engine.step()
    if recorder:
        recorder.close()


if __name__ == "__main__":
    main()
