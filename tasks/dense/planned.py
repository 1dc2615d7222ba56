"""The training step of heads on frozen maps, for `mimbench plan`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mimbench.api import DataSizes, Encoder, InputConfig, InputError, PlannedStep
from mimbench_tasks.dense.config import FrozenMapsConfig, ParallelHeadsConfig
from mimbench_tasks.dense.maps import FrozenMaps
from mimbench_tasks.dense.parallel_heads import Loss, ParallelHeads
from mimbench_tasks.dense.training_data import KEPT_LIMIT, bytes_of, is_fixed


class _PlannedHeads(ParallelHeads):
    """As it is trained, with the encoder inside, so that this is counted too."""

    def __init__(
        self, maps: FrozenMaps, is_stored: bool, heads: Sequence[nn.Module], factors: Sequence[float], loss: Loss
    ):
        super().__init__(list if is_stored else maps.forward, maps.step, heads, factors, loss)
        self.maps = maps.requires_grad_(False)

    def train(self, mode: bool = True) -> _PlannedHeads:
        super().train(mode)
        self.maps.eval()
        return self


def plan_heads(
    config: ParallelHeadsConfig,
    encoder: Encoder,
    data: DataSizes,
    images: InputConfig,
    build: Callable[[Sequence[int]], Sequence[nn.Module]],
    loss: Loss,
    target: torch.dtype,
) -> PlannedStep:
    """The step of ParallelHeads.

    Args:
        build: channels of each map -> the heads, of which each has one of config.lr_factors.
        target: type of what is known of a pixel.

    Raises:
        InputError: the size of the training images is not known.
    """
    height, width = size = _image_size(config, data)
    maps = FrozenMaps(encoder, config, images, torch.zeros(0).device)
    shapes = maps.shapes(size)
    is_stored = is_fixed(config, config.augmentation) and bytes_of(maps, size, data.train) <= KEPT_LIMIT
    model = _PlannedHeads(maps, is_stored, build([shape[0] for shape in shapes]), config.lr_factors, loss)

    def batch(count: int) -> tuple[Any, Tensor]:
        shown: Any = torch.zeros(count, encoder.in_channels, *size, dtype=torch.uint8)
        if is_stored:
            shown = [torch.zeros(count, *shape) for shape in shapes]
        return shown, torch.zeros(count, height, width, dtype=target)

    return PlannedStep(
        model, batch, config.train, "maps of the training images are made once before" if is_stored else ""
    )


def _image_size(config: FrozenMapsConfig, data: DataSizes) -> tuple[int, int]:
    """Height and width of training images. Of those that keep their aspect the shorter side counts."""
    side = config.image_size or data.side
    if config.crop_size is None and side is None:
        raise InputError(
            "neither task.crop_size nor task.image_size is set, so the size of training images is not known; set one"
        )
    return config.crop_size or (side or 0, side or 0)
