"""JPEGs that the training device decodes (nvJPEG), and their crops there in few kernels.

The crops are those that a loader's worker would cut: boxes and flips come from the same draws. Pixels differ by what
two decoders differ in, and by the rounding to whole bytes between the steps of a worker.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mimbench.data.pipeline.batched_crops import resample
from mimbench.data.pipeline.encoded import EncodedBatch
from mimbench.errors import RunError

_MOST_PIXELS = 2**24
"""Pixels of the padded crops that are resampled together. This bounds memory, about 40 bytes per pixel."""


@dataclass(frozen=True)
class DecodedBatch:
    """Decoded images of any sizes, with the crops of all their views."""

    images: list[Tensor]
    """uint8 [C, H, W] each, on one device."""
    boxes: Tensor
    """int64 [views, B, 4], on the CPU: top, left, height and width, px."""
    mirrors: Tensor
    """bool [views, B], on the CPU."""

    def crop(self, view: int, size: int, interpolation: str) -> Tensor:
        """float32 [B, C, size, size] in [0, 1], on the images' device: the crops of one view, resized and flipped.

        Images of a group are gathered into one padded tensor, and resampled by two matrix products. The number of
        kernels depends on the number of groups and not on that of images.
        """
        boxes, mirrors = self.boxes[view], self.mirrors[view]
        order, groups = _groups(boxes)
        crops = [self._crop_group(group, boxes[group], mirrors[group], size, interpolation) for group in groups]
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order))
        return torch.cat(crops)[back.to(crops[0].device)]

    def _crop_group(self, group: Tensor, boxes: Tensor, mirrors: Tensor, size: int, interpolation: str) -> Tensor:
        images = [self.images[index] for index in group.tolist()]
        device = images[0].device
        pixels = torch.cat([image.flatten() for image in images])
        channels, lengths = images[0].shape[0], torch.tensor([image.numel() for image in images])
        heights_and_widths = torch.tensor([image.shape[-2:] for image in images])
        # One transfer for all that the kernels need of each image.
        table = torch.cat([boxes, heights_and_widths, (lengths.cumsum(0) - lengths)[:, None]], dim=1).to(device)
        top, left, height, width, image_height, image_width, start = table[:, :, None].unbind(1)
        rows = top + torch.arange(int(boxes[:, 2].max()), device=device).minimum(height - 1)
        columns = left + torch.arange(int(boxes[:, 3].max()), device=device).minimum(width - 1)
        places = (start + rows * image_width)[:, :, None] + columns[:, None]  # [b, h, w], of the first channel
        plane = (image_height * image_width)[:, :, None]
        padded = torch.stack([pixels[places + channel * plane] for channel in range(channels)], dim=1)
        inside = torch.cat([torch.zeros_like(table[:, :2]), table[:, 2:4]], dim=1)
        return resample(padded.to(torch.float32) / 255, inside, size, interpolation, mirrors.to(device))


def _groups(boxes: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Images in the order of their crops' sizes, and in groups that are small enough when they are padded."""
    order = (boxes[:, 2] * boxes[:, 3]).argsort(stable=True)
    return order, [torch.tensor(group) for group in _split(order.tolist(), boxes.tolist())]


def _split(order: Sequence[int], boxes: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    group: list[int] = []
    height = width = 0
    for index in order:
        taller, wider = max(height, boxes[index][2]), max(width, boxes[index][3])
        if group and (len(group) + 1) * taller * wider > _MOST_PIXELS:
            yield group
            group, taller, wider = [], boxes[index][2], boxes[index][3]
        group.append(index)
        height, width = taller, wider
    yield group


def decode_on(device: torch.device, batch: EncodedBatch) -> DecodedBatch:
    """Decode the JPEGs of a batch on `device`, and move the pixels of its other images there.

    Raises:
        RunError: an image cannot be decoded, or has another size than its header says.
    """
    data = batch.data.split(batch.lengths)
    files = [index for index, is_jpeg in enumerate(batch.is_jpeg) if is_jpeg]
    decoded = dict(zip(files, _decode([data[index] for index in files], files, batch, device), strict=True))
    images = []
    for index, (height, width) in enumerate(batch.sizes):
        image = decoded.get(index)
        if image is None:
            image = data[index].view(batch.channels, height, width).to(device, non_blocking=True)
        elif image.shape[-2:] != (height, width):
            raise RunError(f"cannot read the image {batch.places[index]}: its size is not that of its header")
        images.append(image)
    return DecodedBatch(images, batch.boxes, batch.mirrors)


def _decode(files: list[Tensor], indices: list[int], batch: EncodedBatch, device: torch.device) -> list[Tensor]:
    from torchvision.io import ImageReadMode, decode_jpeg

    mode = ImageReadMode.GRAY if batch.channels == 1 else ImageReadMode.RGB
    if not files:
        return []
    try:
        return decode_jpeg(files, mode=mode, device=device)
    except RuntimeError:
        for file, index in zip(files, indices, strict=True):  # which one it is
            try:
                decode_jpeg([file], mode=mode, device=device)
            except RuntimeError as error:
                place, reason = batch.places[index], str(error).splitlines()[0]
                raise RunError(f"cannot read the image {place} on {device.type}: {reason}") from error
        raise
