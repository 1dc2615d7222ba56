"""How images reach the encoder: size, augmentation and normalisation."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from mimbench.contract.config import Config, added


def image_shape(channels: int, image_size: int, frames: int = 1) -> tuple[int, ...]:
    """Shape of one image as an encoder gets it, (C, S, S), or of one clip, (C, T, S, S)."""
    return (channels, *((frames,) if frames > 1 else ()), image_size, image_size)


def frames_identity(frames: int) -> dict[str, int]:
    """What fingerprints hold of the frames of each clip: nothing for images, so that theirs stay as they are."""
    return {"frames": frames} if frames > 1 else {}


class InputConfig(Config):
    """The recipe's [input]. A normalised pixel is (pixel / 255 - mean) / std.

    A crop, a flip and changes of colours are drawn once per clip, and are the same in all of its frames.

    `mean` and `std` hold one value for all channels, or one value per channel.
    """

    image_size: int = Field(ge=4)
    """Side in px of the square that the encoder sees."""
    frames: int = added(1, ge=1)
    """Frames per clip; 1 for images. It is `Dataset.frames` of the data, and above 1 the encoder must take clips."""
    crop: Literal["resized", "simple", "multi-scale"] = added("resized")
    """resized: random resized crops, by crop_scale and crop_ratio. simple: the shorter side is resized to image_size, a
    border of 4 px is mirrored around the image, and a random square is cut out (DeiT III, PixMIM). multi-scale: four
    sizes at 13 places, resized to image_size (VideoMAE)."""
    crop_scale: tuple[float, float] = (1.0, 1.0)
    """Random resized crop: least and greatest fraction of the image's area; (1, 1) crops nothing."""
    crop_ratio: tuple[float, float] = (1.0, 1.0)
    """Random resized crop: least and greatest width / height."""
    flip: float = Field(0.0, ge=0, le=1)
    """Probability of a horizontal flip."""
    color_jitter: float = Field(0.0, ge=0)
    """Strength of brightness, contrast and saturation jitter; 0 for none."""
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    """Interpolation of the training crops."""
    eval_interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    """Interpolation at evaluation. It is a separate option because SimMIM pretrains with one and evaluates with the
    other."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    eval_resize: int | None = None
    """Shorter side in px before the central crop at evaluation. Default: image_size x 256 / 224."""

    @property
    def changes_colors(self) -> bool:
        """Whether the augmentation needs grey or RGB images."""
        return bool(self.color_jitter)

    def evaluation(self) -> dict[str, Any]:
        """The options that apply at evaluation, as plain JSON data. Training augmentation is not among them."""
        names = ("image_size", "frames", "eval_interpolation", "mean", "std", "eval_resize")
        return {name: value for name, value in self.shaping().items() if name in names}

    @model_validator(mode="after")
    def _ordered(self) -> InputConfig:
        for name in ("crop_scale", "crop_ratio"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be two increasing numbers above 0, not ({low:g}, {high:g})")
            if self.crop != "resized" and (low, high) != (1, 1):
                raise ValueError(f'crop "{self.crop}" has no {name}: set {name} to [1.0, 1.0]')
        if self.crop == "simple" and self.image_size < 5:
            raise ValueError(f'crop "simple" needs an image_size of 5 px or more, not {self.image_size}')
        if min(self.std) <= 0:
            raise ValueError(f"std must be above 0, not {self.std}")
        if self.crop_scale[1] > 1:
            raise ValueError(f"crop_scale is a fraction of the image's area: {self.crop_scale[1]:g} is above 1")
        return self


class View(InputConfig):
    """One augmented view of an image, for methods that compare several. The options beyond [input] are torchvision's.

    They apply after the crop and the flip, in this order: jitter, grey, blur, solarisation.
    """

    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Strengths of brightness, contrast, saturation and hue, in an order that is drawn per image (ColorJitter)."""
    jitter_probability: float = Field(1.0, ge=0, le=1)
    grayscale: float = Field(0.0, ge=0, le=1)
    """Probability of a grey image."""
    blur: float = Field(0.0, ge=0, le=1)
    """Probability of a Gaussian blur, with a kernel of a tenth of image_size."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Least and greatest std of the blur in px."""
    solarize: float = Field(0.0, ge=0, le=1)
    """Probability that pixels of 128 and more, of 255, are inverted."""

    @classmethod
    def from_input(cls, input_config: InputConfig, **options: Any) -> View:
        """A view that differs from the recipe's [input] in `options`, such as image_size=96, crop_scale=(0.05, 0.25).

        Raises:
            pydantic.ValidationError: an option is unknown or impossible.
        """
        return cls(**{**input_config.model_dump(), **options})

    @property
    def changes_colors(self) -> bool:
        return bool(self.color_jitter or any(self.jitter) or self.grayscale)

    @model_validator(mode="after")
    def _possible(self) -> View:
        if min(self.jitter) < 0 or self.jitter[3] > 0.5:
            raise ValueError(f"jitter must be 0 or more, its hue at most 0.5, not {self.jitter}")
        low, high = self.blur_sigma
        if not 0 < low <= high:
            raise ValueError(f"blur_sigma must be two increasing numbers above 0, not ({low:g}, {high:g})")
        return self
