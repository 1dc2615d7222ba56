"""Estimates how long the rest of a plan will take, from the times of similar results on the same device."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
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
    """Estimated seconds, and what they do not include for lack of similar results."""

    pretraining: float = 0.0
    tasks: float = 0.0
    unknown: Counter[str] = field(default_factory=Counter)
    """What has no estimate, such as "pretraining mae" or "detection", and how often."""

    @property
    def seconds(self) -> float:
        return self.pretraining + self.tasks


class Estimator:
    """Estimates from the times in checkpoint cards and records. Damaged files are ignored.

    A pretraining: the images that it will see, times the median seconds per image of checkpoints with the same method,
    encoder and image size. If some of these have the same method options too, only they count.

    A task: the median seconds of records with the same protocol and encoder. If there are none, of records with the
    same task, dataset and encoder, scaled by the length of the training: by the ratio of epochs, or, for a budget in
    steps, of images.
    """

    def __init__(self, device: str) -> None:
        """device: its name, as `device_name` gives it. Times of other devices are ignored."""
        self.device = device
        self.checkpoints = self.records = 0
        # Number of training images by dataset.
        self._sizes: dict[str, int] = {}
        # (method options, seconds per image) by method, encoder and image size.
        self._rates: dict[str, list[tuple[str, float]]] = defaultdict(list)
        # Seconds by protocol and encoder.
        self._same_protocol: dict[str, list[float]] = defaultdict(list)
        # (epochs, images, seconds) by task, dataset and encoder.
        self._same_task: dict[str, list[tuple[float | None, float, float]]] = defaultdict(list)

    @classmethod
    def from_results(cls, root: Path, device: str) -> Estimator:
        """With the times of all checkpoints and records in a results folder."""
        estimator = cls(device)
        for add, pattern in (
            (estimator.add_card, f"checkpoints/[!.]*/{CARD}"),
            (estimator.add_record, "records/*.json"),
        ):
            for path in sorted(root.glob(pattern)):
                with suppress(*DAMAGE):
                    add(json.loads(path.read_text(encoding="utf-8")))
        return estimator

    def add_card(self, card: Mapping[str, Any]) -> None:
        """Use the time of a checkpoint, from its card as plain data. Raises one of DAMAGE if the card is damaged."""
        cost, what = card.get("cost", {}), card.get("what", {})
        if cost.get("device") == self.device and cost.get("images_seen") and "pretrain" in what:
            rate = cost["seconds"] / cost["images_seen"]
            self._rates[_training_key(what)].append((fingerprint(what["method"]), rate))
            self.checkpoints += 1

    def add_record(self, record: Mapping[str, Any]) -> None:
        """Use the time of a record, as plain data. Raises one of DAMAGE if it is damaged."""
        cost, protocol = record.get("cost", {}), record.get("protocol", {})
        if cost.get("device") == self.device and "encoder" in record.get("recipe", {}):
            encoder, seconds = record["recipe"]["encoder"], float(cost["seconds"])
            self._same_task[_task_key(protocol, encoder)].append(
                (_training(protocol).get("epochs"), float(cost.get("images_seen", 0)), seconds)
            )
            self._same_protocol[fingerprint([protocol, encoder])].append(seconds)
            self.records += 1

    def pretraining_seconds(self, pretraining: Pretraining) -> float | None:
        """Seconds, or None if nothing similar was trained before."""
        if not pretraining.trains:
            return 0.0
        rates = self._rates.get(_training_key(pretraining.identity), [])
        if not rates:
            return None
        own_options = fingerprint(pretraining.identity["method"])
        same_options = [rate for options, rate in rates if options == own_options]
        return self._count_images(pretraining) * median(same_options or [rate for _, rate in rates])

    def _count_images(self, pretraining: Pretraining) -> int:
        """Images that it will see, counted in each epoch; incomplete batches are dropped."""
        data, train = fingerprint(pretraining.identity["data"]), pretraining.recipe.pretrain
        if data not in self._sizes:
            self._sizes[data] = pretraining.image_count
        per_unit = self._sizes[data] // train.batch_size if train.unit == "epoch" else 1
        return train.end * per_unit * train.batch_size

    def task_seconds(self, cell: Cell) -> float | None:
        """Seconds, or None if nothing similar was measured before."""
        encoder = cell.pretraining.recipe.as_tables()["encoder"]
        same_protocol = self._same_protocol.get(fingerprint([cell.protocol, encoder]))
        if same_protocol:
            return median(same_protocol)
        same_task = self._same_task.get(_task_key(cell.protocol, encoder))
        if not same_task:
            return None
        train = _training(cell.protocol)
        epochs, images = train.get("epochs"), (train.get("steps") or 0) * train.get("batch_size", 0)
        scaled = []
        for epochs_before, images_before, seconds in same_task:
            if images and images_before:
                scaled.append(seconds * images / images_before)
            elif epochs and epochs_before:
                scaled.append(seconds * epochs / epochs_before)
            elif not (epochs and images_before):  # the epochs of a record whose budget is in steps are not known
                scaled.append(seconds)
        return median(scaled) if scaled else None

    def estimate(self, pretrainings: Iterable[Pretraining], cells: Iterable[Cell]) -> Estimate:
        """For all of these, run one after the other. A training counts once, up to its last checkpoint."""
        estimate = Estimate()
        trainings: dict[str, Pretraining] = {}
        for pretraining in pretrainings:
            longest = trainings.get(pretraining.training, pretraining)
            trainings[pretraining.training] = max(pretraining, longest, key=lambda one: one.end)
        for pretraining in trainings.values():
            seconds = self.pretraining_seconds(pretraining)
            if seconds is None:
                estimate.unknown[f"pretraining {pretraining.recipe.method}"] += 1
            estimate.pretraining += seconds or 0.0
        for cell in cells:
            seconds = self.task_seconds(cell)
            if seconds is None:
                estimate.unknown[cell.task.name] += 1
            estimate.tasks += seconds or 0.0
        return estimate


def _training_key(what: Mapping[str, Any]) -> str:
    """Trainings whose images change their size are similar only if they have the same sizes."""
    sizes = what.get("pretrain", {}).get("image_sizes", [])
    return fingerprint([what["method"]["name"], what["encoder"], what["image_size"], what.get("frames", 1), sizes])


def _task_key(protocol: Mapping[str, Any], encoder: Mapping[str, Any]) -> str:
    return fingerprint([protocol.get("task"), protocol.get("dataset"), encoder])


def _training(protocol: Mapping[str, Any]) -> Mapping[str, Any]:
    """The training options of a protocol; empty if the task does not train."""
    train = protocol.get("train")
    return train if isinstance(train, Mapping) else {}
