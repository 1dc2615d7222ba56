"""Records as a tidy pandas frame: one row for each metric of each record."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mimbench.errors import InputError
from mimbench.recipe import AT_EPOCH, PRETRAINED, is_of_task
from mimbench.store.reading import read_all

COLUMNS: dict[str, str] = {
    "id": "the record",
    "file": "where it lies",
    "method": "the method pretrained",
    "method_version": "its version",
    "encoder": "the encoder plugin",
    "encoder_version": "its version",
    "backbone": "the encoder as papers call its size (ViT-B/16), or plugin, width and depth",
    "task": "the downstream task",
    "task_version": "its version",
    "dataset": "the task's dataset",
    "dataset_version": "fingerprint of its content",
    "protocol": "fingerprint of all that may change the score",
    "protocol_name": "the protocol's name, and the options that depart from it; empty where the task has none",
    "protocol_json": "the whole protocol, as JSON",
    "seed": "of the pretraining and the task",
    "varied": "what --vary gave this cell but for the task's own settings: path=value",
    "set": "what --set gave, likewise",
    "recipe": "the recipe's name",
    "recipe_json": "the resolved recipe, as JSON; missing where how the encoder was pretrained is not known",
    "pretraining": "hash of all that shaped the weights but the seed: equal for the seeds of one mean",
    "checkpoint": "fingerprint of the pretraining",
    "weights_sha256": "of the encoder's weights",
    "pretrain_dataset": "the dataset pretrained on",
    "pretrain_epochs": "by the recipe",
    "at_epoch": "after how many of them the weights were taken; missing where nothing was trained",
    "image_size": "side of the images, px, by the recipe",
    "metric": "its name",
    "primary": "whether it is the task's primary metric",
    "value": "as measured, in `unit`",
    "unit": "percent, ...",
    "n": "samples it was measured over",
    "low": "least possible value",
    "high": "largest possible value",
    "higher_is_better": "the metric's direction",
    "chance": "what knowing nothing gives; of the primary metric only",
    "pretrain_seconds": "cost of the pretraining: time",
    "pretrain_images": "images seen",
    "pretrain_steps": "optimizer steps",
    "pretrain_memory": "peak, bytes",
    "pretrain_device": "and its device",
    "seconds": "cost of the task: time",
    "images": "images seen in training",
    "steps": "optimizer steps",
    "memory": "peak, bytes",
    "device": "and its device",
    "precision": "numbers that the task was computed in",
    "time": "when it was written, UTC",
    "command": "that made it",
    "commit": "of mimbench",
    "dirty": "whether that tree had uncommitted changes",
    "host": "the machine",
}
"""Columns of every frame, and what each holds. A varied path (method.mask_ratio) is a further column of that name."""

_VALUE = ("value", "unit", "n", "low", "high", "higher_is_better")
_SIZES = {
    ("vit", 192, 12): "Ti",
    ("vit", 384, 12): "S",
    ("vit", 768, 12): "B",
    ("vit", 1024, 24): "L",
    ("vit", 1280, 32): "H",
    ("swin", 96, (2, 2, 6, 2)): "T",
    ("swin", 96, (2, 2, 18, 2)): "S",
    ("swin", 128, (2, 2, 18, 2)): "B",
    ("swin", 192, (2, 2, 18, 2)): "L",
    ("convnext", 96, (3, 3, 9, 3)): "T",
    ("convnext", 96, (3, 3, 27, 3)): "S",
    ("convnext", 128, (3, 3, 27, 3)): "B",
    ("convnext", 192, (3, 3, 27, 3)): "L",
}


def load_records(path: str | Path, paths: Sequence[str] = ()) -> pd.DataFrame:
    """The records below `path` (a results folder, a folder of records, or one above) as a tidy frame.

    One row for each (record, metric), the task's primary metric first; columns as COLUMNS tells, and one for each
    path that a record varied or `paths` asks for ("method.mask_ratio"), with its value in the resolved recipe.
    Every record's seal is checked. Records of another machine merge by copying their files into `records/`.

    Raises:
        InputError: no such folder, no record in it, a damaged record, or two of one id and different content.
    """
    return build_frame(read_all(Path(path)), paths)


def build_frame(bodies: Iterable[tuple[Path | None, Mapping[str, Any]]], paths: Sequence[str] = ()) -> pd.DataFrame:
    """As `load_records`, of records already read: plain data, each with its file."""
    bodies = list(bodies)
    paths = list(dict.fromkeys([*paths, *(path for _, body in bodies for path in body["varied"])]))
    told: dict[int, tuple[Any, ...]] = {}
    rows: list[tuple[Any, ...]] = []
    for file, body in bodies:
        try:
            rows.extend(_rows(file, body, paths, told))
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"record {file} is not a valid record: {error!r}; see `mimbench verify`") from error
    columns = [*COLUMNS, *(path for path in paths if path not in COLUMNS)]
    return pd.DataFrame(rows, columns=columns)


def to_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as plain data; what is missing is None."""
    plain = table.astype(object).where(table.notna(), None)
    return [dict(zip(map(str, plain.columns), row, strict=True)) for row in plain.itertuples(index=False, name=None)]


def is_early(row: Mapping[str, Any]) -> bool:
    """Whether a row is of an earlier epoch of a pretraining than its last."""
    return row["at_epoch"] not in (None, row["pretrain_epochs"])


def early_rows(tidy: pd.DataFrame) -> pd.Series:
    """Which rows are, as `is_early` tells."""
    return _flags(tidy, map(is_early, to_rows(tidy[["at_epoch", "pretrain_epochs"]])))


def superseded_rows(tidy: pd.DataFrame) -> pd.Series:
    """Which of them are of a method that has the end too, for the same task."""
    found = early_rows(tidy)
    pairs = list(zip(tidy["method"], tidy["task"], strict=True))
    ends = {pair for pair, is_found in zip(pairs, found, strict=True) if not is_found}
    return found & _flags(tidy, (pair in ends for pair in pairs))


def _flags(tidy: pd.DataFrame, values: Iterable[bool]) -> pd.Series:
    return pd.Series(list(values), index=tidy.index, dtype=bool)


def _rows(
    file: Path | None, body: Mapping[str, Any], paths: Sequence[str], told: dict[int, tuple[Any, ...]]
) -> Iterable[tuple[Any, ...]]:
    recipe, cost, checkpoint, made = body["recipe"], body["cost"], body["checkpoint"], body["provenance"]
    spent = checkpoint["cost"]
    known = told.get(id(recipe))  # one object where records share their recipe, see Reader
    if known is None:
        encoder = recipe.get("encoder", {})
        known = told[id(recipe)] = (
            name_backbone(body["encoder"]["name"], encoder),
            _as_pretrained(recipe, "data", "name"),
            _as_pretrained(recipe, "pretrain", "epochs"),
            recipe.get("input", {}).get("image_size"),
            json.dumps(recipe, sort_keys=True, ensure_ascii=False),
        )
    passed = body["recipe_passed"].get("set", {})
    protocol = body["protocol"]
    text = told.get(id(protocol))
    if text is None:
        text = told[id(protocol)] = (json.dumps(protocol, sort_keys=True, ensure_ascii=False),)
    before = (
        body["id"],
        str(file or ""),
        body["method"]["name"],
        body["method"]["version"],
        body["encoder"]["name"],
        body["encoder"]["version"],
        known[0],
        body["task"]["name"],
        body["task"]["version"],
        body["dataset"]["name"],
        body["dataset"]["version"],
        body["protocol_fingerprint"],
        _protocol_name(body, passed),
        text[0],
        body["seed"],
        _settings(body["varied"]),
        _settings(passed),
        body["recipe_name"],
        known[4] if _is_pretraining_known(body) else None,
        body["pretraining"],
        checkpoint["fingerprint"],
        checkpoint["weights_sha256"],
        *known[1:3],
        _at(body, AT_EPOCH),
        known[3],
    )
    after = (
        spent["seconds"],
        spent["images_seen"],
        spent["steps"],
        spent["peak_memory"],
        spent["device"],
        cost["seconds"],
        cost["images_seen"],
        cost["steps"],
        cost["peak_memory"],
        cost["device"],
        cost["precision"],
        made.get("time"),
        made.get("command"),
        made.get("commit"),
        made.get("dirty"),
        made.get("host"),
        *(_at(body, path) for path in paths if path not in COLUMNS),
    )
    for index, (name, value) in enumerate(body["metrics"].items()):
        chance = body["chance"] if index == 0 else None
        yield (*before, name, index == 0, *(value[key] for key in _VALUE), chance, *after)


def name_backbone(encoder: str, options: Mapping[str, Any]) -> str:
    """An encoder as papers call it: "ViT-B/16", "Swin-B", "ResNet-50"; else its plugin with width and depth."""
    depth = options.get("depths", options.get("depth"))
    depth = tuple(depth) if isinstance(depth, list | tuple) else depth
    width = (options.get("dims") or [options.get("embed_dim")])[0]
    size = _SIZES.get((encoder, width, depth))
    if encoder == "vit" and depth:
        return f"ViT-{size}/{options['patch_size']}" if size else f"vit {width}x{depth}/{options['patch_size']}"
    if encoder == "resnet" and isinstance(depth, tuple):
        return f"ResNet-{sum(depth) * (2 if options.get('block') == 'basic' else 3) + 2}"
    if size:
        return f"{'Swin' if encoder == 'swin' else 'ConvNeXt'}-{size}"
    return f"{encoder} {width} {'-'.join(map(str, depth))}" if isinstance(depth, tuple) and width else encoder


def _as_pretrained(recipe: Mapping[str, Any], table: str, key: str) -> Any:
    """An option of the recipe that the encoder was pretrained with; None for an imported checkpoint.

    Under PRETRAINED, a recipe holds what differs in the pretraining of a given checkpoint.
    """
    if "imported" in recipe:
        return None
    return recipe.get(PRETRAINED, {}).get(f"{table}.{key}", recipe.get(table, {}).get(key))


def _is_pretraining_known(body: Mapping[str, Any]) -> bool:
    """Not that of an imported checkpoint, nor that of a given one in records that do not note its recipe."""
    recipe = body["recipe"]
    return "imported" not in recipe and (PRETRAINED in recipe or not body["recipe_passed"].get("checkpoint"))


def _protocol_name(body: Mapping[str, Any], passed: Mapping[str, Any]) -> str:
    """The protocol's name, then the options of the task that depart from it."""
    name = body["recipe"].get("task", {}).get("protocol")
    if not name:
        return ""
    departed = body.get("departures")
    if departed is None:  # an older record: what a recipe file changed is not known
        prefixes = ("task.", f"tasks.{body['task']['name']}.")
        departed = {
            path.split(".", 1)[1]: value
            for path, value in {**passed, **body["varied"]}.items()
            if path.startswith(prefixes) and path.rsplit(".", 1)[-1] != "protocol" and ".data" not in path
        }
    return format_protocol(name, departed)


def format_protocol(name: str, departures: Mapping[str, Any]) -> str:
    """A protocol's name and the options that depart from it: "mae, train.epochs=50"."""
    return ", ".join([name, *(f"{path}={value}" for path, value in departures.items())])


def _settings(settings: Mapping[str, Any]) -> str:
    """Text of what was set, but for the task's own settings: these are in its protocol."""
    return " ".join(f"{path}={value}" for path, value in settings.items() if not is_of_task(path))


def _at(body: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path of the resolved recipe; a list as text; None where it has none.

    Where nothing was pretrained, and nothing of [pretrain] varied, its paths have none: they tell of no training.
    """
    here: Any = body["recipe"]
    if path.startswith("pretrain."):
        trained = body["checkpoint"]["cost"]["steps"] > 0
        if path == AT_EPOCH:  # absent, it is the end
            at = _as_pretrained(here, "pretrain", "at_epoch")
            return _as_pretrained(here, "pretrain", "epochs") if at is None and trained else at
        if not trained and not any(name.startswith("pretrain.") for name in body["varied"]):
            return None
    for key in path.split("."):
        if not isinstance(here, Mapping) or key not in here:
            here = body["varied"].get(path)
            break
        here = here[key]
    return json.dumps(here) if isinstance(here, list | dict) else here
