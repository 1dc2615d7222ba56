"""Image folders as people have them."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mimbench.contract import Dataset, InputError, SplitName
from mimbench.data.files.image_reading import (
    ANY_VALUES,
    DEFAULT_POLICY,
    EXTRA_BANDS,
    READER_VERSION,
    PixelPolicy,
)
from mimbench.data.files.listing import FileCheck, check_files, normalize_name, subfolders
from mimbench.data.files.tree_state import TreeState
from mimbench.data.files.value_ranges import choose_range
from mimbench.data.pipeline.encoded import EncodedSplit
from mimbench.data.pipeline.subsets import held_out_indices
from mimbench.data.sources.class_matching import match_classes, similar_classes
from mimbench.data.sources.folder_config import FolderConfig
from mimbench.data.sources.folder_index import FolderContent, FolderIndex, Part
from mimbench.data.sources.folder_scan import FolderScan, Sample
from mimbench.data.sources.labels import UNLABELLED
from mimbench.data.sources.root import require_root
from mimbench.data.sources.split_names import TEST, TRAIN, first_of
from mimbench.text import list_first, printable


class FolderSplit(EncodedSplit):
    """Images of any size, read from their files: uint8 [channels, H, W]."""

    def __init__(
        self,
        root: Path,
        names: Sequence[bytes],
        labels: np.ndarray,
        classes: tuple[str, ...],
        channels: int,
        policy: PixelPolicy = DEFAULT_POLICY,
    ) -> None:
        self.root, self.classes, self.channels, self.policy = root, classes, channels, policy
        self.labels = torch.from_numpy(labels.astype(np.int64))
        # One array, not a list: forked workers then never copy a million strings.
        self._names = np.array(names, dtype=np.bytes_)

    def __len__(self) -> int:
        return len(self._names)

    def path(self, index: int) -> Path:
        return self.root / os.fsdecode(self._names[index])

    source = path

    def place(self, index: int) -> str:
        return printable(self.path(index))

    def file_name(self, index: int) -> str:
        return os.fsdecode(os.path.basename(self._names[index]))


class Folder(Dataset):
    """A folder of images on disk.

    It reads root/train/<class>/* with root/val (or test), root/train alone or root/<class>/*
    with a seeded stratified split, and images without class folders, which get the one class
    "unlabelled" and provide images only. Class names come from both splits together, sorted, so a class
    that only val has keeps a separate label. Names match whichever way Unicode writes their accents (NFC, NFD).
    Empty class folders, empty files, hidden files and files that are no images are left out, with a note.

    Attributes:
        skipped: the unreadable images that were left out.
    """

    name = "folder"
    Config = FolderConfig
    config: FolderConfig

    def __init__(self, config: FolderConfig, cache: Path) -> None:
        super().__init__(config, cache)
        self.channels = config.channels
        self.root = require_root(self.config.root, self.name, "of an image folder")
        self._health: dict[str, FileCheck] = {}
        self._skipped: list[str] = []
        self._policy = PixelPolicy(
            None if config.range == "auto" else config.range,
            transparency=config.transparency,
            extra_bands=config.extra_bands,
            max_pixels=config.max_pixels,
        )
        self._content = self._open()
        self.classes, self.notes, self.facts = self._content.classes, self._content.notes, self._content.facts
        self.skipped = [self.root / name for name in self._content.skipped]
        if not self._content.is_labelled:
            self.provides = frozenset({"images"})

    def split(self, name: SplitName) -> FolderSplit:
        part = self._content.parts[name]
        return FolderSplit(self.root, part.names, part.labels, self.classes, self.channels, self._content.policy)

    def fingerprint(self) -> str:
        return self._content.fingerprint

    def _open(self) -> FolderContent:
        """The content of the folder: from the index if nothing has changed since that was written."""
        cls, options = type(self), self.config.model_dump(mode="json", exclude={"root", "decode"})
        index = FolderIndex(self.cache, self.root, (cls.__module__, cls.__qualname__, json.dumps(options)))
        content = index.load()
        if content is None:
            tree = TreeState.read(self.root, [path for path in self._split_folders() if path] or [self.root])
            content = self._read()
            index.save(tree, content)
        return content

    def _read(self) -> FolderContent:
        scan = FolderScan(self.root)
        samples = self._samples(scan)
        if "test" in samples:
            scan.leave_out_other_folders(*(path for path in self._split_folders() if path))
        self._note(*scan.notes(samples))
        self._matched(samples)  # names that do not match are refused before hours of decoding
        samples = self._check(samples)
        self._note(*self._matched(samples))
        self._settle(samples)
        parts = samples if "test" in samples else self._hold_out(samples["train"])
        labels = {sample.label for part in parts.values() for sample in part}
        classes = tuple(sorted(labels)) if labels != {""} else (UNLABELLED,)
        return FolderContent(
            parts={split: _part_of(part, classes) for split, part in parts.items()},
            classes=classes,
            is_labelled="" not in labels,
            policy=self._policy,
            fingerprint=self._digest(parts),
            notes=self.notes,
            facts=self.facts,
            skipped=tuple(self._skipped),
        )

    def _digest(self, parts: Mapping[str, list[Sample]]) -> str:
        by_name = self.config.fingerprint == "names"
        settings = (READER_VERSION, self.channels, self.config.fingerprint, *self._pixel_settings)
        digest = hashlib.sha256(repr(settings).encode())
        for split, part in sorted(parts.items()):
            lines = [
                (normalize_name(sample.name), sample.file.size if by_name else self._health[sample.file.name].digest)
                for sample in part
            ]
            digest.update(repr((split, sorted(lines))).encode())
        return digest.hexdigest()

    def _note(self, *notes: str) -> None:
        self.notes = (*self.notes, *notes)

    def _settle(self, samples: dict[str, list[Sample]]) -> None:
        """Decide the range of values from the images of both splits, and note what was decided."""
        seen = {
            split: {s.file.name: self._health[s.file.name].inspection for s in part if s.file.name in self._health}
            for split, part in samples.items()
        }
        settled = choose_range(self._policy, seen, printable(self.root))
        self._policy = settled.policy
        self._note(*settled.notes)
        settings = {name: getattr(self.config, name) for name in ("range", "transparency", "extra_bands")}
        self.facts = {**self.config.model_dump(mode="json", include=set(settings)), "kinds": settled.record}
        # Only what departs from the defaults, whose fingerprints are as they were before there was a choice.
        departures = {
            name: value for name, value in settings.items() if value != FolderConfig.model_fields[name].default
        }
        if settled.shapes_floats:
            departures["float_range"] = settled.policy.float_range
        self._pixel_settings = tuple(sorted(departures.items()))

    def _samples(self, scan: FolderScan) -> dict[str, list[Sample]]:
        """Every image by split; only "train" if the split is still to be drawn."""
        train, test = self._split_folders()
        if train is None:
            return {"train": scan.read(self.root)}
        if test is None:
            return {"train": scan.read(train)}
        samples = {"train": scan.read(train), "test": scan.read(test)}
        if len({sample.label == "" for part in samples.values() for sample in part}) > 1:
            raise InputError(
                f"one of {printable(train)} and {printable(test)} has class folders and the other has none: "
                "sort both into class folders, or neither"
            )
        return samples

    def _split_folders(self) -> tuple[Path | None, Path | None]:
        folders = {path.name.lower(): path for path in subfolders(self.root)}
        train, test = (folders[word] if (word := first_of(words, folders)) else None for words in (TRAIN, TEST))
        # Alone among other folders and without subfolders, "train" is a class of images of trains.
        if train is not None and test is None and len(folders) > 1 and not subfolders(train):
            return None, None
        return train, test if train is not None else None

    def _matched(self, samples: dict[str, list[Sample]]) -> list[str]:
        """Notes on the names of classes. Raises InputError if those of train and test do not match."""
        counts = {split: Counter(sample.label for sample in part) for split, part in samples.items()}
        notes = similar_classes({label for count in counts.values() for label in count})
        if "test" not in counts or "" in counts["train"]:
            return notes
        train, test = (printable(path) for path in self._split_folders() if path)
        return [*match_classes(counts["train"], counts["test"], train, test), *notes]

    def _check(self, samples: dict[str, list[Sample]]) -> dict[str, list[Sample]]:
        """Digest and decode as the config asks; report or drop what cannot be read."""
        if not self.config.verify and self.config.fingerprint == "names":
            return samples
        files = [sample.file for part in samples.values() for sample in part]
        # Any values are sound here: `_settle` judges their range for the set as a whole.
        policy = replace(self._policy, range=ANY_VALUES.range)
        self._health = check_files(files, self.root, self.cache, decode=self.config.verify, policy=policy)
        bad = [file.name for file in files if self._health[file.name].problem]
        if not bad:
            return samples
        if self.config.on_bad_image == "error":
            raise InputError(self._complaint(bad, len(files)))
        self._skipped = bad
        self._note(
            f"skipped {len(bad)} of {len(files)} images, unreadable, under {printable(self.root)}: {self._listed(bad)}"
        )
        gone = set(bad)
        good = {split: [s for s in part if s.file.name not in gone] for split, part in samples.items()}
        for split, part in good.items():
            if not part:
                raise InputError(f"every {split} image under {printable(self.root)} is unreadable: {self._listed(bad)}")
        return good

    def _complaint(self, bad: list[str], total: int) -> str:
        are = "is" if len(bad) == 1 else "are"
        health = [self._health[name] for name in bad]
        advice = ""
        if any(one.problem == EXTRA_BANDS for one in health):
            advice += "pass --set data.extra_bands=drop to read their colours alone, "
        if any(one.inspection.refused_at or one.inspection.pixels > self._policy.max_pixels for one in health):
            advice += "pass --set data.max_pixels=N if they are sound, "
        return (
            f"{len(bad)} of {total} images {are} unreadable under {printable(self.root)}: {self._listed(bad)}; "
            f"{advice}repair or remove them, or pass --set data.on_bad_image=skip to go on without them"
        )

    def _listed(self, bad: list[str]) -> str:
        return list_first([f"{printable(name)} ({self._health[name].problem})" for name in bad])

    def _hold_out(self, samples: list[Sample]) -> dict[str, list[Sample]]:
        labels = np.unique([sample.label for sample in samples], return_inverse=True)[1]
        config = self.config
        parts = held_out_indices(labels, config.val_fraction, config.split_seed, printable(self.root))
        return {name: [samples[index] for index in indices] for name, indices in parts.items()}


def _part_of(samples: Sequence[Sample], classes: Sequence[str]) -> Part:
    index = {label: number for number, label in enumerate(classes)}
    labels = np.array([index.get(sample.label, 0) for sample in samples], dtype=np.int64)
    return Part([os.fsencode(sample.file.name) for sample in samples], labels)
