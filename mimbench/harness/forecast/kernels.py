"""Attention and mixed precision as a CUDA device has them, for steps that are traced on tensors of the CPU."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

_ALIGNMENT = 16
"""Elements: torch copies an attention mask whose rows begin elsewhere."""
_IN_FLOAT32 = {
    F.layer_norm, F.group_norm, F.softmax, F.log_softmax, F.softplus, F.cross_entropy, F.nll_loss, F.l1_loss,
    F.smooth_l1_loss, F.huber_loss, F.mse_loss, F.kl_div, F.cosine_similarity, F.binary_cross_entropy_with_logits,
    torch.softmax, torch.log_softmax, torch.exp, torch.log, torch.pow, torch.rsqrt, torch.reciprocal, torch.logsumexp,
    torch.cumsum, torch.prod, torch.norm, torch.cdist, torch.layer_norm, torch.group_norm,
    Tensor.softmax, Tensor.log_softmax, Tensor.exp, Tensor.log, Tensor.pow, Tensor.rsqrt, Tensor.reciprocal,
    Tensor.logsumexp, Tensor.cumsum, Tensor.prod, Tensor.norm,
}  # fmt: skip
"""Functions that autocast computes in float32 on CUDA (torch's "CUDA Ops that can autocast to float32"). On the CPU it
leaves some of these in bfloat16."""
_SDPA = inspect.signature(
    lambda query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False: None
)


class CudaKernels(TorchFunctionMode):
    """While active, attention keeps for the backward pass what torch's CUDA kernels keep, and not what the CPU's do."""

    def __init__(self, *, has_flash: bool) -> None:
        """has_flash: whether the device has FlashAttention, as GPUs since Ampere do."""
        super().__init__()
        self.has_flash = has_flash

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._attention(**_SDPA.bind(*args, **kwargs).arguments)
        if func in _IN_FLOAT32 and torch.is_autocast_enabled("cpu"):
            args, kwargs = tree_map_only(Tensor, _as_float32, (args, kwargs))
        return func(*args, **kwargs)

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            query, key, value = (tensor.to(torch.bfloat16) for tensor in (query, key, value))
            attn_mask = attn_mask if attn_mask is None or attn_mask.dtype == torch.bool else attn_mask.bfloat16()
        if query.ndim != 4:  # the fused kernels take nothing else
            with sdpa_kernel(SDPBackend.MATH):
                return F.scaled_dot_product_attention(
                    query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
                )
        if attn_mask is None and self.has_flash and query.dtype != torch.float32:
            return torch.ops.aten._scaled_dot_product_flash_attention(
                query, key, value, dropout_p, is_causal, False, scale=scale
            )[0]
        bias = None if attn_mask is None else _as_bias(attn_mask, query, key)
        return torch.ops.aten._scaled_dot_product_efficient_attention(
            query, key, value, bias, torch.is_grad_enabled(), dropout_p, is_causal, scale=scale
        )[0]


def _as_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def _as_bias(mask: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """A mask as the memory-efficient kernel takes it: [B, heads, N, K], its rows aligned."""
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, -torch.inf)
    mask, length = mask.to(query.dtype), key.shape[-2]
    if length % _ALIGNMENT:
        mask = F.pad(mask, (0, -length % _ALIGNMENT))[..., :length]
    return mask.expand(*query.shape[:-1], length)
