"""Parameter groups: what is decayed, and how far layer decay scales each learning rate."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatchcase
from itertools import compress
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from mimbench.contract.train_config import TrainConfig
from mimbench.contract.training import PartOptions
from mimbench.errors import InputError, nearest

LayerOf = Callable[[str], int]
NO_PARTS: Mapping[str, PartOptions] = MappingProxyType({})


def param_groups(
    model: nn.Module,
    config: TrainConfig,
    *,
    layer_of: LayerOf | None = None,
    num_layers: int | None = None,
    no_decay: Collection[str] = (),
    decay: Collection[str] = (),
    parts: Mapping[str, PartOptions] = NO_PARTS,
) -> list[dict[str, Any]]:
    """Groups of the trainable parameters of `model` for a torch optimizer.

    Each has "params", "names", "weight_decay" and "lr_scale" = layer_decay ** (num_layers + 1 - layer), the
    stem first. Parameters of one dimension, biases and what `no_decay` matches are not decayed.

    Args:
        layer_of: depth of a parameter by its name in `model`, from 0 to num_layers + 1 (`encoder_layers`).
        num_layers: blocks of the encoder; it and `layer_of` are needed only for layer decay.
        no_decay: names, or shell patterns (* also spans dots), each matched against the whole name or the
            part after any dot: "mask_token" matches "encoder.mask_token".
        decay: as `no_decay`, of parameters of one dimension that are decayed all the same.
        parts: options of parameters by the beginning of their names, or by a pattern if it has a *, as if these had an
            optimizer of the same kind to themselves. lr_scale is multiplied by theirs. A group with "fixed_decay" keeps
            its weight decay.

    Raises:
        InputError: nothing is trainable, or the layer decay, a name or a part reaches no parameter.
    """
    names = [name for name, _ in model.named_parameters()]
    _require_match("no-decay", no_decay, names)
    _require_match("decay", decay, names)
    _require_parts(parts, names, config)
    groups: dict[tuple[int, bool, int], dict[str, Any]] = {}
    scales = _layer_scales(config, layer_of, num_layers)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        layer, scale = scales(name)
        is_matrix = parameter.ndim > 1 and not _is_bias(name) and not any(_matches(name, p) for p in no_decay)
        decayed = is_matrix or any(_matches(name, p) for p in decay)
        index, part = _part_of(name, parts)
        value = config.weight_decay if part.weight_decay is None else part.weight_decay
        options: dict[str, Any] = {"weight_decay": value if decayed else 0.0, "lr_scale": scale * part.lr_scale}
        options |= {} if part.betas is None else {"betas": part.betas}
        options |= {} if part.weight_decay is None else {"fixed_decay": True}
        group = groups.setdefault((layer, decayed, index), {"params": [], "names": [], **options})
        group["params"].append(parameter)
        group["names"].append(name)
    _require_effect(groups, config)
    return [groups[key] for key in sorted(groups)]


def decay_rules(model: nn.Module) -> dict[str, Any]:
    """What a Trainable says of itself, as `param_groups` and `build_optimizer` take it."""
    return {
        "layer_of": getattr(model, "layer_of", None),
        "num_layers": getattr(model, "num_layers", None),
        "no_decay": getattr(model, "no_weight_decay", set)(),
        "decay": getattr(model, "extra_weight_decay", set)(),
        "parts": getattr(model, "optimizer_parts", dict)(),
    }


def build_optimizer(
    model: nn.Module,
    config: TrainConfig,
    *,
    layer_of: LayerOf | None = None,
    num_layers: int | None = None,
    no_decay: Collection[str] = (),
    decay: Collection[str] = (),
    parts: Mapping[str, PartOptions] = NO_PARTS,
) -> torch.optim.Optimizer:
    """The optimizer of `config` over `param_groups`, whose arguments and errors it shares.

    Every group starts at config.lr; whoever steps it sets each group's "lr" from a Schedule first.
    """
    groups = param_groups(
        model, config, layer_of=layer_of, num_layers=num_layers, no_decay=no_decay, decay=decay, parts=parts
    )
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)
    if config.optimizer == "lars":
        return _lars(groups, config)
    if config.optimizer == "lamb":
        return _lamb(groups, config)
    # Fused: one pass over all parameters, several times faster on a CPU and less memory traffic on CUDA.
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def set_rates(optimizer: torch.optim.Optimizer, rate: Callable[[float], float], weight_decay: float) -> None:
    """Set what the next step of an optimizer from `build_optimizer` uses.

    Args:
        rate: learning rate of a group, from its "lr_scale".
        weight_decay: of the groups that are decayed and have no fixed decay.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate(group["lr_scale"])
        if group["weight_decay"] and not group.get("fixed_decay"):  # 0 marks the parameters without decay
            group["weight_decay"] = weight_decay


def _lars(groups: list[dict[str, Any]], config: TrainConfig) -> torch.optim.Optimizer:
    """timm's LARS (arXiv:1708.03888), trust coefficient 0.001; parameters of one dimension take plain momentum steps.

    Without weight decay its steps are those of facebookresearch/mae@efb2a806 util/lars.py. With it, the trust ratio
    divides by |g| + wd |w|, as the paper has it, and there by |g + wd w|.
    """
    from timm.optim import Lars

    split = [
        {
            **group,
            **_chosen(group, [(parameter.ndim > 1) == wide for parameter in group["params"]]),
            "always_adapt": wide,
        }
        for group in groups
        for wide in (True, False)
    ]
    return Lars([group for group in split if group["params"]], lr=config.lr, momentum=config.momentum, eps=0.0)


def _lamb(groups: list[dict[str, Any]], config: TrainConfig) -> torch.optim.Optimizer:
    """timm's LAMB (arXiv:1904.00962), whose steps are those of keyu-tian/SparK@a63e386f pretrain/utils/lamb.py.

    The step of a parameter with weight decay is scaled by its trust ratio, the norm of the parameter over that of its
    step. There the optimizer itself clips the whole gradient to a norm of 5; here config.clip_grad does.
    """
    from timm.optim import Lamb

    return Lamb(groups, lr=config.lr, betas=config.betas, eps=config.eps, max_grad_norm=None)


def _chosen(group: dict[str, Any], keep: list[bool]) -> dict[str, Any]:
    return {key: list(compress(group[key], keep)) for key in ("params", "names")}


def _layer_scales(
    config: TrainConfig, layer_of: LayerOf | None, num_layers: int | None
) -> Callable[[str], tuple[int, float]]:
    """A parameter's (layer, lr_scale) by name; (0, 1) for all if there is no layer decay."""
    decay = config.layer_decay
    if decay is None:
        return lambda name: (0, 1.0)
    if layer_of is None or num_layers is None:
        raise InputError(f"layer_decay {decay:g} needs an encoder that is trained; leave it out here")

    def scale(name: str) -> tuple[int, float]:
        layer = layer_of(name)
        if not 0 <= layer <= num_layers + 1:
            raise ValueError(f"layer_of({name!r}) is {layer}, outside 0 to {num_layers + 1}")
        return layer, decay ** (num_layers + 1 - layer)

    return scale


def _part_of(name: str, parts: Mapping[str, PartOptions]) -> tuple[int, PartOptions]:
    """The options of a parameter, and the number of its part; 0 and the defaults for a parameter of no part."""
    for index, (beginning, options) in enumerate(parts.items(), 1):
        if _is_in_part(name, beginning):
            return index, options
    return 0, PartOptions()


def _is_in_part(name: str, beginning: str) -> bool:
    return fnmatchcase(name, beginning) if "*" in beginning else name.startswith(beginning)


def _require_parts(parts: Mapping[str, PartOptions], names: list[str], config: TrainConfig) -> None:
    for beginning, options in parts.items():
        if not any(_is_in_part(name, beginning) for name in names):
            depth = beginning.rstrip(".").count(".") + 1
            known = {".".join(name.split(".")[:depth]) for name in names}
            hint = nearest(beginning.rstrip("."), known)
            raise InputError(f"the optimizer's part {beginning!r} matches no parameter{hint}")
        if options.betas is not None and config.optimizer not in ("adamw", "lamb"):
            raise InputError(f"the optimizer's part {beginning!r} has betas, which {config.optimizer} does not use")


def _require_effect(groups: dict[tuple[int, bool, int], dict[str, Any]], config: TrainConfig) -> None:
    if not groups:
        raise InputError("nothing to train: every parameter is frozen")
    decay = config.layer_decay
    if decay is not None and decay < 1 and all(group["lr_scale"] == 1 for group in groups.values()):
        raise InputError(f"layer_decay {decay:g} reaches no trainable parameter: the encoder is frozen; leave it out")


def _require_match(what: str, patterns: Collection[str], names: list[str]) -> None:
    if isinstance(patterns, str):
        raise TypeError(f"{what} names are a collection, not the one string {patterns!r}")
    for pattern in sorted(patterns):
        if not any(_matches(name, pattern) for name in names):
            known = {name.rpartition(".")[2] for name in names}
            raise InputError(f"{what} name {pattern!r} matches no parameter{nearest(pattern, known)}")


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def _is_bias(name: str) -> bool:
    return name.rpartition(".")[2] == "bias"
