"""Loads a file of weights into a model of timm, and refuses one that does not fill it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Set
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mimbench.errors import InputError
from mimbench.text import list_first

_HEAD = ("head", "fc_norm", "attn_pool", "pre_logits")
"""Starts of names that belong to timm's classifiers."""


def load_timm_weights(
    body: Any,
    model: str,
    path: Path,
    *,
    channels: int,
    optional: Set[str],
    where: str = "encoder.weights",
    refuses_others: bool = True,
) -> list[str]:
    """Load weights in timm's names, or in the names that timm converts from, such as those of the official code.

    The weights of a classifier are left out. The first convolution is adapted to the number of channels as timm does.
    Position tables of another image size are resampled if timm does so for this model.

    Args:
        body: timm's model.
        model: its name.
        path: safetensors, or torch.save of a state dict, which may be under "model" or "state_dict".
        channels: channels of the images.
        optional: names of parameters that the file may lack.
        where: what names the file, for messages.
        refuses_others: whether tensors that the model has no place for are refused.

    Returns:
        Names of tensors that the model has no place for.

    Raises:
        InputError: the file cannot be read, lacks a tensor, or has one of another shape or name.
    """
    from timm.models import model_entrypoint
    from timm.models._manipulate import adapt_input_conv

    state = _read(path, where)
    convert = getattr(sys.modules[model_entrypoint(model.partition(".")[0]).__module__], "checkpoint_filter_fn", None)
    config = body.pretrained_cfg
    try:
        if convert is not None:
            state = convert(state, body) if len(inspect.signature(convert).parameters) > 1 else convert(state)
        for name in _listed(config.get("first_conv")):
            weight = state.get(f"{name}.weight")
            if weight is not None and weight.ndim == 4 and weight.shape[1] != channels:
                state[f"{name}.weight"] = adapt_input_conv(channels, weight)
        classifiers = tuple(f"{name}." for name in _listed(config.get("classifier")))
        names = set(body.state_dict())
        state = {
            name: value for name, value in state.items() if name in names or not name.startswith((*classifiers, *_HEAD))
        }
        loaded = body.load_state_dict(state, strict=False)
    except Exception as error:  # timm's converters raise any exception on foreign files
        raise InputError(_refusal(where, path, model, " ".join(str(error).split())[:300])) from error
    missing, others = sorted(set(loaded.missing_keys) - optional), sorted(loaded.unexpected_keys)
    if missing or (others and refuses_others):
        problems = [f"it lacks {list_first(missing)}"] if missing else []
        if others:
            problems.append(f"it also has {list_first(others)}")
        raise InputError(_refusal(where, path, model, "; ".join(problems)))
    return others


def _refusal(where: str, path: Path, model: str, reason: str) -> str:
    return f"{where}: {path} does not hold the weights of timm's {model}, as it is configured: {reason}"


def _read(path: Path, where: str) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        loaded = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{where}: {path} cannot be read as weights: {reason}") from error
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise InputError(f"{where}: {path} holds no state dict")
    return loaded


def _listed(names: Any) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())
