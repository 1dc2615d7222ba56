"""How long what is left will take, from what the same things took before on the same device."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from mimbench.harness.planning.cells import Cell, Pretraining
from mimbench.store.sealing import DAMAGE, fingerprint
from mimbench.store.store import CARD


@dataclass
class Estimate:
    """Seconds of all that there is an estimate for, and the names of what there is none for."""

    pretraining: float = 0.0
    tasks: float = 0.0
    unknown: dict[str, int] = field(default_factory=dict)
    """What has no estimate: "pretraining mae" or "detection" -> how many."""

    @property
    def seconds(self) -> float:
        return self.pretraining + self.tasks


class Estimator:
    """Speeds noted in checkpoints' cards and records; damaged files are passed over, they are not trusted here.

    A pretraining takes the median seconds per image of those with the same method, encoder and image size
    (and the same options of the method, where there are such), times the images that it will see. A task takes
    the median seconds of those with the same protocol and encoder, or else of the same task, dataset and
    encoder, by the ratio of the epochs where both train.
    """

    def __init__(self, device: str) -> None:
        """`device` in words, as records name it: times of other devices say nothing."""
        self.device = device
        self.checkpoints = self.records = 0
        self._sizes: dict[str, int] = {}
        self._rates: dict[str, list[tuple[str, float]]] = defaultdict(list)
        self._exact: dict[str, list[float]] = defaultdict(list)
        self._near: dict[str, list[tuple[float | None, float]]] = defaultdict(list)

    @classmethod
    def of_results(cls, root: Path, device: str) -> Estimator:
        """With all that a results folder knows."""
        found = cls(device)
        for add, pattern in ((found.add_card, f"checkpoints/[!.]*/{CARD}"), (found.add_record, "records/*.json")):
            for path in sorted(root.glob(pattern)):
                with suppress(*DAMAGE):
                    add(json.loads(path.read_text(encoding="utf-8")))
        return found

    def add_card(self, card: Mapping[str, Any]) -> None:
        cost, what = card.get("cost", {}), card.get("what", {})
        if cost.get("device") == self.device and cost.get("images_seen") and "pretrain" in what:
            rate = cost["seconds"] / cost["images_seen"]
            self._rates[_training_key(what)].append((fingerprint(what["method"]), rate))
            self.checkpoints += 1

    def add_record(self, record: Mapping[str, Any]) -> None:
        """A record as plain data."""
        cost, protocol = record.get("cost", {}), record.get("protocol", {})
        if cost.get("device") == self.device and "encoder" in record.get("recipe", {}):
            encoder, seconds = record["recipe"]["encoder"], float(cost["seconds"])
            self._near[_task_key(protocol, encoder)].append((_epochs(protocol), seconds))
            self._exact[fingerprint([protocol, encoder])].append(seconds)
            self.records += 1

    def pretraining(self, wanted: Pretraining) -> float | None:
        """Seconds, or None where nothing like it was trained before."""
        if not wanted.recipe.method_class().pretrains or wanted.checkpoint:
            return 0.0
        known = self._rates.get(_training_key(wanted.identity), [])
        if not known:
            return None
        options = fingerprint(wanted.identity["method"])
        same = [rate for method, rate in known if method == options]
        return self._images(wanted) * median(same or [rate for _, rate in known])

    def _images(self, wanted: Pretraining) -> int:
        """How many it will see."""
        data, train = fingerprint(wanted.identity["data"]), wanted.recipe.pretrain
        if data not in self._sizes:
            self._sizes[data] = len(wanted.images())
        return wanted.epoch * (self._sizes[data] // train.batch_size) * train.batch_size

    def task(self, cell: Cell) -> float | None:
        """Seconds, or None where nothing like it was measured before."""
        encoder = cell.pretraining.recipe.as_tables()["encoder"]
        exact = self._exact.get(fingerprint([cell.protocol, encoder]))
        if exact:
            return median(exact)
        near = self._near.get(_task_key(cell.protocol, encoder))
        if not near:
            return None
        epochs = _epochs(cell.protocol)
        return median(seconds * epochs / theirs if epochs and theirs else seconds for theirs, seconds in near)

    def of(self, pretrainings: Iterable[Pretraining], cells: Iterable[Cell]) -> Estimate:
        """Of all of these together, one after the other; of epochs of one training, the last comprises the others."""
        estimate = Estimate()
        trainings: dict[str, Pretraining] = {}
        for wanted in pretrainings:
            trainings[wanted.training] = max(wanted, trainings.get(wanted.training, wanted), key=lambda one: one.epoch)
        for wanted in trainings.values():
            seconds = self.pretraining(wanted)
            if seconds is None:
                _count(estimate.unknown, f"pretraining {wanted.recipe.method}")
            estimate.pretraining += seconds or 0.0
        for cell in cells:
            seconds = self.task(cell)
            if seconds is None:
                _count(estimate.unknown, cell.task.name)
            estimate.tasks += seconds or 0.0
        return estimate


def in_words(seconds: float) -> str:
    """A duration as a person would say it: "40 s", "12 min", "3 h 5 min", "2 d 4 h"."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def _training_key(what: Mapping[str, Any]) -> str:
    return fingerprint([what["method"]["name"], what["encoder"], what["image_size"]])


def _task_key(protocol: Mapping[str, Any], encoder: Mapping[str, Any]) -> str:
    return fingerprint([protocol.get("task"), protocol.get("dataset"), encoder])


def _epochs(protocol: Mapping[str, Any]) -> float | None:
    train = protocol.get("train")
    return train.get("epochs") if isinstance(train, Mapping) else None


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1
