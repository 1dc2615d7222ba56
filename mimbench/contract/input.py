"""How images reach the encoder: size, augmentation and normalisation."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from mimbench.contract.config import Config


class InputConfig(Config):
    """The recipe's [input]. A normalised pixel is (pixel / 255 - mean) / std.

    `mean` and `std` hold one value for all channels, or one value per channel.
    """

    image_size: int = Field(ge=4)
    """Side in px of the square that the encoder sees."""
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

    def evaluation(self) -> dict[str, Any]:
        """The options that apply at evaluation, as plain JSON data. Training augmentation is not among them."""
        names = ("image_size", "eval_interpolation", "mean", "std", "eval_resize")
        return {name: value for name, value in self.shaping().items() if name in names}

    @model_validator(mode="after")
    def _ordered(self) -> InputConfig:
        for name in ("crop_scale", "crop_ratio"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be two increasing numbers above 0, not ({low:g}, {high:g})")
        if min(self.std) <= 0:
            raise ValueError(f"std must be above 0, not {self.std}")
        if self.crop_scale[1] > 1:
            raise ValueError(f"crop_scale is a fraction of the image's area: {self.crop_scale[1]:g} is above 1")
        return self
