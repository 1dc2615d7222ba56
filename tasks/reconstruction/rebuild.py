"""Test images, partly hidden, as the method rebuilds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mimbench.api import Grid, InputConfig, Method, denormalise, random_order
from mimbench_tasks.reconstruction.fills import at_pixels, hidden_cells, hide_first, mean_filled, nearest_filled
from mimbench_tasks.reconstruction.scores import Scores

PEEKS = 1e-4
"""Change of a normalised pixel that tells that a method has looked at hidden ones."""
METHOD, MEAN, NEAREST, PEEKING = "method", "mean fill", "nearest fill", "method, shown the truth"


@dataclass(frozen=True)
class Sample:
    """A few images at one share of hidden cells, for a picture."""

    share: float
    hidden: Tensor
    """bool [N, H, W]."""
    rebuilt: Tensor
    """[N, C, H, W] in [0, 1]."""


class Rebuilding:
    """Hides, rebuilds and scores batch after batch. The method is never shown what is hidden.

    Beside it stand two fills that know nothing: each image's visible mean, and copies of the nearest visible cell.
    A method whose answer depends on hidden pixels all the same (MAE with normalised pixels takes their statistics) is
    scored a second time, shown the truth.
    """

    def __init__(
        self, method: Method, input_config: InputConfig, grid: Grid, *, ratios: Sequence[float], ratio: float, seed: int
    ) -> None:
        """ratio: the one at which a peeking method is scored twice; scored like `ratios` too."""
        self.method, self.input, self.grid, self.ratio = method, input_config, grid, ratio
        self.shares = sorted({*ratios, ratio})
        self.generator = torch.Generator().manual_seed(seed)
        self.scores: dict[tuple[str, float], Scores] = {}
        self.n = 0

    @torch.no_grad()
    def add(self, images: Tensor) -> list[Sample]:
        """Score normalised images [B, C, S, S]; every share hides what lower ones do, and more."""
        order = random_order(len(images), self.grid, self.generator).to(images.device)
        samples = []
        for share in self.shares:
            mask = hide_first(order, self.grid, hidden_cells(self.grid, share))
            hidden = at_pixels(mask, images)
            nearest = nearest_filled(images, mask, self.generator)
            rebuilt = self._rebuilt(nearest, mask)
            for kind, made in ((METHOD, rebuilt), (MEAN, mean_filled(images, mask)), (NEAREST, nearest)):
                self._score(kind, share, made, images, hidden)
            if share == self.ratio and (self.n == 0 or (PEEKING, share) in self.scores):
                peeking = self._rebuilt(images, mask)
                if self.n or bool(((peeking - rebuilt).abs() * hidden).max() > PEEKS):
                    self._score(PEEKING, share, peeking, images, hidden)
            samples.append(Sample(share, hidden[:, 0], denormalise(rebuilt, self.input)))
        self.n += len(images)
        return samples

    def values(self, kind: str, share: float) -> dict[str, float] | None:
        """The scores of METHOD, MEAN, NEAREST or PEEKING; None for a method that does not peek."""
        scores = self.scores.get((kind, share))
        return None if scores is None else scores.values()

    def curves(self, kind: str) -> dict[str, list[float]]:
        """Each score over `shares`."""
        values = [self.scores[kind, share].values() for share in self.shares]
        return {name: [value[name] for value in values] for name in values[0]}

    def _rebuilt(self, shown: Tensor, mask: Tensor) -> Tensor:
        return torch.where(at_pixels(mask, shown), self.method.reconstruct(shown, mask).float(), shown)

    def _score(self, kind: str, share: float, made: Tensor, images: Tensor, hidden: Tensor) -> None:
        if (kind, share) not in self.scores:
            self.scores[kind, share] = Scores(self.input.image_size).to(images.device)
        self.scores[kind, share].add(denormalise(made, self.input), denormalise(images, self.input), hidden)
