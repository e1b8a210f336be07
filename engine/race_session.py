"""A recorded run of tracereel's own engine, for a comparison of engines: `python -m tracereel.engine.race_session`."""

from pathlib import Path

from tracereel.engine.adapters.session import Session, SessionRequest, session_from_command_line
from tracereel.engine.config import EngineConfig
from tracereel.engine.loading import load_model
from tracereel.engine.recording import Runners, record_run
from tracereel.engine.workload import Arrivals, Prompt, Workload


def main() -> None:
    """Load, warm up, run; all requests at once, under the policy that the variant names."""
    session = session_from_command_line()
    loaded = load_model(session.model, dtype="bf16")
    config = EngineConfig(
        policy=session.variant,
        max_num_seqs=session.slots,
        max_num_batched_tokens=session.token_budget,
        num_blocks=session.kv_blocks,
        block_size=session.block_size,
        max_model_len=session.max_model_len,
    )
    runners = Runners(loaded)
    record_run(loaded, config, workload_of(session, session.warmup), None, runners=runners)
    whole = workload_of(session, session.requests)
    record_run(loaded, config, whole, Path(session.path), runners=runners, run=session.run)


def workload_of(session: Session, requests: list[SessionRequest]) -> Workload:
    """Some of a session's requests as the workload they came from."""
    prompts = [Prompt(request.id, request.prompt, request.output_tokens) for request in requests]
    return Workload.of(session.workload.name, prompts, Arrivals())


if __name__ == "__main__":
    main()
