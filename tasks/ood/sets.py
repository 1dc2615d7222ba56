"""The test sets: which images they have, which classes may be answered, and how images are resized."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from mimbench.api import (
    ImageSplit,
    InputConfig,
    InputError,
    digest_class_folders,
    find_class_folders,
    read_class_folders,
)
from mimbench_tasks.ood.config import SetOptions
from mimbench_tasks.ood.corruption_errors import ALEXNET_ERRORS, EXTRA_ERRORS, SEVERITIES

CLASSES = 1000
"""Of ImageNet."""
FOLDER_SETS = {"a": "imagenet_a", "r": "imagenet_r", "sketch": "imagenet_sketch", "v2": "imagenet_v2"}
"""Short name of a set -> the option with its folder."""


@dataclass(frozen=True)
class TestSet:
    """One test set."""

    __test__ = False  # it is no test of pytest
    name: str
    split: ImageSplit
    """Its labels are those of the training images."""
    answers: np.ndarray | None = None
    """Classes that may be answered, sorted; None: all."""
    resizes: bool = True
    """False: images are cropped as they lie, since they have the right size."""

    def input(self, images: InputConfig) -> InputConfig:
        """How images are brought to the size that the encoder takes."""
        return images if self.resizes else images.model_copy(update={"eval_resize": images.image_size})


def class_list(name: str) -> tuple[str, ...]:
    """WordNet ids of the classes of a set, sorted. name: "imagenet-a" or "imagenet-r"."""
    return _class_lists()[name]


@functools.cache
def _class_lists() -> dict[str, tuple[str, ...]]:
    text = (files("mimbench_tasks.ood") / "class_lists.toml").read_text(encoding="utf-8")
    return {name: tuple(table["classes"].split()) for name, table in tomllib.loads(text).items()}


def has_sets(config: SetOptions) -> bool:
    """Whether an option names a set."""
    return any(getattr(config, name) for name in (*FOLDER_SETS.values(), "imagenet_real", "imagenet_c"))


def identify_sets(config: SetOptions) -> dict[str, Any]:
    """What the protocol says of the sets: a hash of their files, see `ClassFolders.digest`; of ReaL, of its labels.

    Raises:
        InputError: a folder or file is not there.
    """
    known: dict[str, Any] = {}
    for option in FOLDER_SETS.values():
        root = getattr(config, option)
        if root is not None:
            known[option] = digest_class_folders(root, f"task.{option}")
    if config.imagenet_real is not None:
        known["imagenet_real"] = hashlib.sha256(repr(_read_real(config.imagenet_real)).encode()).hexdigest()
    if config.imagenet_c is not None:
        known["imagenet_c"] = {
            name: _digest_severities(folder) for name, folder in sorted(corruption_folders(config.imagenet_c).items())
        }
    return known


def _digest_severities(folder: Path) -> str:
    """Of one corruption in all severities."""
    each = [digest_class_folders(folder / str(severity), "task.imagenet_c") for severity in SEVERITIES]
    return hashlib.sha256("".join(each).encode()).hexdigest()


def open_set(config: SetOptions, name: str, classes: Sequence[str]) -> TestSet | None:
    """The set of this short name; None: no option names it.

    Args:
        name: a key of FOLDER_SETS.
        classes: of the training images.

    Raises:
        InputError: the folder is not that of this set, or the training images lack one of its classes.
    """
    option = FOLDER_SETS[name]
    root: Path | None = getattr(config, option)
    if root is None:
        return None
    return _read_set(name, root, tuple(classes))


@functools.lru_cache(maxsize=16)
def _read_set(name: str, root: Path, classes: tuple[str, ...]) -> TestSet:
    option = f"task.{FOLDER_SETS[name]}"
    index = {wnid: label for label, wnid in enumerate(classes)}
    answers = None
    if name in ("a", "r"):
        known = class_list(f"imagenet-{name}")
        _require_classes(known, index, option)
        labels = {wnid: index[wnid] for wnid in known}
        answers = np.sort(np.array(list(labels.values())))
    else:
        require_all_classes(classes, option)
        in_order = sorted(classes)
        labels = dict(index) if name == "sketch" else {str(n): index[wnid] for n, wnid in enumerate(in_order)}
    split = read_class_folders(find_class_folders(root, option), labels, classes, option)
    return TestSet(name, split, answers)


def _require_classes(known: Sequence[str], index: dict[str, int], option: str) -> None:
    missing = [wnid for wnid in known if wnid not in index]
    if missing:
        raise InputError(
            f"{option}: the training images lack {len(missing)} of the {len(known)} classes of this set, such as "
            f"{missing[0]!r}; pass --set task.dataset=imagenet, whose class folders are named by WordNet id"
        )


def require_all_classes(classes: Sequence[str], option: str) -> None:
    """Raise InputError if these are not the 1,000 classes of ImageNet, named by WordNet id."""
    if len(classes) != CLASSES or not all(re.fullmatch(r"n\d{8}", name) for name in classes):
        raise InputError(
            f"{option}: this set has the 1,000 classes of ImageNet, and the training images have {len(classes)} "
            f"(such as {classes[0]!r}); pass --set task.dataset=imagenet"
        )


def corruption_folders(root: Path) -> dict[str, Path]:
    """Folder of each corruption of ImageNet-C, the 15 of mCE first. Extra ones may be missing.

    Raises:
        InputError: no such folder, a corruption is missing, or it lacks a severity.
    """
    root = root.expanduser()
    if not root.is_dir():
        raise InputError(f"task.imagenet_c: {root} is no folder; name the folder that holds the corruptions")
    folders = {}
    for name in (*ALEXNET_ERRORS, *EXTRA_ERRORS):
        places = [path for path in (root / name, *sorted(root.glob(f"*/{name}"))) if path.is_dir()]
        if places:
            folders[name] = places[0]
        elif name in ALEXNET_ERRORS:
            raise InputError(f"task.imagenet_c: {root} lacks the corruption {name}; unpack all archives of the set")
    for path in folders.values():
        for severity in SEVERITIES:
            if not (path / str(severity)).is_dir():
                raise InputError(f"task.imagenet_c: {path} lacks severity {severity}; unpack all archives of the set")
    return folders


def corrupted_sets(root: Path, classes: Sequence[str]) -> Iterator[tuple[str, int, TestSet]]:
    """(corruption, severity, its set) of ImageNet-C, one at a time.

    Raises:
        InputError: as `corruption_folders`, or the training images do not have the set's classes.
    """
    labels = {wnid: label for label, wnid in enumerate(classes)}
    for name, folder in corruption_folders(root).items():
        for severity in SEVERITIES:
            folders = find_class_folders(folder / str(severity), "task.imagenet_c")
            split = read_class_folders(folders, labels, classes, "task.imagenet_c")
            yield name, severity, TestSet("c", split, resizes=False)


def real_labels(path: Path, split: ImageSplit, classes: Sequence[str]) -> list[list[int]]:
    """ReaL's labels of each image of the validation split, as labels of the training images; [] if it has none.

    google-research/reassessed-imagenet@848d7246 README.md: entry N - 1 is that of ILSVRC2012_val_N.JPEG, and images
    without labels are left out of the accuracy (arXiv:2006.07159).

    Raises:
        InputError: the file is not ReaL's, or the images of `split` are not those of ImageNet's validation set.
    """
    option = "task.imagenet_real"
    require_all_classes(classes, option)
    entries = _read_real(path)
    index = {wnid: label for label, wnid in enumerate(classes)}
    order = [index[wnid] for wnid in sorted(classes)]
    place: Any = getattr(split, "path", None)
    if place is None:
        raise InputError(f"{option}: the test images have no file names to find their labels by; use imagenet itself")
    labels = []
    for number in range(len(split)):
        name = place(number).name
        match = re.fullmatch(r"ILSVRC2012_val_(\d{8})\.\w+", name)
        if not match or not 1 <= int(match[1]) <= len(entries):
            raise InputError(f"{option}: {name} is not named as an image of ImageNet's validation set")
        labels.append([order[label] for label in entries[int(match[1]) - 1]])
    return labels


@functools.lru_cache(maxsize=2)
def _read_real(path: Path) -> list[list[int]]:
    option = "task.imagenet_real"
    try:
        entries = json.loads(path.expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{option}: {path} is not readable as JSON ({error}); name ReaL's real.json") from error
    is_list = isinstance(entries, list) and all(isinstance(one, list) for one in entries)
    if not is_list or not all(isinstance(label, int) and 0 <= label < CLASSES for one in entries for label in one):
        raise InputError(f"{option}: {path} holds no lists of class numbers; name ReaL's real.json")
    if len(entries) != 50_000:
        raise InputError(f"{option}: {path} has {len(entries):,} entries, and ReaL's real.json has 50,000")
    return entries


def restricted(test_set: TestSet, scores: np.ndarray) -> np.ndarray:
    """The answered class of each image: the best of those that may be answered. scores: [N, classes]."""
    if test_set.answers is None:
        return scores.argmax(axis=1)
    return test_set.answers[scores[:, test_set.answers].argmax(axis=1)]
