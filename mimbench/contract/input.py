"""How images reach the encoder: size, augmentation and normalisation."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from mimbench.contract.config import Config


class InputConfig(Config):
    """The recipe's [input]. Normalised pixel = (pixel / 255 - mean) / std.

    `mean` and `std` hold one value, used for every channel, or one a channel.
    """

    image_size: int = Field(ge=4)
    """Side of the square that the encoder sees, px."""
    crop_scale: tuple[float, float] = (1.0, 1.0)
    """Random resized crop: least and greatest share of the image's area; (1, 1): no crop."""
    crop_ratio: tuple[float, float] = (1.0, 1.0)
    """Least and greatest width / height of the crop."""
    flip: float = Field(0.0, ge=0, le=1)
    """Probability of a horizontal flip."""
    color_jitter: float = Field(0.0, ge=0)
    """Strength of brightness, contrast and saturation jitter; 0: none."""
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    """Of the training crops."""
    eval_interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    """At evaluation. Apart from the crops', because SimMIM pretrains with one and evaluates with the other."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    eval_resize: int | None = None
    """Shorter side, px, before the central crop at evaluation; absent: image_size x 256 / 224."""

    def evaluation(self) -> dict[str, Any]:
        """What of it tells how images are seen at evaluation, as plain JSON data; training's augmentation does not."""
        kept = ("image_size", "eval_interpolation", "mean", "std", "eval_resize")
        return {name: value for name, value in self.shaping().items() if name in kept}

    @model_validator(mode="after")
    def _ordered(self) -> InputConfig:
        for name in ("crop_scale", "crop_ratio"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be two rising numbers above 0, not ({low:g}, {high:g})")
        if min(self.std) <= 0:
            raise ValueError(f"std must be above 0, not {self.std}")
        if self.crop_scale[1] > 1:
            raise ValueError(f"crop_scale is a share of the image's area: {self.crop_scale[1]:g} is above 1")
        return self
