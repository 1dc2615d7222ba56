"""Image folders as people have them."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from mimbench.contract import DataConfig, Dataset, ImageSplit, InputError, RunError, SplitName, cosmetic
from mimbench.data.images import READER_VERSION, read_pixels
from mimbench.data.listing import (
    Health,
    ImageFile,
    examine,
    has_images,
    image_files,
    normal,
    printable,
    subfolders,
)
from mimbench.data.split import rest, stratified

_TRAIN = ("train", "training")
_TEST = ("val", "valid", "validation", "test", "testing")
UNLABELLED = "unlabelled"


class FolderConfig(DataConfig):
    """Options of an image folder."""

    channels: Literal[1, 3] = 3
    """3: RGB. 1: grey."""
    val_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of the images that is held out where the folder has no val/ or test/ of its own."""
    split_seed: int = Field(default=0, ge=0)
    on_bad_image: Literal["error", "skip"] = cosmetic("error")
    """What to do with files that cannot be decoded; those skipped are not part of the fingerprint."""
    verify: bool = cosmetic(True)
    """Decode every image once before anything starts; the verdicts are kept."""
    fingerprint: Literal["content", "names"] = cosmetic("content")
    """names: digest names and sizes only, for sets too large to read."""

    @model_validator(mode="after")
    def _skippable(self) -> FolderConfig:
        if self.on_bad_image == "skip" and not self.verify:
            raise ValueError("on_bad_image=skip needs verify=true, which finds the bad images")
        return self


class FolderSplit(ImageSplit):
    """Images of any size, read from their files: uint8 [channels, H, W]."""

    def __init__(
        self, root: Path, names: list[str], labels: np.ndarray, classes: tuple[str, ...], channels: int
    ) -> None:
        self.root, self.classes, self.channels = root, classes, channels
        self.labels = torch.from_numpy(labels.astype(np.int64))
        # One array, not a list: forked workers then never copy a million strings.
        self._names = np.array([os.fsencode(name) for name in names], dtype=np.bytes_)

    def __len__(self) -> int:
        return len(self._names)

    def path(self, index: int) -> Path:
        return self.root / os.fsdecode(self._names[index])

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path = self.path(index)
        try:
            pixels = read_pixels(path, self.channels)
        except Exception as error:
            raise RunError(f"cannot read the image {printable(path)}: {error}") from error
        # A channels-last view on purpose: torchvision resizes it several times faster.
        return torch.from_numpy(pixels).permute(2, 0, 1), int(self.labels[index])


@dataclass(frozen=True)
class _Sample:
    file: ImageFile
    label: str
    """Name of the class; "" where the folder has no classes."""
    name: str
    """Name within its split: what is hashed, so that roots and split folders may be called anything."""


class Folder(Dataset):
    """A folder of images on disk.

    Understood are root/train/<class>/* beside root/val (or test), root/train alone or root/<class>/*
    with a seeded stratified split, and images without class folders, which get the one class
    "unlabelled" and provide images only. Class names come from both splits together, sorted, so a class
    that only val has keeps a label of its own; empty class folders are ignored.

    Attributes:
        skipped: the unreadable images that were left out.
    """

    name = "folder"
    Config = FolderConfig
    config: FolderConfig

    def __init__(self, config: FolderConfig, cache: Path) -> None:
        super().__init__(config, cache)
        self.channels = config.channels
        self.root = self._root()
        self.skipped: list[Path] = []
        self._health: dict[str, Health] = {}
        samples = self._check(self._samples())
        self._parts = samples if "test" in samples else self._hold_out(samples["train"])
        labels = {sample.label for part in self._parts.values() for sample in part}
        if "" in labels:
            self.provides = frozenset({"images"})
        self.classes = tuple(sorted(labels, key=normal)) if labels != {""} else (UNLABELLED,)

    def split(self, name: SplitName) -> FolderSplit:
        part = self._parts[name]
        index = {label: number for number, label in enumerate(self.classes)}
        labels = np.array([index.get(sample.label, 0) for sample in part])
        return FolderSplit(self.root, [sample.file.name for sample in part], labels, self.classes, self.channels)

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        by_name = self.config.fingerprint == "names"
        digest = hashlib.sha256(repr((READER_VERSION, self.channels, self.config.fingerprint)).encode())
        for split, part in sorted(self._parts.items()):
            lines = [
                (normal(sample.name), sample.file.size if by_name else self._health[sample.file.name].digest)
                for sample in part
            ]
            digest.update(repr((split, sorted(lines))).encode())
        return digest.hexdigest()

    def _root(self) -> Path:
        root = self.config.root
        if root is None:
            raise InputError(f"{self.name} needs data.root: pass --set data.root=PATH")
        root = root.expanduser()
        if not root.is_dir():
            what = "is not a folder" if root.exists() else "does not exist"
            raise InputError(f"data.root {printable(root)} {what}: pass --set data.root=PATH of an image folder")
        return root

    def _samples(self) -> dict[str, list[_Sample]]:
        """Every image by split; only "train" where the split is still to be drawn."""
        train, test = self._split_folders()
        if train is None:
            return {"train": self._read_split(self.root)}
        if test is None:
            return {"train": self._read_split(train)}
        samples = {"train": self._read_split(train), "test": self._read_split(test)}
        if len({sample.label == "" for part in samples.values() for sample in part}) > 1:
            raise InputError(
                f"one of {printable(train)} and {printable(test)} has class folders and the other has none: "
                "sort both into class folders, or neither"
            )
        return samples

    def _split_folders(self) -> tuple[Path | None, Path | None]:
        folders = {path.name.lower(): path for path in subfolders(self.root)}
        train = next((folders[name] for name in _TRAIN if name in folders), None)
        test = next((folders[name] for name in _TEST if name in folders), None)
        # Alone among other folders and without folders of its own, "train" is the vehicle.
        if train is not None and test is None and len(folders) > 1 and not subfolders(train):
            return None, None
        return train, test if train is not None else None

    def _read_split(self, folder: Path) -> list[_Sample]:
        classes = [(path, image_files(path, self.root)) for path in subfolders(folder)]
        classes = [(path, found) for path, found in classes if found]
        flat = has_images(folder)
        if flat and classes:
            raise InputError(
                f"{printable(folder)} has images both in class folders and beside them: "
                "move those beside them into a class folder, or away"
            )
        if flat:
            classes = [(folder, image_files(folder, self.root))]
        prefix = len(folder.relative_to(self.root).as_posix()) + 1 if folder != self.root else 0
        samples = [
            _Sample(file, "" if flat else path.name, file.name[prefix:]) for path, found in classes for file in found
        ]
        if not samples:
            raise InputError(f"no images in {printable(folder)}: pass --set data.root=PATH of an image folder")
        return samples

    def _check(self, samples: dict[str, list[_Sample]]) -> dict[str, list[_Sample]]:
        """Digest and decode as the config asks; report or drop what cannot be read."""
        if not self.config.verify and self.config.fingerprint == "names":
            return samples
        files = [sample.file for part in samples.values() for sample in part]
        self._health = examine(files, self.root, self.cache, decode=self.config.verify)
        bad = [file.name for file in files if self._health[file.name].problem]
        if not bad:
            return samples
        if self.config.on_bad_image == "error":
            raise InputError(self._complaint(bad, len(files)))
        self.skipped = [self.root / name for name in bad]
        self.notes = (
            f"skipped {len(bad)} of {len(files)} images, unreadable, under {printable(self.root)}: {self._listed(bad)}",
        )
        gone = set(bad)
        good = {split: [s for s in part if s.file.name not in gone] for split, part in samples.items()}
        for split, part in good.items():
            if not part:
                raise InputError(f"every {split} image under {printable(self.root)} is unreadable: {self._listed(bad)}")
        return good

    def _complaint(self, bad: list[str], total: int) -> str:
        are = "is" if len(bad) == 1 else "are"
        return (
            f"{len(bad)} of {total} images {are} unreadable under {printable(self.root)}: {self._listed(bad)}; "
            "repair or remove them, or pass --set data.on_bad_image=skip to go on without them"
        )

    def _listed(self, bad: list[str]) -> str:
        shown = [f"{printable(name)} ({self._health[name].problem})" for name in bad[:3]]
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        return ", ".join(shown) + more

    def _hold_out(self, samples: list[_Sample]) -> dict[str, list[_Sample]]:
        if len(samples) < 2:
            raise InputError(f"one image in {printable(self.root)} cannot be split into train and test: add more")
        labels = np.unique([sample.label for sample in samples], return_inverse=True)[1]
        count = min(max(1, round(len(samples) * self.config.val_fraction)), len(samples) - 1)
        test = stratified(labels, count, self.config.split_seed)
        train = rest(len(samples), test)
        return {"train": [samples[i] for i in train], "test": [samples[i] for i in test]}
