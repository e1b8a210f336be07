"""tracereel's engine in a process of its own: runs a session each time a line comes, and records each run.

    python -m gpu_stages.worker_tracereel SESSION.json [--dry-run]

The session's model is a name of `Setting.models`, its path the folder of the recordings. Answers `@@ ready` once it is
warm, and `@@ done` after each run.
"""

import sys
from pathlib import Path

import msgspec
from tracereel.engine.adapters.session import Session, SessionRequest, session_from_command_line
from tracereel.engine.config import EngineConfig
from tracereel.engine.recording import Runners, record_run
from tracereel.engine.workload import Arrivals, Prompt, TokenPrompt, Workload

from gpu_stages.setting import FULL, dry_setting


def main() -> None:
    """Load, warm up, and run as often as asked."""
    session = session_from_command_line()
    setting = dry_setting() if "--dry-run" in sys.argv else FULL
    loaded = setting.load(session.model)
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
    print("@@ ready", flush=True)
    for repeat, _ in enumerate(sys.stdin):
        path = Path(session.path) / f"tracereel-{repeat + 1}.jsonl.zst"
        run = msgspec.structs.replace(session.run, repeat=repeat)
        record_run(loaded, config, workload_of(session, session.requests), path, runners=runners, run=run)
        print("@@ done", flush=True)


def workload_of(session: Session, requests: list[SessionRequest]) -> Workload:
    """Some of a session's requests; those without a text are made of token ids."""
    prompts: list[Prompt | TokenPrompt] = [
        Prompt(request.id, request.prompt, request.output_tokens)
        if request.prompt
        else TokenPrompt(request.id, len(request.prompt_ids), request.output_tokens)
        for request in requests
    ]
    return Workload.of(session.workload.name, prompts, Arrivals())


if __name__ == "__main__":
    main()
