"""From images on the scale of bytes to what the encoder sees: crops, flips, colour jitter, normalisation."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mimbench.contract import InputConfig, View, full_precision
from mimbench.data.pipeline.batched_colors import augment_view, blur_kernel, jitter_colors
from mimbench.data.pipeline.batched_crops import BORDER, random_boxes, random_squares, resample, with_border
from mimbench.data.pipeline.device_decoding import DecodedBatch
from mimbench.data.pipeline.multi_scale_crop import multi_scale_boxes
from mimbench.errors import InputError
from mimbench.shared_batch import draw_rows

_LONGEST_ASPECT = 4


class DeviceTransform(nn.Module):
    """Images [B, C, h, w] from a loader, on the device -> float32 [B, C, S, S], normalised; S is input.image_size.

    Clips [B, C, T, h, w] -> [B, C, T, S, S]; crop, flip and colours are drawn once per clip.

    There are two implementations of cropping, and `split.is_in_memory` decides which one runs:

    - `batched=True`, for an ArraySplit: the loader gives whole images, and this module crops, flips and jitters the
      batch on the device (`batched_crops`). At evaluation it resizes the central square of the image, or the central
      image_size / eval_resize of that square if the recipe sets eval_resize.
    - `batched=False`, for images in files: the loader's workers have cropped each image with torchvision
      (`TrainingCrop`, `evaluation_crop`), and this module only normalises.

    A third one, `from_decoded`, crops images of several sizes that the device has decoded (data.decode=device).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, input_config: InputConfig, channels: int, train: bool, batched: bool) -> None:
        """Raises InputError if mean, std or color_jitter do not fit `channels`."""
        super().__init__()
        check_eval_resize(input_config)
        if train and input_config.changes_colors and channels not in (1, 3):
            raise InputError(
                "color_jitter, and jitter and grayscale of a view, take grey and RGB images, and these have "
                f"{channels} channels: leave them out"
            )
        self.input, self.channels, self.train_time, self.batched = input_config, channels, train, batched
        self.register_buffer("mean", per_channel(input_config.mean, channels, "mean"), persistent=False)
        self.register_buffer("std", per_channel(input_config.std, channels, "std"), persistent=False)

    @torch.no_grad()
    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Only batched training draws from `generator`, and needs one."""
        with full_precision(images.device):  # bf16 would round the pixels in the resampling products
            pixels = images.to(torch.float32) / 255
            if self.batched:
                pixels = self._augmented(pixels, generator) if self.train_time else self._framed(pixels)
            return self._normalised(pixels)

    @torch.no_grad()
    def from_decoded(self, batch: DecodedBatch, view: int, generator: torch.Generator) -> Tensor:
        """Crop the images of a batch that the device has decoded, for one of their views, and do what follows."""
        with full_precision(generator.device):
            pixels = batch.crop(view, self.input.image_size, self.input.interpolation)
            return self._normalised(self._recoloured(pixels, generator))

    def _normalised(self, pixels: Tensor) -> Tensor:
        mean, std = (_along_channels(values, pixels) for values in (self.mean, self.std))
        # Grey images are shown to an RGB encoder three times.
        return ((pixels - mean) / std).expand(-1, self.channels, *[-1] * (pixels.ndim - 2))

    def _augmented(self, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        if generator is None:
            raise ValueError("augmentation needs a generator")
        if self.input.crop == "simple":
            pixels = with_border(pixels, self.input.image_size, self.input.interpolation)
        batch, height, width = len(pixels), *pixels.shape[-2:]
        if self.input.crop == "simple":
            boxes = random_squares(batch, height, width, self.input.image_size, generator)
        elif self.input.crop == "multi-scale":
            boxes = multi_scale_boxes(batch, height, width, self.input.image_size, generator)
        else:
            boxes = random_boxes(batch, height, width, self.input.crop_scale, self.input.crop_ratio, generator)
        draws = draw_rows(lambda rows: torch.rand(rows, generator=generator, device=generator.device), batch)
        mirror = draws < self.input.flip
        pixels = _resample(pixels, boxes, self.input.image_size, self.input.interpolation, mirror)
        return self._recoloured(pixels, generator)

    def _recoloured(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        pixels = pixels.movedim(1, -3)  # the frames of a clip before its channels
        if self.input.color_jitter:
            pixels = jitter_colors(pixels, self.input.color_jitter, generator)
        if isinstance(self.input, View):
            pixels = augment_view(pixels, self.input, generator)
        return pixels.movedim(-3, 1)

    def _framed(self, pixels: Tensor) -> Tensor:
        batch, height, width = len(pixels), *pixels.shape[-2:]
        size, resize = self.input.image_size, self.input.eval_resize
        side = min(height, width)
        if resize is not None:
            side = max(1, round(side * size / resize))
        if height == width == side == size:
            return pixels
        box = torch.tensor([(height - side) // 2, (width - side) // 2, side, side])
        return _resample(pixels, box.expand(batch, 4), size, self.input.eval_interpolation)


def _resample(pixels: Tensor, boxes: Tensor, size: int, interpolation: str, mirror: Tensor | None = None) -> Tensor:
    """`resample` of images [B, C, h, w] or clips [B, C, T, h, w], whose frames are resampled as channels are."""
    cropped = resample(pixels.flatten(1, -3), boxes, size, interpolation, mirror)
    return cropped.unflatten(1, pixels.shape[1:-2])


def _along_channels(values: Tensor, images: Tensor) -> Tensor:
    """Values [C, 1, 1] or [1, 1, 1] as they broadcast against images [B, C, H, W] or clips [B, C, T, H, W]."""
    return values.view(-1, *[1] * (images.ndim - 2))


def denormalise(images: Tensor, input_config: InputConfig) -> Tensor:
    """Normalised images [B, C, H, W] or clips [B, C, T, H, W] back to [0, 1]."""
    mean, std = (
        _along_channels(per_channel(values, images.shape[1], name).to(images.device), images)
        for values, name in ((input_config.mean, "mean"), (input_config.std, "std"))
    )
    return (images.float() * std + mean).clamp(0, 1)


def per_channel(values: tuple[float, ...], channels: int, name: str) -> Tensor:
    """float32 [C, 1, 1], or [1, 1, 1] for one value.

    Raises:
        InputError: as many values as neither 1 nor `channels`.
    """
    if len(values) not in (1, channels):
        expected = "1 value" if channels == 1 else f"1 value or {channels}"
        raise InputError(
            f"input.{name} has {len(values)} values and the images have {channels} channel{'s' * (channels > 1)}: "
            f"give {expected}"
        )
    return torch.tensor(values, dtype=torch.float32)[:, None, None]


def check_eval_resize(input_config: InputConfig) -> None:
    """Raises InputError if the central crop would be larger than the resized image."""
    if input_config.eval_resize is not None and input_config.eval_resize < input_config.image_size:
        raise InputError(
            f"input.eval_resize = {input_config.eval_resize} is below input.image_size = {input_config.image_size}"
        )


def to_byte_scale(image: Tensor, pixel_range: tuple[float, float]) -> Tensor:
    """uint8 pixels as they are; others as float32 from 0 (black) to 255 (full brightness), limited to that.

    Args:
        image: uint8, uint16 or float32 of any shape.
        pixel_range: values of black and of full brightness.
    """
    if image.dtype == torch.uint8:
        return image
    low, high = pixel_range
    return ((image.to(torch.float32) - low) * (255 / (high - low))).clamp(0, 255)


class TrainingCrop:
    """Crops and augments one image in a worker; draws from torch's global CPU generator."""

    def __init__(self, input_config: InputConfig) -> None:
        self.size, self.flip = input_config.image_size, input_config.flip
        self._crop: Any = _random_crop(input_config)
        self._on_bytes = _training_steps(input_config, threshold=128)
        self._on_floats = _training_steps(input_config, threshold=128 / 255)

    def __call__(self, image: Tensor) -> Tensor:
        """[C, H, W] -> [C, S, S], uint8 or float32 on the same scale; a clip [C, T, H, W] -> [C, T, S, S]."""
        frames = image.movedim(0, -3)  # torchvision wants [T, C, H, W], and draws once for all frames
        # It takes floats in [0, 1].
        if image.dtype == torch.uint8:
            done = self._on_bytes(self._crop(frames))
        else:
            done = 255 * self._on_floats(self._crop(frames / 255))
        return done.movedim(-3, 0)

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Draw the crop of an image of this size alone: top, left, height and width, px. It is that of a call."""
        drawn = self._crop.make_params([torch.empty(1, 1, 1).expand(1, height, width)])
        return drawn["top"], drawn["left"], drawn["height"], drawn["width"]

    def is_mirrored(self) -> bool:
        """Draw whether the crop is flipped, after its box was drawn. It is that of a call."""
        return bool(self.flip) and float(torch.rand(1)) < self.flip

    def reduction(self, height: int, width: int) -> int:
        """The greatest of 8, 4, 2 and 1 by which the crop can be reduced, and is no smaller than the image size."""
        shorter = min(self.box(height, width)[2:])
        return next(factor for factor in (8, 4, 2, 1) if factor == 1 or shorter // factor >= self.size)

    def from_reduced(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """Crop and augment an image uint8 [C, h, w] that was decoded at reduced sides -> uint8 [C, S, S].

        It is the crop of the whole image, to the nearest pixel of the reduced one.

        Args:
            size: height and width of the whole image, px.
        """
        from torchvision.transforms.v2 import functional as F

        if image.shape[-2:] == size:
            return self(image)
        top, left, height, width = self.box(*size)
        rows, columns = image.shape[-2] / size[0], image.shape[-1] / size[1]
        box = (
            *(round(top * rows), round(left * columns)),
            *(max(1, round(height * rows)), max(1, round(width * columns))),
        )
        crop = F.resized_crop(image, *box, self._crop.size, self._crop.interpolation, antialias=True)
        return self._on_bytes(crop)


def _random_crop(input_config: InputConfig) -> nn.Module:
    from torchvision.transforms import v2

    size, interpolation = input_config.image_size, v2.InterpolationMode(input_config.interpolation)
    if input_config.crop == "simple":
        return nn.Sequential(
            v2.Lambda(_without_far_ends),
            v2.Resize(size, interpolation, antialias=True),
            v2.RandomCrop(size, padding=BORDER, padding_mode="reflect"),
        )
    scale, ratio = input_config.crop_scale, input_config.crop_ratio
    crop = v2.RandomResizedCrop(size, scale=scale, ratio=ratio, interpolation=interpolation, antialias=True)
    if input_config.crop == "multi-scale":
        crop.make_params = partial(_draw_multi_scale, size)
    return crop


def _draw_multi_scale(size: int, images: list[Tensor]) -> dict[str, int]:
    """The parameters of torchvision's RandomResizedCrop, from torch's global generator."""
    height, width = images[0].shape[-2:]
    box = multi_scale_boxes(1, height, width, size, None)[0].tolist()
    return dict(zip(("top", "left", "height", "width"), box, strict=True))


def _training_steps(input_config: InputConfig, threshold: float) -> nn.Sequential:
    """What follows the crop. threshold: from which pixels are inverted, if the view asks for that."""
    from torchvision.transforms import v2

    steps: list[nn.Module] = []
    if input_config.flip:
        steps.append(v2.RandomHorizontalFlip(input_config.flip))
    if input_config.color_jitter:
        steps.append(v2.ColorJitter(*[input_config.color_jitter] * 3))
    if isinstance(input_config, View):
        steps += _steps_of_view(input_config, threshold)
    return nn.Sequential(*steps)


def _steps_of_view(view: View, threshold: float) -> list[nn.Module]:
    from torchvision.transforms import v2

    steps: list[nn.Module] = []
    if any(view.jitter):
        steps.append(v2.RandomApply([v2.ColorJitter(*view.jitter)], view.jitter_probability))
    if view.grayscale:
        steps.append(v2.RandomGrayscale(view.grayscale))
    if view.blur:
        steps.append(v2.RandomApply([v2.GaussianBlur(blur_kernel(view.image_size), view.blur_sigma)], view.blur))
    if view.solarize:
        steps.append(v2.RandomSolarize(threshold, view.solarize))
    return steps


def evaluation_crop(image: Tensor, input_config: InputConfig, position: float = 0.5) -> Tensor:
    """Image [C, H, W] -> [C, S, S]: the shorter side to eval_resize (S x 256 / 224), then the central crop.

    A clip [C, T, H, W] -> [C, T, S, S]. `position` moves the crop along the longer side: 0 is left or top, 1 right or
    bottom.
    S x 256 / 224 is rounded. The official scripts cut it off, with the same result at 192 and 224 px but not at 384.
    """
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    check_eval_resize(input_config)
    shorter = input_config.eval_resize or round(input_config.image_size * 256 / 224)
    image = F.resize(
        _without_far_ends(image), [shorter], InterpolationMode(input_config.eval_interpolation), antialias=True
    )
    size = input_config.image_size
    if position == 0.5:
        return F.center_crop(image, [size, size])
    room = [side - size for side in image.shape[-2:]]
    longer = int(room[1] >= room[0])
    corner = [int(position * one) if axis == longer else one // 2 for axis, one in enumerate(room)]
    return F.crop(image, *corner, size, size)


def _without_far_ends(image: Tensor) -> Tensor:
    """The middle of a sliver, which would grow to gigapixels when its shorter side is resized."""
    from torchvision.transforms.v2 import functional as F

    longest = _LONGEST_ASPECT * min(image.shape[-2:])
    return F.center_crop(image, [min(side, longest) for side in image.shape[-2:]])
