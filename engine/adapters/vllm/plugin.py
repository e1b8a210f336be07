"""For those who cannot touch vLLM's command line: with TRACEREEL_VLLM=PATH in the environment, vLLM is recorded.

vLLM calls `plugin` in each of its processes, as an entry point of the group `vllm.general_plugins`; without the
variable it does nothing, and the adapter is imported only in the engine core, when that asks for its scheduler.
"""

import os
from typing import Any

from tracereel.engine.adapters.vllm.environment import ENVIRONMENT


def plugin() -> None:
    """Where TRACEREEL_VLLM is set, record whichever scheduler vLLM chooses. Raises AdapterError where vLLM is other."""
    if not os.environ.get(ENVIRONMENT):
        return
    from tracereel.engine.adapters.vllm.pieces import piece

    config = piece("vllm.config.scheduler:SchedulerConfig")
    choose = piece("vllm.config.scheduler:SchedulerConfig.get_scheduler_cls")
    if hasattr(choose, "tracereel"):
        return

    def get_scheduler_cls(self: Any) -> Any:
        from tracereel.engine.adapters.vllm import scheduler
        from tracereel.engine.adapters.vllm.traced import traced

        chosen = choose(self)
        return chosen if chosen is scheduler else traced(chosen)

    get_scheduler_cls.tracereel = True  # type: ignore[attr-defined]
    config.get_scheduler_cls = get_scheduler_cls
