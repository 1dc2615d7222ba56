"""What a command asks for, and the cells that it comes down to: each a task on a pretraining."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mimbench.contract import Dataset, ImageSplit, Task
from mimbench.errors import InputError
from mimbench.recipe import AT_EPOCH, PRETRAINED
from mimbench.recipe.document import values
from mimbench.recipe.resolve import Recipe
from mimbench.store.sealing import fingerprint
from mimbench.store.store import StoredCheckpoint


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
    """Run the tasks on this one, instead of pretraining; it says which method and encoder."""

    def passed(self) -> dict[str, Any]:
        """As plain data, for records."""
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
    """One encoder to be trained (or only initialised), whoever needs it."""

    recipe: Recipe
    seed: int
    dataset: Dataset
    fingerprint: str
    identity: Mapping[str, Any]
    """All that shapes the weights; its hash is the fingerprint."""
    checkpoint: StoredCheckpoint | None = None
    """Given from outside: nothing is left to be trained."""

    @property
    def channels(self) -> int:
        """Of the images that the encoder sees; grey ones are shown to an RGB encoder three times."""
        return self.identity["channels"]

    def tables(self) -> dict[str, Any]:
        """What it was made by, as records keep it: the resolved recipe, or the file that it was imported from."""
        tables = self.recipe.as_tables()
        if "imported" in self.identity:
            del tables["pretrain"]
            tables["imported"] = dict(self.identity["imported"])
        elif self.checkpoint:
            tables[PRETRAINED] = self._pretrained_otherwise(self.checkpoint.card["recipe"], tables)
        return tables

    def _pretrained_otherwise(self, pretrained: Mapping[str, Any], tables: Mapping[str, Any]) -> dict[str, Any]:
        """In what the recipe that a given checkpoint was pretrained with differs from that of this run, by path.

        Of another dataset, all options.
        """
        known = dict(values(tables))
        if pretrained.get("data", {}).get("name") != self.recipe.dataset:
            known = {path: value for path, value in known.items() if not path.startswith("data.")}
        configs = {name: getattr(self.recipe, name) for name in ("data", "input", "pretrain")}
        configs |= {"encoder": self.recipe.encoder_config, "method": self.recipe.method_config}
        differing = {}
        for path, value in values({name: pretrained[name] for name in configs if name in pretrained}):
            table, _, key = path.partition(".")
            if (path not in known or known[path] != value) and not configs[table].is_cosmetic(key):
                differing[path] = value
        return differing

    @cached_property
    def training(self) -> str:
        """Fingerprint of the training that it comes from: that of the weights at its end."""
        shaping = self.identity.get("pretrain", {})
        if self.checkpoint or "at_epoch" not in shaping:
            return self.fingerprint
        whole = {key: value for key, value in shaping.items() if key != "at_epoch"}
        return fingerprint({**self.identity, "pretrain": whole})

    @property
    def epoch(self) -> int:
        """After how many epochs of its training the weights are taken."""
        return self.recipe.pretrain.last_epoch

    @property
    def label(self) -> str:
        early = "" if self.training == self.fingerprint else f" at epoch {self.epoch}"
        return f"{self.recipe.method} seed {self.seed}{early}"

    def images(self) -> ImageSplit:
        """What is pretrained on. Raises InputError where the dataset has no plain images."""
        split = self.dataset.split("train")
        if not isinstance(split, ImageSplit):
            raise InputError(
                f"dataset {self.recipe.dataset!r} has no plain images to pretrain on; choose another data.name"
            )
        return split


@dataclass(frozen=True)
class Cell:
    """One record to be: a task on a pretraining."""

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


def varied_text(varied: Mapping[str, Any]) -> str:
    """Varied values as labels show them; the epoch is in the pretraining's label."""
    return "".join(f" {path}={value}" for path, value in varied.items() if path != AT_EPOCH)
