"""What a record of a preset holds, resolved as the harness resolves it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from mimbench.recipe import document as recipe_document
from mimbench.recipe.departures import departures
from mimbench.recipe.resolve import Recipe, resolve
from mimbench.store.record import Checkpoint, Cost, Record, Value
from mimbench.store.sealing import fingerprint

_document = functools.cache(recipe_document.read)


def resolved(preset: str, method: str, settings: Mapping[str, Any] | None = None, task: str = "finetune") -> Recipe:
    return resolve(preset, _document(preset), method, settings or {}, task)


def record_fields(recipe: Recipe, task: str) -> dict[str, Any]:
    """The fields of a record that follow from a recipe, as plain data."""
    made = recipe.task(task)
    protocol = {
        **made.protocol(),
        "dataset": {"name": "imagenet", "content": "x"},
        "input": made.relevant_input(recipe.input),
    }
    tables = {**recipe.as_tables(), "task": made.config.model_dump(mode="json")}
    return {
        "task": {"name": task, "version": type(made).version},
        "encoder": {"name": recipe.encoder, "version": recipe.encoder_class().version},
        "method": {"name": recipe.method, "version": recipe.method_class().version},
        "dataset": {"name": made.default_dataset or recipe.dataset, "version": "x"},
        "recipe": tables,
        "protocol": protocol,
        "protocol_fingerprint": fingerprint(protocol),
        "departures": departures(made),
        "pretraining": fingerprint({name: table for name, table in tables.items() if name != "task"}),
    }


def preset_record(
    make: Any,
    preset: str = "imagenet-swin-base",
    method: str = "simmim",
    task: str = "finetune",
    *,
    value: float = 83.0,
    seed: int = 0,
    metric: str = "top1",
    train_images: int = 1_281_167,
    test_images: int = 50_000,
    settings: Mapping[str, Any] | None = None,
    tables: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Record:
    """A record of `task` on a pretraining of `preset`.

    settings: over the preset, by path, before it is resolved. tables: over the resolved tables, by path.
    train_images, test_images: of the dataset; by default those of ImageNet-1K.
    """
    fields = record_fields(resolved(preset, method, settings, task), task)
    for path, new in (tables or {}).items():
        fields["recipe"] = recipe_document.put(fields["recipe"], path, new)
    del fields["task"], fields["method"]
    recipe = fields["recipe"].get("pretrain") or {}
    batch = recipe.get("batch_size", 1)
    spent = Cost(seconds=1.0, device="cpu", images_seen=(recipe.get("epochs") or 0) * (train_images // batch) * batch)
    fields["checkpoint"] = Checkpoint(fingerprint="abc", weights_sha256="0", seed=seed, cost=spent)
    record: Record = make(method, value, seed, metric, task=task, **{**fields, **changes})
    measured = Value(value=value, unit="percent", n=test_images, low=0, high=100, higher_is_better=True)
    return record.model_copy(update={"metrics": {metric: measured}})
