"""Images that the method makes, beside real ones, as the judge sees both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mimbench.api import Grid, ImageSplit, InputConfig, Method, denormalise, mask_at_pixels, random_order, subset
from mimbench_tasks.reconstruction.config import ReconstructionConfig
from mimbench_tasks.reconstruction.fills import mask_first, masked_cells
from mimbench_tasks.reconstruction.generation import generate
from mimbench_tasks.reconstruction.image_batches import image_batches
from mimbench_tasks.reconstruction.judge import Judge, frechet

Frame = tuple[Tensor, Tensor]
"""Images [N, C, H, W] in [0, 1], and what of them is hidden, bool [N, H, W]."""


@dataclass(frozen=True)
class GenerationScores:
    """Distances of generated images to real ones, by the share that was hidden at the start."""

    frechet: dict[float, float]
    floor: float
    """Between the real images that were hidden and those that all are compared with: two halves of the test images."""
    n: int
    """Images on each side."""
    frames: dict[float, list[Frame]]
    """A few images after each step, for a picture."""


def score_generation(
    method: Method,
    judge: Judge,
    test: ImageSplit,
    input_config: InputConfig,
    grid: Grid,
    config: ReconstructionConfig,
    *,
    device: torch.device,
    seed: int,
) -> GenerationScores:
    """Hide parts of one half of the shuffled `test`, make images of what is left, and compare them with the other half.

    Of images that are hidden as a whole nothing is left: those are made from nothing.
    """
    n, channels = min(config.generated, len(test) // 2), method.encoder.in_channels
    halves = [subset(test, range(start, start + n)) for start in (0, n)]
    hidden_half, other_half = (
        torch.cat([judge.features(images) for images in image_batches(half, input_config, channels, device)])
        for half in halves
    )
    distances: dict[float, float] = {}
    frames: dict[float, list[Frame]] = {}
    for share in config.starts:
        generator = torch.Generator(device).manual_seed(seed)
        features: list[Tensor] = []
        for images in image_batches(halves[0], input_config, channels, device):
            steps = _made(method, images, input_config, grid, share, config, generator)
            features.append(judge.features(steps[-1][0]))
            if share not in frames:  # pictures show the first batch
                frames[share] = [_frame(images, mask, input_config, config.shown) for images, mask in steps]
        distances[share] = frechet(torch.cat(features), other_half)
    return GenerationScores(distances, frechet(hidden_half, other_half), n, frames)


def _made(
    method: Method,
    images: Tensor,
    input_config: InputConfig,
    grid: Grid,
    share: float,
    config: ReconstructionConfig,
    generator: torch.Generator,
) -> Sequence[tuple[Tensor, Tensor]]:
    order = random_order(len(images), grid, generator)
    mask = mask_first(order, grid, masked_cells(grid, share))
    steps = generate(
        method, images, mask, input_config, steps=config.steps, temperature=config.temperature, generator=generator
    )
    return list(steps)


def _frame(images: Tensor, mask: Tensor, input_config: InputConfig, shown: int) -> Frame:
    return denormalise(images[:shown], input_config).cpu(), mask_at_pixels(mask[:shown], images)[:, 0].cpu()
