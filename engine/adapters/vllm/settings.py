"""What a user says of a recording of vLLM: in vLLM's additional configuration, or in the environment."""

import os
from typing import Annotated, Any

import msgspec
from tracereel.engine.adapters import AdapterError
from tracereel.engine.adapters.vllm.environment import ENVIRONMENT
from tracereel.trace.format.events import RunInfo, WorkloadInfo


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What stands under "tracereel" in vLLM's additional configuration.

    path: a folder, or a file that ends in .jsonl or .jsonl.zst. content: record prompts, token ids and texts too.
    warmup: so many requests at the start are not recorded; the recording begins with the first after them. workload,
    run: what is asked and which run of a suite this is, where that is known. requests_per_run: so many requests are a
    run, which is recorded by itself: its recording ends with the last of them, and the next request begins the next,
    with the run's number in its name and the next `repeat` in its header; 0 where all is one recording.
    """

    path: str
    warmup: Annotated[int, msgspec.Meta(ge=0)] = 0
    content: bool = True
    workload: WorkloadInfo | None = None
    run: RunInfo | None = None
    requests_per_run: Annotated[int, msgspec.Meta(ge=0)] = 0

    @classmethod
    def of(cls, vllm_config: Any) -> "Settings":
        """The settings of a run. Raises AdapterError."""
        extra = getattr(vllm_config, "additional_config", None)
        given = extra.get("tracereel") if isinstance(extra, dict) else None
        if given is None and (path := os.environ.get(ENVIRONMENT)):
            given = {"path": path}
        if given is None:
            raise AdapterError("""tracereel: where to? Give --additional-config '{"tracereel": {"path": "run"}}'""")
        try:
            return msgspec.convert(given, cls)
        except msgspec.ValidationError as error:
            raise AdapterError(f"tracereel: additional_config: {error}") from None
