"""WebDataset shards on disk."""

from __future__ import annotations

import glob
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from mimbench.contract import Dataset, ImageSplit, InputError, SplitName, added, cosmetic
from mimbench.data.files.cache import ensure_writable
from mimbench.data.files.image_reading import MAX_PIXELS, READER_VERSION, PixelPolicy
from mimbench.data.files.shard_reading import OpenShards, ShardContent, read_shards
from mimbench.data.pipeline.encoded import EncodedConfig, EncodedSplit
from mimbench.data.pipeline.subsets import hold_out
from mimbench.data.sources.labels import UNLABELLED, number_labels
from mimbench.data.sources.optional import require_package
from mimbench.data.sources.root import require_root
from mimbench.data.sources.split_names import TEST, TRAIN, first_of, split_word
from mimbench.text import list_first, printable


class ShardConfig(EncodedConfig):
    """Options of WebDataset shards under `root`."""

    train: str | None = None
    """Shards to train on: paths under root with * or {000..999}. Default: the tar files with the word train (training)
    in their name or a folder's, or else all that are not evaluated on."""
    test: str | None = None
    """Shards to evaluate on. Default: the tar files with the word val in their name or a folder's, or else valid,
    validation, test or testing. If there are none, a share of the samples is held out."""
    image: str = "auto"
    """Ending of the image in each sample, such as "jpg" or "input.png". auto: the one file with an image's ending."""
    label: str = "auto"
    """Ending of the file with the label, such as "cls" or "txt", or "json:FIELD", or "none". auto: cls, or else
    json:label, or else none."""
    channels: Literal[1, 3] = 3
    """3: RGB. 1: grey."""
    open_shards: int = added(16, ge=1)
    """Shards whose samples are shuffled together. An epoch goes through the shards in a drawn order, so many at a
    time. 1 reads one after the other; the more, the better mixed are the batches. Other than 16, it is part of the
    pretraining's fingerprint."""
    val_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of the samples that is held out if there are no shards to evaluate on."""
    split_seed: int = Field(default=0, ge=0)
    max_pixels: int = cosmetic(MAX_PIXELS, ge=1)
    """Images of more pixels are refused before they are decoded."""
    fingerprint: Literal["content", "names"] = cosmetic("names")
    """names: digest names, labels and sizes of all samples. content: the bytes of all shards as well."""

    def shaping_of_training(self) -> dict[str, Any]:
        default = type(self).model_fields["open_shards"].default
        order = {} if self.open_shards == default else {"open_shards": self.open_shards}
        return {**super().shaping_of_training(), **order}


class ShardSplit(EncodedSplit):
    """Samples of shards, read from their places."""

    shards: Tensor

    def __init__(
        self,
        shards: Sequence[Path],
        contents: Sequence[ShardContent],
        labels: np.ndarray,
        classes: tuple[str, ...],
        channels: int,
        policy: PixelPolicy,
        open_shards: int,
    ) -> None:
        self.classes, self.channels, self.policy, self.open_shards = classes, channels, policy, open_shards
        self.labels = torch.from_numpy(labels)
        self.shards = torch.repeat_interleave(torch.tensor([len(content.samples) for content in contents]))
        samples = [sample for content in contents for sample in content.samples]
        self._places = np.array([(sample.offset, sample.size) for sample in samples], dtype=np.int64).reshape(-1, 2)
        names = [f"{sample.key}.{sample.ending}".encode(errors="surrogateescape") for sample in samples]
        self._names = np.array(names, dtype=np.bytes_)
        self._files = OpenShards(shards)

    def __len__(self) -> int:
        return len(self._places)

    def source(self, index: int) -> IO[bytes]:
        offset, size = self._places[index].tolist()
        return io.BytesIO(self._files.read(int(self.shards[index]), offset, size))

    def place(self, index: int) -> str:
        name = self._names[index].decode(errors="surrogateescape")
        return f"{printable(name)} in the shard {printable(self._files.paths[int(self.shards[index])])}"


class WebDataset(Dataset):
    """WebDataset shards: tar files with one sample per name, such as 0001.jpg with 0001.cls.

    The shards are not unpacked. Their headers are read once, and from then on each image from its place. An epoch goes
    through the shards in a drawn order, `open_shards` at a time, and shuffles the samples of these together. The order
    depends on the seed and the epoch alone, so that a training resumes within an epoch and is the same with any number
    of workers, and ranks share each batch as with any dataset.
    """

    name = "webdataset"
    Config = ShardConfig
    config: ShardConfig

    def __init__(self, config: ShardConfig, cache: Path) -> None:
        super().__init__(config, cache)
        self.channels = config.channels
        library = require_package("webdataset.tariterators", "webdataset", self.name)
        self.root = require_root(config.root, self.name, "of the folder with the shards")
        paths = self._shards()
        all_paths = [path for part in paths.values() for path in part]
        contents = dict(
            zip(
                all_paths,
                read_shards(
                    all_paths,
                    self.root,
                    ensure_writable(cache),
                    library.group_by_keys,
                    image=config.image,
                    label=config.label,
                    digest=config.fingerprint == "content",
                ),
                strict=True,
            )
        )
        values = [sample.label for content in contents.values() for sample in content.samples]
        self.classes, numbers = number_labels(values, printable(self.root))
        if self.classes == (UNLABELLED,):
            self.provides = frozenset({"images"})
        policy = PixelPolicy(max_pixels=config.max_pixels)
        self._splits: dict[str, ImageSplit] = {}
        for name, part in paths.items():
            of_split = [contents[path] for path in part]
            labels = np.array([numbers.get(s.label, 0) for content in of_split for s in content.samples], np.int64)
            self._splits[name] = ShardSplit(
                part, of_split, labels, self.classes, self.channels, policy, config.open_shards
            )
            if not len(labels):
                raise InputError(f"the {name} shards under {printable(self.root)} hold no samples")
        self._fingerprint = self._digest({name: [contents[path] for path in part] for name, part in paths.items()})
        if "test" not in self._splits:
            self._splits = hold_out(self._splits["train"], config.val_fraction, config.split_seed, printable(self.root))

    def split(self, name: SplitName) -> ImageSplit:
        return self._splits[name]

    def fingerprint(self) -> str:
        return self._fingerprint

    def _shards(self) -> dict[str, list[Path]]:
        """The shards by split; only "train" if samples are to be held out."""
        config = self.config
        if config.test is not None:
            if config.train is None:
                raise InputError("data.test needs data.train: name the shards to train on as well")
            named = {"train": self._matching(config.train, "train"), "test": self._matching(config.test, "test")}
            if both := sorted(set(named["train"]) & set(named["test"])):
                shown = list_first([printable(path.name) for path in both])
                raise InputError(f"data.train and data.test name the same shards: {shown}")
            return named
        shards = sorted(path for path in self.root.rglob("*.tar") if path.is_file())
        named_train = [] if config.train is None else self._matching(config.train, "train")
        if not shards and not named_train:
            raise InputError(f"no tar files under {printable(self.root)}: pass --set data.root=PATH of the shards")
        taken = set(named_train)
        words = {path: split_word(path.relative_to(self.root)) for path in shards if path not in taken}
        test_word = first_of(TEST, set(words.values()))
        test = [path for path, word in words.items() if test_word and word == test_word]
        train = named_train or [path for path, word in words.items() if word in TRAIN]
        if not train:
            train = [path for path, word in words.items() if word is None]
            if not train:
                train, test = shards, []
            held = "" if test else ", and holds out a share of their samples"
            self._note(f"no shards are named train: trains on {len(train)} shards{held}", train)
        used = {*train, *test}
        if others := [path for path in shards if path not in used]:
            self._note(f"left out {len(others)} other shards", others)
        return {"train": train, "test": test} if test else {"train": train}

    def _note(self, what: str, shards: Sequence[Path]) -> None:
        shown = list_first([printable(path.relative_to(self.root)) for path in shards])
        self.notes = (*self.notes, f"{what}: {shown}")

    def _matching(self, pattern: str, option: str) -> list[Path]:
        expand = require_package("braceexpand", "webdataset", self.name).braceexpand
        try:
            patterns = list(expand(pattern))
        except ValueError as error:
            raise InputError(f"data.{option}={pattern}: {error}") from error
        shards: list[Path] = []
        for one in patterns:
            matching = sorted(Path(path) for path in glob.glob(str(Path(glob.escape(str(self.root))) / one)))
            if not matching:
                raise InputError(f"data.{option}={pattern}: no file {one} under {printable(self.root)}")
            shards += matching
        if outside := [path for path in shards if not path.is_relative_to(self.root)]:
            raise InputError(f"data.{option}={pattern}: {printable(outside[0])} is not under data.root")
        return list(dict.fromkeys(shards))

    def _digest(self, parts: dict[str, list[ShardContent]]) -> str:
        """Of the samples in their order and shards."""
        config = self.config
        settings: tuple[Any, ...] = (READER_VERSION, self.channels, config.fingerprint)
        if "test" not in parts:
            settings = (*settings, config.val_fraction, config.split_seed)
        digest = hashlib.sha256(repr(settings).encode())
        for name, contents in sorted(parts.items()):
            for content in contents:
                lines = [(sample.key, sample.ending, sample.size, sample.label) for sample in content.samples]
                digest.update(repr((name, content.digest if config.fingerprint == "content" else "", lines)).encode())
        return digest.hexdigest()
