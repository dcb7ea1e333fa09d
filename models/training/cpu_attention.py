"""Attention for training on a CPU, where the fused kernel of PyTorch 2.13 takes several times as long backward as the
matrix products that it is made of (docs/training.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

NAME = "rerankops_products"
"""Under which transformers knows it."""


def use_products(body: Any) -> None:
    """Let a model of transformers compute its attention by `attention`, where its kind of model lets one choose.

    Only this object changes: what it saves names no attention.
    """
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, eager_mask

    if not getattr(body, "_supports_attention_backend", False):
        return
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, eager_mask)
    body.set_attn_implementation(NAME)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """softmax(query key' x scaling + mask) value: [batch, heads, tokens, size] in, [batch, tokens, heads, size] out.

    As the `eager` attention of transformers, but the queries are scaled and not the products, and the mask takes the
    type of the products, so that the largest tensors are written less often and never in float32 under autocast.
    """
    import torch

    if key.shape[1] != query.shape[1]:  # grouped queries
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    weights = torch.matmul(query * scale, key.transpose(2, 3))
    if attention_mask is not None:
        # The least of float32 is no number of bfloat16, and a row of padding on the left, where all is masked, would
        # have no largest weight.
        mask = attention_mask.to(weights.dtype).clamp(min=torch.finfo(weights.dtype).min)
        weights = weights + mask
    weights = torch.nn.functional.softmax(weights, dim=-1)
    if dropout:
        weights = torch.nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), None
