"""Projection heads of self-distillation (DINO, arXiv:2104.14294; iBOT, arXiv:2111.07832)."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.errors import InputError


class WeightNormLinear(nn.Module):
    """A linear layer without bias whose rows have a direction (`weight`) and a length (`gain`).

    Attributes:
        weight: [out_dim, in_dim]; only the direction of each row counts.
        gain: [out_dim, 1], initially 1; not trained if it is fixed. A teacher's follows by momentum either way, as in
            the official code.
    """

    def __init__(self, in_dim: int, out_dim: int, *, fixed_gain: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.trunc_normal_(torch.empty(out_dim, in_dim), std=0.02))
        self.gain = nn.Parameter(torch.ones(out_dim, 1), requires_grad=not fixed_gain)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_dim] -> [..., out_dim]."""
        return F.linear(x, self.gain * F.normalize(self.weight, dim=1))


class ProjectionHead(nn.Module):
    """An MLP with GELU, L2 normalisation, and a weight-normed last layer (DINO and iBOT).

    Linear weights are normal with std 0.02, cut at two units, and biases are zero, from the global torch generator.

    Attributes:
        mlp: `layers` linear layers, in_dim -> hidden_dim -> ... -> bottleneck_dim.
        last: the weight-normed layer, bottleneck_dim -> out_dim. See `cancel_gradients`.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        layers: int = 3,
        batch_norm: bool = False,
        fixed_gain: bool = True,
    ) -> None:
        """Build the head; the defaults are those of DINO.

        Args:
            batch_norm: batch normalisation after each hidden layer. Batch norms take the samples [N, D] or tokens
                [B, N, D] of one call together.
            fixed_gain: rows of the last layer stay at length 1 ("norm_last_layer").

        Raises:
            InputError: `layers` is below 1.
        """
        super().__init__()
        if layers < 1:
            raise InputError(f"a projection head needs one layer or more, not {layers}")
        widths = [in_dim, *[hidden_dim] * (layers - 1), bottleneck_dim]
        parts: list[nn.Module] = []
        for index, (narrow, wide) in enumerate(pairwise(widths)):
            linear = nn.Linear(narrow, wide)
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
            parts.append(linear)
            if index < layers - 1:
                parts += [nn.BatchNorm1d(wide), nn.GELU()] if batch_norm else [nn.GELU()]
        self.mlp = nn.Sequential(*parts)
        self.last = WeightNormLinear(bottleneck_dim, out_dim, fixed_gain=fixed_gain)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of features: [..., in_dim] -> [..., out_dim]; with a fixed gain each lies in [-1, 1]."""
        out = self.mlp(x.flatten(0, -2))
        return self.last(F.normalize(out, dim=-1)).unflatten(0, x.shape[:-1])


def cancel_gradients(*modules: nn.Module) -> None:
    """Drop the gradients of these modules, so that the next optimizer step does not change them.

    DINO and iBOT do so with the last layer of the head during the first epoch. Call it in `Method.before_update`.
    """
    for module in modules:
        for parameter in module.parameters():
            parameter.grad = None
