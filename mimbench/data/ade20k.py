"""Semantic segmentation data in the format of ADE20K's scene parsing release (arXiv:1608.05442)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from mimbench.contract import DataConfig, Dataset, InputError, RunError, SemanticSplit, SplitName
from mimbench.data.cache import writable
from mimbench.data.class_lists import class_names
from mimbench.data.images import READER_VERSION, open_image
from mimbench.data.listing import ImageFile, examine, image_files, normal, printable
from mimbench.data.rasters import Raster, fit, note_values, read_header, read_headers
from mimbench.files import write_atomic

_FOLDERS: dict[SplitName, str] = {"train": "training", "test": "validation"}
_OFFICIAL_CLASSES = 150
_IGNORED = 255
_GREY = ("L", "P", "1", "I", "I;16", "I;16L", "I;16B")
"""Pillow's modes of one number a pixel; of a palette, the index counts."""


class Ade20kConfig(DataConfig):
    """Options of a folder in ADE20K's format."""

    classes: int | None = Field(default=None, ge=2, le=254)
    """How many there are; absent: as many as the folder's list names, or ADE20K's 150 where it has no list."""
    reduce_zero_label: bool = True
    """Pixels of value 0 are of no class and ignored, class k has the value k + 1, as in ADE20K. False: class k has
    the value k. 255 is always ignored."""
    channels: Literal[1, 3] = 3
    """3: RGB. 1: grey."""


@dataclass(frozen=True)
class _Pair:
    image: ImageFile
    annotation: ImageFile


class Ade20kSplit(SemanticSplit):
    """One half of a folder."""

    def __init__(
        self, root: Path, pairs: Sequence[_Pair], found: Sequence[list[int]], classes: tuple[str, ...], reduce: bool
    ) -> None:
        """found: [height, width, pixels of class 0, of class 1, ...] of each pair."""
        self.root, self.pairs, self.classes, self.reduce = root, pairs, classes, reduce
        self._found = np.array(found, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.pairs)

    def image(self, index: int) -> Path:
        return self.root / self.pairs[index].image.name

    def shape(self, index: int) -> tuple[int, int]:
        height, width = self._found[index, :2].tolist()
        return height, width

    def labels(self, index: int) -> Tensor:
        path = self.root / self.pairs[index].annotation.name
        try:
            return torch.from_numpy(read_labels(path, len(self.classes), self.reduce))
        except Exception as error:
            raise RunError(f"cannot read the annotation {printable(path)}: {error}") from error

    def counts(self) -> Tensor:
        return torch.from_numpy(self._found[:, 2:].sum(0))


class Ade20k(Dataset):
    """root/images/{training,validation}/*.jpg with root/annotations/{training,validation}/*.png, names alike.

    An annotation is a grey or palette image, one class number a pixel. Class names come from root/objectInfo150.txt,
    as ADE20K ships it, or from root/classes.txt, one a line; where neither is there, classes are called by their
    numbers. Annotations without an image are left alone. All files are read once, when the dataset is first opened;
    the verdict is kept in the cache.

    The size of an annotation says which pixels of an image that EXIF turns it is for: those stored or those turned.
    """

    name = "ade20k"
    provides = frozenset({"masks"})
    Config = Ade20kConfig
    config: Ade20kConfig

    def __init__(self, config: Ade20kConfig, cache: Path) -> None:
        """Raises InputError for a folder, an annotation or a label that does not fit, with its name."""
        super().__init__(config, cache)
        self.channels = config.channels
        self.root = self._root()
        self.classes = self._classes()
        self._pairs: dict[SplitName, list[_Pair]] = {name: self._paired(_FOLDERS[name]) for name in _FOLDERS}
        self._digests = self._digested()
        self._as_stored = self._find_as_stored()
        self._found = self._examined()
        if self._as_stored:
            self.notes += (
                f"ade20k: {len(self._as_stored)} images, such as {printable(self._as_stored[0])}, have EXIF data that "
                "turn them, and annotations of the size of the pixels as stored; they are read as stored",
            )

    def split(self, name: SplitName) -> Ade20kSplit:
        return Ade20kSplit(self.root, self._pairs[name], self._found[name], self.classes, self.config.reduce_zero_label)

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        config = self.config
        digest = hashlib.sha256(
            repr((READER_VERSION, config.channels, config.reduce_zero_label, self.classes)).encode()
        )
        for name, pairs in sorted(self._pairs.items()):
            lines = [(normal(Path(p.image.name).name), *map(self._digest, (p.image, p.annotation))) for p in pairs]
            digest.update(repr((name, sorted(lines))).encode())
        if self._as_stored:
            digest.update(b"images as stored")
        return digest.hexdigest()

    def _root(self) -> Path:
        root = self.config.root
        if root is None:
            raise InputError("ade20k needs a root: pass --set task.data.root=PATH")
        root = root.expanduser()
        wanted = [root / kind / part for kind in ("images", "annotations") for part in _FOLDERS.values()]
        missing = [path for path in wanted if not path.is_dir()]
        if missing:
            raise InputError(
                f"ade20k wants training/ and validation/ in each of images/ and annotations/ under {printable(root)}, "
                f"and has no {missing[0].relative_to(root)}: pass --set task.data.root=PATH"
            )
        return root

    def _classes(self) -> tuple[str, ...]:
        named = class_names(self.root)
        count = self.config.classes or len(named) or _OFFICIAL_CLASSES
        if named and len(named) != count:
            raise InputError(
                f"the folder {printable(self.root)} names {len(named)} classes and data.classes says {count}: "
                "leave data.classes out, or correct the list"
            )
        if not 2 <= count <= 254:
            raise InputError(f"the folder {printable(self.root)} names {count} classes; 2 to 254 are possible")
        return named or tuple(str(label + self.config.reduce_zero_label) for label in range(count))

    def _paired(self, part: str) -> list[_Pair]:
        folders = {kind: self.root / kind / part for kind in ("images", "annotations")}
        images = image_files(folders["images"], self.root)
        if not images:
            raise InputError(f"no images in {printable(folders['images'])}")
        annotations = {
            _stem(file, "annotations"): file
            for file in image_files(folders["annotations"], self.root)
            if file.name.lower().endswith(".png")
        }
        bare = [file.name for file in images if _stem(file, "images") not in annotations]
        if bare:
            raise InputError(
                f"{len(bare)} of {len(images)} images have no annotation of the same name (.png) in "
                f"{printable(folders['annotations'])}: {_listed(bare)}"
            )
        return [_Pair(file, annotations[_stem(file, "images")]) for file in images]

    def _digested(self) -> dict[str, str]:
        """Content digests by name. Images are decoded as well; annotations are in `_examined`."""
        pairs = [pair for part in self._pairs.values() for pair in part]
        health = examine([pair.annotation for pair in pairs], self.root, self.cache, decode=False)
        health |= examine([pair.image for pair in pairs], self.root, self.cache, decode=True)
        bad = [f"{name} ({one.problem})" for name, one in health.items() if one.problem]
        if bad:
            raise InputError(f"{len(bad)} files under {printable(self.root)} cannot be read: {_listed(bad)}")
        return {name: one.digest for name, one in health.items()}

    def _find_as_stored(self) -> list[str]:
        """Images that EXIF turns, and whose annotation has the size of the pixels as stored."""
        pairs = [pair for part in self._pairs.values() for pair in part]
        headers = read_headers([pair.image.name for pair in pairs], self.root, self.cache)
        self.notes += tuple(f"ade20k: {note}" for note in note_values(headers, self.root, self.cache))
        turned = [pair for pair in pairs if getattr(headers[pair.image.name], "orientation", 1) != 1]
        masks = read_headers([pair.annotation.name for pair in turned], self.root, self.cache) if turned else {}
        return [
            pair.image.name for pair in turned if _have_one_size(headers[pair.image.name], masks[pair.annotation.name])
        ]

    def _digest(self, file: ImageFile) -> str:
        return self._digests[file.name]

    def _examined(self) -> dict[SplitName, list[list[int]]]:
        """Height, width and pixels of each class of every pair, kept under the fingerprint of the content."""
        kept = writable(self.cache) / f"ade20k-{self.fingerprint()[:32]}.json"
        known = _load(kept)
        if known is not None and all(len(known.get(name, ())) == len(self._pairs[name]) for name in _FOLDERS):
            return {name: known[name] for name in _FOLDERS}
        found = {name: self._examine(self._pairs[name]) for name in _FOLDERS}
        write_atomic(kept, json.dumps(found).encode())
        return found

    def _examine(self, pairs: Sequence[_Pair]) -> list[list[int]]:
        with ThreadPoolExecutor(min(32, 2 * (os.cpu_count() or 1))) as pool:
            verdicts = list(pool.map(self._look, pairs))
        bad = [verdict for verdict in verdicts if isinstance(verdict, str)]
        if bad:
            raise InputError(f"{len(bad)} of {len(pairs)} annotations do not fit: {_listed(bad)}")
        found = [verdict for verdict in verdicts if not isinstance(verdict, str)]
        if not any(any(verdict[2:]) for verdict in found):
            raise InputError(
                f"no pixel of {len(pairs)} annotations, such as {printable(pairs[0].annotation.name)}, has a class: "
                f"all have {'0 or 255' if self.config.reduce_zero_label else '255'}, which is ignored "
                "(data.reduce_zero_label=false makes 0 a class)"
            )
        return found

    def _look(self, pair: _Pair) -> list[int] | str:
        """What is in the annotation, or why it does not fit its image."""
        path = self.root / pair.annotation.name
        try:
            labels = read_labels(path, len(self.classes), self.config.reduce_zero_label)
        except Exception as error:  # Pillow raises nearly anything on a damaged file
            return f"{printable(path)} {error if isinstance(error, ValueError) else f'cannot be read: {error}'}"
        image = self.root / pair.image.name
        try:
            raster = read_header(image)
        except Exception as error:  # here too
            return f"{printable(image)} cannot be read: {error}"
        height, width = labels.shape
        if fit(raster, (width, height), image) is None:
            return f"{printable(path)} has {width} x {height} px, its image {raster}"
        return [height, width, *np.bincount(labels.ravel(), minlength=256)[: len(self.classes)].tolist()]


def _have_one_size(image: Raster | str, annotation: Raster | str) -> bool:
    return isinstance(image, Raster) and isinstance(annotation, Raster) and image.stored == annotation.stored


def read_labels(path: Path, classes: int, reduce: bool) -> np.ndarray:
    """uint8 [H, W]: the class of each pixel, from 0; 255 where it is ignored.

    reduce: as `Ade20kConfig.reduce_zero_label`.

    Raises:
        ValueError: it is no grey or palette image, or holds a value beyond the classes.
        Exception: whatever Pillow raises on a file that it cannot decode.
    """
    with open_image(path) as image:
        if image.mode not in _GREY:
            raise ValueError(
                f"is an image of mode {image.mode}, not grey with one class number a pixel (ADE20K's scene parsing "
                "release, ADEChallengeData2016, has such; the full release colours its annotations)"
            )
        values = np.array(image).astype(np.int64)
    labels = np.where((values == 0) | (values == _IGNORED), _IGNORED, values - 1) if reduce else values
    outside = values[(labels != _IGNORED) & ((labels < 0) | (labels >= classes))]
    if outside.size:
        highest = classes if reduce else classes - 1
        raise ValueError(
            f"holds the value {outside.flat[0]}; {classes} classes have values {int(reduce)} to {highest} "
            f"(data.classes, data.reduce_zero_label)"
        )
    return labels.astype(np.uint8)


def _stem(file: ImageFile, kind: str) -> str:
    """The name within images/ or annotations/, without its ending."""
    return normal(os.path.splitext(file.name.removeprefix(f"{kind}/"))[0])


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(printable(name) for name in names[:3]) + more


def _load(path: Path) -> dict[SplitName, list[list[int]]] | None:
    """What is kept; None where it is absent or damaged, for it can be made again."""
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) else None
