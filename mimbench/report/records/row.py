"""One record as values by column. The order of columns is the frame's business."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mimbench.recipe import AT, AT_EPOCH, AT_STEP, PRETRAINED, is_of_task
from mimbench.report.records.backbones import name_backbone
from mimbench.report.records.mask_ratio import MASK_RATIO, derive_mask_ratio


def to_json(data: Mapping[str, Any]) -> str:
    """JSON with sorted keys: equal for equal data."""
    return json.dumps(data, sort_keys=True, ensure_ascii=False)


def recipe_values(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Columns that follow from a recipe alone."""
    return {
        "recipe_json": to_json(recipe),
        "pretrain_dataset": _pretraining_option(recipe, "data", "name"),
        "pretrain_epochs": _pretraining_option(recipe, "pretrain", "epochs"),
        "step_budget": _pretraining_option(recipe, "pretrain", "steps"),
        "image_size": recipe.get("input", {}).get("image_size"),
    }


def record_values(
    file: Path | None, body: Mapping[str, Any], recipe_values: Mapping[str, Any], protocol_json: str
) -> dict[str, Any]:
    """Columns that all metrics of a record share."""
    checkpoint, provenance = body["checkpoint"], body["provenance"]
    cost, pretrain_cost = body["cost"], checkpoint["cost"]
    passed = body["recipe_passed"].get("set", {})
    values = {
        **recipe_values,
        "id": body["id"],
        "file": str(file or ""),
        "method": _method_name(body),
        "method_version": body["method"]["version"],
        "encoder": body["encoder"]["name"],
        "encoder_version": body["encoder"]["version"],
        "backbone": name_backbone(body["encoder"]["name"], body["recipe"].get("encoder", {})),
        "task": body["task"]["name"],
        "task_version": body["task"]["version"],
        "dataset": body["dataset"]["name"],
        "dataset_version": body["dataset"]["version"],
        "protocol": body["protocol_fingerprint"],
        "protocol_name": _protocol_name(body, passed),
        "protocol_json": protocol_json,
        "seed": body["seed"],
        "varied": _format_settings(body["varied"]),
        "set": _format_settings(_settings_that_apply(passed, body)),
        "recipe": body["recipe_name"],
        "pretraining": body["pretraining"],
        "checkpoint": checkpoint["fingerprint"],
        "weights_sha256": checkpoint["weights_sha256"],
        "at_epoch": value_at(body, AT_EPOCH),
        "at_step": value_at(body, AT_STEP),
        "pretrain_seconds": pretrain_cost["seconds"],
        "pretrain_images": pretrain_cost["images_seen"],
        "pretrain_flops": _flops(checkpoint),
        "pretrain_steps": pretrain_cost["steps"],
        "pretrain_memory": pretrain_cost["peak_memory"],
        "pretrain_device": pretrain_cost["device"],
        "seconds": cost["seconds"],
        "images": cost["images_seen"],
        "steps": cost["steps"],
        "memory": cost["peak_memory"],
        "device": cost["device"],
        "precision": cost["precision"],
        "time": provenance.get("time"),
        "command": provenance.get("command"),
        "commit": provenance.get("commit"),
        "dirty": provenance.get("dirty"),
        "host": provenance.get("host"),
    }
    if not _is_pretraining_known(body):
        values["recipe_json"] = None
    return values


def _method_name(body: Mapping[str, Any]) -> str:
    """The method; for a published encoder, which stands for itself, the name that --checkpoint gave it."""
    return body["recipe"].get("imported", {}).get("source") or body["method"]["name"]


def _flops(checkpoint: Mapping[str, Any]) -> float | None:
    """Operations of a whole pretraining; None if its record does not count them."""
    cost, per_image = checkpoint["cost"], checkpoint.get("flops_per_image")
    if cost["device"] == "imported":
        return None
    if not cost["images_seen"]:
        return 0.0
    return None if per_image is None else float(cost["images_seen"] * per_image)


def metric_values(body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Columns of each metric of a record, the primary metric first."""
    for index, (name, value) in enumerate(body["metrics"].items()):
        is_primary = index == 0
        yield {
            "metric": name,
            "primary": is_primary,
            "value": value["value"],
            "unit": value["unit"],
            "n": value["n"],
            "low": value["low"],
            "high": value["high"],
            "higher_is_better": value["higher_is_better"],
            "chance": body["chance"] if is_primary else None,
        }


def _pretraining_option(recipe: Mapping[str, Any], table: str, key: str) -> Any:
    """An option of the recipe that the encoder was pretrained with; None for an imported checkpoint.

    If a run was given a checkpoint, the PRETRAINED table of its recipe holds the options in which the checkpoint's
    pretraining differed from the rest of the recipe.
    """
    if "imported" in recipe:
        return None
    return recipe.get(PRETRAINED, {}).get(f"{table}.{key}", recipe.get(table, {}).get(key))


def _is_pretraining_known(body: Mapping[str, Any]) -> bool:
    """False for imported checkpoints, and for given ones if an older record does not say how they were pretrained."""
    recipe = body["recipe"]
    return "imported" not in recipe and (PRETRAINED in recipe or not body["recipe_passed"].get("checkpoint"))


def _protocol_name(body: Mapping[str, Any], passed: Mapping[str, Any]) -> str:
    """The protocol's name and departures; "" if the task was run without a named protocol.

    passed: the settings of --set.
    """
    name = body["recipe"].get("task", {}).get("protocol")
    if not name:
        return ""
    departures = body.get("departures")
    if departures is None:
        # Older records have no departures. Options show them in part: settings in a recipe file do not.
        prefixes = ("task.", f"tasks.{body['task']['name']}.")
        departures = {
            path.split(".", 1)[1]: value
            for path, value in {**passed, **body["varied"]}.items()
            if path.startswith(prefixes) and path.rsplit(".", 1)[-1] != "protocol" and ".data" not in path
        }
    return format_protocol(name, departures)


def format_protocol(name: str, departures: Mapping[str, Any]) -> str:
    """A protocol's name and its departures: "mae, train.epochs=50"."""
    return ", ".join([name, *(f"{path}={value}" for path, value in departures.items())])


def _settings_that_apply(passed: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of --set that this record's pretraining uses.

    One --set serves all methods of a run. A control without the option, or without training, is the same with and
    without it, so that its seeds belong to one mean.
    """
    recipe = body["recipe"]
    options = recipe.get("method")
    is_trained = body["checkpoint"]["cost"]["steps"] > 0 or any(value_at(body, path) is not None for path in AT)

    def applies(path: str) -> bool:
        table, _, key = path.partition(".")
        if table == "method":
            return options is None or key.partition(".")[0] in options
        return table != "pretrain" or is_trained or "imported" in recipe

    return {path: value for path, value in passed.items() if applies(path)}


def _format_settings(settings: Mapping[str, Any]) -> str:
    """Settings as text, without those of the task and the encoder's name: other columns have them."""
    shown = {path: value for path, value in settings.items() if path != "encoder.name" and not is_of_task(path)}
    return " ".join(f"{path}={value}" for path, value in shown.items())


def value_at(body: Mapping[str, Any], path: str) -> Any:
    """The value at a path of the resolved recipe; a list or table as JSON; None if there is none.

    If nothing was pretrained, paths of [pretrain] have no value, unless one of them was varied.
    """
    recipe = body["recipe"]
    if path.startswith("pretrain."):
        is_trained = body["checkpoint"]["cost"]["steps"] > 0
        if path in AT:
            at = _pretraining_option(recipe, *path.split("."))
            if at is None and is_trained:  # a missing epoch or step means the last one
                return _pretraining_option(recipe, "pretrain", "epochs" if path == AT_EPOCH else "steps")
            return at
        if not is_trained and not any(name.startswith("pretrain.") for name in body["varied"]):
            return None
    value: Any = recipe
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            # A task's settings are in the recipe under [task], but are varied as tasks.NAME.path.
            value = body["varied"].get(path)
            if value is None and path == MASK_RATIO:
                value = derive_mask_ratio(body["method"]["name"], recipe)
            break
        value = value[key]
    return json.dumps(value) if isinstance(value, list | dict) else value
