"""What a report holds of how it was made, so that it can be made again: its traces, and the options."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from tracereel.trace.state.columns import Trace

DATA_ID = "tracereel-report"


class ReportData(msgspec.Struct, frozen=True, kw_only=True):
    """What a report was made of: digests and names of its traces in their order, and the options."""

    made_with: str
    drawn_with: str
    digests: list[str]
    files: list[str]
    slo: dict[str, float] | None
    across: list[str]


def data_of(traces: "Sequence[Trace]", slo: dict[str, float] | None, across: Sequence[str]) -> ReportData:
    """What a report of these traces holds of how it was made."""
    import matplotlib
    from tracereel.trace import __version__

    return ReportData(
        made_with=f"tracereel {__version__}",
        drawn_with=f"matplotlib {matplotlib.__version__}",
        digests=[trace.digest for trace in traces],
        files=[trace.path.name for trace in traces],
        slo=slo,
        across=sorted(across),
    )
