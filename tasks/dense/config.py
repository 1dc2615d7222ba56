"""Options that tasks on maps of frozen features share: which features, and at which resolutions."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from mimbench.api import Config, Encoder, InputError, TaskConfig, TrainConfig, cosmetic


class PixelAugmentation(Config):
    """How training images and what is known of their pixels are changed together."""

    scale_jitter: tuple[float, float] = (1.0, 1.0)
    """Least and greatest factor on `image_size`, drawn for each training image."""
    most_of_crop: float = Field(1.0, gt=0, le=1)
    """A crop in which one class takes more than this share is drawn anew, up to ten times."""
    rotate: float = Field(0.0, ge=0, le=45)
    """Greatest angle of a rotation in degrees, to either side. Half of the images are rotated."""
    flip: float = Field(0.0, ge=0, le=1)
    """Probability of a horizontal flip."""
    photometric: bool = False
    """Random brightness, contrast, saturation and hue, as in SSD (arXiv:1512.02325); RGB only."""
    colour: bool = False
    """For half of the images, gamma and each channel times 0.9 to 1.1, brightness times 0.75 to 1.25, as in BTS
    (arXiv:1907.10326)."""

    @model_validator(mode="after")
    def _rising(self) -> PixelAugmentation:
        if not 0 < self.scale_jitter[0] <= self.scale_jitter[1]:
            raise ValueError(f"scale_jitter must be two rising factors above 0, not {self.scale_jitter}")
        return self


class FrozenMapsConfig(TaskConfig):
    """Features and resolutions. All of them are part of the protocol: scores at two resolutions differ by points."""

    layers: tuple[int, ...] = Field((-1,), min_length=1)
    """Layers whose maps are read; -1 is the last one, after the final norm."""
    class_token: bool = False
    """Append the class token (the mean of several) to the vector of each patch."""
    image_size: int | None = Field(None, ge=8)
    """Side in px that images are resized to before the encoder sees them; absent: as they are."""
    keep_aspect: bool = False
    """True: `image_size` is the shorter side, and the aspect stays. False: images become squares."""
    crop_size: tuple[int, int] | None = None
    """Height and width in px of the window that the encoder sees: a random one in training; see `slide`."""
    slide: int | None = Field(None, ge=1)
    """Step in px of the window over a test image, of which overlapping parts are averaged; absent: the whole image."""
    held_out: float = Field(0.1, gt=0, lt=1)
    """Share of the training images on which the best of several settings is chosen. With one setting none is held
    out."""
    batch: int = cosmetic(16, ge=1)
    """Images per forward pass outside of a training."""
    workers: int = cosmetic(0, ge=0, le=1024)
    """Processes that read images outside of a training."""
    pictures: int = cosmetic(6, ge=1)
    """Test images in the picture of predictions."""

    @model_validator(mode="after")
    def _complete(self) -> FrozenMapsConfig:
        if self.crop_size is not None and min(self.crop_size) < 8:
            raise ValueError(f"crop_size must be 8 px or more, not {list(self.crop_size)}")
        if self.slide is not None and self.crop_size is None:
            raise ValueError("slide needs a crop_size, the window that slides")
        if self.slide is not None and self.crop_size is not None and self.slide > min(self.crop_size):
            raise ValueError(f"slide {self.slide} leaves gaps between windows of {list(self.crop_size)} px")
        if self.keep_aspect and self.image_size is None:
            raise ValueError("keep_aspect needs an image_size, the shorter side")
        return self

    def check_encoder(self, encoder: Encoder) -> None:
        """Raise InputError if the encoder has no such layer or class token, or a window is not whole patches."""
        try:
            for layer in self.layers:
                encoder.layer_index(layer)
        except InputError as error:
            raise InputError(f"task.layers: {error}") from error
        if self.class_token and "class-token" not in encoder.can:
            raise InputError(f"task.class_token: this {encoder.kind} encoder has none; set it to false")
        step = encoder.patch_size
        if self.crop_size and any(side % step for side in self.crop_size):
            raise InputError(
                f"task.crop_size {list(self.crop_size)} px is not whole patches; choose multiples of {step} px"
            )


class ParallelHeadsConfig(FrozenMapsConfig):
    """Heads that are trained at once on the same maps."""

    train: TrainConfig
    lr_factors: tuple[float, ...] = Field((1.0,), min_length=1)
    """Factors on train.base_lr, one head each, trained at once. The best on held-out training images is reported."""
    augmentation: PixelAugmentation = PixelAugmentation()


class FrozenSegmentationConfig(FrozenMapsConfig):
    """A frozen segmentation. `mask_size` decides at which resolution it is scored."""

    mask_size: int | None = Field(None, ge=1)
    """Side in px of the square that labels (nearest neighbour) and predictions are resized to before they are
    compared; absent: the original pixels of each image."""


def resolution(config: FrozenMapsConfig, encoder: Encoder, mask: str) -> dict[str, Any]:
    """What the record says of resolutions. mask: at which resolution predictions are compared."""
    window = config.crop_size if config.slide else None
    shown = "as they are"
    if config.image_size:
        shown = f"shorter side {config.image_size} px" if config.keep_aspect else f"square of {config.image_size} px"
    return {
        "images": shown,
        "window": f"{window[0]} x {window[1]} px, step {config.slide}" if window else "whole image",
        "px per feature": encoder.stride,
        "compared at": mask,
    }
