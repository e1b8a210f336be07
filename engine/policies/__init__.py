"""The policies by name: one small file each, the contract in `base`."""

from tracereel.engine.config import ConfigError
from tracereel.engine.policies.base import Batch, Policy
from tracereel.engine.policies.continuous import Continuous
from tracereel.engine.policies.continuous_unchunked import ContinuousUnchunked
from tracereel.engine.policies.dynamic import Dynamic
from tracereel.engine.policies.fair import Fair
from tracereel.engine.policies.same_position import SamePosition
from tracereel.engine.policies.shortest_prompt_first import ShortestPromptFirst
from tracereel.engine.policies.static import Static

POLICIES: dict[str, type[Policy]] = {
    policy.name: policy
    for policy in (Continuous, ContinuousUnchunked, Static, Dynamic, SamePosition, ShortestPromptFirst, Fair)
}

__all__ = ["POLICIES", "Batch", "Policy", "policy_named"]


def policy_named(name: str) -> Policy:
    """The policy of that name. Raises ConfigError where there is none."""
    if name not in POLICIES:
        raise ConfigError(f"policy: {name!r} is not one of {', '.join(POLICIES)}")
    return POLICIES[name]()
