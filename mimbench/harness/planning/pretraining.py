"""One pretraining of a plan: what identifies it, whether its settings can be used, and its model."""

from __future__ import annotations

from typing import Any

import torch

from mimbench.contract import DataChoice, Dataset, InputConfig, Method
from mimbench.contract.abilities import require_abilities
from mimbench.contract.config import shaping_at
from mimbench.contract.input import frames_identity
from mimbench.data import DeviceTransform, decoding_of
from mimbench.distributed import get_world_size
from mimbench.encoders.rebuilding import require_drop_path
from mimbench.engine.device import pick_precision, world_size_identity
from mimbench.engine.sharing import require_shared
from mimbench.engine.trackers import check_trackers
from mimbench.errors import InputError
from mimbench.harness.planning.absent import is_here
from mimbench.harness.planning.build import build_method
from mimbench.harness.planning.cells import Pretraining
from mimbench.harness.planning.monitors import load_monitors
from mimbench.harness.planning.plugin_checks import check_encoder, check_frames, check_method
from mimbench.harness.planning.weights import require_single_names, restore_encoder
from mimbench.optim import Schedule
from mimbench.recipe.resolve import Recipe
from mimbench.store.sealing import fingerprint
from mimbench.store.store import StoredCheckpoint


def describe_pretraining(
    recipe: Recipe, seed: int, device: torch.device, dataset: Dataset, checkpoint: StoredCheckpoint | None
) -> Pretraining:
    """The pretraining of a recipe and seed, with its identity and fingerprint.

    Args:
        device: decides what precision "auto" means.
        checkpoint: whose weights are used instead of training.

    Raises:
        InputError: a file that an option names is not readable.
    """
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
                **recipe.data.shaping_of_training(),
            },
            "input": _shaping_of_training(recipe.input),
            **_other_views(recipe),
            "pretrain": {**shaping_at(train, "pretrain"), "precision": precision, **_processes(recipe)},
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


def check_training(pretraining: Pretraining, device: torch.device) -> None:
    """Raise InputError for settings that would stop a training at its start."""
    recipe, train = pretraining.recipe, pretraining.recipe.pretrain
    if recipe.method_class().needs_checkpoint and not pretraining.checkpoint:
        raise InputError(
            f"method {recipe.method!r} stands for weights from elsewhere; name them with --checkpoint timm:MODEL or "
            "--checkpoint hf:REPO, and leave --method out"
        )
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
    check_trackers(train.track, "pretrain")
    train.require_processes(get_world_size(), "pretrain")
    if "labels" in recipe.method_class().supervision and "labels" not in pretraining.dataset.provides:
        raise InputError(f"method {recipe.method!r} needs labels, but dataset {recipe.dataset!r} has none")
    if train.layer_decay is not None:
        raise InputError("pretrain.layer_decay: it is for fine-tuning; leave it out of [pretrain]")
    if is_here(pretraining.dataset):
        load_monitors(pretraining)
        train.require_images(pretraining.image_count, "pretrain")
        Schedule(train, steps_per_epoch=pretraining.image_count // train.batch_size)
    recipe.method_class().check_training(recipe.method_config, train)


def build_checked(pretraining: Pretraining, checked_encoders: set[str]) -> Method:
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
    if get_world_size() > 1 and not depends_on_processes(recipe):
        require_shared(method, f"method {recipe.method!r} with encoder {recipe.encoder!r}")
    if recipe.pretrain.grad_checkpointing:
        require_abilities("pretrain.grad_checkpointing", {"grad-checkpointing"}, method.encoder, name=recipe.encoder)
    sizes = {view.image_size for view in recipe.views()} - {recipe.input.image_size}
    if sizes:
        who = f"method {recipe.method!r}, with views of {min(sizes)} px,"
        require_abilities(who, {"any-size"}, method.encoder, name=recipe.encoder)


def depends_on_processes(recipe: Recipe) -> str:
    """Why a pretraining gives other weights on another number of processes; "" if it gives the same."""
    reasons = (
        recipe.method_class().depends_on_processes(recipe.method_config),
        recipe.encoder_class().depends_on_processes(recipe.encoder_config),
    )
    return "; ".join(filter(None, reasons))


def _processes(recipe: Recipe) -> dict[str, int]:
    return world_size_identity() if depends_on_processes(recipe) else {}


def _shaping_of_training(view: InputConfig) -> dict[str, Any]:
    """The settings of [input] that shape the weights; those of evaluation do not."""
    return {key: value for key, value in view.shaping().items() if not key.startswith("eval_")}


def _other_views(recipe: Recipe) -> dict[str, Any]:
    """The views of a method that asks for others than the recipe's [input], for the identity of a pretraining."""
    views = recipe.views()
    return {} if views == (recipe.input,) else {"views": [_shaping_of_training(view) for view in views]}


def require_decoder(recipe: Recipe, device: torch.device) -> None:
    """Raise InputError if images cannot be decoded on this device, or for these crops, as `data.decode` asks."""
    decoding = decoding_of(recipe.data)
    if decoding == "device" and device.type != "cuda":
        raise InputError(
            f"data.decode=device decodes JPEGs on a CUDA device, and this run is on {device.type}: leave it out, or "
            "set data.decode=scaled"
        )
    if decoding != "full" and any(view.crop == "simple" for view in recipe.views()):
        raise InputError(f'data.decode={decoding} is not for input.crop = "simple"; leave one of them out')
