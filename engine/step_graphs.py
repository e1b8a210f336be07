"""Steps captured as CUDA graphs, one for each of a few shapes; and CUDA events around steps.

A graph replays all launches of a step as one. The graphs share their memory and their inputs, since one of them runs at
a time. Knows CUDA through torch; does not know what a step computes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tracereel.engine.model_inputs import Int32Array, StepShape

Compute = Callable[[torch.Tensor, StepShape], torch.Tensor]
"""From a step's buffer on the device to its new tokens [samples], a tensor that the graph overwrites."""

IN_FLIGHT = 2
"""Steps that may be in flight at the same time: one that runs and one behind it."""


class StepGraphs:
    """`compute` captured for each of `shapes`, the largest first, so that the smaller ones fit into its memory.

    `idle` fills a buffer with a step of a shape that changes nothing. A step costs the host one upload and one replay,
    whatever its members. On a CPU, which has no graphs, a replay computes the same from the same buffer.
    """

    def __init__(
        self,
        compute: Compute,
        shapes: list[StepShape],
        idle: Callable[[Int32Array, StepShape], object],
        device: torch.device,
    ):
        longest = max(shape.length for shape in shapes)
        self._cuda = device.type == "cuda"
        self._compute = compute
        self._buffer = torch.zeros(longest, dtype=torch.int32, device=device)
        self._staging = [torch.zeros(longest, dtype=torch.int32, pin_memory=self._cuda) for _ in range(IN_FLIGHT)]
        self._turn = 0
        self._graphs: dict[StepShape, tuple[Any, torch.Tensor]] = {}
        if self._cuda:
            self._capture(shapes, idle, device)

    def _capture(
        self, shapes: list[StepShape], idle: Callable[[Int32Array, StepShape], object], device: torch.device
    ) -> None:
        pool = torch.cuda.graph_pool_handle()
        for shape in sorted(shapes, key=lambda shape: shape.tokens, reverse=True):
            inputs = self._buffer[: shape.length]
            host = np.empty(shape.length, dtype=np.int32)
            idle(host, shape)
            inputs.copy_(torch.from_numpy(host))
            # Once without capture: what a first call compiles or looks up must not be part of the graph.
            aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(aside):
                self._compute(inputs, shape)
            torch.cuda.current_stream(device).wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                tokens = self._compute(inputs, shape)
            self._graphs[shape] = graph, tokens
        torch.cuda.synchronize(device)

    def staging(self, shape: StepShape) -> Int32Array:
        """Where the host writes the next step's inputs; `run` takes them from there."""
        array: Int32Array = self._staging[self._turn][: shape.length].numpy()
        return array

    def run(self, shape: StepShape) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the step that was staged: its buffer on the device and its tokens; the next step overwrites both."""
        inputs = self._buffer[: shape.length]
        self._upload(inputs, self._staging[self._turn][: shape.length])
        self._turn = (self._turn + 1) % IN_FLIGHT
        return inputs, self._replay(inputs, shape)

    def _upload(self, inputs: torch.Tensor, staged: torch.Tensor) -> None:
        inputs.copy_(staged, non_blocking=True)

    def _replay(self, inputs: torch.Tensor, shape: StepShape) -> torch.Tensor:
        if not self._cuda:
            return self._compute(inputs, shape)
        graph, tokens = self._graphs[shape]
        graph.replay()
        return tokens


class StepTimer:
    """Times steps on the device: how long each took, and how long the device had waited for it."""

    def __init__(self) -> None:
        self._pairs = [(_event(), _event()) for _ in range(IN_FLIGHT + 1)]
        self._steps = 0

    def begin(self) -> int:
        """The work that follows is a step's; returns its number."""
        number = self._steps
        self._steps += 1
        self._pairs[number % len(self._pairs)][0].record()
        return number

    def end(self, number: int) -> None:
        """The step's work ends here."""
        self._pairs[number % len(self._pairs)][1].record()

    def wait(self, number: int) -> tuple[int, int | None]:
        """Wait for a step's end: (ns it took, ns since the end of the one before; None for the first).

        Steps are waited for in their order, no more than IN_FLIGHT being in flight.
        """
        begin, end = self._pairs[number % len(self._pairs)]
        end.synchronize()
        before = self._pairs[(number - 1) % len(self._pairs)][1] if number else None
        gap = before.elapsed_time(begin) if before is not None else None
        return round(begin.elapsed_time(end) * 1e6), None if gap is None else max(0, round(gap * 1e6))


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
