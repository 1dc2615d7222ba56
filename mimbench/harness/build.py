"""A method and its encoder, built from plugins' names and options alone."""

from __future__ import annotations

import torch

from mimbench import registry
from mimbench.contract import Encoder, Method
from mimbench.convert.golden import Setup
from mimbench.recipe.validation import validated


def build(setup: Setup) -> Method:
    """Freshly initialised, on the CPU, in evaluation mode.

    Raises:
        InputError: an unknown plugin, or options that it does not take.
    """
    encoder_class: type[Encoder] = registry.encoders.load(setup.encoder)
    method_class: type[Method] = registry.methods.load(setup.method)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = encoder_class(
            validated(encoder_class.Config, setup.encoder_options, "encoder"),
            image_size=setup.image_size,
            in_channels=setup.channels,
        )
        return method_class(validated(method_class.Config, setup.method_options, "method"), encoder).eval()
