"""What a run leaves in words: the record of a cell that went through, the failure of one that did not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch

from mimbench.contract import TaskResult
from mimbench.engine.device import device_name
from mimbench.errors import MimbenchError
from mimbench.harness.blame import whose
from mimbench.harness.cells import Cell, Request
from mimbench.harness.code import code_of_cell
from mimbench.harness.provenance import provenance
from mimbench.recipe.departures import departures
from mimbench.store.failure import Failure
from mimbench.store.files import fingerprint
from mimbench.store.record import Checkpoint, Cost, Named, Record, Value
from mimbench.store.store import StoredCheckpoint


def build_record(
    request: Request,
    cell: Cell,
    checkpoint: StoredCheckpoint,
    result: TaskResult,
    *,
    artifacts: Mapping[str, str],
    seconds: float,
    device: torch.device,
) -> Record:
    """The record of what `cell` found on `checkpoint`; `seconds` is what it took in this process."""
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
        details=dict(result.details),
        cost=_cost(result, seconds, device),
        provenance=provenance(code_of_cell(cell)),
    )


def build_failure(
    request: Request, cell: Cell, stage: Literal["pretraining", "task"], error: Exception, traceback: str | None
) -> Failure:
    """Why `cell` has no record; `traceback` is where it is kept."""
    return Failure(
        id=cell.record_id,
        label=cell.label,
        stage=stage,
        reason=reason_of(error),
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


def reason_of(error: Exception) -> str:
    """An error in one line; one that was not foreseen with its class, and with the plugin whose code raised it."""
    if isinstance(error, MimbenchError):
        return " ".join(str(error).split())
    culprit = whose(error)
    return " ".join(f"{type(error).__name__}: {error}{f' ({culprit})' if culprit else ''}".split())


def _cost(result: TaskResult, seconds: float, device: torch.device) -> Cost:
    spent = result.cost
    return Cost(
        seconds=max(seconds, spent.seconds if spent else 0.0),  # what a resumed training took before counts
        images_seen=spent.images_seen if spent else 0,
        steps=spent.steps if spent else 0,
        peak_memory=spent.peak_memory if spent else None,
        device=device_name(device),
        precision=spent.precision if spent else "fp32",
    )


def _checkpoint(checkpoint: StoredCheckpoint) -> Checkpoint:
    cost = checkpoint.card["cost"]
    return Checkpoint(
        fingerprint=checkpoint.card["fingerprint"],
        weights_sha256=checkpoint.weights_sha256,
        seed=checkpoint.card["seed"],
        cost=Cost(**{key: cost[key] for key in Cost.model_fields}),
        loss=cost.get("loss", []),
    )
