"""Where the KV of a new request's cached tokens came from, as far as vLLM says."""

from collections.abc import Callable
from typing import Any

UNSPECIFIED = "external_unspecified"
"""vLLM's word for a connector that does not say from where it loads."""


class Sources:
    """Notes what a KV connector answers when vLLM asks it which tiers (host, disk, p2p) a request's KV is loaded from.

    vLLM asks where it keeps statistics (`disable_log_stats` is off); otherwise only `external` is known.
    """

    def __init__(self, connector: Any):
        self._tiers: dict[str, dict[str, int]] = {}
        self.watched = False
        """Will anybody ask? What the connector answers is kept until then, or until the request is gone."""
        ask = getattr(connector, "get_external_cache_hit_sources", None)
        if ask is not None:
            connector.get_external_cache_hit_sources = self._noted(ask)

    def _noted(self, ask: Callable[[Any, int], Any]) -> Callable[[Any, int], Any]:
        def noted(request: Any, tokens: int) -> Any:
            tiers = ask(request, tokens)
            if self.watched and isinstance(tiers, dict):
                self._tiers[request.request_id] = dict(tiers)
            return tiers

        return noted

    def watch(self, watched: bool) -> None:
        """Keep from now on what the connector answers, or no longer."""
        self.watched, self._tiers = watched, {}

    # On the recorder's thread.

    def of(self, key: str, prefill: Any, cached: int) -> dict[str, int]:
        """A new request's `cached` tokens by source, by vLLM's own note `prefill`; empty where it says nothing.

        A prompt that is cached as a whole has its last token computed all the same: that one is not cached.
        """
        tiers = self._tiers.pop(key, {})
        if prefill is None or not cached:
            return {}
        local, external = prefill.num_local_cached_tokens, prefill.num_external_cached_tokens
        if local + external == cached + 1:
            local, external = (local, external - 1) if external else (local - 1, external)
            tiers = {}
        known = {"local": local} | _by_tier(tiers, external)
        known = {name: count for name, count in known.items() if count}
        return known if sum(known.values()) == cached else {}

    def forget(self, key: str) -> None:
        """A request is gone."""
        self._tiers.pop(key, None)


def _by_tier(tiers: dict[str, int], external: int) -> dict[str, int]:
    counts = {str(getattr(tier, "value", tier)): count for tier, count in tiers.items()}
    if sum(counts.values()) != external:
        return {"external": external}
    return {"external" if tier == UNSPECIFIED else tier: count for tier, count in counts.items()}
