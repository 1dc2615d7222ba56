"""Forms of attention with a relative position bias: one result up to rounding, other kernels."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

Form = Literal["sdpa", "plain", "flex", "aligned"]
FORMS: tuple[Form, ...] = get_args(Form)
"""sdpa: torch's scaled_dot_product_attention, which gets the bias as a mask. plain: softmax(q k^T + bias) v, which a
compiled block fuses. flex: FlexAttention, which reads the bias from its table, and never holds a matrix of scores.
aligned: sdpa with a bias whose rows begin at multiples of 16 elements, so that torch's memory-efficient kernel takes it
without a copy."""

_ALIGNMENT = 16
"""Elements, such as 32 bytes of bf16."""


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | tuple[Tensor, Tensor] | None,
    *,
    form: Form,
    dropout: float = 0.0,
) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v.

    Args:
        query, key, value: [B, heads, N, d].
        bias: [1 or B, heads, N, N]; or a table [T, heads] with the row of each pair of tokens, int64 [N, N] or
            [B, N, N]; None: no bias.
        dropout: share of the weights that is zeroed. FlexAttention has none, so with dropout "flex" is "plain".

    Returns:
        [B, heads, N, d].
    """
    if form == "flex" and not dropout:
        return _flex(query, key, value, bias)
    if isinstance(bias, tuple):
        bias = dense_bias(*bias)
    if form in ("plain", "flex"):
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        scores = scores if bias is None else scores + bias
        return F.dropout(scores.softmax(dim=-1), dropout) @ value
    if form == "aligned" and bias is not None:
        bias = _aligned(bias.to(query.dtype)).expand(len(query), query.shape[1], -1, -1)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)


def dense_bias(table: Tensor, index: Tensor) -> Tensor:
    """The rows of a table [T, heads] for each pair of tokens: [N, N] -> [1, heads, N, N]; [B, N, N] -> [B, ...]."""
    rows = table[index.flatten()].unflatten(0, index.shape)
    return rows.permute(2, 0, 1).unsqueeze(0) if index.ndim == 2 else rows.permute(0, 3, 1, 2)


def _aligned(bias: Tensor) -> Tensor:
    """The same bias, a view of one whose rows are padded to a multiple of the alignment."""
    length = bias.shape[-1]
    return F.pad(bias, (0, -length % _ALIGNMENT))[..., :length]


def _flex(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | tuple[Tensor, Tensor] | None) -> Tensor:
    from torch.nn.attention.flex_attention import flex_attention  # imports torch._dynamo

    if bias is None:
        return F.scaled_dot_product_attention(query, key, value)
    if isinstance(bias, tuple):
        table, index = bias[0].to(query.dtype), bias[1]
        if index.ndim == 2:

            def add(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
                return score + table[index[q, k], h]

        else:

            def add(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
                return score + table[index[b, q, k], h]

    else:
        matrix = bias.to(query.dtype)
        if len(matrix) == 1:

            def add(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
                return score + matrix[0, h, q, k]

        else:

            def add(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
                return score + matrix[b, h, q, k]

    return flex_attention(query.contiguous(), key.contiguous(), value.contiguous(), score_mod=add)


def set_attention_form(model: nn.Module, form: Form) -> list[tuple[Any, Form]]:
    """Let all attention of `model` with a relative position bias use this form.

    Returns:
        (module, form before) of each, for `restore_attention_forms`.
    """
    biased: list[Any] = [module for module in model.modules() if hasattr(module, "attention_form")]
    before = [(module, module.attention_form) for module in biased]
    for module in biased:
        module.attention_form = form
    return before


def restore_attention_forms(before: list[tuple[Any, Form]]) -> None:
    """Undo `set_attention_form`."""
    for module, form in before:
        module.attention_form = form
