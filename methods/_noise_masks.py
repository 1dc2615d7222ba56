"""Masks of filtered noise (ColorMAE, arXiv:2407.13036), as options of methods with random masks.

Reference code: Apache 2.0; not used here.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor

from mimbench.api import Config, Grid, added, noise_mask

NoiseKind = Literal["red-noise", "green-noise", "blue-noise", "purple-noise"]
"""Values of an option for kinds of masks."""


class NoiseMaskConfig(Config):
    """What masks of filtered noise have as options."""

    noise_sigma: tuple[float, float] = added((1.0, 2.0))
    """Noise masks: standard deviations of the narrow and of the wide Gaussian filter, in mask patches. Red noise lies
    below the wide filter's frequencies, green noise between the two, blue noise above the narrow one's, purple noise
    outside of green."""

    def check_noise(self, kind: str) -> None:
        """Raise ValueError if `noise_sigma` is impossible, or has no effect on masks of this kind."""
        narrow, wide = self.noise_sigma
        if not 0 < narrow < wide:
            raise ValueError(f"noise_sigma must be two rising numbers above 0, not ({narrow:g}, {wide:g})")
        if not is_noise(kind) and self.noise_sigma != (1.0, 2.0):
            raise ValueError(f'noise_sigma is for masks of noise, such as "green-noise", not for "{kind}"')

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
        colour = cast(Literal["red", "green", "blue", "purple"], kind.removesuffix("-noise"))
        return noise_mask(batch, grid, ratio, generator, colour=colour, sigma=self.noise_sigma, rounding=rounding)


def is_noise(kind: str) -> bool:
    """Whether a kind of masks is one of filtered noise."""
    return kind.endswith("-noise")
