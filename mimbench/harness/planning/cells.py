"""A request, and the cells that it expands to: each is a task on a pretraining."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from mimbench.contract import DataChoice, Dataset, ImageSplit, Task
from mimbench.data import count_training_images, training_images
from mimbench.errors import InputError
from mimbench.recipe import AT, PRETRAINED
from mimbench.recipe.document import values
from mimbench.recipe.resolve import Recipe
from mimbench.store.sealing import fingerprint
from mimbench.store.store import StoredCheckpoint

_DRAWN: weakref.WeakKeyDictionary[Dataset, weakref.WeakValueDictionary[DataChoice, ImageSplit]] = (
    weakref.WeakKeyDictionary()
)
"""Training images in use, by dataset and choice."""


@dataclass(frozen=True)
class Request:
    """One `mimbench run`, parsed."""

    methods: Sequence[str]
    tasks: Sequence[str]
    recipe: str
    seeds: Sequence[int] = (0,)
    settings: Mapping[str, Any] = field(default_factory=dict)
    variations: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    checkpoint: StoredCheckpoint | None = None
    """Run the tasks on this checkpoint instead of pretraining. It determines method and encoder."""

    def passed(self) -> dict[str, Any]:
        """The request as plain JSON data, for records."""
        return {
            "methods": list(self.methods),
            "tasks": list(self.tasks),
            "recipe": self.recipe,
            "seeds": list(self.seeds),
            "set": dict(self.settings),
            "vary": {path: list(values) for path, values in self.variations.items()},
            "checkpoint": self.checkpoint.card["fingerprint"] if self.checkpoint else None,
        }


@dataclass(frozen=True)
class Pretraining:
    """One encoder to be trained, or only initialised, from one recipe and one seed. Several cells may share it."""

    recipe: Recipe
    seed: int
    dataset: Dataset
    fingerprint: str
    identity: Mapping[str, Any]
    """Everything that shapes the weights. Its hash is the fingerprint."""
    checkpoint: StoredCheckpoint | None = None
    """The checkpoint that --checkpoint names, so that nothing has to be trained; else None."""

    @property
    def trains(self) -> bool:
        """Whether there is something to train: not for a control that stays as initialised, or with a checkpoint."""
        return self.recipe.method_class().pretrains and self.checkpoint is None

    @property
    def channels(self) -> int:
        """Channels of the encoder's input. An RGB encoder gets grey images with their channel repeated."""
        return self.identity["channels"]

    def tables(self) -> dict[str, Any]:
        """The resolved recipe as records hold it, with the source of an imported or chosen checkpoint."""
        tables = self.recipe.as_tables()
        if "imported" in self.identity:
            del tables["pretrain"]
            tables["imported"] = dict(self.identity["imported"])
            if self.checkpoint and (revision := self.checkpoint.card.get("imported", {}).get("revision")):
                tables["imported"]["revision"] = revision
        elif self.checkpoint:
            tables[PRETRAINED] = self._differences_of_checkpoint(self.checkpoint.card["recipe"], tables)
        return tables

    def _differences_of_checkpoint(self, pretrained: Mapping[str, Any], tables: Mapping[str, Any]) -> dict[str, Any]:
        """Settings by path in which the recipe of the checkpoint differs from the recipe of this run.

        Cosmetic settings are left out. If the checkpoint was pretrained on another dataset, all options of that
        dataset are included.

        Args:
            pretrained: the recipe in the card of the checkpoint, as tables.
            tables: the recipe of this run.
        """
        current = dict(values(tables))
        if pretrained.get("data", {}).get("name") != self.recipe.dataset:
            current = {path: value for path, value in current.items() if not path.startswith("data.")}
        configs = {name: getattr(self.recipe, name) for name in ("data", "input", "pretrain")}
        configs |= {"encoder": self.recipe.encoder_config, "method": self.recipe.method_config}
        differing = {}
        for path, value in values({name: pretrained[name] for name in configs if name in pretrained}):
            table, _, key = path.partition(".")
            differs = path not in current or current[path] != value
            if differs and not configs[table].is_cosmetic(key):
                differing[path] = value
        return differing

    @cached_property
    def training(self) -> str:
        """Fingerprint of the training: that of the weights after its last step."""
        shaping = self.identity.get("pretrain", {})
        whole = {key: value for key, value in shaping.items() if f"pretrain.{key}" not in AT}
        if self.checkpoint or whole == shaping:
            return self.fingerprint
        return fingerprint({**self.identity, "pretrain": whole})

    @property
    def end(self) -> int:
        """Number of epochs or steps of the training, by its `unit`, after which the weights are taken."""
        return self.recipe.pretrain.end

    @property
    def unit(self) -> Literal["epoch", "step"]:
        return self.recipe.pretrain.unit

    @property
    def label(self) -> str:
        """For messages, such as "mae seed 0 at epoch 100"."""
        early = "" if self.training == self.fingerprint else f" at {self.unit} {self.end}"
        return f"{self.recipe.method} seed {self.seed}{early}"

    def images(self) -> ImageSplit:
        """The training images: all, or the share that the recipe sets, and the planted ones.

        A share of images in memory is a copy of them. All who ask for the same images get the same copy, which is freed
        when nobody holds it.

        Raises:
            InputError: the dataset has no plain images.
        """
        choice = DataChoice.from_config(self.recipe.pretrain)
        drawn = _DRAWN.setdefault(self.dataset, weakref.WeakValueDictionary())
        images = drawn.get(choice)
        if images is None:
            images = drawn[choice] = training_images(self._split(), choice)
        return images

    @cached_property
    def image_count(self) -> int:
        """Number of training images.

        Raises:
            InputError: as `images`.
        """
        return count_training_images(self._split(), DataChoice.from_config(self.recipe.pretrain))

    def _split(self) -> ImageSplit:
        split = self.dataset.split("train")
        if not isinstance(split, ImageSplit):
            raise InputError(
                f"dataset {self.recipe.dataset!r} has no plain images to pretrain on; choose another data.name"
            )
        return split


@dataclass(frozen=True)
class Cell:
    """One record to be made: a task on a pretraining."""

    pretraining: Pretraining
    task: Task
    dataset_name: str
    dataset: Dataset
    protocol: Mapping[str, Any]
    varied: Mapping[str, Any]
    record_id: str

    @property
    def label(self) -> str:
        return f"{self.task.name} of {self.pretraining.label}{varied_text(self.varied)}"


def distinct_pretrainings(cells: Iterable[Cell]) -> dict[str, Pretraining]:
    """The pretrainings of these cells, by fingerprint."""
    return {cell.pretraining.fingerprint: cell.pretraining for cell in cells}


def varied_text(varied: Mapping[str, Any]) -> str:
    """Varied settings as labels show them. The epoch or step is left out, since the pretraining's label shows it."""
    return "".join(f" {path}={value}" for path, value in varied.items() if path not in AT)
