"""Which tiles the kernels for GPUs want, and up to how many rows fused products are quicker than a library's.

    python benchmarks/tune_kernels.py --out FILE.json

Microseconds a call on the device, the median of several replays of a CUDA graph of many calls, each with weights, or a
layer of the cache, of its own. `library` is a library's product, and a launch each for the norm in front of it and the
gate behind it. The rules drawn from it are in `engine/layer_ops/fused_products.py` and `engine/attention/decode.py`.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import product as pairs
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from tracereel.engine.attention import BatchLayout, DecoderShape, decode
from tracereel.engine.attention.decode import Cut, DecodeAttention
from tracereel.engine.layer_ops import fused_products, make_triton_ops
from tracereel.engine.layer_ops.base import Normed
from tracereel.engine.layer_ops.fused_products import FusedProducts, Tiles
from tracereel.engine.linear import PlainLinear
from tracereel.engine.model_config import ModelConfig
from tracereel.engine.weights.random_weights import MODEL_CONFIGS

ROWS = {
    "SmolLM2-135M": (1, 8, 16, 32, 64, 128, 192, 256),
    "Qwen3-0.6B": (1, 16, 64, 128, 256),
    "Llama-3.1-8B": (1, 8, 16, 64),
}
SHAPES = {
    1: [(4, 1024, 4, 3), (8, 1024, 4, 1), (2, 1024, 2, 3), (4, 2048, 4, 1), (8, 512, 4, 3), (2, 2048, 4, 3),
        (16, 512, 4, 1), (4, 1024, 2, 1)],
    16: [(16, 128, 2, 4), (16, 128, 4, 4), (16, 256, 4, 3), (16, 64, 2, 6), (32, 128, 2, 4), (32, 64, 2, 5),
         (16, 256, 2, 3)],
    32: [(16, 128, 2, 4), (32, 128, 4, 3), (16, 64, 2, 5)],
    64: [(16, 128, 4, 3), (32, 128, 4, 3), (32, 64, 4, 4), (64, 64, 4, 3), (16, 64, 4, 5), (16, 256, 4, 3)],
    128: [(32, 64, 4, 3), (64, 64, 8, 3), (32, 128, 8, 3)],
}  # fmt: skip
"""Rows of a tile -> (columns, depth, warps, stages) that are tried."""
KINDS = ("qkv", "output", "gate_up", "down")
CUTS = [Cut(64, 4, 3), Cut(64, 2, 3), Cut(32, 1, 4), Cut(128, 4, 2), Cut(128, 8, 2)]
CONTEXTS = {
    "SmolLM2-135M": ((1, 256), (8, 256), (32, 256), (64, 128), (64, 256), (128, 256), (256, 256), (1, 1024)),
    "Llama-3.1-8B": ((1, 256), (64, 256), (64, 1024)),
}
"""(rows, tokens of context) of attention."""
BLOCK_SIZE = 16


def candidates(rows: int) -> list[Tiles]:
    """The tiles that are tried for so many rows."""
    heights = [h for h in SHAPES if (h >= min(rows, 128) // 2 and h < 2 * rows) or (h == 16 and rows < 16)]
    return [Tiles(h, *shape) for h in heights for shape in SHAPES[h]]


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
    """What one of `calls` calls takes on the device."""
    work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    graph.replay()
    times = []
    for _ in range(7):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3 / calls)
    return statistics.median(times)


class Products:
    """The products of a geometry, with weights for more layers than the device's cache holds."""

    def __init__(self, config: ModelConfig):
        self._config = config
        self._fused = FusedProducts(1e-5, pdl=True)
        self._norm = torch.rand(config.hidden, device="cuda")
        self._ops = make_triton_ops(shape_of(config), BLOCK_SIZE, ("triton",))

    def measure(self, kind: str, rows: int, tiles: list[Tiles]) -> Iterator[tuple[str, float]]:
        """(what, microseconds a call): `library`, and each of the tiles."""
        out, depth = sizes(self._config, kind)
        linears = [
            PlainLinear(torch.randn(out, depth, device="cuda", dtype=torch.bfloat16) / depth**0.5, None)
            for _ in range(max(3, 2**27 // (2 * out * depth)))
        ]
        residual = torch.randn(rows, self._config.hidden, device="cuda")
        x = torch.randn(rows, depth, device="cuda", dtype=torch.bfloat16)
        delta = torch.randn(rows, self._config.hidden, device="cuda", dtype=torch.bfloat16) / 100
        normed = Normed(x, torch.rand(max(1, self._config.hidden // 16), rows, device="cuda"))

        def library() -> None:
            for linear in linears:
                # The norm in front adds what the product before it gave.
                if kind == "qkv":
                    linear(self._ops.add_rms_norm(residual, delta, self._norm))
                elif kind == "gate_up":
                    self._ops.silu_and_mul(linear(self._ops.add_rms_norm(residual, delta, self._norm)))
                else:
                    linear(x)

        def ours() -> None:
            for linear in linears:
                if kind == "qkv":
                    self._fused.linear(normed, linear)
                elif kind == "gate_up":
                    self._fused.gated(normed, linear)
                else:
                    self._fused.add(x, linear, residual, self._norm)

        yield "library", microseconds(library, len(linears))
        for one in tiles:
            fused_products.tiles_for = lambda *_, one=one: one  # type: ignore[assignment,misc]
            yield " ".join(map(str, one)), microseconds(ours, len(linears))


def shape_of(config: ModelConfig) -> DecoderShape:
    """What attention has to know of a geometry."""
    device = torch.device("cuda")
    cos, sin = (torch.rand(8192, config.head_dim // 2, device=device) for _ in range(2))
    return DecoderShape(
        1, config.heads, config.kv_heads, config.head_dim, 1e-5, cos, sin, None, torch.bfloat16, device
    )  # fmt: skip


def attention_times(config: ModelConfig, rows: int, context: int, cuts: list[Cut]) -> Iterator[tuple[str, float]]:
    """(cut and splits, microseconds a call) of attention of `rows` rows that decode."""
    shape = shape_of(config)
    width = context // BLOCK_SIZE + 1
    blocks = rows * width
    one = 2 * 2 * blocks * BLOCK_SIZE * config.kv_heads * config.head_dim
    layers = max(3, min(30, 2**27 // one))
    cache = torch.randn(
        (layers, 2, blocks, BLOCK_SIZE, config.kv_heads, config.head_dim), device="cuda", dtype=torch.bfloat16
    )
    tables = torch.randperm(blocks, device="cuda").to(torch.int32).view(rows, width)
    slots = torch.arange(rows, dtype=torch.int32, device="cuda")
    layout = BatchLayout(rows, slots, torch.full_like(slots, context), tables, slots[:1])
    qkv = torch.randn(
        rows, (config.heads + 2 * config.kv_heads) * config.head_dim, device="cuda", dtype=torch.bfloat16
    )  # fmt: skip
    out = torch.empty(rows, config.heads, config.head_dim, device="cuda", dtype=torch.bfloat16)

    def work() -> None:
        for layer in range(layers):
            attention.attend(0, qkv, layout, cache[layer, 0], cache[layer, 1], out)

    for cut in cuts:
        for splits in (1, 2, 4, 8, 16):
            if splits > 1 and (splits * cut.tokens > context or rows * config.kv_heads * splits > 16 * 132):
                continue
            decode.cut_for = lambda *_, cut=cut: cut  # type: ignore[assignment,misc]
            decode.num_splits = lambda *_, splits=splits: splits  # type: ignore[assignment,misc]
            decode._PROGRAMS_PER_PROCESSOR = 16
            attention = DecodeAttention(shape, pdl=True)
            yield f"{' '.join(map(str, cut))}, {splits} parts", microseconds(work, layers)


def compile_product(kind: str, tiles: Tiles) -> None:
    """Compile a kernel in a process of its own: the cache on disk then has it."""
    config = MODEL_CONFIGS["SmolLM2-135M"]
    for _ in Products(config).measure(kind, max(2 * (tiles.rows > 1), 1), [tiles]):
        pass


def compile_attention(model: str, cut: Cut) -> None:
    """Compile attention with a cut."""
    for _ in attention_times(MODEL_CONFIGS[model], 1, 1024, [cut]):
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    begin = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin:.0f} s] {text}", file=sys.stderr, flush=True)

    every = sorted({tiles for rows in ROWS["SmolLM2-135M"] for tiles in candidates(rows)})
    with ProcessPoolExecutor(14, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(compile_attention, model, cut) for model, cut in pairs(CONTEXTS, CUTS)]
        jobs += [pool.submit(compile_product, kind, tiles) for kind, tiles in pairs(("gate_up", "qkv", "down"), every)]
        failed = [str(job.exception()).splitlines()[0] for job in jobs if job.exception()]
    say(f"compiled {len(jobs)}; failed: {failed}")
    found: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "products": {}}

    def keep(section: str, model: str, what: str, times: Iterator[tuple[str, float]]) -> None:
        own = found.setdefault(section, {}).setdefault(model, {}).setdefault(what, {})
        for name, value in times:
            own[name] = value
        args.out.write_text(json.dumps(found, indent=1))

    for model, contexts in CONTEXTS.items():
        for rows, context in contexts:
            keep("attention", model, f"{rows} x {context}", attention_times(MODEL_CONFIGS[model], rows, context, CUTS))
        say(f"{model}: attention")
    for model, counts in ROWS.items():
        products = Products(MODEL_CONFIGS[model])
        for kind, rows in pairs(KINDS, counts):
            keep("products", model, f"{kind} {rows}", products.measure(kind, rows, candidates(rows)))
        say(f"{model}: products")


if __name__ == "__main__":
    main()
