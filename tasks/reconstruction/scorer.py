"""Scores of a method's reconstructions of masked test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mimbench.api import Grid, InputConfig, Method, denormalise, mask_at_pixels, random_order
from mimbench_tasks.reconstruction.fills import mask_first, masked_cells, mean_filled, nearest_filled
from mimbench_tasks.reconstruction.scores import Scores

PEEKS = 1e-4
"""If a reconstructed, normalised pixel changes by more than this with the masked pixels, the method reads them."""
METHOD, MEAN, NEAREST, PEEKING = "method", "mean fill", "nearest fill", "method, shown the truth"


@dataclass(frozen=True)
class Sample:
    """Reconstructions of a few images at one mask ratio, for a picture."""

    ratio: float
    masked: Tensor
    """bool [N, H, W], True = masked."""
    rebuilt: Tensor
    """[N, C, H, W] in [0, 1]."""


class ReconstructionScorer:
    """Masks, reconstructs and scores images, batch after batch. The method never gets masked pixels.

    Two simple fills are scored for comparison: the mean of each image's visible pixels, and copies of the nearest
    visible cell. If a method's prediction depends on masked pixels (MAE with normalised pixels uses their mean and
    variance), it is scored a second time with the true pixels as input.
    """

    def __init__(
        self, method: Method, input_config: InputConfig, grid: Grid, *, ratios: Sequence[float], ratio: float, seed: int
    ) -> None:
        """Start without images.

        Args:
            method: predicts pixels.
            input_config: the recipe's [input].
            grid: rows and columns of the masks.
            ratios: mask ratios of the curves.
            ratio: mask ratio of the metrics, at which a method that depends on masked pixels is scored twice.
            seed: of masks and fills.
        """
        self.method, self.input, self.grid, self.ratio = method, input_config, grid, ratio
        self.ratios = sorted({*ratios, ratio})
        self.generator = torch.Generator().manual_seed(seed)
        self.scores: dict[tuple[str, float], Scores] = {}
        self.n = 0

    @torch.no_grad()
    def add(self, images: Tensor) -> list[Sample]:
        """Score normalised images [B, C, S, S]. A higher mask ratio masks what the lower ones do, and more."""
        truth = denormalise(images, self.input)
        order = random_order(len(images), self.grid, self.generator).to(images.device)
        samples = []
        for ratio in self.ratios:
            mask = mask_first(order, self.grid, masked_cells(self.grid, ratio))
            masked = mask_at_pixels(mask, images)
            nearest = nearest_filled(images, mask, self.generator)
            rebuilt = self._reconstruct(nearest, mask)
            for kind, made in ((METHOD, rebuilt), (MEAN, mean_filled(images, mask)), (NEAREST, nearest)):
                self._score(kind, ratio, made, truth, masked)
            # The first batch decides whether the method depends on masked pixels.
            is_first = self.n == 0
            if ratio == self.ratio and (is_first or (PEEKING, ratio) in self.scores):
                peeking = self._reconstruct(images, mask)
                if not is_first or bool(((peeking - rebuilt).abs() * masked).max() > PEEKS):
                    self._score(PEEKING, ratio, peeking, truth, masked)
            samples.append(Sample(ratio, masked[:, 0], denormalise(rebuilt, self.input)))
        self.n += len(images)
        return samples

    def values(self, kind: str, ratio: float) -> dict[str, float] | None:
        """Scores of METHOD, MEAN, NEAREST or PEEKING; None for PEEKING if the method ignores masked pixels."""
        scores = self.scores.get((kind, ratio))
        return None if scores is None else scores.values()

    def curves(self, kind: str) -> dict[str, list[float]]:
        """Score name -> its values over `ratios`."""
        values = [self.scores[kind, ratio].values() for ratio in self.ratios]
        return {name: [value[name] for value in values] for name in values[0]}

    def _reconstruct(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """`inputs` with the masked part replaced by the method's prediction from them."""
        return torch.where(mask_at_pixels(mask, inputs), self.method.reconstruct(inputs, mask).float(), inputs)

    def _score(self, kind: str, ratio: float, made: Tensor, truth: Tensor, masked: Tensor) -> None:
        if (kind, ratio) not in self.scores:
            self.scores[kind, ratio] = Scores(self.input.image_size).to(truth.device)
        self.scores[kind, ratio].add(denormalise(made, self.input), truth, masked)
