"""Builds a method with its encoder on the CPU, from a seed."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from mimbench import registry
from mimbench.advice import is_out_of_memory, short_text
from mimbench.contract import Config, Encoder, Method, ModelSetup
from mimbench.contract.validation import validate
from mimbench.convert import resize_positions
from mimbench.errors import InputError
from mimbench.recipe.needs import check_method_needs
from mimbench.recipe.resolve import Recipe
from mimbench.seeds import derive_seed


def assemble(
    encoder_name: str,
    encoder_config: Config,
    method: type[Method],
    method_config: Config,
    *,
    image_size: int,
    channels: int,
    frames: int = 1,
    seed: int,
    start: Path | None = None,
) -> Method:
    """A freshly initialised method. Equal seeds give equal weights. torch's global generator stays unchanged.

    Methods initialise the encoder in their own way. If the encoder's option `weights` names a file, its weights stay.

    Args:
        frames: of each clip; 1 for images.
        start: file of weights that the encoder, and copies of it that the method made, get instead of initial ones.

    Raises:
        InputError: the encoder cannot do what the method needs, one of both takes no clips, a model of these sizes
            does not fit into memory, or `start` does not fit the encoder.
    """
    encoder: type[Encoder] = registry.encoders.load(encoder_name)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            built_encoder = encoder.build(encoder_config, image_size=image_size, in_channels=channels, frames=frames)
            check_method_needs(method, built_encoder, encoder_name)
            weights = {}
            if getattr(encoder_config, "weights", None) and not torch.empty(0).is_meta:
                weights = {name: value.clone() for name, value in built_encoder.state_dict().items()}
            built = method(method_config, built_encoder)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(
            f"method {method.name!r} with encoder {encoder.__name__} at image size {image_size} does not fit into the "
            f"memory of this machine ({short_text(error)}); lower the sizes in [encoder] and [method], or "
            "input.image_size"
        ) from error
    if weights:
        for module in _copies_of_encoder(built):
            module.load_state_dict(weights)
    if start:
        _load_start(built, start)
    return built


def _load_start(method: Method, start: Path) -> None:
    """Load the weights that `pretrain.start` names. Position tables are resampled to another image size.

    An encoder may take weights of another kind, such as those of an image encoder (`Encoder.adapt_weights`).

    They are loaded after the method is built, since methods initialise the encoder in their own way. A teacher that
    is a copy of the encoder starts from the same weights.
    """
    encoder = method.encoder
    try:
        weights = resize_positions(encoder.adapt_weights(load_file(start)), encoder)
        for module in _copies_of_encoder(method):
            module.load_state_dict(weights, strict=True)
    except (OSError, SafetensorError) as error:
        raise InputError(f"pretrain.start: {start} is no readable safetensors file ({short_text(error)})") from error
    except RuntimeError as error:
        raise InputError(
            f"pretrain.start: {start} does not fit the {encoder.kind} encoder ({short_text(error)}); choose "
            "encoder.safetensors of a checkpoint with the same [encoder]"
        ) from error


def _copies_of_encoder(method: Method) -> list[nn.Module]:
    """The method's encoder, and every other one in it with the same weights, such as a teacher."""
    encoder = method.encoder
    return [module for module in method.modules() if type(module) is type(encoder) and _are_equal(module, encoder)]


def _are_equal(module: nn.Module, other: nn.Module) -> bool:
    states = module.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(value, states[1][name]) for name, value in states[0].items()
    )


def build(setup: ModelSetup) -> Method:
    """What a golden file or a checkpoint says it is, in evaluation mode.

    Raises:
        InputError: an unknown plugin, or options that it does not take.
    """
    encoder: type[Encoder] = registry.encoders.load(setup.encoder)
    method: type[Method] = registry.methods.load(setup.method)
    return assemble(
        setup.encoder,
        validate(encoder.Config, setup.encoder_options, "encoder"),
        method,
        validate(method.Config, setup.method_options, "method"),
        image_size=setup.image_size,
        channels=setup.channels,
        frames=setup.frames,
        seed=0,
    ).eval()


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
