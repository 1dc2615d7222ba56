"""The checks of a method.

    for result in check_method(MyMethod, {"mask_ratio": 0.5}):
        print(result.name, result.status, result.message)

As tests, one per check: `@parametrize_checks(method_suite(MyMethod))`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mimbench.contract import Config, Encoder, InputConfig, Method
from mimbench.testing.checks import Result, Suite
from mimbench.testing.form import FORM_CHECKS, make_suite
from mimbench.testing.method_masks import MASK_CHECKS, PREDICTION_CHECKS
from mimbench.testing.method_processes import PROCESS_CHECKS
from mimbench.testing.method_states import STATE_CHECKS
from mimbench.testing.method_steps import LIMIT_CHECKS, STEP_CHECKS
from mimbench.testing.method_subject import MethodSubject

METHOD_CHECKS = (
    *FORM_CHECKS,
    *MASK_CHECKS,
    *STEP_CHECKS,
    *PREDICTION_CHECKS,
    *STATE_CHECKS,
    *LIMIT_CHECKS,
    *PROCESS_CHECKS,
)
SMALL = InputConfig(image_size=32, mean=(0.5,), std=(0.5,))


def method_suite(
    method: type[Method],
    options: Mapping[str, Any] | Config | None = None,
    *,
    encoder: type[Encoder] | str | None = None,
    encoder_options: Mapping[str, Any] | Config | None = None,
    input_config: InputConfig = SMALL,
    channels: int = 1,
) -> Suite:
    """The checks of a method, none of which has run. It is trained for some steps on the CPU, in seconds.

    Args:
        method: the class.
        options: options of its Config that differ from the defaults; they must suit small images.
        encoder: class of the encoder, or a kind ("vit", "swin", "convnet") for a small built-in one. Default: the
            first kind that the method takes.
        encoder_options: options of the encoder's Config.
        input_config: its `image_size` is the side of the images; with `frames` above 1 they are clips.
        channels: of the images.

    Raises:
        InputError: the options are not valid, or `waivers` of the class names no check.
    """
    subject = MethodSubject(method, options, encoder, encoder_options, input_config, channels)
    return make_suite(subject, METHOD_CHECKS)


def check_method(
    method: type[Method], options: Mapping[str, Any] | Config | None = None, **setting: Any
) -> list[Result]:
    """Run every check of a method. The arguments are those of `method_suite`."""
    return method_suite(method, options, **setting).run()
