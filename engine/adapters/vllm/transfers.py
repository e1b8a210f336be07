"""How long transfers of KV took, where vLLM's connector counts each: NIXL's and Mooncake's do."""

from typing import Any

Transfers = list[tuple[int, int]]
"""(nanoseconds, bytes) of transfers that are done."""


def transfers_told(output: Any) -> Transfers:
    """Transfers that were done since the workers' output before this one, copied: vLLM adds to its lists.

    The statistics name no request. Empty where there is no connector, or one that counts other things.
    """
    told = getattr(output, "kv_connector_output", None)
    return [] if told is None else _of(getattr(told, "kv_connector_stats", None))


def _of(stats: Any) -> Transfers:
    data = getattr(stats, "data", None)
    if not isinstance(data, dict):
        return []
    durations, sizes = data.get("transfer_duration"), data.get("bytes_transferred")
    if isinstance(durations, list) and isinstance(sizes, list):
        return [(round(seconds * 1e9), int(size)) for seconds, size in zip(durations, sizes, strict=False)]
    # A connector of several has the statistics of each by its name.
    return [transfer for each in data.values() for transfer in _of(each)]
