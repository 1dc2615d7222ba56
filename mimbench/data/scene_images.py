"""Options that datasets of scenes share, and the check that all of their images can be decoded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from mimbench.contract import DataConfig, cosmetic
from mimbench.data.images import MAX_PIXELS, PixelPolicy
from mimbench.data.listing import ImageFile, examine, printable
from mimbench.data.text import quoted
from mimbench.errors import InputError


class SceneConfig(DataConfig):
    """Options of a dataset of scenes."""

    channels: Literal[1, 3] = Field(3)
    """3: RGB. 1: grey."""
    max_pixels: int = cosmetic(MAX_PIXELS, ge=1)
    """Images of more pixels are refused before they are decoded."""
    verify: bool = cosmetic(True)
    """Decode every image once before anything starts; the verdicts are kept."""
    fingerprint: Literal["content", "names"] = cosmetic("content")
    """names: digest the annotations, and of images names and sizes only, for sets too large to read."""


def image_file(name: str, folder: Path) -> ImageFile:
    stat = (folder / name).stat()
    return ImageFile(name, stat.st_size, stat.st_mtime_ns)


def check_images(names: Sequence[str], folder: Path, cache: Path, config: SceneConfig, where: str) -> None:
    """Decode the images that were not decoded yet, if the config says so.

    Raises:
        InputError: one of them cannot be decoded.
    """
    if not config.verify:
        return
    files = [image_file(name, folder) for name in names]
    health = examine(files, folder, cache, decode=True, policy=PixelPolicy(max_pixels=config.max_pixels))
    bad = [name for name in names if health[name].problem]
    if bad:
        raise InputError(
            f"{where}: {len(bad)} of {len(names)} images in {printable(folder)} cannot be read, such as "
            f"{quoted(bad[0])}: {health[bad[0]].problem}"
        )
