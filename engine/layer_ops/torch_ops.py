"""Layer operations as plain torch operations around an attention backend: every device, every dtype."""

import torch
import torch.nn.functional as F
from tracereel.engine.attention import Attention, BatchLayout, DecoderShape


class TorchLayerOps:
    """The reference. The rotation is fp32 whatever the dtype: it costs little and takes a third off bf16's error."""

    def __init__(self, shape: DecoderShape, attention: Attention):
        self._shape, self._attention = shape, attention
        # Both halves' frequencies side by side, the sine negated in the first: a rotation is then two products.
        self._cos = torch.cat([shape.cos, shape.cos], dim=1).unsqueeze(1)
        self._sin = torch.cat([-shape.sin, shape.sin], dim=1).unsqueeze(1)

    @property
    def name(self) -> str:
        """What computes, for the trace."""
        return self._attention.name

    def prepare(self, layout: BatchLayout) -> None:
        """Get ready for one step."""
        positions = torch.from_numpy(layout.positions).to(self._shape.device)
        self._step_cos, self._step_sin = self._cos[positions], self._sin[positions]
        self._attention.prepare(layout)

    def add_rms_norm(self, residual: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor) -> torch.Tensor:
        """Add, then RMSNorm; see the contract."""
        if delta is not None:
            residual += delta
        return F.rms_norm(residual, weight.shape, weight, self._shape.epsilon).to(self._shape.dtype)

    def attend(self, layer: int, qkv: torch.Tensor) -> torch.Tensor:
        """Rotate, store, attend; see the contract."""
        shape = self._shape
        heads, kv_heads, d = shape.heads, shape.kv_heads, shape.head_dim
        parts = qkv.view(-1, heads + 2 * kv_heads, d)
        qk = parts[:, : heads + kv_heads].float()
        if shape.qk_norms is not None:
            q_weight, k_weight = shape.qk_norms[layer]
            q = F.rms_norm(qk[:, :heads], (d,), q_weight, shape.epsilon)
            k = F.rms_norm(qk[:, heads:], (d,), k_weight, shape.epsilon)
            qk = torch.cat([q, k], dim=1)
        qk = self._rotate(qk).to(shape.dtype)
        out = self._attention.attend(layer, qk[:, :heads], qk[:, heads:], parts[:, heads + kv_heads :])
        return out.reshape(-1, heads * d)

    def silu_and_mul(self, both: torch.Tensor) -> torch.Tensor:
        """SwiGLU; see the contract."""
        gate, up = both.chunk(2, dim=-1)
        return F.silu(gate) * up

    def _rotate(self, x: torch.Tensor) -> torch.Tensor:
        """Rotary positions (Su et al., "RoFormer", 2021) on x [T, heads, d], pairs being (i, i + d/2)."""
        half = x.shape[-1] // 2
        swapped = torch.cat([x[..., half:], x[..., :half]], dim=-1)
        return x * self._step_cos + swapped * self._step_sin
