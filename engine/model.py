"""The llama model over a flat batch of tokens, as plain functions of tensors.

Knows layers, norms, rotary positions. Does not know requests, schedules or where KV lies: `Attention` does.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tracereel.engine.attention.base import Attention
from tracereel.engine.gguf_file import Geometry, GgufFile
from tracereel.engine.linear import Linear, make_linear


@dataclass(frozen=True)
class _Layer:
    attention_norm: torch.Tensor
    qkv: Linear
    output: Linear
    mlp_norm: torch.Tensor
    gate_up: Linear
    down: Linear


class LlamaModel:
    """Weights of one model on one device in one dtype, and the forward pass.

    RMSNorm, rotary positions in halves, grouped-query attention, SwiGLU; the output matrix is the embedding's where the
    file holds none. The residual stream, norms and rotation are fp32 whatever the dtype: it costs next to nothing and
    takes a third off the error of bf16.
    """

    def __init__(self, file: GgufFile, device: torch.device, dtype: torch.dtype):
        self.geometry = file.geometry
        self.device, self.dtype = device, dtype
        raw = {name: torch.from_numpy(array).to(device, dtype) for name, array in file.weights()}
        self.parameters = sum(tensor.numel() for tensor in raw.values())
        self._embedding = raw["token_embd.weight"]
        self._layers = [_make_layer(raw, f"blk.{i}.") for i in range(self.geometry.layers)]
        self._norm = raw["output_norm.weight"].float()
        self._head = make_linear(raw["output.weight"] if file.has_output_head else self._embedding)
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
            qk = _rotate(qkv[:, : heads + kv_heads], cos, sin).to(self.dtype)
            out = attention.attend(i, qk[:, :heads], qk[:, heads:], qkv[:, heads + kv_heads :])
            x = x + layer.output(out.reshape(-1, heads * d))
            gate, up = layer.gate_up(self._rms(x, layer.mlp_norm)).chunk(2, dim=-1)
            x = x + layer.down(F.silu(gate) * up)
        return self._head(self._rms(x[rows], self._norm))

    def _rms(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, weight.shape, weight, self.geometry.norm_epsilon).to(self.dtype)


def _make_layer(raw: dict[str, torch.Tensor], prefix: str) -> _Layer:
    def weight(name: str) -> torch.Tensor:
        return raw[f"{prefix}{name}.weight"]

    return _Layer(
        attention_norm=weight("attn_norm").float(),
        qkv=make_linear(torch.cat([weight("attn_q"), weight("attn_k"), weight("attn_v")])),
        output=make_linear(weight("attn_output")),
        mlp_norm=weight("ffn_norm").float(),
        gate_up=make_linear(torch.cat([weight("ffn_gate"), weight("ffn_up")])),
        down=make_linear(weight("ffn_down")),
    )


def _rotary_tables(geometry: Geometry, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin [context, 1, head_dim] in fp32, the halves' frequencies side by side, sin negated in the first."""
    half = geometry.head_dim // 2
    frequencies = geometry.rope_theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(geometry.context, dtype=torch.float64).unsqueeze(1) * frequencies
    cos = torch.cat([angles.cos(), angles.cos()], dim=1)
    sin = torch.cat([-angles.sin(), angles.sin()], dim=1)
    return cos.to(device, torch.float32).unsqueeze(1), sin.to(device, torch.float32).unsqueeze(1)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions (Su et al., "RoFormer", 2021) on x [T, heads, d], pairs being (i, i + d/2)."""
    half = x.shape[-1] // 2
    swapped = torch.cat([x[..., half:], x[..., :half]], dim=-1)
    return x * cos + swapped * sin
