"""CUDA graphs of decode steps, one for each batch size of a few, and CUDA events around steps.

A graph replays all launches of a step as one. The graphs share their memory and their inputs, since one of them runs at
a time. Knows CUDA through torch; does not know what a step computes.
"""

from collections.abc import Callable
from typing import Any

import torch
from tracereel.engine.step_inputs import Int32Array

Compute = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""From inputs [4, rows] on the device to logits [rows, vocabulary] and tokens [rows]."""

FLIGHTS = 2
"""Steps that may be on their way at the same time: one that runs and one behind it."""


class DecodeGraphs:
    """`compute` captured for each of `sizes`, the largest first, so that the smaller ones fit into its memory.

    `idle` gives inputs of a size that change nothing.
    """

    def __init__(self, compute: Compute, sizes: list[int], idle: Callable[[int], Int32Array], device: torch.device):
        most = max(sizes)
        self._inputs = torch.zeros(4 * most, dtype=torch.int32, device=device)
        self._staging = [torch.zeros(4 * most, dtype=torch.int32, pin_memory=True) for _ in range(FLIGHTS)]
        self._turn = 0
        self._graphs: dict[int, tuple[Any, tuple[torch.Tensor, torch.Tensor]]] = {}
        pool = torch.cuda.graph_pool_handle()
        for size in sorted(sizes, reverse=True):
            inputs = self._inputs[: 4 * size].view(4, size)
            inputs.copy_(torch.from_numpy(idle(size)))
            # Once outside: what is compiled or looked up at a first call must not be part of the graph.
            aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(aside):
                compute(inputs)
            torch.cuda.current_stream(device).wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                outputs = compute(inputs)
            self._graphs[size] = graph, outputs
        torch.cuda.synchronize(device)

    def replay(self, inputs: Int32Array) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run a step of that size: its inputs on the device, logits, tokens; all are overwritten by the next step."""
        size = inputs.shape[1]
        staging = self._staging[self._turn][: 4 * size]
        self._turn = (self._turn + 1) % FLIGHTS
        staging.numpy()[:] = inputs.reshape(-1)
        on_device = self._inputs[: 4 * size]
        on_device.copy_(staging, non_blocking=True)
        graph, outputs = self._graphs[size]
        graph.replay()
        return on_device.view(4, size), *outputs


class StepTimer:
    """Times steps on the device: how long each took, and how long the device had waited for it."""

    def __init__(self) -> None:
        self._pairs = [(_event(), _event()) for _ in range(FLIGHTS + 1)]
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

        Steps are waited for in their order, no more than FLIGHTS being on their way.
        """
        begin, end = self._pairs[number % len(self._pairs)]
        end.synchronize()
        before = self._pairs[(number - 1) % len(self._pairs)][1] if number else None
        gap = before.elapsed_time(begin) if before is not None else None
        return round(begin.elapsed_time(end) * 1e6), None if gap is None else max(0, round(gap * 1e6))


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
