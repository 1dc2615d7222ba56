"""The base of datasets whose labels are images of one class number per pixel, each next to its image."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mimbench.contract import DataConfig, Dataset, InputError, RunError, SemanticSplit, SplitName, cosmetic
from mimbench.data.files.cache import READERS, ensure_writable, read_derived, write_derived
from mimbench.data.files.image_reading import MAX_PIXELS, READER_VERSION, PixelPolicy
from mimbench.data.files.image_sizes import ExifTurns, match_size, read_image_sizes
from mimbench.data.files.listing import ImageFile, check_files, normalize_name
from mimbench.data.sources.class_matching import similar_classes
from mimbench.data.sources.scene_options import note_values
from mimbench.text import list_first, printable


class LabelMapsConfig(DataConfig):
    """Options of a folder of images and label maps."""

    channels: Literal[1, 3] = 3
    """3: RGB. 1: grey."""
    max_pixels: int = cosmetic(MAX_PIXELS, ge=1)
    """Images and annotations of more pixels are refused before they are decoded."""


@dataclass(frozen=True)
class Pair:
    """An image and its annotation; names are relative to the root."""

    image: ImageFile
    annotation: ImageFile


class LabelMapsSplit(SemanticSplit):
    """One split of a folder."""

    def __init__(
        self,
        root: Path,
        pairs: Sequence[Pair],
        counts: Sequence[list[int]],
        classes: tuple[str, ...],
        read: Callable[[Path, int], np.ndarray],
    ) -> None:
        """
        Args:
            counts: [height, width, pixels of class 0, of class 1, ...] per pair.
            read: (annotation file, greatest number of pixels) -> uint8 [H, W].
        """
        self.root, self.pairs, self.classes, self.read = root, pairs, classes, read
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
            return torch.from_numpy(self.read(path, max(MAX_PIXELS, height * width)))
        except Exception as error:
            raise RunError(f"cannot read the annotation {printable(path)}: {error}") from error

    def counts(self) -> Tensor:
        return torch.from_numpy(self._counts[:, 2:].sum(0))


class LabelMaps(Dataset):
    """Images with label maps. All files are read once, when the dataset is first opened; the verdict is kept.

    A subclass finds the pairs, calls `examine`, and says what the values of an annotation mean. The size of an
    annotation says which pixels of an image that EXIF turns it is for: those stored or those turned.
    """

    provides = frozenset({"masks"})
    Config = LabelMapsConfig
    config: LabelMapsConfig
    root: Path
    classes: tuple[str, ...]

    @abstractmethod
    def read_annotation(self, path: Path, max_pixels: int) -> np.ndarray:
        """uint8 [H, W]: the class of each pixel; 255: unknown. Raises ValueError for a value that has no meaning."""

    @abstractmethod
    def meaning(self) -> tuple[object, ...]:
        """What else than the files decides the labels, for the fingerprint."""

    @abstractmethod
    def no_class_note(self) -> str:
        """What may be wrong if no pixel has a class: the end of a message."""

    def examine(self, pairs: Mapping[SplitName, list[Pair]], notes: Sequence[str] = ()) -> None:
        """Read all files, and keep what is needed of them.

        Args:
            pairs: of each split.
            notes: on what is left out.

        Raises:
            InputError: a file cannot be read or does not fit, with its name.
        """
        self.channels = self.config.channels
        self._pairs, self._left_out = dict(pairs), list(notes)
        self._digests = self._digested()
        where = printable(self.root)
        self._turns = self._compare_sizes()
        self._turns.check(f"{self.name}: {where}")
        self._counts = self._examined()
        every_note = [*self._left_out, *self._turns.note(where), *similar_classes(self.classes)]
        self.notes = tuple(f"{self.name}: {note}" for note in every_note)

    def split(self, name: SplitName) -> LabelMapsSplit:
        return LabelMapsSplit(self.root, self._pairs[name], self._counts[name], self.classes, self.read_annotation)

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(repr((READER_VERSION, self.config.channels, *self.meaning(), self.classes)).encode())
        for name, pairs in sorted(self._pairs.items()):
            lines = [
                (normalize_name(Path(p.image.name).name), *map(self._digest, (p.image, p.annotation))) for p in pairs
            ]
            digest.update(repr((name, sorted(lines))).encode())
        if self._turns.as_stored:
            digest.update(b"images as stored")
        return digest.hexdigest()

    def _digested(self) -> dict[str, str]:
        """Content digests by name. Images are decoded as well; annotations are in `_examined`."""
        pairs = [pair for part in self._pairs.values() for pair in part]
        health = check_files([pair.annotation for pair in pairs], self.root, self.cache, decode=False)
        policy = PixelPolicy(max_pixels=self.config.max_pixels)
        health |= check_files([pair.image for pair in pairs], self.root, self.cache, decode=True, policy=policy)
        bad = [f"{name} ({one.problem})" for name, one in health.items() if one.problem]
        if bad:
            raise InputError(f"{len(bad)} files under {printable(self.root)} cannot be read: {listed(bad)}")
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
                f"{len(bad)} of {len(pairs)} annotations under {printable(self.root)} do not fit: {listed(bad)}"
            )
        return turns

    def _digest(self, file: ImageFile) -> str:
        return self._digests[file.name]

    def _examined(self) -> dict[SplitName, list[list[int]]]:
        """Height, width and pixels of each class of every pair, kept under the fingerprint of the content."""
        path = ensure_writable(self.cache) / f"{self.name}-{self.fingerprint()[:32]}.json"
        counts = read_derived(path)
        if counts is None:
            counts = {name: self._count(pairs) for name, pairs in self._pairs.items()}
            write_derived(path, counts)
        return counts

    def _count(self, pairs: Sequence[Pair]) -> list[list[int]]:
        with ThreadPoolExecutor(READERS) as pool:
            results = list(pool.map(self._count_pixels, pairs))
        bad = [result for result in results if isinstance(result, str)]
        if bad:
            raise InputError(f"{len(bad)} of {len(pairs)} annotations do not fit: {listed(bad)}")
        counts = [result for result in results if not isinstance(result, str)]
        if not any(any(pixels) for _, _, *pixels in counts):
            raise InputError(
                f"no pixel of {len(pairs)} annotations, such as {printable(pairs[0].annotation.name)}, has a class: "
                f"{self.no_class_note()}"
            )
        return counts

    def _count_pixels(self, pair: Pair) -> list[int] | str:
        """[height, width, pixels of each class] of an annotation, or why it cannot be used."""
        path = self.root / pair.annotation.name
        try:
            labels = self.read_annotation(path, self.config.max_pixels)
        except Exception as error:  # Pillow raises nearly anything on a damaged file
            return f"{printable(path)} {error if isinstance(error, ValueError) else f'cannot be read: {error}'}"
        height, width = labels.shape
        return [height, width, *np.bincount(labels.ravel(), minlength=256)[: len(self.classes)].tolist()]


def listed(names: Sequence[str]) -> str:
    """The first of some names, for a message."""
    return list_first([printable(name) for name in names])
