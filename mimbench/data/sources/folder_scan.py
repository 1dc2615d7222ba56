"""Samples of an image folder: which files are images, and of which class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mimbench.contract import InputError
from mimbench.data.files.listing import ImageFile, has_images, image_files, normalize_name, subfolders
from mimbench.data.sources.class_matching import list_names
from mimbench.text import printable


@dataclass(frozen=True)
class Sample:
    file: ImageFile
    label: str
    """Name of the class, as NFC; "" if the folder has no classes."""
    name: str
    """Name within its split: what is hashed, so that roots and split folders may be called anything."""


class FolderScan:
    """Reads the folders of a dataset, and remembers what it left out."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._left_out: list[str] = []
        """May name a file twice."""
        self._empty: list[str] = []
        """Class folders without images."""
        self._unread: list[str] = []
        """Folders next to those of the splits."""
        self._deep: list[str] = []
        """Class folders that hold images in several folders of their own, and none directly."""
        subfolders(root, self._left_out)

    def read(self, folder: Path) -> list[Sample]:
        """The images of a split. Raises InputError if it has none, or a layout that could mean several things."""
        prefix = "" if folder == self.root else folder.relative_to(self.root).as_posix() + "/"
        hidden: list[str] = []
        read = [(path, self._images(path)) for path in subfolders(folder, hidden)]
        self._left_out += [prefix + name for name in hidden]
        self._empty += [path.name for path, files in read if not files]
        classes = [(path, files) for path, files in read if files]
        self._deep += [path.name for path, files in classes if _has_parts(path, files, self.root)]
        _check_unique(folder, [path.name for path, _ in classes])
        flat = has_images(folder)
        if flat and classes:
            raise InputError(
                f"{printable(folder)} has images both in class folders and next to them: "
                "move those next to them into a class folder, or remove them"
            )
        if flat:
            classes = [(folder, self._images(folder))]
        samples = [
            Sample(file, "" if flat else normalize_name(path.name), file.name.removeprefix(prefix))
            for path, files in classes
            for file in files
        ]
        if not samples:
            raise InputError(f"no images in {printable(folder)}: pass --set data.root=PATH of an image folder")
        return samples

    def leave_out_other_folders(self, *splits: Path) -> None:
        """Note the folders of the root that are none of these."""
        self._unread += [path.name for path in subfolders(self.root) if path not in splits]

    def notes(self, samples: Mapping[str, list[Sample]]) -> list[str]:
        """What was left out, and which names occur twice in a split."""
        notes = []
        left_out = list(dict.fromkeys(self._left_out))
        if left_out:
            notes.append(
                f"left out {len(left_out)} hidden, empty or other files that are no images under "
                f"{printable(self.root)}: {list_names(left_out)}"
            )
        if self._empty:
            notes.append(f"left out {len(self._empty)} folders without images: {list_names(self._empty)}")
        if self._unread:
            notes.append(f"left out the folders next to train and test: {list_names(self._unread)}")
        if self._deep:
            deep = list(dict.fromkeys(self._deep))
            notes.append(
                f"{len(deep)} class folders hold images only in folders of their own, all of which count as the one "
                f"class: {list_names(deep)}; if those are classes or splits, pass the folder above them as data.root"
            )
        for split, part in samples.items():
            twice = [
                name for name, count in Counter(normalize_name(sample.name) for sample in part).items() if count > 1
            ]
            if twice:
                notes.append(
                    f"{len(twice)} names of {split} images occur twice, written differently in Unicode: "
                    f"{list_names(twice)}; the same image may be there twice"
                )
        return notes

    def _images(self, folder: Path) -> list[ImageFile]:
        """Image files under `folder`, without those that are empty."""
        files = image_files(folder, self.root, self._left_out)
        empty = {file.name for file in files if file.size == 0 and (self.root / file.name).exists()}
        self._left_out += sorted(empty)
        return [file for file in files if file.name not in empty]


def _has_parts(folder: Path, files: Sequence[ImageFile], root: Path) -> bool:
    depth = len(folder.relative_to(root).parts)
    parts = {file.name.split("/")[depth] for file in files if file.name.count("/") > depth}
    return len(parts) > 1 and all(file.name.count("/") > depth for file in files)


def _check_unique(folder: Path, names: Sequence[str]) -> None:
    by_name: dict[str, str] = {}
    for name in names:
        other = by_name.setdefault(normalize_name(name), name)
        if other != name:
            raise InputError(
                f"{printable(folder)} has two class folders of the name {normalize_name(name)!r}, written "
                f"differently in Unicode ({other!a} and {name!a}): merge or rename them"
            )
