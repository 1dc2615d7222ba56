"""Features: what an encoder returns, as a map, its mean and prefix tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Pooling = Literal["mean", "token", "mean+token"]
"""One vector per image: the mean over space, the class token, or the two concatenated."""


@dataclass(frozen=True)
class Features:
    """Features of a batch at one depth.

    Attributes:
        pooled: [B, D], the mean over space.
        dense: [B, D, h, w], one vector per patch or cell. If only K visible patches were encoded, h is 1 and w is K.
        prefix: [B, P, D], class and register tokens. A class token comes first; P is 0 without such tokens.
    """

    pooled: Tensor
    dense: Tensor
    prefix: Tensor

    @classmethod
    def from_map(cls, dense: Tensor, prefix: Tensor | None = None) -> Features:
        """Features of a map [B, D, h, w], with the prefix tokens [B, P, D] if there are any."""
        return cls(
            dense.mean((2, 3)), dense, dense.new_empty(len(dense), 0, dense.shape[1]) if prefix is None else prefix
        )

    @property
    def patches(self) -> Tensor:
        """[B, h * w, D], the vectors of `dense` in row-major order, or in the order of `keep`."""
        return self.dense.flatten(2).transpose(1, 2)

    @property
    def sequence(self) -> Tensor:
        """[B, P + h * w, D], the prefix tokens and then the patches."""
        return torch.cat((self.prefix, self.patches), 1)

    def pool(self, pooling: str) -> Tensor:
        """One vector per image: [B, D], or [B, 2 D] for "mean+token".

        "token" needs a class token. `Encoder.check_pooling` checks that in advance.
        """
        if pooling == "mean":
            return self.pooled
        token = self.prefix[:, 0]
        return token if pooling == "token" else torch.cat((self.pooled, token), 1)
