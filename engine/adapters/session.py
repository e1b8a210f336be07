"""What an engine is told for one recorded run, whichever engine it is: a file of JSON for a process of its own.

Knows no engine and no suite; everything is resolved already, down to the prompts' token ids.
"""

import sys
from pathlib import Path

import msgspec
from tracereel.trace.format.events import RunInfo, WorkloadInfo


class SessionRequest(msgspec.Struct, frozen=True):
    """One request: exactly `output_tokens` tokens are to be decoded after `prompt_ids`."""

    id: str
    prompt: str
    prompt_ids: list[int]
    output_tokens: int


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """One run: all requests at once, after a warm-up that is not recorded."""

    model: str
    """The model: a file for tracereel, a folder for the others."""
    path: str
    requests: list[SessionRequest]
    slots: int
    token_budget: int
    kv_blocks: int
    block_size: int
    max_model_len: int
    workload: WorkloadInfo
    run: RunInfo
    variant: str = ""
    """Which of an engine's ways to run it."""

    @property
    def warmup(self) -> list[SessionRequest]:
        """What is run before: a full batch of the same prompts, a few tokens each."""
        return [msgspec.structs.replace(request, output_tokens=8) for request in self.requests[: self.slots]]


def session_from_command_line() -> Session:
    """The session whose file is the command's one argument."""
    return msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Session)
