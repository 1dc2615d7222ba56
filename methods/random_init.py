"""The control that every table needs: the same encoder, never pretrained."""

from __future__ import annotations

from typing import ClassVar

from mimbench.api import Method


class RandomInit(Method):
    """Exports the encoder as initialised. What a method scores above it, its pretraining has earned."""

    name: ClassVar[str] = "random-init"
    version: ClassVar[str] = "1"
    takes_clips: ClassVar[bool] = True
    pretrains: ClassVar[bool] = False
