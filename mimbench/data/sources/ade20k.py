"""Semantic segmentation data in the format of ADE20K's scene parsing release (arXiv:1608.05442)."""

from __future__ import annotations

import hashlib
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

from mimbench.contract import DataConfig, Dataset, DataSizes, InputError, RunError, SemanticSplit, SplitName, cosmetic
from mimbench.data.files.cache import READERS, ensure_writable, read_derived, write_derived
from mimbench.data.files.image_reading import MAX_PIXELS, READER_VERSION, PixelPolicy
from mimbench.data.files.image_sizes import ExifTurns, match_size, read_image_sizes
from mimbench.data.files.listing import ImageFile, check_files, image_files, normalize_name
from mimbench.data.sources.class_lists import class_names
from mimbench.data.sources.class_matching import similar_classes
from mimbench.data.sources.label_images import read_labels
from mimbench.data.sources.scene_options import note_values
from mimbench.text import list_first, printable

_FOLDERS: dict[SplitName, str] = {"train": "training", "test": "validation"}
_OFFICIAL_CLASSES = 150


class Ade20kConfig(DataConfig):
    """Options of a folder in ADE20K's format."""

    classes: int | None = Field(default=None, ge=2, le=254)
    """How many there are; absent: as many as the folder's list names, or ADE20K's 150 if it has no list."""
    reduce_zero_label: bool = True
    """Pixels of value 0 are of no class and ignored, class k has the value k + 1, as in ADE20K. False: class k has
    the value k. 255 is always ignored."""
    channels: Literal[1, 3] = 3
    """3: RGB. 1: grey."""
    max_pixels: int = cosmetic(MAX_PIXELS, ge=1)
    """Images and annotations of more pixels are refused before they are decoded."""


@dataclass(frozen=True)
class _Pair:
    image: ImageFile
    annotation: ImageFile


class Ade20kSplit(SemanticSplit):
    """One half of a folder."""

    def __init__(
        self, root: Path, pairs: Sequence[_Pair], counts: Sequence[list[int]], classes: tuple[str, ...], reduce: bool
    ) -> None:
        """counts: [height, width, pixels of class 0, of class 1, ...] per pair."""
        self.root, self.pairs, self.classes, self.reduce = root, pairs, classes, reduce
        self._counts = np.array(counts, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.pairs)

    def image(self, index: int) -> Path:
        return self.root / self.pairs[index].image.name

    def shape(self, index: int) -> tuple[int, int]:
        height, width = self._counts[index, :2].tolist()
        return height, width

    def labels(self, index: int) -> Tensor:
        path = self.root / self.pairs[index].annotation.name
        try:
            height, width = self.shape(index)
            limit = max(MAX_PIXELS, height * width)
            return torch.from_numpy(read_labels(path, len(self.classes), self.reduce, limit))
        except Exception as error:
            raise RunError(f"cannot read the annotation {printable(path)}: {error}") from error

    def counts(self) -> Tensor:
        return torch.from_numpy(self._counts[:, 2:].sum(0))


class Ade20k(Dataset):
    """root/images/{training,validation}/*.jpg with root/annotations/{training,validation}/*.png with equal names.

    An annotation is a grey or palette image, one class number per pixel. Class names come from root/objectInfo150.txt,
    as ADE20K ships it, or from root/classes.txt, one per line; if neither exists, classes are called by their
    numbers. Annotations without an image are left out, with a note. All files are read once, when the dataset is first
    opened; the verdict is kept in the cache.

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
        self._left_out: list[str] = []
        """Notes."""
        self._pairs: dict[SplitName, list[_Pair]] = {name: self._paired(_FOLDERS[name]) for name in _FOLDERS}
        self._digests = self._digested()
        where = printable(self.root)
        self._turns = self._compare_sizes()
        self._turns.check(f"ade20k: {where}")
        self._counts = self._examined()
        notes = [*self._left_out, *self._turns.note(where), *similar_classes(self.classes)]
        self.notes = tuple(f"ade20k: {note}" for note in notes)

    @classmethod
    def published_sizes(cls, config: DataConfig) -> DataSizes | None:
        if not isinstance(config, Ade20kConfig):
            return None
        classes = config.classes or _OFFICIAL_CLASSES
        return DataSizes(20_210, 2_000, classes=classes, channels=config.channels, source="arXiv:1608.05442")

    def split(self, name: SplitName) -> Ade20kSplit:
        return Ade20kSplit(
            self.root, self._pairs[name], self._counts[name], self.classes, self.config.reduce_zero_label
        )

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        config = self.config
        digest = hashlib.sha256(
            repr((READER_VERSION, config.channels, config.reduce_zero_label, self.classes)).encode()
        )
        for name, pairs in sorted(self._pairs.items()):
            lines = [
                (normalize_name(Path(p.image.name).name), *map(self._digest, (p.image, p.annotation))) for p in pairs
            ]
            digest.update(repr((name, sorted(lines))).encode())
        if self._turns.as_stored:
            digest.update(b"images as stored")
        return digest.hexdigest()

    def _root(self) -> Path:
        root = self.config.root
        if root is None:
            raise InputError("ade20k needs a root: pass --set task.data.root=PATH")
        root = root.expanduser()
        folders = [root / kind / part for kind in ("images", "annotations") for part in _FOLDERS.values()]
        missing = [path for path in folders if not path.is_dir()]
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
        masks = [f for f in image_files(folders["annotations"], self.root) if f.name.lower().endswith(".png")]
        annotations = _by_stem(masks, "annotations")
        stems = _by_stem(images, "images")
        bare = [file.name for stem, file in stems.items() if stem not in annotations]
        if bare:
            raise InputError(
                f"{len(bare)} of {len(images)} images have no annotation of the same name (.png) in "
                f"{printable(folders['annotations'])}: {_listed(bare)}"
            )
        alone = [file.name for stem, file in annotations.items() if stem not in stems]
        if alone:
            self._left_out.append(
                f"{len(alone)} of {len(masks)} annotations have no image of the same name in "
                f"{printable(folders['images'])} and are left out: {_listed(alone)}"
            )
        return [_Pair(file, annotations[stem]) for stem, file in stems.items()]

    def _digested(self) -> dict[str, str]:
        """Content digests by name. Images are decoded as well; annotations are in `_examined`."""
        pairs = [pair for part in self._pairs.values() for pair in part]
        health = check_files([pair.annotation for pair in pairs], self.root, self.cache, decode=False)
        policy = PixelPolicy(max_pixels=self.config.max_pixels)
        health |= check_files([pair.image for pair in pairs], self.root, self.cache, decode=True, policy=policy)
        bad = [f"{name} ({one.problem})" for name, one in health.items() if one.problem]
        if bad:
            raise InputError(f"{len(bad)} files under {printable(self.root)} cannot be read: {_listed(bad)}")
        self._left_out += note_values({pair.image.name: health[pair.image.name] for pair in pairs}, self.root)
        return {name: one.digest for name, one in health.items()}

    def _compare_sizes(self) -> ExifTurns:
        """Which images EXIF turns. Raises InputError for annotations of another size than their image."""
        pairs = [pair for part in self._pairs.values() for pair in part]
        files = [file.name for pair in pairs for file in (pair.image, pair.annotation)]
        headers = read_image_sizes(files, self.root, self.cache, self.config.max_pixels)
        turns, bad = ExifTurns(), []
        for pair in pairs:
            image, mask = headers[pair.image.name], headers[pair.annotation.name]
            if isinstance(image, str) or isinstance(mask, str):
                bad.append(f"{pair.image.name if isinstance(image, str) else pair.annotation.name} cannot be read: ")
                bad[-1] += image if isinstance(image, str) else str(mask)
                continue
            how = match_size(image, mask.stored, self.root / pair.image.name)
            if how is None:
                width, height = mask.stored
                bad.append(f"{pair.annotation.name} has {width} x {height} px, its image {image}")
            else:
                turns.add(pair.image.name, image, how)
        if bad:
            raise InputError(
                f"{len(bad)} of {len(pairs)} annotations under {printable(self.root)} do not fit: {_listed(bad)}"
            )
        return turns

    def _digest(self, file: ImageFile) -> str:
        return self._digests[file.name]

    def _examined(self) -> dict[SplitName, list[list[int]]]:
        """Height, width and pixels of each class of every pair, kept under the fingerprint of the content."""
        path = ensure_writable(self.cache) / f"ade20k-{self.fingerprint()[:32]}.json"
        counts = read_derived(path)
        if counts is None:
            counts = {name: self._count(self._pairs[name]) for name in _FOLDERS}
            write_derived(path, counts)
        return counts

    def _count(self, pairs: Sequence[_Pair]) -> list[list[int]]:
        with ThreadPoolExecutor(READERS) as pool:
            results = list(pool.map(self._count_pixels, pairs))
        bad = [result for result in results if isinstance(result, str)]
        if bad:
            raise InputError(f"{len(bad)} of {len(pairs)} annotations do not fit: {_listed(bad)}")
        counts = [result for result in results if not isinstance(result, str)]
        if not any(any(pixels) for _, _, *pixels in counts):
            raise InputError(
                f"no pixel of {len(pairs)} annotations, such as {printable(pairs[0].annotation.name)}, has a class: "
                f"all have {'0 or 255' if self.config.reduce_zero_label else '255'}, which is ignored "
                "(data.reduce_zero_label=false makes 0 a class)"
            )
        return counts

    def _count_pixels(self, pair: _Pair) -> list[int] | str:
        """[height, width, pixels of each class] of an annotation, or why it cannot be used."""
        path = self.root / pair.annotation.name
        try:
            labels = read_labels(path, len(self.classes), self.config.reduce_zero_label, self.config.max_pixels)
        except Exception as error:  # Pillow raises nearly anything on a damaged file
            return f"{printable(path)} {error if isinstance(error, ValueError) else f'cannot be read: {error}'}"
        height, width = labels.shape
        return [height, width, *np.bincount(labels.ravel(), minlength=256)[: len(self.classes)].tolist()]


def _by_stem(files: Sequence[ImageFile], kind: str) -> dict[str, ImageFile]:
    """Files by their name within images/ or annotations/, without its ending.

    Raises:
        InputError: two have the same name.
    """
    stems: dict[str, ImageFile] = {}
    for file in files:
        stem = normalize_name(os.path.splitext(file.name.removeprefix(f"{kind}/"))[0])
        first = stems.setdefault(stem, file)
        if first is not file:
            raise InputError(
                f"ade20k: {printable(first.name)} and {printable(file.name)} differ in their ending alone; images and "
                "annotations are matched by name, so keep one of the two"
            )
    return stems


def _listed(names: Sequence[str]) -> str:
    return list_first([printable(name) for name in names])
