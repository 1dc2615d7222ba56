"""Masks of filtered noise (ColorMAE, arXiv:2407.13036), as options of methods with random masks.

Reference code: Apache 2.0; not used here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor

from mimbench.api import Config, Grid, added, noise_mask, stored_noise_mask

NoiseKind = Literal["red-noise", "green-noise", "blue-noise", "purple-noise"]
"""Values of an option for kinds of masks."""


class NoiseMaskConfig(Config):
    """What masks of filtered noise have as options."""

    noise_sigma: tuple[float, float] = added((1.0, 2.0))
    """Noise masks: standard deviations of the narrow and of the wide Gaussian filter, in mask patches. Red noise lies
    below the wide filter's frequencies, green noise between the two, blue noise above the narrow one's, purple noise
    outside of green."""
    noise_file: Path | None = added(None)
    """Noise masks: patterns of noise to cut masks from, instead of filters: a .npz file of the official code, or an
    array [patterns, rows, columns] with one value per mask patch."""

    def check_noise(self, kind: str) -> None:
        """Raise ValueError if an option of noise is impossible, or has no effect on masks of this kind."""
        narrow, wide = self.noise_sigma
        if not 0 < narrow < wide:
            raise ValueError(f"noise_sigma must be two rising numbers above 0, not ({narrow:g}, {wide:g})")
        if not is_noise(kind) and self.noise_sigma != (1.0, 2.0):
            raise ValueError(f'noise_sigma is for masks of noise, such as "green-noise", not for "{kind}"')
        if not is_noise(kind) and self.noise_file is not None:
            raise ValueError(f'noise_file is for masks of noise, such as "green-noise", not for "{kind}"')
        if self.noise_file is not None and self.noise_sigma != (1.0, 2.0):
            raise ValueError("noise_file has noise that is filtered already; leave noise_sigma out")

    def draw_noise_mask(
        self,
        kind: str,
        batch: int,
        grid: Grid,
        ratio: float,
        generator: torch.Generator,
        rounding: Literal["ceil", "mae"] = "ceil",
    ) -> Tensor:
        """Masks bool [batch, Gh, Gw] of the noise `kind` names."""
        if self.noise_file is not None:
            return stored_noise_mask(batch, grid, ratio, generator, self.noise_file, rounding=rounding)
        colour = cast(Literal["red", "green", "blue", "purple"], kind.removesuffix("-noise"))
        return noise_mask(batch, grid, ratio, generator, colour=colour, sigma=self.noise_sigma, rounding=rounding)


def is_noise(kind: str) -> bool:
    """Whether a kind of masks is one of filtered noise."""
    return kind.endswith("-noise")
