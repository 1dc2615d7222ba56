"""Maps of features from a frozen encoder, and predictions over windows that slide over an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import lcm

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.api import Encoder, InputConfig, per_channel
from mimbench_tasks.dense.config import FrozenMapsConfig

Scores = list[Tensor]
"""One [B, K, H, W] per head."""


class FrozenMaps(nn.Module):
    """uint8 images -> maps of the chosen layers. The encoder is in evaluation mode and gets no gradient."""

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: Encoder, config: FrozenMapsConfig, images: InputConfig, device: torch.device) -> None:
        """images: mean and standard deviation that the encoder was pretrained with. The encoder moves to `device`."""
        super().__init__()
        self.encoder, self.config, self.device = encoder.to(device).eval(), config, device
        self.layers = [encoder.layer_index(layer) for layer in config.layers]
        self.step = lcm(encoder.patch_size, encoder.stride)
        """px; images are padded to multiples of it."""
        channels = encoder.in_channels
        self.register_buffer("mean", per_channel(images.mean, channels, "mean").to(device))
        self.register_buffer("std", per_channel(images.std, channels, "std").to(device))

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """uint8 [B, C, H, W] on the device -> [B, D, h, w] per layer, float32.

        Normalised images are padded with zeros at the right and at the bottom, to multiples of `step` px.
        """
        mean, std = (values.reshape(-1, 1, 1) for values in (self.mean, self.std))
        pixels = pad_to_multiple((images.float() / 255 - mean) / std, self.step)
        every = self.encoder.forward_layers(self.encoder.embed(pixels), self.layers)
        if not self.config.class_token:
            return [features.dense.float() for features in every]
        maps = []
        for features in every:
            token = features.pool("token")[:, :, None, None].expand(-1, -1, *features.dense.shape[-2:])
            maps.append(torch.cat((features.dense, token), 1).float())
        return maps

    @torch.no_grad()
    def shapes(self, size: tuple[int, ...] | None = None) -> list[tuple[int, ...]]:
        """Channels, height and width of each map of an image of `size`, by default the encoder's. Runs the encoder."""
        channels, *usual = self.encoder.input_shape
        images = torch.zeros(1, channels, *(size or usual), dtype=torch.uint8, device=self.device)
        return [tuple(each.shape[1:]) for each in self(images)]

    def dims(self) -> list[int]:
        """Channels of each map."""
        return [shape[0] for shape in self.shapes()]


def pad_to_multiple(images: Tensor, step: int) -> Tensor:
    """[B, C, H, W] with zeros at the right and at the bottom, so that `step` divides H and W."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % step, 0, -height % step))


def upsample(scores: Tensor, size: tuple[int, int], step: int) -> Tensor:
    """Scores [B, K, h, w] of images that were padded to a multiple of `step` px -> of their pixels, [B, K, *size]."""
    padded = [-(-side // step) * step for side in size]
    whole = F.interpolate(scores, padded, mode="bilinear", align_corners=False)
    return whole[..., : size[0], : size[1]]


def slide(predict: Callable[[Tensor], Scores], images: Tensor, window: tuple[int, int], step: int) -> Scores:
    """The mean of `predict` over all windows that cover a pixel.

    Args:
        predict: images [B, C, *window] -> scores [B, K, *window] per head.
        images: [B, C, H, W]; smaller ones are predicted as a whole.
        step: px between two windows; the last one of each axis ends with the image.
    """
    height, width = images.shape[-2:]
    total: Scores = []
    counts = images.new_zeros(1, 1, height, width, dtype=torch.float32)
    for rows, columns in windows((height, width), window, step):
        parts = predict(images[..., rows, columns])
        if not total:
            total = [part.new_zeros(*part.shape[:2], height, width) for part in parts]
        for whole, part in zip(total, parts, strict=True):
            whole[..., rows, columns] += part
        counts[..., rows, columns] += 1
    return [whole / counts for whole in total]


def windows(size: tuple[int, int], window: tuple[int, int], step: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of each window, as mmsegmentation places them."""
    starts = []
    for extent, length in zip(size, window, strict=True):
        count = max(0, -(-(extent - length) // step)) + 1
        starts.append([max(0, min(number * step, extent - length)) for number in range(count)])
    for top in starts[0]:
        for left in starts[1]:
            yield slice(top, top + window[0]), slice(left, left + window[1])
