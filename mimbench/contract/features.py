"""Features: what an encoder returns, as a map, its mean and prefix tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Pooling = Literal["mean", "token", "mean+token"]
"""One vector per image or clip: the mean over patches, the class token (the mean if there are several), or the two
concatenated."""


@dataclass(frozen=True)
class Features:
    """Features of a batch at one depth.

    Attributes:
        pooled: [B, D], the mean over space, and over time if the encoder got clips.
        dense: [B, D, h, w], one vector per patch or cell; of clips [B, D, T', h, w]. If only K visible patches were
            encoded, it is [B, D, 1, K].
        prefix: [B, P, D], class and register tokens. Class tokens come first; P is 0 without such tokens.
        class_tokens: how many of the prefix tokens are class tokens, if any is.
    """

    pooled: Tensor
    dense: Tensor
    prefix: Tensor
    class_tokens: int = 1

    @classmethod
    def from_map(cls, dense: Tensor, prefix: Tensor | None = None) -> Features:
        """Features of a map [B, D, h, w] or [B, D, T', h, w], with the prefix tokens [B, P, D] if there are any."""
        if prefix is None:
            prefix = dense.new_empty(len(dense), 0, dense.shape[1])
        return cls(dense.mean(tuple(range(2, dense.ndim))), dense, prefix)

    @property
    def patches(self) -> Tensor:
        """[B, N, D], the vectors of `dense` in row-major order, or in the order of `keep`."""
        return self.dense.flatten(2).transpose(1, 2)

    @property
    def sequence(self) -> Tensor:
        """[B, P + N, D], the prefix tokens and then the patches."""
        return torch.cat((self.prefix, self.patches), 1)

    def pool(self, pooling: str) -> Tensor:
        """One vector per image: [B, D], or [B, 2 D] for "mean+token".

        "token" needs a class token. `Encoder.check_pooling` checks that in advance.
        """
        if pooling == "mean":
            return self.pooled
        token = self.prefix[:, : self.class_tokens].mean(1)
        return token if pooling == "token" else torch.cat((self.pooled, token), 1)
