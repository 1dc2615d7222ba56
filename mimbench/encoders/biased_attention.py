"""timm's two attentions with a relative position bias, in the forms of `mimbench.compute.attention`."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from timm.models.beit import Attention
from timm.models.swin_transformer import WindowAttention
from torch import Tensor, nn

from mimbench.compute.attention import Form, attend

Bias = Tensor | tuple[Tensor, Tensor] | None


class BiasedAttention(Attention):
    """timm's attention of Beit, with the same parameters and, in the form that timm would take, the same operations."""

    attention_form: Form

    def forward(self, x: Tensor, shared_rel_pos_bias: Bias = None) -> Tensor:
        """Tokens [B, N, D] -> [B, N, D].

        Args:
            x: the tokens.
            shared_rel_pos_bias: as `attend` takes it, if the block has no separate table.
        """
        bias = None if self.q_bias is None else torch.cat((self.q_bias, self.k_bias, self.v_bias))
        qkv = F.linear(x, self.qkv.weight, bias)
        query, key, value = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        between = shared_rel_pos_bias
        if self.relative_position_bias_table is not None:
            between = self._get_rel_pos_bias()
        dropout = self.attn_drop.p if self.training else 0.0
        x = attend(query, key, value, between, form=self.attention_form, dropout=dropout)
        return self.proj_drop(self.proj(x.transpose(1, 2).flatten(2)))


class BiasedWindowAttention(WindowAttention):
    """timm's attention of Swin, with the same parameters and, in the form that timm would take, the same operations."""

    attention_form: Form

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Windows [B * W, N, D] -> [B * W, N, D].

        Args:
            x: the tokens of each window.
            mask: [W, N, N], 0 or minus a large number, added to the bias of each window; None: no mask.
        """
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        dropout = self.attn_drop.p if self.training else 0.0
        bias, windows = self._get_rel_pos_bias(), 1 if mask is None else len(mask)
        if self.attention_form == "plain" and mask is not None:
            # Window by window, so that the mask is not repeated per image and head.
            scores = (query * self.scale) @ key.transpose(-2, -1) + bias
            scores = scores.unflatten(0, (-1, windows)) + mask.unsqueeze(1)
            weights = F.dropout(scores.flatten(0, 1).softmax(dim=-1), dropout)
            y = weights @ value
        else:
            if mask is not None:
                bias = (bias + mask.unsqueeze(1)).repeat(len(x) // windows, 1, 1, 1)
            y = attend(query, key, value, bias, form=self.attention_form, dropout=dropout)
        return self.proj_drop(self.proj(y.transpose(1, 2).flatten(2)))


Body = TypeVar("Body", bound=nn.Module)


def with_forms(body: Body) -> Body:
    """Give the attention of timm's Beit and Swin models or blocks its forms, in place; it starts with timm's own."""
    for module in body.modules():
        made: Any = {Attention: BiasedAttention, WindowAttention: BiasedWindowAttention}.get(type(module))
        if made is not None:  # timm's models take no class of attention as an argument
            module.__class__ = made
            cast(Any, module).attention_form = "sdpa" if module.fused_attn else "plain"
    return body
