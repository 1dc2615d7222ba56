"""Options that datasets of scenes share, and the check that all of their images can be decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from mimbench.contract import DataConfig, cosmetic
from mimbench.data.files.image_reading import DEFAULT_POLICY, IN_EIGHT_BITS, MAX_PIXELS, PixelPolicy
from mimbench.data.files.listing import FileCheck, ImageFile, check_files
from mimbench.data.files.value_ranges import choose_range
from mimbench.errors import InputError
from mimbench.text import printable, quoted


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


def check_images(names: Sequence[str], folder: Path, cache: Path, config: SceneConfig, where: str) -> tuple[str, ...]:
    """Decode the images that were not decoded yet, if the config says so; returns notes on their values.

    Raises:
        InputError: one of them cannot be decoded, or has values beyond the range of its format.
    """
    if not config.verify:
        return ()
    files = [image_file(name, folder) for name in names]
    health = check_files(files, folder, cache, decode=True, policy=PixelPolicy(max_pixels=config.max_pixels))
    bad = [name for name in names if health[name].problem]
    if bad:
        raise InputError(
            f"{where}: {len(bad)} of {len(names)} images in {printable(folder)} cannot be read, such as "
            f"{quoted(bad[0])}: {health[bad[0]].problem}"
        )
    return note_values(health, folder)


def note_values(health: Mapping[str, FileCheck], folder: Path) -> tuple[str, ...]:
    """Notes if images of more than 8 bits use a small part of the range that they are shown in."""
    deep = {name: one.inspection for name, one in health.items() if one.inspection.kind not in ("", *IN_EIGHT_BITS)}
    return choose_range(DEFAULT_POLICY, {"": deep}, printable(folder), option=None).notes if deep else ()
