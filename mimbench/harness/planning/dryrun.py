"""`mimbench run --dry-run`: which cells of a plan are done, and how long the rest may take."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mimbench.harness.planning.absent import AbsentDataset, is_here
from mimbench.harness.planning.cells import Cell, Pretraining, distinct_pretrainings
from mimbench.harness.planning.code import code_of_cell, code_of_pretraining, describe_changes
from mimbench.harness.planning.estimate import Estimate, Estimator
from mimbench.store.failure import failure_path
from mimbench.store.sealing import DAMAGE
from mimbench.store.store import CARD, Store
from mimbench.text import align_columns, format_duration


@dataclass(frozen=True)
class PlanSummary:
    """A plan, compared with a results folder."""

    cells: Sequence[Cell]
    recorded: frozenset[str]
    """Ids of the cells that have a record."""
    failed: frozenset[str]
    """Ids of the cells whose last attempt failed."""
    pretrained: frozenset[str]
    """Fingerprints of the pretrainings that have a checkpoint."""
    estimate: Estimate
    """Of what is to run with data that is here."""
    estimator: Estimator

    @property
    def absent(self) -> list[AbsentDataset]:
        """Datasets whose files are not on this machine, each once."""
        datasets = [dataset for cell in self.cells for dataset in (cell.pretraining.dataset, cell.dataset)]
        return list({data.reason: data for data in datasets if isinstance(data, AbsentDataset)}.values())

    @property
    def unknown(self) -> frozenset[str]:
        """Ids of the cells that need absent data, so that nobody knows whether they are recorded."""
        return frozenset(cell.record_id for cell in self.cells if not _is_known(cell))

    @property
    def pretrainings(self) -> dict[str, Pretraining]:
        """The distinct pretrainings, by fingerprint."""
        return distinct_pretrainings(self.cells)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data: each cell with its state, and the estimate in seconds."""
        return {
            "cells": [
                {
                    "id": cell.record_id if _is_known(cell) else None,
                    "method": cell.pretraining.recipe.method,
                    "task": cell.task.name,
                    "seed": cell.pretraining.seed,
                    "varied": dict(cell.varied),
                    "checkpoint": cell.pretraining.fingerprint if _has_weights_key(cell.pretraining) else None,
                    "pretrained": cell.pretraining.fingerprint in self.pretrained,
                    "state": self.state(cell),
                }
                for cell in self.cells
            ],
            "absent": {data.name: data.reason for data in self.absent},
            "estimate": {
                "pretraining_seconds": self.estimate.pretraining,
                "task_seconds": self.estimate.tasks,
                "without_estimate": dict(self.estimate.unknown),
                "device": self.estimator.device,
            },
        }

    def state(self, cell: Cell) -> str:
        """ "recorded", "failed" (at the last attempt), "to run", or "unknown" without the data."""
        if not _is_known(cell):
            return "unknown"
        if cell.record_id in self.recorded:
            return "recorded"
        return "failed" if cell.record_id in self.failed else "to run"


def _has_weights_key(pretraining: Pretraining) -> bool:
    """Whether the fingerprint is that of a checkpoint, which depends on the content of the data."""
    return bool(pretraining.checkpoint) or is_here(pretraining.dataset) or not pretraining.trains


def _is_known(cell: Cell) -> bool:
    """Whether the id of a cell is that of its record, which depends on the content of the data."""
    return is_here(cell.dataset) and _has_weights_key(cell.pretraining)


def summarize_plan(cells: Sequence[Cell], results: Path, device: str, *, fresh: bool = False) -> PlanSummary:
    """Compare a plan with a results folder. The folder need not exist, and nothing is written.

    Args:
        device: name of the device, for estimates.
        fresh: all cells are to run, even if they are recorded.
    """
    store = Store(results, write=False)
    estimator = Estimator.from_results(store.root, device)
    recorded = frozenset(c.record_id for c in cells if not fresh and store.record_path(c.record_id).exists())
    failed = frozenset(c.record_id for c in cells if failure_path(store.root, c.record_id).exists()) - recorded
    pretrainings = distinct_pretrainings(cells)
    pretrained = frozenset(
        key
        for key, pretraining in pretrainings.items()
        if pretraining.checkpoint or (not fresh and store.has_checkpoint(key))
    )
    left = [cell for cell in cells if cell.record_id not in recorded]
    needed = {cell.pretraining.fingerprint for cell in left if _has_weights_key(cell.pretraining)} - pretrained
    untrained = [pretraining for key, pretraining in pretrainings.items() if key in needed]
    estimate = estimator.estimate(untrained, [cell for cell in left if _is_known(cell)])
    return PlanSummary(cells, recorded, failed, pretrained, estimate, estimator)


def code_changes(plan: PlanSummary, results: Path) -> list[str]:
    """Lines about plugins whose code has changed since something was recorded or trained, without a new version."""
    store = Store(results, write=False)
    lines: list[str] = []
    for cell in plan.cells:
        if cell.record_id in plan.recorded:
            recorded = _provenance(store.record_path(cell.record_id))
            lines += describe_changes(recorded, code_of_cell(cell), "this was recorded")
    for key, pretraining in plan.pretrainings.items():
        if key in plan.pretrained and not pretraining.checkpoint:
            recorded = _provenance(store.checkpoint_path(key) / CARD)
            lines += describe_changes(recorded, code_of_pretraining(pretraining), "the checkpoint was trained")
    return list(dict.fromkeys(lines))


def _provenance(path: Path) -> Any:
    """The provenance in a record or card; None if it is damaged, which the run itself reports."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["provenance"]
    except DAMAGE:
        return None


def describe_plan(plan: PlanSummary, results: Path) -> str:
    """A table of done / planned per method and varied settings, the totals, and the estimate with its basis."""
    lines = [*_table(plan), "", *_totals(plan), *_absent(plan)]
    if len(plan.unknown) < len(plan.cells):
        lines += _time(plan, results)
    return "\n".join(lines) + "\n"


def _table(plan: PlanSummary) -> Iterator[str]:
    tasks = list(dict.fromkeys(cell.task.name for cell in plan.cells))
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in plan.cells:
        varied = " ".join(f"{path}={value}" for path, value in cell.varied.items())
        groups.setdefault((cell.pretraining.recipe.method, varied), []).append(cell)
    rows = [["method", "varied", "seeds", "pretraining", *tasks]]
    for (method, varied), cells in groups.items():
        seeds = ",".join(map(str, sorted({cell.pretraining.seed for cell in cells})))
        trained = {cell.pretraining.fingerprint: _has_weights_key(cell.pretraining) for cell in cells}
        done = [_share(trained, plan.pretrained)]
        for task in tasks:
            done.append(_share({c.record_id: _is_known(c) for c in cells if c.task.name == task}, plan.recorded))
        rows.append([method, varied or "-", seeds, *done])
    yield from align_columns(rows)


def _share(planned: Mapping[str, bool], done: Set[str]) -> str:
    """How many are done, of how many; a "?" if that is not known of each of them.

    Args:
        planned: keys, and whether they are the true ones.
    """
    if not planned:
        return "-"
    return f"{len(planned.keys() & done) if all(planned.values()) else '?'}/{len(planned)}"


def _absent(plan: PlanSummary) -> Iterator[str]:
    """What is left out for lack of data."""
    for data in plan.absent:
        yield f"not on this machine: {data.name} ({data.reason})"
    if plan.absent:
        yield (
            "left out: which of its cells are recorded, how long they take, and checks of its images and labels; "
            "`mimbench plan` prints memory and time without data"
        )


def _totals(plan: PlanSummary) -> Iterator[str]:
    if len(plan.unknown) == len(plan.cells):
        trainings = {pretraining.training for pretraining in plan.pretrainings.values()}
        yield f"cells: {len(plan.cells)}"
        yield f"pretrainings: {len(trainings)}"
        return
    left = [cell for cell in plan.cells if cell.record_id not in plan.recorded]
    again = f", of which {len(plan.failed)} failed at the last attempt" if plan.failed else ""
    unknown = f", of which {len(plan.unknown)} need data that is not here" if plan.unknown else ""
    yield f"cells: {len(plan.cells)}, {len(plan.recorded)} recorded, {len(left)} to run{again}{unknown}"
    # Pretrainings that differ in their epoch or step only come from one training: count trainings.
    keys_of: dict[str, set[str]] = {}
    for key, pretraining in plan.pretrainings.items():
        keys_of.setdefault(pretraining.training, set()).add(key)
    done = {training for training, keys in keys_of.items() if keys <= plan.pretrained}
    needed = {c.pretraining.training for c in left if c.pretraining.fingerprint not in plan.pretrained}
    units = " or ".join(sorted({f"{pretraining.unit}s" for pretraining in plan.pretrainings.values()}))
    saved = f", saved at {len(plan.pretrainings)} {units} in all" if len(plan.pretrainings) > len(keys_of) else ""
    others = "" if len(needed) + len(done) == len(keys_of) else " (the others are not needed)"
    yield f"pretrainings: {len(keys_of)}{saved}, {len(done)} done, {len(needed)} to run{others}"


def _time(plan: PlanSummary, results: Path) -> Iterator[str]:
    estimate, estimator = plan.estimate, plan.estimator
    if len(plan.recorded) == len(plan.cells):
        yield "nothing is left to run"
        return
    device = estimator.device
    if not estimator.checkpoints and not estimator.records:
        yield f"time: no estimate, since {results} holds no checkpoint and no record made on this device ({device})"
        return
    more = "more than " if estimate.unknown else "about "
    yield (
        f"time: {more}{format_duration(estimate.seconds)} (pretraining {format_duration(estimate.pretraining)}, "
        f"tasks {format_duration(estimate.tasks)})"
    )
    if estimate.unknown:
        listed = ", ".join(f"{name} ({count})" for name, count in estimate.unknown.items())
        yield f"no estimate for: {listed}"
    yield (
        f"based on {estimator.checkpoints} checkpoints (seconds per image, same method, encoder and image size) and "
        f"{estimator.records} records (seconds, same task, dataset and encoder) in {results} on {device}"
    )
