"""Attention weights of a network, taken from its calls of torch's fused attention."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class _Weights(TorchFunctionMode):
    """While active, computes the weights of each fused attention, which torch does not return."""

    def __init__(self) -> None:
        super().__init__()
        self.latest: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            self.latest = _weights(*args, **kwargs or {})
        return func(*args, **kwargs or {})


def _weights(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **_: Any,
) -> Tensor:
    """Softmax of the scaled products, float [B, heads, N, N], without dropout. Args as of torch's function."""
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return scores.softmax(-1)


def attention_of_each(outputs: Iterator[Any]) -> Iterator[Tensor]:
    """The attention weights of each step of an iterator that runs one block per step.

    The weights of one block are in memory at a time.

    Raises:
        RuntimeError: a block does not use torch's fused attention.
    """
    while True:
        with _Weights() as weights:
            try:
                next(outputs)
            except StopIteration:
                return
        if weights.latest is None:
            raise RuntimeError("a block does not call torch.nn.functional.scaled_dot_product_attention")
        yield weights.latest


class _Explicit(TorchFunctionMode):
    """While active, fused attention is computed from explicit weights, which gradients pass through."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs or {})
        weights = _weights(*args, **kwargs or {})
        self.weights.append(weights)
        return weights @ (args[2] if len(args) > 2 else (kwargs or {})["value"])


@contextmanager
def recorded_attention() -> Iterator[list[Tensor]]:
    """Within this context, an encoder that can return its attention weights computes with those in the list.

    Each pass adds the weights of its layers, [B, heads, P + N, P + N] each, in order. Outputs are those of the fused
    attention up to rounding, without dropout, and have gradients with respect to the weights.
    """
    with _Explicit() as mode:
        yield mode.weights
