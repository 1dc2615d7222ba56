"""A new encoder with other options, for tasks that fine-tune it."""

from __future__ import annotations

from typing import Any

from torch import nn

from mimbench.contract.encoder import Encoder
from mimbench.errors import InputError


def rebuild_encoder(encoder: Encoder, *, image_size: int | None = None, **options: Any) -> Encoder:
    """An encoder like this one, with these options of its Config instead of its own, and fresh weights.

    The weights are drawn from the global torch generator, on the CPU or on the device of a `with torch.device(...)`. An
    option that its Config does not have is ignored if its value is 0, False or None. An option `weights`, a file of
    initial weights, is set to None.

    Raises:
        InputError: it has no such option, or it does not support this size or drop path.
    """
    known = type(encoder.config).model_fields
    for name, value in options.items():
        if value and name not in known:
            raise InputError(
                f"task.{name} {value!r} is not for this {encoder.kind} encoder, which has no such option; leave it "
                f"out, or set it to none if the protocol has it (--set task.{name}=none)"
            )
    changes = {name: value for name, value in options.items() if name in known}
    if "weights" in known:
        changes["weights"] = None
    config = encoder.config.model_copy(update=changes)
    size = encoder.image_size if image_size is None else image_size
    made = type(encoder).build(config, image_size=size, in_channels=encoder.in_channels, frames=encoder.frames)
    require_drop_path(made, options.get("drop_path", 0.0))
    return made


def require_drop_path(model: nn.Module, rate: float) -> None:
    """Check that a drop path above 0 took effect: some module of `model` has a `drop_prob` above 0.

    Raises:
        InputError: `rate` is above 0 and nothing in `model` drops paths.
    """
    if rate > 0 and not any(getattr(module, "drop_prob", 0) for module in model.modules()):
        raise InputError(
            f"drop_path {rate:g} reaches no block of {type(model).__name__}; set it to 0, or take a deeper encoder"
        )
