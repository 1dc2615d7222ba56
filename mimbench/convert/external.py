"""What stands for the method of an encoder that was pretrained elsewhere."""

from __future__ import annotations

from typing import ClassVar

from mimbench.contract import Config, Method


class ExternalConfig(Config):
    """Options of `external`."""

    model: str = ""
    """Name of the encoder, as --checkpoint gives it."""


class External(Method):
    """An encoder whose weights come from elsewhere, by --checkpoint timm:MODEL or --checkpoint hf:REPO."""

    name: ClassVar[str] = "external"
    version: ClassVar[str] = "1"
    pretrains: ClassVar[bool] = False
    needs_checkpoint: ClassVar[bool] = True
    Config = ExternalConfig
