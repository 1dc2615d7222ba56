"""Random crops of whole batches, on any device.

The same crops as torchvision's RandomResizedCrop and the same antialiased resize as Pillow's, for B
images at once: a resize is separable and linear, so that each image is a product of three matrices.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mimbench.shared_batch import draws_rows

_TRIES = 10
BORDER = 4
"""px that are mirrored around an image before a simple crop."""


@draws_rows
def random_boxes(
    batch: int,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> Tensor:
    """Boxes int64 [batch, 4] on the generator's device: top, left, height, width, px.

    Area is uniform in `scale`, log(width / height) in `ratio`; of ten draws the first that fits the
    image is taken, or else the largest central box of a permitted ratio. As in torchvision.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)

    area = height * width * uniform(*scale, batch, _TRIES)
    aspect = uniform(math.log(ratio[0]), math.log(ratio[1]), batch, _TRIES).exp()
    sizes = torch.stack([(area / aspect).sqrt(), (area * aspect).sqrt()], dim=-1).round().long()
    limits = _constants([height, width], generator.device)
    fits = ((sizes > 0) & (sizes <= limits)).all(dim=-1)
    first = fits.long().argmax(dim=1)
    size = sizes.gather(1, first[:, None, None].expand(-1, 1, 2)).squeeze(1)
    corner = (uniform(0, 1, batch, 2) * (limits - size + 1)).long().clamp(min=0)
    central = _constants(_central_box(height, width, ratio), generator.device)
    return torch.where(fits.any(dim=1, keepdim=True), torch.cat([corner, size], dim=1), central)


def _constants(values: list[int], device: torch.device) -> Tensor:
    """int64 [N], made on the device: a copy from the host would wait for it."""
    return torch.stack([torch.full((), value, device=device) for value in values])


def _central_box(height: int, width: int, ratio: tuple[float, float]) -> list[int]:
    h, w = height, width
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return [(height - h) // 2, (width - w) // 2, h, w]


@draws_rows
def random_squares(batch: int, height: int, width: int, size: int, generator: torch.Generator) -> Tensor:
    """Boxes of size x size px, as `random_boxes` has them, uniform over all places."""
    limits = torch.tensor([height, width], device=generator.device) - size + 1
    corner = torch.rand((batch, 2), generator=generator, device=generator.device) * limits
    corner = corner.long().minimum(limits - 1)
    return torch.cat([corner, torch.full_like(corner, size)], dim=1)


def with_border(images: Tensor, size: int, interpolation: str) -> Tensor:
    """Images [B, ..., H, W] in [0, 1], the shorter side resized to `size` px, with BORDER mirrored px on each side.

    Sizes are cut off to whole px, as in torchvision's Resize.
    """
    height, width = images.shape[-2:]
    new = (size, int(size * width / height)) if height <= width else (int(size * height / width), size)
    flat = images.flatten(1, -3)
    if new != (height, width):
        flat = F.interpolate(flat, new, mode=interpolation, antialias=True).clamp(0, 1)
    return F.pad(flat, (BORDER,) * 4, mode="reflect").unflatten(1, images.shape[1:-2])


def resample(images: Tensor, boxes: Tensor, size: int, interpolation: str, mirror: Tensor | None = None) -> Tensor:
    """Cut `boxes` out of images [B, C, H, W] in [0, 1] and resize them to [B, C, size, size].

    boxes: [B, 4], top, left, height, width, px. mirror: bool [B], those to flip left to right.
    """
    boxes = boxes.to(images.device, images.dtype)
    rows = _weights(boxes[:, 0], boxes[:, 2], images.shape[-2], size, interpolation)
    columns = _weights(boxes[:, 1], boxes[:, 3], images.shape[-1], size, interpolation)
    if mirror is not None:
        columns = torch.where(mirror.to(images.device)[:, None, None], columns.flip(1), columns)
    return (rows[:, None] @ images @ columns[:, None].mT).clamp(0, 1)


def _weights(start: Tensor, length: Tensor, extent: int, size: int, interpolation: str) -> Tensor:
    """[B, size, extent]: what each source pixel gives to each of `size` output pixels along one axis."""
    pixels = torch.arange(extent, device=start.device, dtype=start.dtype) + 0.5
    step = (length / size)[:, None, None]
    centres = start[:, None, None] + (torch.arange(size, device=start.device, dtype=start.dtype)[:, None] + 0.5) * step
    weights = _kernel((pixels - centres) / step.clamp(min=1), interpolation)
    inside = (pixels > start[:, None]) & (pixels < (start + length)[:, None])
    weights = weights * inside[:, None, :]
    return weights / weights.sum(dim=-1, keepdim=True)


def _kernel(x: Tensor, interpolation: str) -> Tensor:
    """Triangle, or Keys' cubic with a = -1/2: the kernels of antialiased resizing."""
    x = x.abs()
    if interpolation == "bilinear":
        return (1 - x).clamp(min=0)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
