"""The times of one replica's steps: in order on the host, and the device's such as the host could have seen them."""

from collections.abc import Iterator

from tracereel.trace.format.events import Step
from tracereel.trace.state.device_spans import CHAIN, TOLERANCE_NS


class StepTimes:
    """Follows the steps of one replica."""

    def __init__(self) -> None:
        self.last: Step | None = None
        # Of the chain of steps that say how long the device waited for each: how many there are, how long it has taken
        # so far, and when it began at the earliest and at the latest.
        self._steps = self._since = 0
        self._earliest_ns = self._latest_ns = 0

    def faults(self, step: Step) -> Iterator[str]:
        """What is wrong with the times of the next step."""
        took = step.end_ns - step.start_ns
        if took < 0:
            yield f"step {step.index} ends before it starts"
        if step.latency_ns is not None and not took <= step.latency_ns <= step.end_ns:
            yield f"latency_ns of step {step.index} is less than the step took, or reaches before time 0"
        longest = took if step.latency_ns is None else step.latency_ns
        if step.scheduled_ns is not None and not step.end_ns - longest <= step.scheduled_ns <= step.end_ns:
            yield f"scheduled_ns of step {step.index} is outside the step"
        if step.device_ns is not None and step.device_ns > longest:
            yield f"device_ns of step {step.index} is longer than the step"
        before = self.last
        if before is not None and step.start_ns < before.end_ns:
            yield f"step {step.index} starts before step {before.index} has ended"
        yield from self._device(step, step.end_ns - longest)
        self.last = step

    def _device(self, step: Step, scheduled_ns: int) -> Iterator[str]:
        """The device did one step after the other, none before it was scheduled or after its tokens were there."""
        device_ns, gap_ns = step.device_ns, step.device_gap_ns
        if device_ns is None:
            self._since = 0
            return
        if gap_ns is not None and gap_ns + device_ns > step.end_ns:
            yield f"device_gap_ns of step {step.index} reaches before time 0"
            gap_ns = None
        follows = self.last is not None and step.index == self.last.index + 1
        if self._since and gap_ns is not None and follows and self._steps < CHAIN:
            begins = self._since + gap_ns
            self._steps += 1
        else:
            begins, self._steps, self._earliest_ns, self._latest_ns = 0, 1, 0, step.end_ns
        self._since = begins + device_ns
        self._earliest_ns = max(self._earliest_ns, scheduled_ns - begins)
        self._latest_ns = min(self._latest_ns, step.end_ns - self._since)
        if self._earliest_ns > self._latest_ns + TOLERANCE_NS:
            yield (
                f"by the device's times step {step.index} or one before it ran before it was scheduled, or ended after"
                " its tokens were on the host"
            )
            self._since = 0
