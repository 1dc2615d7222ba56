"""NYU Depth V2 by path, as BTS and DINOv2 read it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field

from mimbench.contract import DataConfig, Dataset, DataSizes, InputError, SplitName, cosmetic
from mimbench.data.files.image_reading import MAX_PIXELS, READER_VERSION, PixelPolicy
from mimbench.data.files.image_sizes import read_image_sizes
from mimbench.data.files.listing import FileCheck, check_files
from mimbench.data.sources.depth_maps import DepthMapsSplit, DepthPair
from mimbench.data.sources.root import require_root
from mimbench.data.sources.scene_options import image_file
from mimbench.text import list_first, printable, quoted
from mimbench.text_files import read_text

_LISTS: dict[SplitName, tuple[str, ...]] = {
    "train": ("nyu_train.txt", "nyudepthv2_train_files_with_gt.txt"),
    "test": ("nyu_test.txt", "nyudepthv2_test_files_with_gt.txt"),
}
"""Names of the lists, by zhyever/Monocular-Depth-Estimation-Toolbox@383bb89f and cleinc/bts. The first one that exists
is taken."""


class NyuConfig(DataConfig):
    """Options of a folder with lists of images and depths."""

    train: str | None = None
    """List of the training pairs, relative to the root; absent: nyu_train.txt or BTS's name for it."""
    test: str | None = None
    """List of the test pairs; absent: nyu_test.txt or BTS's name for it."""
    channels: Literal[1, 3] = 3
    """3: RGB. 1: grey."""
    per_metre: float = Field(1000.0, gt=0)
    """Value of a depth pixel that is 1 m away."""
    max_depth: float = Field(10.0, gt=0)
    """Readings beyond it, m, are taken for none."""
    max_pixels: int = cosmetic(MAX_PIXELS, ge=1)
    """Images of more pixels are refused before they are decoded."""


class Nyu(Dataset):
    """root/nyu_train.txt and root/nyu_test.txt: a line has an image, its depth (16-bit PNG, mm) and the focal length.

        /kitchen_0028b/rgb_00045.jpg /kitchen_0028b/sync_depth_00045.png 518.8579

    Paths are relative to the root. Lines whose depth is "None" are left out, with a note. The usual lists have 24,231
    training pairs, and 654 test pairs, of which DINOv2's has 652.
    """

    name = "nyu"
    provides = frozenset({"depth"})
    Config = NyuConfig
    config: NyuConfig

    def __init__(self, config: NyuConfig, cache: Path) -> None:
        """Raises InputError for a list or a file that is missing or does not fit, with its name."""
        super().__init__(config, cache)
        self.channels = config.channels
        self.root = require_root(config.root, self.name, "of the folder with nyu_train.txt and nyu_test.txt")
        self._notes: list[str] = []
        listed = {"train": self._listed("train", config.train), "test": self._listed("test", config.test)}
        self._health = self._checked(listed)
        self._pairs = {name: self._sized(pairs) for name, pairs in listed.items()}
        self.notes = tuple(f"nyu: {note}" for note in self._notes)

    @classmethod
    def published_sizes(cls, config: DataConfig) -> DataSizes | None:
        if not isinstance(config, NyuConfig) or config.train or config.test:
            return None
        return DataSizes(24_231, 654, classes=1, channels=config.channels, source="arXiv:1907.10326", side=640)

    def split(self, name: SplitName) -> DepthMapsSplit:
        config = self.config
        return DepthMapsSplit(self.root, self._pairs[name], per_metre=config.per_metre, max_depth=config.max_depth)

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        config = self.config
        digest = hashlib.sha256(repr((READER_VERSION, config.channels, config.per_metre, config.max_depth)).encode())
        for name, pairs in sorted(self._pairs.items()):
            lines = [(self._health[pair.image].digest, self._health[pair.depth].digest) for pair in pairs]
            digest.update(repr((name, sorted(lines))).encode())
        return digest.hexdigest()

    def _listed(self, split: SplitName, chosen: str | None) -> list[tuple[str, str]]:
        """Names of images and depths, relative to the root."""
        names = (chosen,) if chosen else _LISTS[split]
        path = next((self.root / name for name in names if (self.root / name).is_file()), None)
        if path is None:
            raise InputError(
                f"nyu: there is no {' or '.join(names)} in {printable(self.root)}; data.{split} names another list"
            )
        pairs, without = [], 0
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            words = line.split()
            if not words:
                continue
            if len(words) < 2:
                raise InputError(
                    f"nyu: line {number} of {printable(path)} is {quoted(line)}; it needs an image and its depth"
                )
            if words[1] == "None":
                without += 1
            else:
                pairs.append((words[0].lstrip("/\\"), words[1].lstrip("/\\")))
        if not pairs:
            raise InputError(f"nyu: the list {printable(path)} names no image with a depth")
        if without:
            self._notes.append(f"{without} lines of {path.name} have no depth and are left out")
        return list(dict.fromkeys(pairs))

    def _checked(self, listed: dict[SplitName, list[tuple[str, str]]]) -> dict[str, FileCheck]:
        """What is known of every file. Raises InputError for those that are missing or cannot be decoded."""
        names = list(dict.fromkeys(name for pairs in listed.values() for pair in pairs for name in pair))
        absent = [name for name in names if not (self.root / name).is_file()]
        if absent:
            raise InputError(
                f"nyu: {len(absent)} of {len(names)} files that the lists name do not exist in {printable(self.root)}: "
                f"{_first(absent)}"
            )
        policy = PixelPolicy(max_pixels=self.config.max_pixels)
        files = [image_file(name, self.root) for name in names]
        health = check_files(files, self.root, self.cache, decode=True, policy=policy)
        bad = [f"{name} ({one.problem})" for name, one in health.items() if one.problem]
        if bad:
            raise InputError(f"nyu: {len(bad)} files under {printable(self.root)} cannot be read: {_first(bad)}")
        return dict(health)

    def _sized(self, pairs: Sequence[tuple[str, str]]) -> list[DepthPair]:
        """The pairs with their size. Raises InputError for a depth of another size than its image."""
        names = [name for pair in pairs for name in pair]
        headers = read_image_sizes(names, self.root, self.cache, self.config.max_pixels)
        sized, bad = [], []
        for image, depth in pairs:
            sizes = [headers[image], headers[depth]]
            of_image, of_depth = (size if isinstance(size, str) else size.stored for size in sizes)
            if of_image != of_depth or isinstance(of_image, str):
                bad.append(f"{depth} is {sizes[1]}, its image {sizes[0]}")
            else:
                sized.append(DepthPair(image, depth, (of_image[1], of_image[0])))
        if bad:
            raise InputError(f"nyu: {len(bad)} of {len(pairs)} depths do not fit: {_first(bad)}")
        return sized


def _first(names: Sequence[str]) -> str:
    return list_first([printable(name) for name in names])
