"""Which tiles the fused products want, and up to how many rows they are quicker than a library's product.

    python benchmarks/tune_products.py --out FILE.json [--models SmolLM2-135M Llama-3.1-8B]

For each product of a geometry and each number of rows: microseconds a call with a library's product and a launch each
for what is around it, and with each of the candidate tiles. A call is one of a CUDA graph of many, each with weights of
its own. `engine/layer_ops/fused_products.py` has the rule that was drawn from it.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import product as pairs
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from tracereel.engine.attention import DecoderShape
from tracereel.engine.layer_ops import fused_products, make_triton_ops
from tracereel.engine.layer_ops.fused_products import FusedProducts, Tiles
from tracereel.engine.linear import PlainLinear
from tracereel.engine.model_config import ModelConfig
from tracereel.engine.weights.random_weights import MODEL_CONFIGS

ROWS = (1, 8, 16, 32, 64, 128, 192, 256)
SHAPES = {
    16: [(16, 128, 4, 4), (32, 128, 4, 4), (16, 256, 4, 3), (16, 64, 4, 6), (32, 64, 4, 5), (64, 64, 4, 4),
         (16, 128, 2, 4)],
    32: [(16, 128, 4, 4), (32, 128, 4, 3), (32, 64, 4, 4), (64, 64, 4, 4)],
    64: [(16, 128, 4, 3), (32, 64, 4, 4), (64, 64, 4, 3), (32, 128, 4, 3), (128, 64, 8, 3)],
    128: [(32, 64, 4, 3), (64, 64, 8, 3), (128, 64, 8, 3)],
}  # fmt: skip
"""Rows of a tile -> (columns, depth, warps, stages) that are tried."""
KINDS = ("qkv", "output", "gate_up", "down")


def candidates(rows: int) -> list[Tiles]:
    """The tiles that are tried for so many rows."""
    heights = [height for height in SHAPES if height >= min(rows, 128) // 2 and (height < 2 * rows or height == 16)]
    return [Tiles(h, *shape, prefetch=ahead) for h in heights for shape in SHAPES[h] for ahead in (False, True)]


def sizes(config: ModelConfig, kind: str) -> tuple[int, int]:
    """(out, in) of a product's weight."""
    queries = config.heads * config.head_dim
    return {
        "qkv": (queries + 2 * config.kv_heads * config.head_dim, config.hidden),
        "output": (config.hidden, queries),
        "gate_up": (2 * config.intermediate, config.hidden),
        "down": (config.hidden, config.intermediate),
    }[kind]


def microseconds(work: Callable[[], None], calls: int) -> float:
    """What one of `calls` calls takes on the device, the median of several replays of a graph of them."""
    aside = torch.cuda.Stream()
    with torch.cuda.stream(aside):
        work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    graph.replay()
    times = []
    for _ in range(7):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3 / calls)
    return statistics.median(times)


class Bench:
    """The products of a geometry with weights for several layers."""

    def __init__(self, config: ModelConfig, layers: int):
        device = torch.device("cuda")
        empty = torch.zeros(1, device=device)
        shape = DecoderShape(
            1, config.heads, config.kv_heads, config.head_dim, 1e-5, empty, empty, None, torch.bfloat16, device
        )
        self.config, self._ops = config, make_triton_ops(shape, 16, ("triton",))
        self._products = self._ops.products(1) or FusedProducts(1e-5, pdl=True)
        self._layers = layers
        self._norm = torch.rand(config.hidden, device=device)

    def measure(self, kind: str, rows: int, tiles: list[Tiles]) -> dict[str, float]:
        """Microseconds a call: `library`, and of each of the tiles."""
        out, depth = sizes(self.config, kind)
        device = torch.device("cuda")
        linears = [
            PlainLinear(torch.randn(out, depth, device=device, dtype=torch.bfloat16) / depth**0.5, None)
            for _ in range(self._layers)
        ]
        residual = torch.randn(rows, self.config.hidden, device=device)
        x = torch.randn(rows, depth, device=device, dtype=torch.bfloat16)
        fused, norm, ops = self._products, self._norm, self._ops

        def library() -> None:
            for linear in linears:
                if kind == "qkv":
                    linear(ops.add_rms_norm(residual, None, norm))
                elif kind == "gate_up":
                    ops.silu_and_mul(linear(ops.add_rms_norm(residual, None, norm)))
                else:
                    linear(x)  # the norm behind it adds

        def ours() -> None:
            for linear in linears:
                if kind == "qkv":
                    fused.norm_linear(residual, norm, linear)
                elif kind == "gate_up":
                    fused.norm_gate(residual, norm, linear)
                else:
                    fused.add_linear(x, linear, residual)

        found = {"library": microseconds(library, self._layers)}
        for one in tiles:
            fused_products.tiles_for = lambda *_, one=one: one  # type: ignore[assignment,misc]
            try:
                found[" ".join(map(str, one))] = microseconds(ours, self._layers)
            except Exception as error:
                print(f"{kind}, {rows} rows, {one}: {str(error).splitlines()[0][:120]}", file=sys.stderr, flush=True)
        return found


def compile_ahead(kind: str, tiles: Tiles) -> None:
    """Compile a kernel in a process of its own: the cache on disk then has it."""
    config = MODEL_CONFIGS["SmolLM2-135M"]
    fused_products.tiles_for = lambda *_: tiles  # type: ignore[assignment,misc]
    fused = FusedProducts(1e-5, pdl=True)
    out, depth = sizes(config, kind)
    device = torch.device("cuda")
    linear = PlainLinear(torch.zeros(out, depth, device=device, dtype=torch.bfloat16), None)
    residual, norm = torch.zeros(16, config.hidden, device=device), torch.zeros(config.hidden, device=device)
    if kind == "qkv":
        fused.norm_linear(residual, norm, linear)
    elif kind == "gate_up":
        fused.norm_gate(residual, norm, linear)
    else:
        fused.add_linear(torch.zeros(16, depth, device=device, dtype=torch.bfloat16), linear, residual)
    torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=["SmolLM2-135M", "Llama-3.1-8B"])
    args = parser.parse_args()
    begin = time.monotonic()
    every = sorted({tiles for rows in ROWS for tiles in candidates(rows)})
    with ProcessPoolExecutor(14, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(compile_ahead, kind, tiles) for kind, tiles in pairs(("gate_up", "qkv", "down"), every)]
        failed = [str(job.exception()).splitlines()[0] for job in jobs if job.exception()]
    print(
        f"compiled {len(jobs)} in {time.monotonic() - begin:.0f} s; failed: {failed[:3]}", file=sys.stderr, flush=True
    )
    found: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    for model in args.models:
        config = MODEL_CONFIGS[model]
        bench = Bench(config, 24 if config.hidden < 2048 else 4)
        for kind, rows in pairs(KINDS, ROWS):
            times = bench.measure(kind, rows, candidates(rows))
            found.setdefault(model, {}).setdefault(kind, {})[rows] = times
            args.out.write_text(json.dumps(found, indent=1))
            best = sorted(times.items(), key=lambda item: item[1])[:4]
            print(
                f"{model} {kind} {rows}: library {times['library']:.2f}; "
                + "; ".join(f"{name} {value:.2f}" for name, value in best),
                flush=True,
            )
    print(f"{time.monotonic() - begin:.0f} s in all", file=sys.stderr)


if __name__ == "__main__":
    main()
