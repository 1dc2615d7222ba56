"""What a command asks for, expanded to cells and checked to the end before anything is computed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mimbench import registry
from mimbench.contract import Dataset, Method, Task
from mimbench.data import open_dataset
from mimbench.engine.adapter import mix_seed
from mimbench.engine.device import pick_precision
from mimbench.errors import InputError, MimbenchError
from mimbench.recipe import document as doc
from mimbench.recipe.resolve import Recipe, applies, check_settings, resolve
from mimbench.store.files import fingerprint


@dataclass(frozen=True)
class Request:
    """One `mimbench run`, parsed."""

    methods: Sequence[str]
    tasks: Sequence[str]
    recipe: str
    seeds: Sequence[int] = (0,)
    settings: Mapping[str, Any] = field(default_factory=dict)
    variations: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def passed(self) -> dict[str, Any]:
        """As plain data, for records."""
        return {
            "methods": list(self.methods),
            "tasks": list(self.tasks),
            "recipe": self.recipe,
            "seeds": list(self.seeds),
            "set": dict(self.settings),
            "vary": {path: list(values) for path, values in self.variations.items()},
        }


@dataclass(frozen=True)
class Pretraining:
    """One encoder to be trained (or only initialised), whoever needs it."""

    recipe: Recipe
    seed: int
    dataset: Dataset
    fingerprint: str
    identity: Mapping[str, Any]
    """All that shapes the weights; its hash is the fingerprint."""

    @property
    def label(self) -> str:
        return f"{self.recipe.method} seed {self.seed}"


@dataclass(frozen=True)
class Cell:
    """One record to be: a task on a pretraining."""

    pretraining: Pretraining
    task: Task
    dataset_name: str
    dataset: Dataset
    protocol: Mapping[str, Any]
    varied: Mapping[str, Any]
    record_id: str

    @property
    def label(self) -> str:
        varied = "".join(f" {path}={value}" for path, value in self.varied.items())
        return f"{self.task.name} of {self.pretraining.label}{varied}"


def plan(request: Request, device: torch.device, cache: Path) -> list[Cell]:
    """Expand a request: methods x varied values x seeds x tasks, each distinct cell once.

    Every plugin is loaded, every option typed, every dataset opened and every model built once, so
    that what is wrong with a request is said before the first step.

    Raises:
        InputError: anything wrong with the request.
    """
    document = doc.read(request.recipe)
    _check_names(request)
    check_settings([*request.settings, *request.variations], list(request.methods), list(request.tasks))
    datasets: dict[str, Dataset] = {}
    cells: dict[str, Cell] = {}
    built: set[str] = set()
    for method, values, seed, task in itertools.product(
        request.methods, _combinations(request.variations), request.seeds, request.tasks
    ):
        recipe = resolve(request.recipe, document, method, {**request.settings, **values}, task)
        pretraining = _pretraining(recipe, seed, device, _open(recipe, datasets, cache))
        if pretraining.fingerprint not in built:
            build_method(recipe, seed, pretraining.dataset.channels)
            built.add(pretraining.fingerprint)
        varied = {path: value for path, value in values.items() if applies(path, method, task)}
        cell = _cell(pretraining, task, varied, datasets, cache)
        cells.setdefault(cell.record_id, cell)
    return list(cells.values())


def build_method(recipe: Recipe, seed: int, channels: int) -> Method:
    """The method around a fresh encoder, on the CPU; equal seeds give equal weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix_seed("init", seed))
        encoder = recipe.encoder_class()(
            recipe.encoder_config, image_size=recipe.input.image_size, in_channels=channels
        )
        return recipe.method_class()(recipe.method_config, encoder)


def evaluation_input(recipe: Recipe) -> dict[str, Any]:
    """What of [input] tells how a task sees images; pretraining's augmentation does not."""
    shaping = recipe.input.shaping()
    return {key: shaping[key] for key in ("image_size", "interpolation", "mean", "std", "eval_resize")}


def _check_names(request: Request) -> None:
    for kind, names, flag in (
        (registry.methods, request.methods, "--method"),
        (registry.tasks, request.tasks, "--task"),
    ):
        if not names:
            raise InputError(f"{flag} names nothing; known: {', '.join(kind.names())}")
        for name in names:
            kind.load(name)


def _combinations(variations: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    values = itertools.product(*variations.values())
    return [dict(zip(variations, combination, strict=True)) for combination in values]


def _pretraining(recipe: Recipe, seed: int, device: torch.device, dataset: Dataset) -> Pretraining:
    method, encoder = recipe.method_class(), recipe.encoder_class()
    identity: dict[str, Any] = {
        "method": {"name": recipe.method, "version": method.version, **recipe.method_config.shaping()},
        "encoder": {"name": recipe.encoder, "version": encoder.version, **recipe.encoder_config.shaping()},
        "image_size": recipe.input.image_size,
        "channels": dataset.channels,
        "seed": seed,
    }
    if method.pretrains:
        precision = pick_precision(recipe.pretrain, device)
        identity |= {
            "data": {"name": recipe.dataset, "content": dataset.fingerprint()},
            "input": recipe.input.shaping(),
            "pretrain": {**recipe.pretrain.shaping(), "precision": precision},
        }
    return Pretraining(recipe, seed, dataset, fingerprint(identity), identity)


def _cell(
    pretraining: Pretraining, task_name: str, varied: Mapping[str, Any], datasets: dict[str, Dataset], cache: Path
) -> Cell:
    recipe = pretraining.recipe
    task = recipe.task(task_name)
    name = task.config.dataset or task.default_dataset or recipe.dataset
    options = task.config.data or (recipe.data.model_dump() if name == recipe.dataset else {})
    dataset = _opened(name, options, datasets, cache)
    if not task.needs <= dataset.provides:
        lacking = ", ".join(sorted(task.needs - dataset.provides))
        raise InputError(f"task {task_name!r} needs {lacking}, which dataset {name!r} does not have")
    protocol = {
        **task.protocol(),
        "dataset": {"name": name, "content": dataset.fingerprint()},
        "input": evaluation_input(recipe),
    }
    key = fingerprint([pretraining.fingerprint, protocol, pretraining.seed], 12)
    record_id = f"{recipe.method}-{task_name}-s{pretraining.seed}-{key}"
    return Cell(pretraining, task, name, dataset, protocol, varied, record_id)


def _open(recipe: Recipe, datasets: dict[str, Dataset], cache: Path) -> Dataset:
    dataset = _opened(recipe.dataset, recipe.data.model_dump(), datasets, cache)
    if "images" not in dataset.provides:
        raise InputError(f"dataset {recipe.dataset!r} has no plain images to pretrain on; choose another data.name")
    return dataset


def _opened(name: str, options: Mapping[str, Any], datasets: dict[str, Dataset], cache: Path) -> Dataset:
    key = repr((name, sorted(options.items(), key=str)))
    if key not in datasets:
        try:
            datasets[key] = open_dataset(name, dict(options), cache)
        except MimbenchError:
            raise
        except OSError as error:
            raise InputError(f"dataset {name!r} cannot be read: {error}") from error
    return datasets[key]
