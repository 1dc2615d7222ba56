"""Images made step by step: the surest cells are filled first, and then seen.

Schedule and order follow Chang et al., MaskGIT (CVPR 2022, arXiv:2202.04200), section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from mimbench.api import Grid, InputConfig, Method, NotSupported, mask_at_pixels, per_channel
from mimbench_tasks.reconstruction.fills import mask_first, nearest_filled

VIEWS = 2
"""Further answers that a method without a distribution is asked for, to see how far they agree."""
ALSO_HIDDEN = 0.25
"""Share of the visible cells that is hidden from each of them."""


@torch.no_grad()
def generate(
    method: Method,
    images: Tensor,
    mask: Tensor,
    input_config: InputConfig,
    *,
    steps: int,
    temperature: float,
    generator: torch.Generator,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Fill the hidden cells of normalised images; gives (images, mask) at the start and after each step.

    After step t of T, cos(pi t / 2T) of the cells that were hidden still are. Which ones: those that the method is
    least sure of, its log-probability plus Gumbel noise of scale temperature x (1 - t / T). A method that gives no
    distribution (`sample_masked`) fills with its one answer, which it refines for the cells that wait; it is the surer
    of a cell the better its answers agree when random parts of what is visible are hidden too. Where nothing is
    visible, no answer depends on anything, and the order is random.

    mask: bool [B, Gh, Gw] that hides as many cells of each image. generator: on the images' device.
    """
    channels = images.shape[1]
    mean, std = (per_channel(getattr(input_config, name), channels, name).to(images) for name in ("mean", "std"))
    black, white = (0.0 - mean) / std, (1.0 - mean) / std
    hidden = total = int(mask[0].sum())
    yield images, mask
    for step in range(1, steps + 1):
        left = int(total * math.cos(math.pi / 2 * step / steps))
        if left == hidden:
            continue
        guess, sure = _guess(method, images, mask, temperature, generator)
        noise = -torch.empty_like(sure).exponential_(generator=generator).log()
        rank = sure + temperature * (1 - step / steps) * noise
        order = rank.masked_fill(~mask, math.inf).flatten(1).argsort(dim=1, stable=True)
        waiting = mask_first(order, mask.shape[1:], left)
        images = torch.where(mask_at_pixels(mask & ~waiting, images), guess.float().clamp(black, white), images)
        mask, hidden = waiting, left
        yield images, mask


def _guess(
    method: Method, images: Tensor, mask: Tensor, temperature: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Images with the hidden part filled, and how sure each cell of the mask is, [B, Gh, Gw]."""
    grid = mask.shape[1:]
    shown = nearest_filled(images, mask, generator)
    try:
        drawn, probability = method.sample_masked(shown, mask, temperature, generator)
    except NotSupported:
        return _agreed(method, shown, mask, generator)
    return drawn, _on_grid(probability, grid)


def _agreed(method: Method, shown: Tensor, mask: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The method's answer, and the log-density at the mean of a Gaussian as wide as its answers differ."""
    answer, grid = method.reconstruct(shown, mask).float(), mask.shape[1:]
    also = int(ALSO_HIDDEN * int((~mask[0]).sum()))
    if also == 0:
        return answer, torch.zeros(mask.shape, device=shown.device)
    answers = [answer]
    for _ in range(VIEWS):
        draw = torch.rand(mask.shape, generator=generator, device=generator.device).masked_fill(mask, 2.0)
        more = mask | mask_first(draw.flatten(1).argsort(dim=1), grid, also)
        answers.append(method.reconstruct(nearest_filled(shown, more, generator), more).float())
    spread = torch.stack(answers).var(0).mean(1)
    return answer, -0.5 * (_on_grid(spread, grid) + 1e-6).log()


def _on_grid(values: Tensor, grid: Grid) -> Tensor:
    return F.adaptive_avg_pool2d(values.float().unsqueeze(1), (grid[0], grid[1])).squeeze(1)
