"""Images in class folders whose names are known in advance, such as those of a second test set of ImageNet."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mimbench.data.files.listing import subfolders
from mimbench.data.sources.folder import FolderSplit
from mimbench.data.sources.folder_scan import FolderScan, Sample
from mimbench.errors import InputError
from mimbench.text import list_first, printable

_READ = 100
"""Files of a folder whose content is compared, at most; of all files, names and sizes are."""


@dataclass(frozen=True)
class ClassFolders:
    """Images found in class folders."""

    root: Path
    samples: tuple[Sample, ...]
    digest: str
    """Of the names and sizes of all files, and of the content of up to 100 evenly spaced ones."""


@functools.lru_cache(maxsize=8)
def find_class_folders(root: Path, where: str) -> ClassFolders:
    """The images under root/CLASS. None is decoded before it is used. Equal arguments are looked up once per process.

    Args:
        where: the option that names the folder, for messages.

    Raises:
        InputError: no such folder, or no images in it.
    """
    return _find(root, where)


@functools.lru_cache(maxsize=1024)
def digest_class_folders(root: Path, where: str) -> str:
    """`ClassFolders.digest` of a folder. The list of its images is not kept in memory, as `find_class_folders` does.

    Raises:
        InputError: as `find_class_folders`, or a file cannot be read.
    """
    return _find(root, where).digest


def _find(root: Path, where: str) -> ClassFolders:
    root = root.expanduser()
    if not root.is_dir():
        raise InputError(f"{where}: {printable(root)} is no folder; name the folder that holds the class folders")
    if not subfolders(root):
        raise InputError(f"{where}: {printable(root)} has no class folders; name the folder that holds them")
    samples = tuple(FolderScan(root).read(root))
    return ClassFolders(root, samples, _digest(root, samples, where))


def _digest(root: Path, samples: Sequence[Sample], where: str) -> str:
    ordered = sorted(samples, key=lambda sample: sample.name)
    digest = hashlib.sha256(repr([(sample.name, sample.file.size) for sample in ordered]).encode())
    places = np.unique(np.linspace(0, len(ordered) - 1, min(len(ordered), _READ)).round().astype(int))
    for sample in (ordered[place] for place in places):
        try:
            digest.update(hashlib.sha256((root / sample.file.name).read_bytes()).digest())
        except OSError as error:
            raise InputError(
                f"{where}: {printable(root / sample.file.name)} cannot be read ({error.strerror or error}); fetch it "
                "again, or check its permissions"
            ) from error
    return digest.hexdigest()


def read_class_folders(
    folders: ClassFolders, labels: Mapping[str, int], classes: Sequence[str], where: str, *, channels: int = 3
) -> FolderSplit:
    """The images of one folder for each name in `labels`.

    Args:
        labels: name of a folder -> label of its images.
        classes: names of all classes, indexed by label.
        where: the option that names the folder, for messages.
        channels: of the images, 1 or 3.

    Raises:
        InputError: a class folder is missing or has no images, or there are others.
    """
    root, held = folders.root, {sample.label for sample in folders.samples}
    if others := sorted(held - labels.keys()):
        raise InputError(
            f"{where}: {printable(root)} has {len(others)} folders that are no class of this set "
            f"({list_first(others)}); name the folder that holds its {len(labels)} class folders"
        )
    if missing := sorted(labels.keys() - held):
        raise InputError(
            f"{where}: {printable(root)} lacks images of {len(missing)} of {len(labels)} classes "
            f"({list_first(missing)}); fetch the whole set"
        )
    return FolderSplit(
        root,
        [os.fsencode(sample.file.name) for sample in folders.samples],
        np.array([labels[sample.label] for sample in folders.samples]),
        tuple(classes),
        channels,
    )
