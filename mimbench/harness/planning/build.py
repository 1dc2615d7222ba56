"""Builds a method with its encoder on the CPU, from a seed."""

from __future__ import annotations

import torch

from mimbench import registry
from mimbench.advice import is_out_of_memory, short_text
from mimbench.contract import Config, Encoder, Method, ModelSetup
from mimbench.contract.validation import validate
from mimbench.errors import InputError


def assemble(
    encoder: type[Encoder],
    encoder_config: Config,
    method: type[Method],
    method_config: Config,
    *,
    image_size: int,
    channels: int,
    seed: int,
) -> Method:
    """A freshly initialised method. Equal seeds give equal weights. torch's global generator stays unchanged.

    Raises:
        InputError: a model of these sizes does not fit into memory.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return method(method_config, encoder(encoder_config, image_size=image_size, in_channels=channels))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(
            f"method {method.name!r} with encoder {encoder.__name__} at image size {image_size} does not fit into the "
            f"memory of this machine ({short_text(error)}); lower the sizes in [encoder] and [method], or "
            "input.image_size"
        ) from error


def build(setup: ModelSetup) -> Method:
    """What a golden file or a checkpoint says it is, in evaluation mode.

    Raises:
        InputError: an unknown plugin, or options that it does not take.
    """
    encoder: type[Encoder] = registry.encoders.load(setup.encoder)
    method: type[Method] = registry.methods.load(setup.method)
    return assemble(
        encoder,
        validate(encoder.Config, setup.encoder_options, "encoder"),
        method,
        validate(method.Config, setup.method_options, "method"),
        image_size=setup.image_size,
        channels=setup.channels,
        seed=0,
    ).eval()
