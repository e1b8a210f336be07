"""Layer operations as plain torch operations around an attention backend: every device, every dtype."""

import torch
import torch.nn.functional as F
from tracereel.engine.attention import Attention, BatchLayout, DecoderShape


class TorchLayerOps:
    """The reference. The rotation is fp32 whatever the dtype: it costs little and takes a third off bf16's error."""

    captures = False

    def __init__(self, shape: DecoderShape, block_size: int, attention: Attention):
        self._shape, self._block_size, self._attention = shape, block_size, attention
        # Both halves' frequencies side by side, the sine negated in the first: a rotation is then two products.
        self._cos = torch.cat([shape.cos, shape.cos], dim=1).unsqueeze(1)
        self._sin = torch.cat([-shape.sin, shape.sin], dim=1).unsqueeze(1)

    @property
    def name(self) -> str:
        """Its name in the trace."""
        return self._attention.name

    @property
    def tile_tokens(self) -> int:
        """The attention's."""
        return self._attention.tile_tokens

    def allocate(self, num_blocks: int) -> None:
        """Make the KV cache [layers, 2, blocks, block size, KV heads, head size]."""
        shape = self._shape
        size = (shape.layers, 2, num_blocks, self._block_size, shape.kv_heads, shape.head_dim)
        self.cache = torch.zeros(size, dtype=shape.dtype, device=shape.device)

    def prepare(self, layout: BatchLayout) -> None:
        """Prepare one step."""
        size, positions = self._block_size, layout.positions
        self._step_cos, self._step_sin = self._cos[positions], self._sin[positions]
        blocks = layout.tables[layout.slots, (positions // size).long()].long()
        self._slot_mapping = blocks * size + positions % size
        self._attention.prepare(layout)

    def products(self, rows: int, hidden: int) -> None:
        """The model's own are the fastest on a CPU."""

    def add_rms_norm(self, residual: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor) -> torch.Tensor:
        """Add, then RMSNorm; see the contract."""
        if delta is not None:
            residual += delta
        return F.rms_norm(residual, weight.shape, weight, self._shape.epsilon).to(self._shape.dtype)

    def last_norm(
        self, residual: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, rows: torch.Tensor
    ) -> torch.Tensor:
        """RMSNorm of some rows; see the contract."""
        return self.add_rms_norm(residual[rows], None if delta is None else delta[rows], weight)

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
        keys, values = self.cache[layer, 0], self.cache[layer, 1]
        keys.flatten(0, 1).index_copy_(0, self._slot_mapping, qk[:, heads:])
        values.flatten(0, 1).index_copy_(0, self._slot_mapping, parts[:, heads + kv_heads :])
        out = self._attention.attend(qk[:, :heads], keys, values)
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
