"""The Llama family of models over a flat batch of tokens: Llama, Qwen2 and Qwen3.

Knows layers and their matrix products. The operations between the products and the KV cache are the `LayerOps`';
requests and schedules are not known here.
"""

from copy import copy
from dataclasses import dataclass, replace

import torch
from tracereel.engine.attention import DecoderShape
from tracereel.engine.layer_ops.base import LayerOps, Products
from tracereel.engine.linear import Linear, PlainLinear, make_batch_invariant, make_linear
from tracereel.engine.model_config import ModelConfig
from tracereel.engine.weights import CheckedTensors, Weights


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

    RMSNorm, rotary positions in halves, grouped-query attention, SwiGLU, and what the configuration adds: biases of
    Q, K and V, norms of Q and K, an output matrix of its own or the embedding's. The residual stream, norms and
    rotation are fp32 whatever the dtype: it costs next to nothing and takes a third off the error of bf16.

    Tensors are read and laid out one layer after the other, so that there is never a second copy of the model. Raises
    ModelFileError where they do not fit the configuration.
    """

    def __init__(self, weights: Weights, device: torch.device, dtype: torch.dtype):
        self.config = weights.config
        self.device, self.dtype = device, dtype
        tensors = CheckedTensors(weights, device, dtype)
        self._embedding = tensors["model.embed_tokens.weight"]
        self._layers = [_make_layer(tensors, self.config, i) for i in range(self.config.layers)]
        self._norm = tensors["model.norm.weight"].float()
        self._head = make_linear(self._embedding if self.config.tied else tensors["lm_head.weight"])
        self.shape = _make_shape(tensors, self.config, device, dtype)

    @torch.inference_mode()
    def forward(
        self, ids: torch.Tensor, layer_ops: LayerOps, rows: torch.Tensor, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Compute tokens `ids` [T]; return the logits [len(rows), vocabulary] after those rows, in `out` if given.

        `layer_ops` must have been prepared with the layout of these tokens.
        """
        products = layer_ops.products(len(ids), self.config.hidden)
        if products is not None:
            return self._forward_fused(ids, layer_ops, products, rows, out)
        residual = self._embedding[ids].float()
        x = layer_ops.add_rms_norm(residual, None, self._layers[0].attention_norm)
        for i, layer in enumerate(self._layers):
            attended = layer.output(layer_ops.attend(i, layer.qkv(x)))
            x = layer_ops.add_rms_norm(residual, attended, layer.mlp_norm)
            delta = layer.down(layer_ops.silu_and_mul(layer.gate_up(x)))
            if i + 1 < len(self._layers):
                x = layer_ops.add_rms_norm(residual, delta, self._layers[i + 1].attention_norm)
        return self._head(layer_ops.last_norm(residual, delta, self._norm, rows), out)

    def _forward_fused(
        self,
        ids: torch.Tensor,
        layer_ops: LayerOps,
        products: Products,
        rows: torch.Tensor,
        out: torch.Tensor | None,
    ) -> torch.Tensor:
        """The same in few launches: four products a layer, with norms, gate and additions in them, and attention."""
        norms = [layer.attention_norm for layer in self._layers[1:]] + [self._norm]
        residual, normed = products.embed(self._embedding, ids, self._layers[0].attention_norm)
        for i, (layer, following) in enumerate(zip(self._layers, norms, strict=True)):
            attended = layer_ops.attend(i, products.linear(normed, _plain(layer.qkv)))
            normed = products.add(attended, _plain(layer.output), residual, layer.mlp_norm)
            gated = products.gated(normed, _plain(layer.gate_up))
            normed = products.add(gated, _plain(layer.down), residual, following)
        if len(ids) == 1:
            return products.linear(normed, _plain(self._head), out)
        return self._head(layer_ops.last_norm(residual, None, self._norm, rows), out)

    def batch_invariant(self) -> "LlamaModel":
        """The same weights, not copied, with products whose rows are the same bits in any batch.

        Raises LinearError where they are not available: on a CUDA device they need Triton.
        """
        twin = copy(self)
        twin._layers = [
            replace(
                layer,
                qkv=make_batch_invariant(layer.qkv),
                output=make_batch_invariant(layer.output),
                gate_up=make_batch_invariant(layer.gate_up),
                down=make_batch_invariant(layer.down),
            )
            for layer in self._layers
        ]
        twin._head = make_batch_invariant(self._head)
        return twin


def _plain(linear: Linear) -> PlainLinear:
    """A product whose weight is as torch lays it out, as all are on the devices that fuse products."""
    assert isinstance(linear, PlainLinear), type(linear)
    return linear


def _make_layer(tensors: CheckedTensors, model_config: ModelConfig, index: int) -> _Layer:
    prefix = f"model.layers.{index}."

    def linear(*parts: str, bias: bool = False) -> Linear:
        """One product for matrices that share their input, their outputs side by side."""
        names = [f"{prefix}{part}" for part in parts]
        weight = torch.cat([tensors[f"{name}.weight"] for name in names])
        return make_linear(weight, torch.cat([tensors[f"{name}.bias"] for name in names]) if bias else None)

    def norm(part: str) -> torch.Tensor:
        return tensors[f"{prefix}{part}.weight"].float()

    return _Layer(
        attention_norm=norm("input_layernorm"),
        qkv=linear("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", bias=model_config.qkv_bias),
        output=linear("self_attn.o_proj"),
        mlp_norm=norm("post_attention_layernorm"),
        gate_up=linear("mlp.gate_proj", "mlp.up_proj"),
        down=linear("mlp.down_proj"),
    )


def _make_shape(
    tensors: CheckedTensors, model_config: ModelConfig, device: torch.device, dtype: torch.dtype
) -> DecoderShape:
    qk_norms = None
    if model_config.qk_norm:
        prefixes = [f"model.layers.{index}.self_attn." for index in range(model_config.layers)]
        qk_norms = tuple(
            (tensors[f"{prefix}q_norm.weight"].float(), tensors[f"{prefix}k_norm.weight"].float())
            for prefix in prefixes
        )
    cos, sin = _rotary_tables(model_config, device)
    return DecoderShape(
        layers=model_config.layers,
        heads=model_config.heads,
        kv_heads=model_config.kv_heads,
        head_dim=model_config.head_dim,
        epsilon=model_config.norm_epsilon,
        cos=cos,
        sin=sin,
        qk_norms=qk_norms,
        dtype=dtype,
        device=device,
    )


def _rotary_tables(model_config: ModelConfig, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin [context, head_dim / 2] in fp32."""
    frequencies = torch.tensor(model_config.rope_frequencies, dtype=torch.float64)
    angles = torch.arange(model_config.context, dtype=torch.float64).unsqueeze(1) * frequencies
    return angles.cos().to(device, torch.float32), angles.sin().to(device, torch.float32)
