"""The Llama family of models over a flat batch of tokens: Llama, Qwen2 and Qwen3.

Knows layers, norms, rotary positions. Does not know requests, schedules or where KV lies: `Attention` does.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tracereel.engine.attention.base import Attention
from tracereel.engine.geometry import Geometry
from tracereel.engine.linear import Linear, make_linear
from tracereel.engine.weights import CheckedTensors, Weights


@dataclass(frozen=True)
class _Layer:
    attention_norm: torch.Tensor
    qkv: Linear
    qk_norm: torch.Tensor | None
    """[heads + kv_heads, head_dim]: the query norm's weight for each query head, then the key norm's."""
    output: Linear
    mlp_norm: torch.Tensor
    gate_up: Linear
    down: Linear


class LlamaModel:
    """Weights of one model on one device in one dtype, and the forward pass.

    RMSNorm, rotary positions in halves, grouped-query attention, SwiGLU, and what the geometry says besides: biases of
    Q, K and V, norms of Q and K, an output matrix of its own or the embedding's. The residual stream, norms and
    rotation are fp32 whatever the dtype: it costs next to nothing and takes a third off the error of bf16.

    Tensors are read and laid out one layer after the other, so that there is never a second copy of the model. Raises
    ModelFileError where they do not fit the geometry.
    """

    def __init__(self, weights: Weights, device: torch.device, dtype: torch.dtype):
        self.geometry = weights.geometry
        self.device, self.dtype = device, dtype
        tensors = CheckedTensors(weights, device, dtype)
        self._embedding = tensors["model.embed_tokens.weight"]
        self._layers = [_make_layer(tensors, self.geometry, i) for i in range(self.geometry.layers)]
        self._norm = tensors["model.norm.weight"].float()
        self._head = make_linear(self._embedding if self.geometry.tied else tensors["lm_head.weight"])
        self._cos, self._sin = _rotary_tables(self.geometry, device)

    @torch.inference_mode()
    def forward(
        self, ids: torch.Tensor, positions: torch.Tensor, attention: Attention, rows: torch.Tensor
    ) -> torch.Tensor:
        """Compute tokens `ids` [T] at `positions` [T]; return the logits [len(rows), vocabulary] after those rows.

        `attention` must have been prepared with the layout of these tokens.
        """
        geometry = self.geometry
        heads, kv_heads, d = geometry.heads, geometry.kv_heads, geometry.head_dim
        cos, sin = self._cos[positions], self._sin[positions]
        x = self._embedding[ids].float()
        for i, layer in enumerate(self._layers):
            qkv = layer.qkv(self._rms(x, layer.attention_norm)).view(-1, heads + 2 * kv_heads, d)
            qk = qkv[:, : heads + kv_heads]
            if layer.qk_norm is not None:
                qk = F.rms_norm(qk.float(), (d,), eps=geometry.norm_epsilon) * layer.qk_norm
            qk = _rotate(qk, cos, sin).to(self.dtype)
            out = attention.attend(i, qk[:, :heads], qk[:, heads:], qkv[:, heads + kv_heads :])
            x = x + layer.output(out.reshape(-1, heads * d))
            gate, up = layer.gate_up(self._rms(x, layer.mlp_norm)).chunk(2, dim=-1)
            x = x + layer.down(F.silu(gate) * up)
        return self._head(self._rms(x[rows], self._norm))

    def _rms(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, weight.shape, weight, self.geometry.norm_epsilon).to(self.dtype)


def _make_layer(tensors: CheckedTensors, geometry: Geometry, index: int) -> _Layer:
    prefix = f"model.layers.{index}."

    def linear(*parts: str, bias: bool = False) -> Linear:
        """One product for matrices that share their input, their outputs side by side."""
        names = [f"{prefix}{part}" for part in parts]
        weight = torch.cat([tensors[f"{name}.weight"] for name in names])
        return make_linear(weight, torch.cat([tensors[f"{name}.bias"] for name in names]) if bias else None)

    def norm(part: str) -> torch.Tensor:
        return tensors[f"{prefix}{part}.weight"].float()

    qk_norm = None
    if geometry.qk_norm:
        q, k = norm("self_attn.q_norm"), norm("self_attn.k_norm")
        qk_norm = torch.cat([q.expand(geometry.heads, -1), k.expand(geometry.kv_heads, -1)])
    return _Layer(
        attention_norm=norm("input_layernorm"),
        qkv=linear("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", bias=geometry.qkv_bias),
        qk_norm=qk_norm,
        output=linear("self_attn.o_proj"),
        mlp_norm=norm("post_attention_layernorm"),
        gate_up=linear("mlp.gate_proj", "mlp.up_proj"),
        down=linear("mlp.down_proj"),
    )


def _rotary_tables(geometry: Geometry, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin [context, 1, head_dim] in fp32, the halves' frequencies side by side, sin negated in the first."""
    frequencies = torch.tensor(geometry.rope_frequencies, dtype=torch.float64)
    angles = torch.arange(geometry.context, dtype=torch.float64).unsqueeze(1) * frequencies
    cos = torch.cat([angles.cos(), angles.cos()], dim=1)
    sin = torch.cat([-angles.sin(), angles.sin()], dim=1)
    return cos.to(device, torch.float32).unsqueeze(1), sin.to(device, torch.float32).unsqueeze(1)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions (Su et al., "RoFormer", 2021) on x [T, heads, d], pairs being (i, i + d/2)."""
    half = x.shape[-1] // 2
    swapped = torch.cat([x[..., half:], x[..., :half]], dim=-1)
    return x * cos + swapped * sin
