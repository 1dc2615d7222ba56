"""Records as a tidy pandas frame: one row per metric of each record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, Generic, TypeVar

import pandas as pd

from mimbench.errors import InputError
from mimbench.recipe import is_of_task
from mimbench.report.records.row import metric_values, recipe_values, record_values, to_json, value_at
from mimbench.report.records.settings import describe_settings
from mimbench.store.reading import read_all

T = TypeVar("T")

COLUMNS: dict[str, str] = {
    "method": "the method that pretrained the encoder",
    "setting": "in which settings its records in this frame differ, path=value; empty if in none. Never missing",
    "backbone": "the encoder as papers name it (ViT-B/16), else its plugin, width and depth",
    "task": "the downstream task",
    "protocol_name": "the protocol's name and departures; empty if the task was run without a named protocol",
    "dataset": "the task's dataset",
    "metric": "its name",
    "primary": "whether it is the task's primary metric",
    "value": "as measured, in `unit`",
    "unit": "percent, ...",
    "n": "number of samples that it was measured on",
    "seed": "seed of the pretraining and the task",
    "final": "whether the weights are those of the pretraining's last epoch or step",
    "at_epoch": "after how many epochs the weights were taken; missing if nothing was trained",
    "pretrain_epochs": "all epochs by the recipe; missing if its budget is in steps",
    "at_step": "after how many steps the weights were taken; missing if nothing was trained",
    "step_budget": "all optimizer steps by the recipe; missing if its budget is in epochs",
    "low": "lowest possible value",
    "high": "highest possible value",
    "higher_is_better": "whether a higher value is better",
    "chance": "value for random guesses; of the primary metric only",
    "encoder": "the encoder plugin",
    "recipe": "the recipe's name",
    "varied": "settings of --vary, path=value, without those of the task",
    "set": "settings of --set that shape the pretraining, path=value",
    "pretrain_dataset": "the dataset pretrained on",
    "image_size": "side of the images, px, by the recipe",
    "pretrain_seconds": "time that the pretraining took",
    "pretrain_images": "images that the pretraining saw",
    "pretrain_flops": "operations of the pretraining, 2 per multiplication with addition; counted",
    "pretrain_steps": "its optimizer steps",
    "pretrain_memory": "its peak memory, bytes",
    "pretrain_device": "its device",
    "seconds": "time that the task took",
    "images": "images that the task saw in training",
    "steps": "its optimizer steps",
    "memory": "its peak memory, bytes",
    "device": "its device",
    "precision": "number format that the task was computed in",
    "time": "when it was written, UTC; missing if the record does not say",
    "command": "the command that made the record",
    "commit": "commit of mimbench",
    "dirty": "whether that tree had uncommitted changes",
    "host": "the machine",
    "method_version": "the method's version",
    "encoder_version": "the encoder's version",
    "task_version": "the task's version",
    "dataset_version": "fingerprint of the dataset's content",
    "protocol": "fingerprint of all settings of the task that may change the score",
    "pretraining": "hash of all that shaped the weights except the seed: equal for the seeds of one mean",
    "checkpoint": "fingerprint of the pretraining",
    "weights_sha256": "hash of the encoder's weights",
    "id": "the record",
    "file": "its path",
    "protocol_json": "the whole protocol, as JSON",
    "recipe_json": "the resolved recipe, as JSON; missing if it is not known how the encoder was pretrained",
}
"""Columns of every frame in their order, and what each holds. A varied path (method.mask_ratio) is a further column."""


_BYTES = ("pretrain_memory", "memory")


def load_records(path: str | Path, paths: Sequence[str] = (), *, earlier_epochs: bool = False) -> pd.DataFrame:
    """The records below a folder as a tidy frame: one row per record and metric, the task's primary metric first.

    Every record's seal is checked. Records of other machines merge by copying their files into `records/`.
    `mimbench.summary` gives the means of the frame's seeds; so does a pivot table over method, setting and task.

    Args:
        path: a results folder, a folder of records, or a folder above.
        paths: recipe paths to add as columns, as "method.mask_ratio". Paths that a record varied are always added.
        earlier_epochs: keep records of earlier epochs of a pretraining even if there are records of the last one.

    Returns:
        A frame with the columns of COLUMNS, then one per path, with its value in the resolved recipe.

    Raises:
        InputError: no such folder, no record in it, a damaged record, or two records with one id and different content.
    """
    return build_frame(read_all(Path(path)), paths, earlier_epochs=earlier_epochs)


def build_frame(
    bodies: Iterable[tuple[Path | None, Mapping[str, Any]]], paths: Sequence[str] = (), *, earlier_epochs: bool = True
) -> pd.DataFrame:
    """As `load_records`, for records that are read already: plain data, each with its file."""
    bodies = list(bodies)
    varied = (path for _, body in bodies for path in body["varied"])
    paths = [path for path in dict.fromkeys([*paths, *varied]) if path not in COLUMNS]
    # The one place where order matters: values get the order of the columns, whatever the order of their dictionary.
    columns = [*COLUMNS, *paths]
    in_order = itemgetter(*columns)
    derived = {"final": None, "setting": None}
    recipes = _PerObject(recipe_values)
    protocols = _PerObject(to_json)
    rows: list[tuple[Any, ...]] = []
    for file, body in bodies:
        try:
            values = record_values(file, body, recipes(body["recipe"]), protocols(body["protocol"]))
            for path in paths:
                values[path] = value_at(body, path)
            for metric in metric_values(body):
                rows.append(in_order({**derived, **values, **metric}))
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"record {file} is not a valid record: {error!r}; see `mimbench verify`") from error
    tidy = pd.DataFrame(rows, columns=columns)
    by_epoch = tidy["at_epoch"].notna() & (tidy["at_epoch"] != tidy["pretrain_epochs"])
    by_step = tidy["at_step"].notna() & (tidy["at_step"] != tidy["step_budget"])
    tidy["final"] = ~(by_epoch | by_step)
    tidy["time"] = pd.to_datetime(tidy["time"], utc=True, errors="coerce", format="ISO8601")
    for name in _BYTES:
        tidy[name] = tidy[name].astype("Int64")
    if not earlier_epochs:
        tidy = tidy[~superseded_rows(tidy)].reset_index(drop=True)
    tidy["setting"] = describe_settings(tidy, [path for path in paths if not is_of_task(path)])
    return tidy


def to_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as dictionaries; missing values are None."""
    plain = table.astype(object).where(table.notna(), None)
    return [dict(zip(map(str, plain.columns), row, strict=True)) for row in plain.itertuples(index=False, name=None)]


def superseded_rows(tidy: pd.DataFrame) -> pd.Series:
    """A bool per row: whether it is not final, and the frame has the last epoch of its method for the same task."""
    pairs = list(zip(tidy["method"], tidy["task"], strict=True))
    pairs_with_last_epoch = {pair for pair, is_final in zip(pairs, tidy["final"], strict=True) if is_final}
    return ~tidy["final"] & pd.Series([pair in pairs_with_last_epoch for pair in pairs], index=tidy.index, dtype=bool)


class _PerObject(Generic[T]):
    """A function of a mapping, computed once per object: the reader lets records share equal recipes and protocols."""

    def __init__(self, function: Callable[[Mapping[str, Any]], T]) -> None:
        self._function = function
        self._results: dict[int, T] = {}

    def __call__(self, mapping: Mapping[str, Any]) -> T:
        key = id(mapping)  # records stay in memory while rows are built, so no other object gets this id
        if key not in self._results:
            self._results[key] = self._function(mapping)
        return self._results[key]
