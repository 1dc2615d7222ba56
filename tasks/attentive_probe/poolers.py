"""Attention pooling over the tokens of a frozen encoder, as published probes define it.

Each pooler turns tokens [B, N, D] into one vector per image, [B, D], and its `weights` are the attention maps
[B, Q, N] of its Q queries or heads, whose rows sum to 1.

A query attends to projected tokens in the official code. Here the projection is applied to the query instead, and that
of the values after pooling: q . (W x) = (W^T q) . x. It is the same function of the same parameters, without a matrix
product per token. A bias of the keys shifts all scores of a query alike, so it changes nothing and is left out.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Pooler(nn.Module):
    """Tokens [B, N, D] -> one vector per image, [B, D]."""

    def weights(self, tokens: Tensor) -> Tensor:
        """Attention maps [B, Q, N]."""
        raise NotImplementedError


class EfficientPooling(Pooler):
    """Several queries attend to the tokens as they are; each pools its own share of the projected channels.

    EP, arXiv:2506.10178; billpsomas/efficient-probing@b8f4fb8 poolings/ep.py.
    """

    def __init__(self, dim: int, queries: int) -> None:
        """queries: divides `dim`."""
        super().__init__()
        self.query = nn.Parameter(0.02 * torch.randn(queries, dim))
        self.values = nn.Linear(dim, dim, bias=False)

    def weights(self, tokens: Tensor) -> Tensor:
        return (tokens @ (self.query.T * tokens.shape[-1] ** -0.5)).transpose(1, 2).softmax(-1)

    def forward(self, tokens: Tensor) -> Tensor:
        pooled = self.weights(tokens) @ tokens  # [B, Q, D]
        projections = self.values.weight.unflatten(0, (len(self.query), -1))  # [Q, D / Q, D]
        return torch.einsum("bqd,qed->bqe", pooled, projections).flatten(1)


class _OneQuery(Pooler):
    """Multi-head attention of one learned query to the tokens: the part that CAPI, CAE and V-JEPA have in common.

    A subclass defines `heads_query`, `keys`, `values` and, if they are not the tokens, `shown_keys` and `shown_values`.
    """

    heads: int
    keys: nn.Linear
    values: nn.Linear

    def heads_query(self) -> Tensor:
        """The query of each head, [heads, D / heads]."""
        raise NotImplementedError

    def shown_keys(self, tokens: Tensor) -> Tensor:
        """What the keys are projected from, [B, N, D]."""
        return tokens

    def shown_values(self, tokens: Tensor) -> Tensor:
        """What the values are projected from, [B, N, D]."""
        return tokens

    def weights(self, tokens: Tensor) -> Tensor:
        query = self.heads_query()
        seen_by_tokens = torch.einsum("he,hed->hd", query, self.keys.weight.unflatten(0, (self.heads, -1)))
        scores = self.shown_keys(tokens) @ (seen_by_tokens.T / math.sqrt(query.shape[-1]))
        return scores.transpose(1, 2).softmax(-1)

    def pool(self, tokens: Tensor) -> Tensor:
        """What the heads attend to, projected and side by side: [B, D]."""
        pooled = self.weights(tokens) @ self.shown_values(tokens)  # [B, heads, D]
        projections = self.values.weight.unflatten(0, (self.heads, -1))
        return torch.einsum("bhd,hed->bhe", pooled, projections).flatten(1) + self.values.bias


class CAPIPooling(_OneQuery):
    """The query itself is cut into heads; keys and values are projected. facebookresearch/capi@1b8c704e
    eval_classification.py (AttnPoolClassifier), arXiv:2502.08769.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, dim), std=0.02))
        self.keys, self.values = _projection(dim, bias=False), _projection(dim)

    def heads_query(self) -> Tensor:
        return self.query.view(self.heads, -1)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.pool(tokens)


class CAEPooling(_OneQuery):
    """A cross-attention block whose query, keys and values have layer norms of their own, without a residual.

    Atten4Vis/CAE@1016f854 models/modeling_finetune.py (AttentiveBlock), arXiv:2202.03026. The query starts at 0.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.zeros(1, dim))
        self.query_norm, self.key_norm, self.value_norm = (nn.LayerNorm(dim, eps=1e-6) for _ in range(3))
        self.queries, self.keys, self.values = _projection(dim), _projection(dim, bias=False), _projection(dim)
        self.output = _projection(dim)

    def heads_query(self) -> Tensor:
        return self.queries(self.query_norm(self.query)).view(self.heads, -1)

    def shown_keys(self, tokens: Tensor) -> Tensor:
        return self.key_norm(tokens)

    def shown_values(self, tokens: Tensor) -> Tensor:
        return self.value_norm(tokens)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.output(self.pool(tokens))


class VJEPAPooling(_OneQuery):
    """A whole cross-attention block with residuals and an MLP. facebookresearch/jepa@d75711f4
    src/models/attentive_pooler.py, arXiv:2404.08471.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, dim), std=0.02))
        self.token_norm, self.mlp_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.queries, self.keys, self.values = _projection(dim), _projection(dim, bias=False), _projection(dim)
        self.output = _projection(dim)
        last = _projection(4 * dim, dim)
        self.mlp = nn.Sequential(_projection(dim, 4 * dim), nn.GELU(), last)
        with torch.no_grad():
            for projection in (self.output, last):
                projection.weight.div_(math.sqrt(2.0))

    def heads_query(self) -> Tensor:
        return self.queries(self.query).view(self.heads, -1)

    def shown_keys(self, tokens: Tensor) -> Tensor:
        return self.token_norm(tokens)

    shown_values = shown_keys

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.query + self.output(self.pool(tokens))
        return x + self.mlp(self.mlp_norm(x))


class MILPooling(Pooler):
    """AbMILP: one score per token from the token itself, and the tokens' weighted mean.

    Attention-based multiple-instance learning, arXiv:1802.04712: with `gated`, the score is w . (tanh(V x) *
    sigmoid(U x)), its equation 9, with biases of V and U. Without, it is w . x, as gmum/beyond_cls@22ed799a README.md
    trains it.
    """

    HIDDEN = 128
    """Channels of V x and U x, as in the paper's experiments."""

    def __init__(self, dim: int, gated: bool) -> None:
        super().__init__()
        self.gates = nn.Linear(dim, 2 * self.HIDDEN) if gated else None
        self.scores = nn.Linear(self.HIDDEN if gated else dim, 1, bias=False)

    def weights(self, tokens: Tensor) -> Tensor:
        shown = tokens
        if self.gates is not None:
            signal, gate = self.gates(tokens).chunk(2, -1)
            shown = signal.tanh() * gate.sigmoid()
        return self.scores(shown).transpose(1, 2).softmax(-1)

    def forward(self, tokens: Tensor) -> Tensor:
        return (self.weights(tokens) @ tokens)[:, 0]


def head_count(dim: int) -> int:
    """Attention heads of 64 channels; if these do not divide `dim`, the next smaller number of heads that does."""
    return next(heads for heads in range(max(1, dim // 64), 0, -1) if dim % heads == 0)


def entropy_and_overlap(weights: Tensor) -> dict[str, Tensor]:
    """What attention maps [B, Q, N] look like, per image, [B] each.

    "entropy": mean over the maps, as a share of the entropy of a uniform map; 1 is an average over all tokens.
    "overlap": mean cosine similarity between two maps of one image, if there are several; 1 means that all are equal.
    """
    queries, tokens = weights.shape[1:]
    entropy = torch.special.entr(weights.double()).sum(-1).mean(1) / math.log(max(tokens, 2))
    if queries == 1:
        return {"entropy": entropy}
    maps = F.normalize(weights.double(), dim=-1)
    similarity = (maps @ maps.transpose(1, 2)).sum((1, 2)) - queries
    return {"entropy": entropy, "overlap": similarity / (queries * (queries - 1))}


def _projection(dim: int, out: int | None = None, *, bias: bool = True) -> nn.Linear:
    linear = nn.Linear(dim, out or dim, bias=bias)
    nn.init.trunc_normal_(linear.weight, std=0.02)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear
