"""Data sets of the library `datasets` (Hugging Face) on disk."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
from pydantic import Field

from mimbench.advice import short_text
from mimbench.contract import Dataset, ImageSplit, InputError, SplitName, cosmetic
from mimbench.data.files.cache import ensure_writable
from mimbench.data.files.image_reading import MAX_PIXELS, READER_VERSION, PixelPolicy, Source
from mimbench.data.files.listing import ImageFile, check_files
from mimbench.data.pipeline.encoded import EncodedConfig, EncodedSplit
from mimbench.data.pipeline.subsets import hold_out
from mimbench.data.sources.labels import UNLABELLED, number_labels
from mimbench.data.sources.optional import require_package
from mimbench.data.sources.root import require_root
from mimbench.data.sources.split_names import TEST, TRAIN, first_of, split_word
from mimbench.text import list_first, printable, quoted


class HuggingFaceConfig(EncodedConfig):
    """Options of a folder that `save_to_disk` wrote, or of a folder of parquet files."""

    train: str | None = None
    """Split to train on. Default: train (or training), or all rows if there are no splits. The split of a parquet file
    is such a word in its name or a folder's, or else its name up to the first "-": extra-00000-of-00005.parquet."""
    test: str | None = None
    """Split to evaluate on. Default: val, or else valid, validation, test or testing. If there is none, a share of the
    rows is held out."""
    image: str = "auto"
    """Column of the images. auto: the one column of the kind Image."""
    label: str = "auto"
    """Column of the labels, or none. auto: the one column of the kind ClassLabel, or else "label", or else none."""
    channels: Literal[1, 3] = 3
    """3: RGB. 1: grey."""
    val_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of the rows that is held out if there is no split to evaluate on."""
    split_seed: int = Field(default=0, ge=0)
    max_pixels: int = cosmetic(MAX_PIXELS, ge=1)
    """Images of more pixels are refused before they are decoded."""
    fingerprint: Literal["content", "names"] = cosmetic("content")
    """content: digest the bytes of the data files. names: their sizes and the labels only."""


class RowSplit(EncodedSplit):
    """Images of a table's column, decoded from their bytes."""

    def __init__(self, rows: Any, column: str, labels: np.ndarray, classes: tuple[str, ...], channels: int) -> None:
        """rows: a `datasets.Dataset` with this column alone, whose images are not decoded by it."""
        self.rows, self.column, self.classes, self.channels = rows, column, classes, channels
        self.labels = torch.from_numpy(labels.astype(np.int64))

    def __len__(self) -> int:
        return len(self.labels)

    def source(self, index: int) -> Source:
        value = self.rows[index][self.column]
        if value is None:
            raise ValueError("the row has no image")
        stream: IO[bytes] | Path = Path(value["path"]) if value["bytes"] is None else io.BytesIO(value["bytes"])
        return stream

    def place(self, index: int) -> str:
        return f"of row {index} in the column {quoted(self.column)}"


class HuggingFace(Dataset):
    """A data set of the library `datasets` on disk: what `save_to_disk` wrote, or a folder of parquet files.

    Nothing is downloaded. Arrow files are read in place; parquet files are converted to Arrow files in the cache once.
    """

    name = "huggingface"
    Config = HuggingFaceConfig
    config: HuggingFaceConfig

    def __init__(self, config: HuggingFaceConfig, cache: Path) -> None:
        super().__init__(config, cache)
        self.channels = config.channels
        self._library = require_package("datasets", "huggingface", self.name)
        self._library.disable_progress_bars()
        self.root = require_root(config.root, self.name, "of a folder of save_to_disk")
        try:
            tables, files = self._tables()
        except InputError:
            raise
        except Exception as error:  # Arrow, fsspec and the library raise errors of many kinds
            raise InputError(
                f"{self.name} cannot read {printable(self.root)} ({short_text(error)}): write it again, or check "
                "that it is a folder of save_to_disk or of parquet files"
            ) from error
        features = [dict(table.features) for table in tables.values()]
        image, label = self._image_column(features[0]), self._label_column(features[0])
        for column in filter(None, (image, label)):
            if any(str(one.get(column)) != str(features[0][column]) for one in features):
                raise InputError(f"the column {quoted(column)} differs between the splits of {printable(self.root)}")
        labels, self.classes = self._labels(tables, label)
        if self.classes == (UNLABELLED,):
            self.provides = frozenset({"images"})
        policy = PixelPolicy(max_pixels=config.max_pixels)
        self._splits: dict[str, ImageSplit] = {}
        for name, table in tables.items():
            if not len(table):
                raise InputError(f"the {name} split of {printable(self.root)} has no rows")
            rows = table.select_columns([image]).cast_column(image, self._library.Image(decode=False))
            split = RowSplit(rows, image, labels[name], self.classes, self.channels)
            split.policy = policy
            self._splits[name] = split
        self._fingerprint = self._digest(files, labels, (image, label, self.classes))
        if "test" not in self._splits:
            self._splits = hold_out(self._splits["train"], config.val_fraction, config.split_seed, printable(self.root))

    def split(self, name: SplitName) -> ImageSplit:
        return self._splits[name]

    def fingerprint(self) -> str:
        return self._fingerprint

    def _tables(self) -> tuple[dict[str, Any], dict[str, list[Path]]]:
        """Tables and their files by split; only "train" if rows are to be held out."""
        if (self.root / "dataset_dict.json").is_file():
            whole = self._library.load_from_disk(str(self.root))
            tables = {split: whole[name] for split, name in self._choose(list(whole)).items()}
            return tables, {split: _files_of(table) for split, table in tables.items()}
        if (self.root / "state.json").is_file():
            table = self._library.load_from_disk(str(self.root))
            for option, name in (("train", self.config.train), ("test", self.config.test)):
                if name is not None:
                    raise InputError(f"{printable(self.root)} is one table without splits: leave out data.{option}")
            return {"train": table}, {"train": _files_of(table)}
        parts = self._parquet_files()
        cache = ensure_writable(self.cache) / "parquet"
        tables = {
            split: self._library.Dataset.from_parquet([str(path) for path in paths], cache_dir=str(cache))
            for split, paths in parts.items()
        }
        return tables, parts

    def _parquet_files(self) -> dict[str, list[Path]]:
        """The parquet files by split; only "train" if rows are to be held out."""
        files = sorted(path for path in self.root.rglob("*.parquet") if path.is_file())
        if not files:
            raise InputError(
                f"{printable(self.root)} is no folder of save_to_disk and has no parquet files: pass --set "
                "data.root=PATH of one that is or has"
            )
        by_split: dict[str, list[Path]] = {}
        others: dict[str, list[str]] = {}
        for path in files:
            place = path.relative_to(self.root)
            word = split_word(place)
            name = word or place.stem.split("-")[0]
            by_split.setdefault(name, []).append(path)
            if not word:
                others.setdefault(name, []).append(printable(place))
        if self.config.train is None and self.config.test is None and len(others) == len(by_split):
            return {"train": files}
        return {split: by_split[name] for split, name in self._choose(list(by_split), others).items()}

    def _choose(self, names: Sequence[str], files: Mapping[str, Sequence[str]] | None = None) -> dict[str, str]:
        """Which splits of the data are "train" and "test".

        Args:
            files: those of splits whose name is only the beginning of the files' names. Notes list them.
        """
        config, files = self.config, files or {}
        shown = list_first(sorted(map(printable, names)), most=10)
        train = (first_of(TRAIN, names) or TRAIN[0]) if config.train is None else config.train
        for option, name in (("test", config.test), ("train", train)):
            if name is not None and name not in names:
                raise InputError(f"{printable(self.root)} has no split {name!r}: set data.{option} to one of {shown}")
        if config.test == train:
            raise InputError(f"data.train and data.test are both {train!r}: name different splits")
        test = config.test or first_of(TEST, [name for name in names if name != train])
        unused = sorted(set(names) - {train, test})
        if splits := [name for name in unused if name not in files]:
            self._note(f"left out the splits {', '.join(splits)} of {printable(self.root)}")
        if of_no_split := [file for name in unused for file in files.get(name, ())]:
            self._note(f"left out files of no known split: {list_first(of_no_split)}")
        return {"train": train} | ({"test": test} if test else {})

    def _note(self, note: str) -> None:
        self.notes = (*self.notes, note)

    def _image_column(self, features: Mapping[str, Any]) -> str:
        images = [name for name, kind in features.items() if isinstance(kind, self._library.Image)]
        chosen = self.config.image
        if chosen == "auto" and len(images) == 1:
            return images[0]
        if chosen in images:
            return chosen
        of_bytes = f"; its columns are {', '.join(features)}"
        have = f"has the image columns {', '.join(images)}" if images else f"has no column of the kind Image{of_bytes}"
        what = f"no image column {chosen!r}: it " if chosen != "auto" else ""
        raise InputError(f"{printable(self.root)} {'has ' if what else ''}{what}{have}: set data.image to one of them")

    def _label_column(self, features: Mapping[str, Any]) -> str | None:
        chosen = self.config.label
        if chosen == "none":
            return None
        if chosen != "auto":
            if chosen in features:
                return chosen
            raise InputError(
                f"{printable(self.root)} has no column {chosen!r}: set data.label to one of {', '.join(features)}"
            )
        classes = [name for name, kind in features.items() if isinstance(kind, self._library.ClassLabel)]
        if len(classes) > 1 and "label" not in classes:
            raise InputError(
                f"{printable(self.root)} has the label columns {', '.join(classes)}: set data.label to one of them"
            )
        if len(classes) == 1:
            return classes[0]
        return "label" if "label" in features else None

    def _labels(self, tables: Mapping[str, Any], column: str | None) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        unlabelled = {name: np.zeros(len(table), np.int64) for name, table in tables.items()}, (UNLABELLED,)
        if column is None:
            return unlabelled
        values = {name: table.select_columns([column])[:][column] for name, table in tables.items()}
        classes, numbers = number_labels([value for part in values.values() for value in part], printable(self.root))
        if not numbers:
            return unlabelled
        kind = next(iter(tables.values())).features[column]
        if isinstance(kind, self._library.ClassLabel):
            classes = tuple(kind.names)
        return {name: np.array([numbers[value] for value in part], np.int64) for name, part in values.items()}, classes

    def _digest(
        self, files: Mapping[str, Sequence[Path]], labels: Mapping[str, np.ndarray], columns: tuple[Any, ...]
    ) -> str:
        by_size = self.config.fingerprint == "names"
        settings: tuple[Any, ...] = (READER_VERSION, self.channels, self.config.fingerprint, columns)
        if "test" not in files:
            settings = (*settings, self.config.val_fraction, self.config.split_seed)
        digest = hashlib.sha256(repr(settings).encode())
        listed = {path: _listed(path, self.root) for part in files.values() for path in part}
        checks = {} if by_size else check_files(listed.values(), self.root, self.cache, decode=False)
        for name, part in sorted(files.items()):
            of_files = [listed[path].size if by_size else checks[listed[path].name].digest for path in part]
            digest.update(repr((name, of_files)).encode() + labels[name].astype("<i8").tobytes())
        return digest.hexdigest()


def _listed(path: Path, root: Path) -> ImageFile:
    stat = path.stat()
    return ImageFile(path.relative_to(root).as_posix(), stat.st_size, stat.st_mtime_ns)


def _files_of(table: Any) -> list[Path]:
    return [Path(file["filename"]) for file in table.cache_files]
