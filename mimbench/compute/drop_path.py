"""Drop path whose random factors are drawn before a block runs: compiled code has neither rate nor generator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mimbench.shared_batch import draw_rows


class DropPath(nn.Module):
    """Multiplies the branch of each sample by a factor: 0 if it is dropped, 1 / (1 - rate) if it stays.

    With the same random numbers, results are those of timm's DropPath. A compiled block gets its factors from outside.

    Args:
        drop_prob: the rate, in [0, 1].
        scale_by_keep: False: the factor of a sample that stays is 1.
    """

    def __init__(self, drop_prob: float = 0.0, *, scale_by_keep: bool = True) -> None:
        super().__init__()
        self.drop_prob, self.scale_by_keep = drop_prob, scale_by_keep
        self.factors: Tensor | None = None

    def draw(self, batch: int, device: torch.device) -> Tensor:
        """Factors, float32 [batch], from torch's global generator. A rate of 0 draws no number."""
        keep = 1 - self.drop_prob
        if not self.drop_prob:
            return torch.ones(batch, device=device)
        factors = draw_rows(lambda rows: torch.empty(rows, device=device).bernoulli_(keep), batch)
        return factors.div_(keep) if keep and self.scale_by_keep else factors

    def forward(self, x: Tensor) -> Tensor:
        """[B, ...] -> [B, ...]. In evaluation, `x` as it is."""
        if not self.training:
            return x
        # Factors serve one call. A module that drops two branches draws for the second one here.
        factors, self.factors = self.factors, None
        if factors is None:
            if not self.drop_prob:
                return x
            factors = self.draw(len(x), x.device)
        return x * factors.to(x.dtype).view(-1, *[1] * (x.ndim - 1))


def is_drop_path(module: nn.Module) -> bool:
    """Whether a module is timm's DropPath or the one of this file."""
    return type(module).__name__ == "DropPath" and hasattr(module, "drop_prob") and hasattr(module, "scale_by_keep")


def paths_of(block: nn.Module) -> dict[str, nn.Module]:
    """The modules of a block that drop paths, or would at another rate, by name: DropPath, or Identity in its place."""
    return {
        name: module
        for name, module in block.named_modules()
        if is_drop_path(module) or (isinstance(module, nn.Identity) and "drop_path" in name.rpartition(".")[2])
    }


def drawn_paths(block: nn.Module) -> list[DropPath]:
    """The modules of a block whose factors can be drawn from outside, in their order."""
    return [module for module in block.modules() if isinstance(module, DropPath)]


def drawn(path: Any) -> DropPath:
    """A DropPath with the rate of timm's, or with rate 0 for an Identity; in the same mode."""
    made = DropPath(float(getattr(path, "drop_prob", 0.0)), scale_by_keep=bool(getattr(path, "scale_by_keep", True)))
    return made.train(path.training)
