"""Settings in which a record departs from the experiment of a published number.

That experiment is the method's preset for the same encoder, data and epochs, with what the number's `same` states.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from typing import Any

from mimbench.errors import InputError
from mimbench.recipe import PRETRAINED
from mimbench.recipe import document as recipe_document
from mimbench.recipe.departures import preset_values, shaping_values, task_departures
from mimbench.report.records.backbones import name_backbone
from mimbench.report.records.row import format_protocol

_SIZES = frozenset(f"encoder.{name}" for name in ("embed_dim", "depth", "depths", "dims", "patch_size"))
"""What makes an encoder's name, as `backbone` gives it."""


def find_departures(record: Mapping[str, Any], stated: Mapping[str, Any]) -> list[str]:
    """Paths of the record's settings that are not those of a published number's experiment; [] if all are.

    Args:
        record: a row of a frame that agrees with the number in method, encoder, pretraining data, epochs and protocol.
        stated: {path: value} that belong to the number; all other settings are those of the preset.
    """
    if record["recipe_json"] is None:
        return ["how the encoder was pretrained is not known"]
    try:
        as_run, as_pretrained, protocol = _settings(record["recipe_json"], record["task"], record["dataset"])
        references = _references(
            *(record[name] for name in ("method", "backbone", "pretrain_dataset", "pretrain_epochs"))
        )
    except InputError as error:
        return [str(error)]
    if not references:
        return [f"mimbench has no preset of {record['method']} for {record['pretrain_dataset']}"]
    departed = min((_departed(as_pretrained, preset, stated) for preset in references), key=len)
    # What a run with a given checkpoint sets otherwise than its pretraining (image size, drop path) is measured too.
    departed |= {path for path, value in as_run.items() if not _equal(as_pretrained[path], value)}
    return sorted(departed) + ([f"options of the task: {protocol}"] if protocol != record["protocol_name"] else [])


def _departed(actual: Mapping[str, Any], preset: Mapping[str, Any], stated: Mapping[str, Any]) -> set[str]:
    """Paths at which settings differ from a preset's. Settings in `stated` must have the stated values instead."""
    expected = {**preset, **stated}
    sizes = _SIZES if _name(actual) != _name(preset) else frozenset()
    return {
        path
        for path in {*actual, *expected}
        if path not in sizes and path != "pretrain.epochs" and not _equal(actual.get(path), expected.get(path))
    }


@functools.lru_cache(maxsize=1024)
def _settings(recipe: str, task: str, dataset: str) -> tuple[Mapping[str, Any], Mapping[str, Any], str]:
    """Of a record's recipe: the run's settings, those that its encoder was pretrained with, and the task's protocol.

    Raises:
        InputError: this installation does not know all of it.
    """
    tables = json.loads(recipe)
    options = tables.get("task", {})
    as_run = shaping_values(tables)
    pretrained = tables.get(PRETRAINED, {})
    if "data.name" in pretrained:  # the run's [data] only describes the task's dataset
        as_run = {path: value for path, value in as_run.items() if not path.startswith("data.")}
        tables["data"] = {}
    for path, value in pretrained.items():
        tables = recipe_document.put(tables, path, value)
    as_pretrained = shaping_values(tables)
    protocol = format_protocol(str(options.get("protocol")), task_departures(task, options, dataset))
    return as_run, as_pretrained, protocol


@functools.cache
def _references(method: str, encoder: str, data: str, epochs: int) -> tuple[Mapping[str, Any], ...]:
    """The presets that a published number may stand for: those of its encoder and, if there are any, of its epochs.

    If no preset has its encoder, those of other sizes: MAE's ViT-H is pretrained as its ViT-L.
    """
    of_data = [preset for preset in preset_values(method) if preset["data.name"] == data]
    of_encoder = [preset for preset in of_data if _name(preset) == encoder] or of_data
    return tuple([preset for preset in of_encoder if preset["pretrain.epochs"] == epochs] or of_encoder)


def _name(settings: Mapping[str, Any]) -> str:
    options = {path.partition(".")[2]: value for path, value in settings.items() if path.startswith("encoder.")}
    return name_backbone(options["name"], options)


def _equal(actual: Any, expected: Any) -> bool:
    if isinstance(expected, float) and isinstance(actual, int | float):
        return math.isclose(actual, expected)
    return bool(actual == expected)
