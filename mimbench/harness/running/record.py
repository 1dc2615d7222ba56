"""Builds the record of a cell that succeeded, and the failure of one that did not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch

from mimbench.advice import NO_OPTIONS, SizeOptions, describe_error
from mimbench.contract import Config, Task, TaskResult, TrainConfig
from mimbench.distributed import get_world_size
from mimbench.engine.device import device_name
from mimbench.errors import MimbenchError
from mimbench.harness.planning.cells import Cell, Request
from mimbench.harness.planning.code import code_of_cell
from mimbench.harness.running.blame import describe_culprit
from mimbench.harness.running.provenance import provenance
from mimbench.recipe.departures import departures
from mimbench.store.failure import Failure
from mimbench.store.record import Checkpoint, Cost, Named, Record, Value
from mimbench.store.sealing import fingerprint
from mimbench.store.store import StoredCheckpoint


def build_record(
    request: Request,
    cell: Cell,
    checkpoint: StoredCheckpoint,
    result: TaskResult,
    *,
    artifacts: Mapping[str, str],
    artifacts_sha256: Mapping[str, str],
    seconds: float,
    device: torch.device,
) -> Record:
    """The record of a cell.

    Args:
        artifacts: paths of pictures and files, relative to the results folder, by name.
        artifacts_sha256: their hashes, by name.
        seconds: what the task took in this process.
    """
    recipe, task = cell.pretraining.recipe, cell.task
    return Record(
        id=cell.record_id,
        method=Named(name=recipe.method, version=recipe.method_class().version),
        task=Named(name=task.name, version=task.version),
        encoder=Named(name=recipe.encoder, version=recipe.encoder_class().version),
        dataset=Named(name=cell.dataset_name, version=cell.dataset.fingerprint()),
        protocol=dict(cell.protocol),
        protocol_fingerprint=fingerprint(cell.protocol),
        departures=departures(task),
        seed=cell.pretraining.seed,
        varied=dict(cell.varied),
        recipe_name=recipe.name,
        recipe_passed=request.passed(),
        recipe={**cell.pretraining.tables(), "task": task.config.model_dump(mode="json")},
        checkpoint=_checkpoint(checkpoint),
        metrics={
            metric.name: Value(
                value=result.metrics[metric.name].value,
                n=result.metrics[metric.name].n,
                unit=metric.unit,
                low=metric.low,
                high=metric.high,
                higher_is_better=metric.higher_is_better,
            )
            for metric in task.metrics
            if metric.name in result.metrics
        },
        pretraining=fingerprint({k: v for k, v in cell.pretraining.identity.items() if k != "seed"}),
        chance=task.chance(cell.dataset),
        curves={name: list(map(float, curve)) for name, curve in result.curves.items()},
        artifacts=dict(artifacts),
        artifacts_sha256=dict(artifacts_sha256),
        details={**result.details, **_facts(cell)},
        cost=_cost(result, seconds, device),
        provenance=provenance(code_of_cell(cell)),
    )


def build_failure(
    request: Request,
    cell: Cell,
    stage: Literal["pretraining", "task"],
    error: Exception,
    reason: str,
    traceback: str | None,
) -> Failure:
    """The failure of a cell.

    Args:
        reason: `reason_of(error)`.
        traceback: path of the saved traceback, relative to the results folder.
    """
    return Failure(
        id=cell.record_id,
        label=cell.label,
        stage=stage,
        reason=reason,
        error=type(error).__name__,
        traceback=traceback,
        method=cell.pretraining.recipe.method,
        task=cell.task.name,
        seed=cell.pretraining.seed,
        varied=dict(cell.varied),
        checkpoint=cell.pretraining.fingerprint,
        recipe_name=cell.pretraining.recipe.name,
        recipe_passed=request.passed(),
        provenance=provenance(code_of_cell(cell)),
    )


def reason_of(error: Exception, options: SizeOptions = NO_OPTIONS) -> str:
    """An error in one line. One that was not foreseen begins with its class. At the end is the plugin that raised it.

    A message that mimbench or a built-in plugin wrote says what to do, and names no line of code.

    options: what can be lowered when memory runs out.
    """
    is_foreseen = isinstance(error, MimbenchError)
    text = str(error) if is_foreseen else describe_error(error, options)
    culprit = describe_culprit(error, of_others_only=is_foreseen)
    return " ".join(f"{text}{f' ({culprit})' if culprit else ''}".split())


def _facts(cell: Cell) -> dict[str, Any]:
    """Facts about how the images of the task and of the pretraining were read, for the record's details."""
    facts = {"data": cell.dataset.facts}
    if cell.pretraining.dataset is not cell.dataset:
        facts["pretraining data"] = cell.pretraining.dataset.facts
    return {name: dict(what) for name, what in facts.items() if what}


def options_of(cell: Cell, stage: Literal["pretraining", "task"]) -> SizeOptions:
    """The settings of a cell that reduce memory or worker processes, for advice when a stage fails."""
    task = cell.task
    is_task = stage == "task"
    config: Config = task.config if is_task else cell.pretraining.recipe.pretrain
    values = dict(_values(config, "task" if is_task else "pretrain"))
    train = getattr(task.config, "train", None) if is_task else config
    has_step = not is_task or type(task).planned_step is not Task.planned_step

    def paths_to(name: str, *values_without_use: Any) -> list[str]:
        return [path for path, value in values.items() if path.endswith(f".{name}") and value not in values_without_use]

    return SizeOptions(
        batch_size=paths_to("batch_size"),
        accumulate=paths_to("accumulate"),
        grad_checkpointing=paths_to("grad_checkpointing", True),
        auto_batch=paths_to("auto_batch", True) if has_step else [],
        precision=paths_to("precision", "auto", "bf16"),
        workers=paths_to("workers") or ["pretrain.workers"],
        micro_batch=train.micro_batch(get_world_size()) if isinstance(train, TrainConfig) else None,
    )


def _values(config: Config, prefix: str) -> Iterator[tuple[str, Any]]:
    """Paths of all settings of a config, such as "task.train.batch_size", and their values."""
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Config):
            yield from _values(value, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}", value


def _cost(result: TaskResult, seconds: float, device: torch.device) -> Cost:
    spent = result.cost
    return Cost(
        seconds=max(seconds, spent.seconds if spent else 0.0),  # includes what a training took before it was resumed
        images_seen=spent.images_seen if spent else 0,
        steps=spent.steps if spent else 0,
        peak_memory=spent.peak_memory if spent else None,
        device=device_name(device),
        precision=spent.precision if spent else "fp32",
        compiled=spent.compiled if spent else "",
    )


def _checkpoint(checkpoint: StoredCheckpoint) -> Checkpoint:
    cost = checkpoint.card["cost"]
    return Checkpoint(
        fingerprint=checkpoint.card["fingerprint"],
        weights_sha256=checkpoint.weights_sha256,
        seed=checkpoint.card["seed"],
        cost=Cost(**{key: cost[key] for key in Cost.model_fields if key in cost}),
        flops_per_image=cost.get("flops_per_image"),
        patches_per_image=cost.get("patches_per_image"),
        loss=cost.get("loss", []),
        logs=cost.get("logs", {}),
        monitored=cost.get("monitored", {}),
        monitor_seconds=cost.get("monitor_seconds", 0.0),
    )
