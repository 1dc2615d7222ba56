"""Expands a request to cells, and checks all of them before anything is computed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mimbench import registry
from mimbench.contract import DataChoice, Dataset, InputConfig, Method, TrainConfig
from mimbench.contract.abilities import require_abilities
from mimbench.contract.config import OptionError, shaping_at
from mimbench.contract.input import frames_identity
from mimbench.data import DeviceTransform, decoding_of, open_dataset
from mimbench.distributed import get_world_size
from mimbench.encoders.rebuilding import require_drop_path
from mimbench.engine.device import pick_precision, world_size_identity
from mimbench.errors import InputError, MimbenchError
from mimbench.harness.planning.build import assemble
from mimbench.harness.planning.cells import Cell, Pretraining, Request
from mimbench.harness.planning.checkpoints import refuse_pretraining, with_checkpoint
from mimbench.harness.planning.image_sizes import check_image_sizes
from mimbench.harness.planning.plugin_checks import check_dataset, check_encoder, check_frames, check_method
from mimbench.harness.planning.size import check_size
from mimbench.harness.planning.weights import check_reconstruction, require_single_names, restore_encoder
from mimbench.optim import Schedule
from mimbench.recipe import AT
from mimbench.recipe import document as recipe_document
from mimbench.recipe.needs import check_task_needs
from mimbench.recipe.resolve import Recipe, applies, check_settings, resolve
from mimbench.seeds import derive_seed
from mimbench.store.sealing import fingerprint
from mimbench.store.store import StoredCheckpoint


class _Datasets:
    """Datasets of one plan: each is opened and checked once per name and options."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
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
            except MimbenchError:
                raise
            except OSError as error:
                raise InputError(f"dataset {name!r} cannot be read: {error}") from error
            self._opened[key] = dataset
        return self._opened[key]


def plan(request: Request, device: torch.device, cache: Path) -> list[Cell]:
    """Expand a request: seeds x methods x varied values x tasks, each distinct cell once.

    Every plugin is loaded, every option validated, every dataset opened and every model built (once for all seeds).
    So errors in a request appear before the first step.

    Args:
        device: decides what precision "auto" means, and how much memory there is.
        cache: folder for derived data of datasets.

    Returns:
        The cells in the order in which they run: seeds outermost, then each pretraining with all its tasks.

    Raises:
        InputError: something is wrong with the request.
    """
    document = recipe_document.read(request.recipe)
    if request.checkpoint:
        document = with_checkpoint(document, request.checkpoint)
        refuse_pretraining([*request.settings, *request.variations], request.methods)
    _check_names(request)
    check_settings([*request.settings, *request.variations], list(request.methods), list(request.tasks))
    datasets = _Datasets(cache)
    cells: dict[str, Cell] = {}
    checked_encoders: set[str] = set()  # hashes of what shapes them
    built: tuple[str, Method] | None = None  # the last model, with the hash of what shapes it
    for method, values, task in itertools.product(request.methods, _combinations(request.variations), request.tasks):
        recipe = resolve(request.recipe, document, method, {**request.settings, **values}, task)
        varied = {path: value for path, value in values.items() if applies(path, method, task)}
        if recipe.pretrain.end == recipe.pretrain.length:  # the end is the plain pretraining, which varies no end
            varied = {p: v for p, v in varied.items() if p.removeprefix(f"methods.{method}.") not in AT}
        data = datasets.open(recipe.dataset, recipe.data.model_dump(), "data")
        first, *others = [_pretraining(recipe, seed, device, data, request.checkpoint) for seed in request.seeds]
        _check_training(first, device)
        shape = fingerprint(
            [first.identity.get(key) for key in ("method", "encoder", "image_size", "channels", "frames")]
            + [first.identity.get("pretrain", {}).get("start")]
        )
        if built is None or built[0] != shape:
            check_size(first, device)
            built = shape, _build_checked(first, checked_encoders)
        if first.trains:
            check_image_sizes(first, built[1])
        cell = _build_cell(first, task, varied, datasets, device)
        exported = built[1].exported_encoder()
        check_task_needs(cell.task, exported, recipe.encoder)
        cell.task.check(exported, cell.dataset)
        if cell.task.needs_reconstruction:
            check_reconstruction(built[1], task, request.checkpoint)
        for cell_of_seed in (cell, *(_with_pretraining(cell, other) for other in others)):
            cells.setdefault(cell_of_seed.record_id, cell_of_seed)
    return _in_order(list(cells.values()), request.seeds)


def _in_order(cells: list[Cell], seeds: Sequence[int]) -> list[Cell]:
    """Seeds outermost, so that a run that is stopped has complete seeds; cells of one pretraining together."""
    first: dict[str, int] = {}
    for cell in cells:
        first.setdefault(cell.pretraining.fingerprint, len(first))
    return sorted(cells, key=lambda cell: (seeds.index(cell.pretraining.seed), first[cell.pretraining.fingerprint]))


def _check_training(pretraining: Pretraining, device: torch.device) -> None:
    """Raise InputError for settings that would stop a training at its start."""
    recipe, train = pretraining.recipe, pretraining.recipe.pretrain
    check_frames(pretraining.dataset, recipe.dataset, recipe.input)
    # Raises InputError for settings that it cannot use.
    for view in recipe.views():
        DeviceTransform(view, pretraining.channels, train=True, batched=False)
        if view.frames != recipe.input.frames:
            raise InputError(f"method {recipe.method!r}: a view has frames {view.frames}; leave those of input.frames")
    if not recipe.method_class().pretrains and train.start:
        raise InputError(
            f"pretrain.start: method {recipe.method!r} trains nothing and would leave the file out; set it for the "
            "others with --set methods.NAME.pretrain.start=FILE, or measure the file with --vary pretrain.at_epoch=0"
        )
    if not pretraining.trains:
        return
    require_decoder(recipe, device)
    images = pretraining.image_count
    train.require_images(images, "pretrain")
    train.require_processes(get_world_size(), "pretrain")
    if "labels" in recipe.method_class().supervision and "labels" not in pretraining.dataset.provides:
        raise InputError(f"method {recipe.method!r} needs labels, but dataset {recipe.dataset!r} has none")
    if train.layer_decay is not None:
        raise InputError("pretrain.layer_decay: it is for fine-tuning; leave it out of [pretrain]")
    Schedule(train, steps_per_epoch=images // train.batch_size)


def _build_checked(pretraining: Pretraining, checked_encoders: set[str]) -> Method:
    """The method of a pretraining. Raises InputError if it or its encoder breaks its contract.

    Args:
        checked_encoders: hashes of encoders that are not checked again. That of this encoder is added.
    """
    recipe = pretraining.recipe
    method = build_method(recipe, pretraining.seed, pretraining.channels, to_train=not pretraining.checkpoint)
    shape = fingerprint(
        [recipe.as_tables()["encoder"], recipe.input.image_size, recipe.input.frames, pretraining.channels]
    )
    if shape not in checked_encoders:
        check_encoder(method.encoder, recipe.encoder)
        checked_encoders.add(shape)
    check_method(method, recipe.method)
    require_drop_path(method.encoder, getattr(recipe.encoder_config, "drop_path", 0.0))
    require_single_names(method)
    if pretraining.checkpoint:
        restore_encoder(method, pretraining.checkpoint)
    elif pretraining.trains:
        _require_of_training(method, recipe)
    return method


def _require_of_training(method: Method, recipe: Recipe) -> None:
    """Raise InputError if the encoder cannot do what the training asks of it."""
    if recipe.pretrain.grad_checkpointing:
        require_abilities("pretrain.grad_checkpointing", {"grad-checkpointing"}, method.encoder, name=recipe.encoder)
    sizes = {view.image_size for view in recipe.views()} - {recipe.input.image_size}
    if sizes:
        who = f"method {recipe.method!r}, with views of {min(sizes)} px,"
        require_abilities(who, {"any-size"}, method.encoder, name=recipe.encoder)


def build_method(recipe: Recipe, seed: int, channels: int, *, to_train: bool = False) -> Method:
    """The method with a freshly initialised encoder, on the CPU. Equal seeds give equal weights.

    to_train: start from the weights that `pretrain.start` names, if it does. Otherwise all weights are loaded later.
    """
    return assemble(
        recipe.encoder,
        recipe.encoder_config,
        recipe.method_class(),
        recipe.method_config,
        image_size=recipe.input.image_size,
        channels=channels,
        frames=recipe.input.frames,
        seed=derive_seed("init", seed),
        start=recipe.pretrain.start if to_train and recipe.method_class().pretrains else None,
    )


def _shaping_of_training(view: InputConfig) -> dict[str, Any]:
    """The settings of [input] that shape the weights; those of evaluation do not."""
    return {key: value for key, value in view.shaping().items() if not key.startswith("eval_")}


def _other_views(recipe: Recipe) -> dict[str, Any]:
    """The views of a method that asks for others than the recipe's [input], for the identity of a pretraining."""
    views = recipe.views()
    return {} if views == (recipe.input,) else {"views": [_shaping_of_training(view) for view in views]}


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


def _pretraining(
    recipe: Recipe, seed: int, device: torch.device, dataset: Dataset, checkpoint: StoredCheckpoint | None
) -> Pretraining:
    method, encoder = recipe.method_class(), recipe.encoder_class()
    identity: dict[str, Any] = {
        "method": {"name": recipe.method, "version": method.version, **shaping_at(recipe.method_config, "method")},
        "encoder": {"name": recipe.encoder, "version": encoder.version, **shaping_at(recipe.encoder_config, "encoder")},
        "image_size": recipe.input.image_size,
        **frames_identity(recipe.input.frames),
        "channels": dataset.channels,
        "seed": seed,
    }
    if method.pretrains:
        train = recipe.pretrain
        precision = pick_precision(train, device)
        identity |= {
            "data": {
                "name": recipe.dataset,
                "content": dataset.fingerprint(),
                **DataChoice.from_config(train).identity(),
                **_decoding(recipe),
            },
            "input": _shaping_of_training(recipe.input),
            **_other_views(recipe),
            "pretrain": {**shaping_at(train, "pretrain"), "precision": precision, **world_size_identity()},
        }
    if checkpoint:
        # The weights come from the checkpoint, but options of this run may change how the model uses them.
        what = checkpoint.card["what"]
        if started := what["encoder"].get("weights"):  # the file is not read again; see with_checkpoint
            identity["encoder"] |= {"weights": started}
        used = what | {key: identity[key] for key in ("method", "encoder", "image_size", "frames") if key in identity}
        key = checkpoint.card["fingerprint"] if used == what else fingerprint([checkpoint.card["fingerprint"], used])
        return Pretraining(recipe, seed, dataset, key, used, checkpoint)
    return Pretraining(recipe, seed, dataset, fingerprint(identity), identity)


def _decoding(recipe: Recipe) -> dict[str, str]:
    """What the identity of a pretraining holds of how images are decoded: nothing if they are decoded in full."""
    decoding = decoding_of(recipe.data)
    return {} if decoding == "full" else {"decode": decoding}


def require_decoder(recipe: Recipe, device: torch.device) -> None:
    """Raise InputError if this device cannot decode images as `data.decode` asks."""
    if decoding_of(recipe.data) == "device" and device.type != "cuda":
        raise InputError(
            f"data.decode=device decodes JPEGs on a CUDA device, and this run is on {device.type}: leave it out, or "
            "set data.decode=scaled"
        )


def _build_cell(
    pretraining: Pretraining,
    task_name: str,
    varied: Mapping[str, Any],
    datasets: _Datasets,
    device: torch.device,
) -> Cell:
    recipe = pretraining.recipe
    task = recipe.task(task_name)
    name, options = recipe.task_data(task)
    dataset = datasets.open(name, options, "task.data")
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
    try:
        of_task = task.protocol()
    except OptionError as error:
        raise InputError(f"task.{error}") from error
    protocol = {
        **of_task,
        "dataset": {"name": name, "content": dataset.fingerprint()},
        "input": task.relevant_input(recipe.input),
    }
    train = getattr(task.config, "train", None)
    if isinstance(train, TrainConfig) and "train" in protocol:
        train.require_processes(get_world_size(), "task.train")
        protocol |= {"precision": pick_precision(train, device), **world_size_identity()}
    return Cell(pretraining, task, name, dataset, protocol, varied, _record_id(pretraining, task_name, protocol))


def _with_pretraining(cell: Cell, other: Pretraining) -> Cell:
    """The same cell on a pretraining that differs in its seed only."""
    return replace(cell, pretraining=other, record_id=_record_id(other, cell.task.name, cell.protocol))


def _record_id(pretraining: Pretraining, task: str, protocol: Mapping[str, Any]) -> str:
    key = fingerprint([pretraining.fingerprint, protocol, pretraining.seed], 12)
    return f"{pretraining.recipe.method}-{task}-s{pretraining.seed}-{key}"
