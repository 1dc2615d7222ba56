"""Expands a request to cells, and checks all of them before anything is computed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch

from mimbench import registry
from mimbench.contract import Dataset, Encoder, Method, Task, TrainConfig
from mimbench.contract.config import OptionError
from mimbench.data import Validation, open_dataset
from mimbench.distributed import get_world_size
from mimbench.engine.device import pick_precision, world_size_identity
from mimbench.engine.trackers import check_trackers
from mimbench.errors import InputError, MimbenchError, MissingData
from mimbench.harness.planning.absent import AbsentDataset, is_here
from mimbench.harness.planning.cells import Cell, Pretraining, Request
from mimbench.harness.planning.checkpoints import refuse_pretraining, with_checkpoint
from mimbench.harness.planning.image_sizes import check_image_sizes
from mimbench.harness.planning.plugin_checks import check_dataset, check_frames
from mimbench.harness.planning.pretraining import build_checked, check_training, describe_pretraining
from mimbench.harness.planning.size import check_size
from mimbench.harness.planning.weights import check_reconstruction
from mimbench.recipe import AT
from mimbench.recipe import document as recipe_document
from mimbench.recipe.needs import check_task_needs
from mimbench.recipe.resolve import Recipe, applies, check_settings, resolve
from mimbench.store.sealing import fingerprint


class _Datasets:
    """Datasets of one plan: each is opened and checked once per name and options."""

    def __init__(self, cache: Path, *, may_lack: bool) -> None:
        """may_lack: a dataset whose files are missing gets a stand-in."""
        self.cache, self.may_lack = cache, may_lack
        self._opened: dict[str, Dataset] = {}

    def open(self, name: str, options: Mapping[str, Any], table: str) -> Dataset:
        """A dataset by name.

        Args:
            table: of the recipe, from which the options come; messages name it.

        Raises:
            InputError: the options are wrong, or the files cannot be read.
        """
        key = repr((name, sorted(options.items(), key=str)))
        if key not in self._opened:
            try:
                dataset = open_dataset(name, dict(options), self.cache, table)
                check_dataset(dataset, name)
            except MissingData as error:
                if not self.may_lack:
                    raise
                dataset = AbsentDataset(name, options, self.cache, table, str(error))
            except MimbenchError:
                raise
            except OSError as error:
                raise InputError(f"dataset {name!r} cannot be read: {error}") from error
            self._opened[key] = dataset
        return self._opened[key]


class Batches(Protocol):
    """Replaces `auto_batch` by an `accumulate`."""

    def of_pretraining(self, recipe: Recipe, channels: int) -> Recipe: ...

    def of_task(self, recipe: Recipe, task: Task, channels: int, dataset: Dataset) -> Task: ...


def plan(
    request: Request, device: torch.device, cache: Path, batches: Batches | None = None, *, may_lack_data: bool = False
) -> list[Cell]:
    """Expand a request: seeds x methods x varied values x tasks, each distinct cell once.

    Every plugin is loaded, every option validated, every dataset opened and every model built (once for all seeds).
    So errors in a request appear before the first step.

    Args:
        device: decides what precision "auto" means, and how much memory there is.
        cache: folder for derived data of datasets.
        batches: chooses micro-batches if `auto_batch` asks for it; None: that is refused.
        may_lack_data: a dataset whose files are not on this machine is replaced by an AbsentDataset, and what depends
            on its content is not checked. Such cells cannot be run, and their ids are no ids of records.

    Returns:
        The cells in the order in which they run: seeds outermost, then each pretraining with all its tasks.

    Raises:
        InputError: something is wrong with the request.
    """
    document = recipe_document.read(request.recipe)
    if request.checkpoint:
        chosen = [*request.settings, *request.variations]
        document = with_checkpoint(document, request.checkpoint, request.tasks, chosen)
        refuse_pretraining(chosen, request.methods)
    _check_names(request)
    check_settings([*request.settings, *request.variations], list(request.methods), list(request.tasks))
    datasets = _Datasets(cache, may_lack=may_lack_data)
    cells: dict[str, Cell] = {}
    checked_encoders: set[str] = set()  # hashes of what shapes them
    built: tuple[str, Method] | None = None  # the last model, with the hash of what shapes it
    for method, values, task in itertools.product(request.methods, _combinations(request.variations), request.tasks):
        recipe = resolve(request.recipe, document, method, {**request.settings, **values}, task)
        varied = {path: value for path, value in values.items() if applies(path, method, task)}
        if recipe.pretrain.end == recipe.pretrain.length:  # the end is the plain pretraining, which varies no end
            varied = {p: v for p, v in varied.items() if p.removeprefix(f"methods.{method}.") not in AT}
        data = datasets.open(recipe.dataset, recipe.data.model_dump(), "data")
        if batches and not request.checkpoint:
            recipe = batches.of_pretraining(recipe, data.channels)
        first, *others = (
            describe_pretraining(recipe, seed, device, data, request.checkpoint) for seed in request.seeds
        )
        check_training(first, device)
        shape = fingerprint(
            [first.identity.get(key) for key in ("method", "encoder", "image_size", "channels", "frames")]
            + [first.identity.get("pretrain", {}).get("start")]
        )
        if built is None or built[0] != shape:
            check_size(first, device)
            built = shape, build_checked(first, checked_encoders)
        if first.trains:
            check_image_sizes(first, built[1])
        exported = built[1].exported_encoder()
        cell = _build_cell(first, task, varied, datasets, device, exported, batches)
        check_task_needs(cell.task, exported, recipe.encoder)
        if is_here(cell.dataset):
            cell.task.check(exported, cell.dataset)
        if cell.task.needs_reconstruction:
            check_reconstruction(built[1], task, request.checkpoint)
            cell.task.check_method(type(built[1]))
        for cell_of_seed in (cell, *(_with_pretraining(cell, other) for other in others)):
            cells.setdefault(cell_of_seed.record_id, cell_of_seed)
    return _in_order(list(cells.values()), request.seeds)


def _in_order(cells: list[Cell], seeds: Sequence[int]) -> list[Cell]:
    """Seeds outermost, so that a run that is stopped has complete seeds; cells of one pretraining together."""
    first: dict[str, int] = {}
    for cell in cells:
        first.setdefault(cell.pretraining.fingerprint, len(first))
    return sorted(cells, key=lambda cell: (seeds.index(cell.pretraining.seed), first[cell.pretraining.fingerprint]))


def _check_names(request: Request) -> None:
    """Load each method and task. Raises InputError if one is unknown, or there is none."""
    for kind, names, flag in (
        (registry.methods, request.methods, "--method"),
        (registry.tasks, request.tasks, "--task"),
    ):
        if not names:
            raise InputError(f"{flag} is empty; known: {', '.join(kind.names())}")
        for name in names:
            kind.load(name)


def _combinations(variations: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    values = itertools.product(*variations.values())
    return [dict(zip(variations, combination, strict=True)) for combination in values]


def _build_cell(
    pretraining: Pretraining,
    task_name: str,
    varied: Mapping[str, Any],
    datasets: _Datasets,
    device: torch.device,
    encoder: Encoder,
    batches: Batches | None,
) -> Cell:
    """encoder: as the pretraining exports it."""
    recipe = pretraining.recipe
    task = recipe.task(task_name)
    name, options = recipe.task_data(task)
    dataset = datasets.open(name, options, "task.data")
    _require_unseen(pretraining, name, dataset)
    if not task.needs <= dataset.provides:
        missing = ", ".join(sorted(task.needs - dataset.provides))
        raise InputError(f"task {task_name!r} needs {missing}, but dataset {name!r} does not provide it")
    if "images" in task.needs:
        check_frames(dataset, name, recipe.input)
    if "images" in task.needs and dataset.channels not in (1, pretraining.channels):
        raise InputError(
            f"dataset {name!r} has {dataset.channels} channels, the encoder of {pretraining.label} "
            f"takes {pretraining.channels}"
        )
    if batches and is_here(dataset):
        task = batches.of_task(recipe, task, pretraining.channels, dataset)
    try:
        of_task = task.protocol()
    except OptionError as error:
        raise InputError(f"task.{error}") from error
    protocol = {
        **of_task,
        **task.protocol_on(device),
        "dataset": _scored_data(name, dataset),
        "input": task.relevant_input(recipe.input),
    }
    train = getattr(task.config, "train", None)
    if isinstance(train, TrainConfig) and "train" in protocol:
        check_trackers(train.track, "task.train")
        train.require_processes(get_world_size(), "task.train")
        protocol["precision"] = pick_precision(train, device)
        if get_world_size() > 1 and task.depends_on_processes(encoder, dataset):
            protocol |= world_size_identity()
    return Cell(pretraining, task, name, dataset, protocol, varied, _record_id(pretraining, task_name, protocol))


def _require_unseen(pretraining: Pretraining, name: str, dataset: Dataset) -> None:
    """Raise InputError if the pretraining has seen the images that a task's `validation_share` holds out to score."""
    seen = pretraining.identity.get("data", {}).get("content")
    if not isinstance(dataset, Validation) or seen in (None, dataset.fingerprint()):
        return
    share = pretraining.dataset.config.validation_share
    if pretraining.checkpoint:
        share = pretraining.checkpoint.card.get("recipe", {}).get("data", {}).get("validation_share", 0.0)
    if seen in (dataset.fingerprint_at(0.0), dataset.fingerprint_at(share)):
        raise InputError(
            f"validation_share {dataset.config.validation_share:g} of dataset {name!r} holds out images that the "
            f"pretraining has seen, with its own share of {share:g}; pretrain with the same data.validation_share"
        )


def _scored_data(name: str, dataset: Dataset) -> dict[str, Any]:
    share = dataset.config.validation_share
    return {"name": name, "content": dataset.fingerprint(), **({"validation_share": share} if share else {})}


def _with_pretraining(cell: Cell, other: Pretraining) -> Cell:
    """The same cell on a pretraining that differs in its seed only."""
    return replace(cell, pretraining=other, record_id=_record_id(other, cell.task.name, cell.protocol))


def _record_id(pretraining: Pretraining, task: str, protocol: Mapping[str, Any]) -> str:
    key = fingerprint([pretraining.fingerprint, protocol, pretraining.seed], 12)
    return f"{pretraining.recipe.method}-{task}-s{pretraining.seed}-{key}"
