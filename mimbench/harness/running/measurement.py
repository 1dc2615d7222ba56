"""Measuring a cell: its task runs on a checkpoint, and its record is written. Under torchrun all ranks take part."""

from __future__ import annotations

import time
from pathlib import Path

from mimbench.contract import DataChoice, GroupedSamples, Method, TaskContext, TaskResult
from mimbench.distributed import get_rank
from mimbench.engine.ranks import fails_together, on_first_rank
from mimbench.files import file_sha256, writing_into
from mimbench.harness.planning.build import build_method
from mimbench.harness.planning.cells import Cell, Pretraining, Request
from mimbench.harness.planning.code import code_of_cell
from mimbench.harness.planning.plugin_checks import as_samples, check_result
from mimbench.harness.planning.weights import restore, restore_encoder
from mimbench.harness.running.features import FrozenFeatures
from mimbench.harness.running.pictures import save_pictures
from mimbench.harness.running.record import build_record
from mimbench.harness.running.session import Session
from mimbench.harness.running.training import TaskTraining
from mimbench.store.record import Record
from mimbench.store.samples import FILE as SAMPLES_FILE
from mimbench.store.samples import SAMPLES, pack_samples
from mimbench.store.scores import FILE, SCORES, pack_scores
from mimbench.store.store import StoredCheckpoint


def measure(session: Session, request: Request, cell: Cell, checkpoint: StoredCheckpoint) -> Record:
    """Run a cell's task and write its record. The caller holds the lease of the cell."""
    pretraining, store = cell.pretraining, session.store
    pictures = save_pictures(
        pretraining, lambda: _restored_method(session, pretraining, checkpoint), store, session.say
    )
    session.say(f"running {cell.label}")
    if session.fresh:
        session.shared.discard_work(cell.record_id)
    session.compare_code(cell.record_id, code_of_cell(cell))
    workdir = store.work(cell.record_id)
    started = time.perf_counter()
    with writing_into(workdir):
        result = _run_task(session, cell, checkpoint, workdir)
    seconds = time.perf_counter() - started
    record = _write_record(session, request, cell, checkpoint, result, pictures, seconds)
    session.mark_made(cell.record_id)
    name, value = record.primary
    session.say(f"{cell.label}: {name} {value.value:.2f} {value.unit}, n = {value.n} ({seconds:.0f} s)")
    return record


@fails_together
def _run_task(session: Session, cell: Cell, checkpoint: StoredCheckpoint, workdir: Path) -> TaskResult:
    recipe, pretraining = cell.pretraining.recipe, cell.pretraining
    encoder = restore_encoder(build_method(recipe, pretraining.seed, pretraining.channels), checkpoint)
    code = code_of_cell(cell)
    features = FrozenFeatures(
        encoder,
        recipe.input,
        session.device,
        {
            "weights": checkpoint.weights_sha256,
            "encoder": pretraining.identity["encoder"],
            "data": cell.protocol["dataset"],
            "input": recipe.input.evaluation(),
            "code": {kind: code[kind]["sha256"] for kind in ("encoder", "dataset")},
        },
        session.store,
        say=session.say,
        workers=recipe.pretrain.workers,
    )
    # Ranks must not write to the same files. Rank 0 works in the folder itself.
    folder_of_rank = workdir / f"rank{get_rank()}" if get_rank() else workdir
    folder_of_rank.mkdir(exist_ok=True)
    what = checkpoint.card["what"]
    # Weights that the training started from have seen images that the card does not name.
    data = None if what.get("pretrain", {}).get("start") else what.get("data")
    context = TaskContext(
        seed=pretraining.seed,
        device=session.device,
        workdir=folder_of_rank,
        input=recipe.input,
        fit=TaskTraining(
            workdir / "training",
            cell.record_id,
            seed=pretraining.seed,
            device=session.device,
            console=session.console,
            tracks=session.store.tracks,
        ),
        features=features,
        say=session.say,
        method=_restored_method(session, pretraining, checkpoint) if cell.task.needs_reconstruction else None,
        pretrained_on=DataChoice.from_identity(data) if data else None,
    )
    result = cell.task.run(encoder, cell.dataset, context)
    check_result(cell.task, result)
    return result


@on_first_rank
def _write_record(
    session: Session,
    request: Request,
    cell: Cell,
    checkpoint: StoredCheckpoint,
    result: TaskResult,
    pictures: dict[str, str],
    seconds: float,
) -> Record:
    store = session.store
    artifacts = pictures | _move_artifacts(session, cell, result) | _save_scores(session, cell, result)
    artifacts |= _save_samples(session, cell, result)
    record = build_record(
        request,
        cell,
        checkpoint,
        result,
        artifacts=artifacts,
        artifacts_sha256={name: file_sha256(store.root / path) for name, path in artifacts.items()},
        seconds=seconds,
        device=session.device,
    )
    store.save_record(record)
    return record


def _move_artifacts(session: Session, cell: Cell, result: TaskResult) -> dict[str, str]:
    """Move a task's files into the results folder. Returns their paths relative to that folder, by name."""
    paths = {}
    for name, path in result.artifacts.items():
        paths[name] = session.store.save_artifact(cell.record_id, path.name, path.read_bytes())
        path.unlink()
    return paths


def _save_scores(session: Session, cell: Cell, result: TaskResult) -> dict[str, str]:
    """Write the scores of single samples, if the task returns any. Returns the path of their file, by name."""
    if result.scores is None:
        return {}
    content = pack_scores(result.scores.arrays(), result.scores.split)
    return {SCORES: session.store.save_artifact(cell.record_id, FILE, content)}


def _save_samples(session: Session, cell: Cell, result: TaskResult) -> dict[str, str]:
    """Write the metrics of single samples, if the task returns any. Returns the path of their file, by name."""
    if not result.by_sample and not result.detections and not result.pixels:
        return {}
    arrays, groups = {}, {}
    for name, reported in result.by_sample.items():
        values, of_sample = as_samples(reported)
        if values is not None:
            arrays[name] = values
        if isinstance(reported, GroupedSamples):
            groups[name] = of_sample
    pixels = vars(result.pixels) if result.pixels else None
    content = pack_samples(arrays, [vars(one) for one in result.detections], groups, pixels)
    return {SAMPLES: session.store.save_artifact(cell.record_id, SAMPLES_FILE, content)}


def _restored_method(session: Session, pretraining: Pretraining, checkpoint: StoredCheckpoint) -> Method:
    """The whole pretrained method, on the session's device."""
    method = build_method(pretraining.recipe, pretraining.seed, pretraining.channels)
    return restore(method, checkpoint).to(session.device)
