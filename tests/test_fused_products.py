"""Products with the operations around them, against the formulas; on a CPU Triton interprets them."""

from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from tracereel.engine.linear import PlainLinear

pytestmark = [
    pytest.mark.slow,  # Triton's interpreter
    pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed"),
]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
EPSILON = 1e-5
LARGEST_ERROR = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
SIZES = [
    # rows, depth, width: a row alone, and tiles: one and several, in each direction, none of them full.
    (1, 40, 20),
    (1, 2100, 5),
    (21, 300, 70),
    (70, 130, 33),
]


@pytest.fixture(scope="module", autouse=True)
def _right_products(right_products):
    """bf16 products of the interpreter."""


@pytest.fixture(params=SIZES, ids=str)
def sizes(request):
    return request.param


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def dtype(request):
    return request.param


def products():
    from tracereel.engine.layer_ops import _has_pdl
    from tracereel.engine.layer_ops.fused_products import FusedProducts

    return FusedProducts(EPSILON, pdl=_has_pdl(DEVICE))


def drawn(*size, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed + sum(size))
    return torch.randn(size, generator=generator).to(DEVICE, dtype)


def close(got, want, dtype):
    assert (got.float() - want.float()).abs().max() <= LARGEST_ERROR[dtype] * want.float().abs().max()


def normed(residual, norm):
    return residual * torch.rsqrt(residual.square().mean(-1, keepdim=True) + EPSILON) * norm


def norm_of(residual, norm, dtype):
    """The norm of a residual as `add` gives it, whose x is nothing."""
    rows, depth = residual.shape
    nothing = PlainLinear(torch.zeros(depth, 5, device=DEVICE, dtype=dtype), None)
    return products().add(drawn(rows, 5, dtype=dtype), nothing, residual, norm)


@pytest.mark.long
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
def test_a_norm_is_part_of_the_products_around_it(sizes, dtype, bias):
    rows, depth, width = sizes
    residual, norm = 7 * drawn(rows, depth), drawn(depth) + 2
    offsets = drawn(width, dtype=dtype) if bias else None
    linear = PlainLinear(drawn(width, depth, dtype=dtype), offsets)
    want = F.linear(normed(residual, norm), linear.weight.float(), None if offsets is None else offsets.float())
    before = residual.clone()
    half = norm_of(residual, norm, dtype)
    assert torch.equal(residual, before)
    out = torch.full((rows, width), torch.nan, dtype=dtype, device=DEVICE)
    assert products().linear(half, linear, out) is out
    close(out, want, dtype)


@pytest.mark.long
def test_a_gate_is_part_of_the_product_before_it(sizes, dtype):
    rows, depth, width = sizes
    residual, norm = drawn(rows, depth), drawn(depth)
    linear = PlainLinear(drawn(2 * width, depth, dtype=dtype) / depth**0.5, None)
    x, up = F.linear(normed(residual, norm), linear.weight.float()).chunk(2, -1)
    close(products().gated(norm_of(residual, norm, dtype), linear), F.silu(x) * up, dtype)


def test_a_product_is_added_to_the_residual_in_place(sizes, dtype):
    rows, depth, width = sizes
    x, residual, norm = drawn(rows, depth, dtype=dtype), drawn(rows, width, seed=1), drawn(width)
    linear = PlainLinear(drawn(width, depth, dtype=dtype), None)
    want = residual + F.linear(x.float(), linear.weight.float())
    scaled, squares = products().add(x, linear, residual, norm)
    close(residual, want, dtype)
    close(scaled, want * norm, dtype)
    close(squares.sum(0), want.square().sum(-1), dtype)


def test_an_embedding_is_looked_up_with_its_norm(dtype):
    embedding, norm = drawn(9, 70, dtype=dtype), drawn(70)
    ids = torch.tensor([8, 0, 8], dtype=torch.int32, device=DEVICE)
    residual, (scaled, squares) = products().embed(embedding, ids, norm)
    assert torch.equal(residual, embedding[ids.long()].float())
    close(scaled, residual * norm, dtype)
    close(squares.sum(0), residual.square().sum(-1), dtype)
