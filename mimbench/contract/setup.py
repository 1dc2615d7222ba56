"""A model in mimbench's terms: plugins by name, with their options."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ModelSetup:
    """A method around an encoder, each with the options that its own Config takes."""

    method: str
    encoder: str
    image_size: int
    """Side of the images, px."""
    channels: int
    method_options: dict[str, Any] = field(default_factory=dict)
    encoder_options: dict[str, Any] = field(default_factory=dict)
    frames: int = 1
    """Of each clip; 1 for images."""
