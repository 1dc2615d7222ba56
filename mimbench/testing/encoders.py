"""The checks of an encoder.

    for result in check_encoder(MyEncoder, {"embed_dim": 16}):
        print(result.name, result.status, result.message)

As tests, one per check: `@parametrize_checks(encoder_suite(MyEncoder))`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mimbench.contract import Config, Encoder
from mimbench.testing.checks import Result, Suite
from mimbench.testing.encoder_outputs import OUTPUT_CHECKS
from mimbench.testing.encoder_subject import EncoderSubject
from mimbench.testing.encoder_training import TRAINING_CHECKS
from mimbench.testing.form import FORM_CHECKS, make_suite

ENCODER_CHECKS = (*FORM_CHECKS, *OUTPUT_CHECKS, *TRAINING_CHECKS)


def encoder_suite(
    encoder: type[Encoder],
    options: Mapping[str, Any] | Config | None = None,
    *,
    image_size: int = 32,
    channels: int = 3,
    frames: int = 1,
) -> Suite:
    """The checks of an encoder, none of which has run.

    Args:
        encoder: the class.
        options: options of its Config that differ from the defaults. Choose few channels and layers.
        image_size: side of the images, px.
        channels: of the images.
        frames: of each clip; 1 for images.

    Raises:
        InputError: the options are not valid, or `waivers` of the class names no check.
    """
    return make_suite(EncoderSubject(encoder, options, image_size, channels, frames), ENCODER_CHECKS)


def check_encoder(
    encoder: type[Encoder], options: Mapping[str, Any] | Config | None = None, **setting: Any
) -> list[Result]:
    """Run every check of an encoder. The arguments are those of `encoder_suite`."""
    return encoder_suite(encoder, options, **setting).run()
