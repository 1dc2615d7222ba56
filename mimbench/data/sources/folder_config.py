"""Options of an image folder."""

from __future__ import annotations

from math import isfinite
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from mimbench.contract import cosmetic
from mimbench.data.files.image_reading import MAX_PIXELS
from mimbench.data.pipeline.encoded import EncodedConfig


class FolderConfig(EncodedConfig):
    """Options of an image folder."""

    channels: Literal[1, 3] = 3
    """3: RGB. 1: grey."""
    val_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of the images that is held out if the folder has no val/ or test/."""
    split_seed: int = Field(default=0, ge=0)
    range: Literal["auto"] | tuple[float, float] = "auto"
    """The stored values that become 0 and 255, for both train and val; what lies outside is clipped. auto: 0 to 255 of
    8 bits and 0 to 65535 of deeper integers; float images all together 0 to 1, or 0 to 255 if any value is above 1."""
    transparency: Literal["white", "drop"] = "white"
    """What is transparent shows white, or the colour that is stored under it."""
    extra_bands: Literal["refuse", "drop"] = "refuse"
    """Bands of a TIFF beyond its colours, such as near infrared, unless the file declares them as transparency."""
    max_pixels: int = cosmetic(MAX_PIXELS, ge=1)
    """Images of more pixels are refused before they are decoded."""
    on_bad_image: Literal["error", "skip"] = cosmetic("error")
    """What to do with files that cannot be decoded; those skipped are not part of the fingerprint."""
    verify: bool = cosmetic(True)
    """Decode every image once before anything starts; the verdicts are kept."""
    fingerprint: Literal["content", "names"] = cosmetic("content")
    """names: digest names and sizes only, for sets too large to read."""

    @field_validator("range", mode="before")
    @classmethod
    def _rising(cls, value: Any) -> Any:
        if value != "auto" and not _is_range(value):
            raise ValueError(f"it should be auto or two rising numbers [LOW,HIGH], not {value!r}")
        return value

    @model_validator(mode="after")
    def _skippable(self) -> FolderConfig:
        if self.on_bad_image == "skip" and not self.verify:
            raise ValueError("on_bad_image=skip needs verify=true, which finds the bad images")
        return self


def _is_range(value: Any) -> bool:
    """Whether it is two rising numbers that can be computed with."""
    if not isinstance(value, list | tuple) or not all(isinstance(number, int | float) for number in value):
        return False
    try:
        low, high = map(float, value)
        return low < high and isfinite(high - low) and isfinite(255 / (high - low))
    except (ValueError, OverflowError):
        return False
