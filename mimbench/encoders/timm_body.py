"""Builds a model of timm by name, and finds out what it can do by running it on the meta device."""

from __future__ import annotations

import inspect
import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from mimbench.errors import InputError, nearest

_TRIAL_DROP_PATH = 0.1
"""A rate that shows whether a model has paths to drop."""
_GIVES_PREFIX = "return_prefix_tokens"
"""Argument of `forward_intermediates` of models with prefix tokens."""


@dataclass(frozen=True)
class Stem:
    """The module of a model that embeds patches, each from its own pixels only."""

    name: str
    layout: str
    """Of its output: "NLC", "NHWC" or "NCHW"."""
    dim: int
    patch_size: int


@dataclass(frozen=True)
class Body:
    """What is known of a model at one image size."""

    dims: tuple[int, ...]
    """Channels of each layer; a layer is an entry of timm's `feature_info`, without those of the stem."""
    strides: tuple[int, ...]
    first: int
    """Index of the first layer in timm's `feature_info`."""
    layer_of: Mapping[str, int]
    """Depth of each parameter, for layer decay."""
    unused: frozenset[str]
    """Parameters that no feature depends on, such as those of a classifier."""
    prefix: int
    """Number of prefix tokens that timm returns for each layer."""
    has_final: bool
    """Whether timm's final features have the channels of the last layer, so that they can stand for it."""
    stem: Stem | None
    can: frozenset[str]


def build_body(
    model: str, arguments: Mapping[str, Any], *, image_size: int, channels: int, drop_path: float
) -> nn.Module:
    """A model of timm without its classifier. Initial weights come from the global torch generator.

    Args:
        model: timm's name of it.
        arguments: further arguments of timm's model.
        image_size: side of the images in px.
        channels: of the images.
        drop_path: stochastic depth rate of the last block; 0 passes none.

    Raises:
        InputError: timm has no such model, or cannot build it so.
    """
    import timm

    _require_known(model)
    options: dict[str, Any] = {"num_classes": 0, "in_chans": channels, **arguments}
    config = timm.get_pretrained_cfg(model)
    if config is not None and config.fixed_input_size:
        options = {"img_size": image_size, "dynamic_img_size": True, **options}
    if drop_path:
        options["drop_path_rate"] = drop_path
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return timm.create_model(model, **options)
        except Exception as error:
            unknown = re.search(r"(?:unexpected|values for) keyword argument '(\w+)'", str(error))
            if unknown and unknown[1] == "dynamic_img_size" and "dynamic_img_size" not in arguments:
                del options["dynamic_img_size"]
                continue
            raise InputError(_why_not_built(model, error, unknown and unknown[1])) from error


def _require_known(model: str) -> None:
    import timm

    base = model.partition(".")[0]
    if ":" in model or "/" in model or not timm.is_model(base):
        raise InputError(
            f"encoder.model: timm {timm.__version__} has no model {model!r}{nearest(base, timm.list_models())}"
        )


def _why_not_built(model: str, error: Exception, unknown: str | None) -> str:
    if unknown == "drop_path_rate":
        return f"timm's {model} cannot drop paths; set drop_path to 0, or that of a task to none"
    if unknown:
        return f"encoder.arguments: timm's {model} takes no {unknown!r}; leave it out"
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return f"timm's {model} cannot be built with this input.image_size and these encoder.arguments: {reason}"


def inspect_body(model: str, arguments: Mapping[str, Any], *, image_size: int, channels: int) -> Body:
    """What a model can do, from a run on the meta device. Known once per process for equal arguments.

    Raises:
        InputError: as `build_body`, or tasks cannot use the model, since it outputs no intermediate features.
    """
    return _inspect(model, json.dumps(arguments, sort_keys=True, default=str), image_size, channels)


@lru_cache(maxsize=32)
def _inspect(model: str, arguments: str, image_size: int, channels: int) -> Body:
    options = {"image_size": image_size, "channels": channels}
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad(), torch.device("meta"):
        try:
            body = build_body(model, json.loads(arguments), drop_path=_TRIAL_DROP_PATH, **options)
        except InputError as error:
            if "cannot drop paths" not in str(error):
                raise
            body = build_body(model, json.loads(arguments), drop_path=0.0, **options)
        return _describe(model, body.eval(), image_size, channels)


def _describe(model: str, body: Any, image_size: int, channels: int) -> Body:
    if not hasattr(body, "forward_intermediates") or not getattr(body, "feature_info", None):
        raise InputError(f"encoder.model: timm's {model} outputs no intermediate features, which mimbench needs")
    images = torch.zeros(2, channels, image_size, image_size)
    try:
        final, maps = body.forward_intermediates(images)
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"timm's {model} does not run on images of {image_size} px: {reason}") from error
    layers = list(body.feature_info)
    first = next(index for index, layer in enumerate(layers) if not _is_stem(body, layer["module"]))
    dims = tuple(one.shape[1] for one in maps[first:])
    strides = tuple(int(layer["reduction"]) for layer in layers[first : first + len(dims)])
    takes_prefix = _GIVES_PREFIX in inspect.signature(body.forward_intermediates).parameters
    prefix = int(getattr(body, "num_prefix_tokens", 0) or 0) if takes_prefix else 0
    has_final = final.shape[-1 if final.ndim == 3 else _channel_axis(body)] == dims[-1]
    stem = _find_stem(body, images)
    unused = _unused(body, final if has_final else maps[-1])
    can = {"mask-tokens", "separate-patches", *_abilities(body, images)}
    if prefix and getattr(body, "cls_token", None) is not None:
        can.add("class-token")
    if stem and isinstance(list(getattr(body, stem.name).modules())[-1], nn.LayerNorm):
        can.add("normed-tokens")
    if len(set(strides)) > 1:
        can.add("pyramid")
    elif stem is None or stem.patch_size == strides[0]:
        can.add("one-grid")
    names = [layer["module"] for layer in layers[first : first + len(dims)]]
    depths = _depths(body, names)
    return Body(dims, strides, first, depths, unused, prefix, has_final, stem, frozenset(can))


def _channel_axis(body: Any) -> int:
    return -1 if "NHWC" in str(getattr(body, "output_fmt", "")) else 1


def _abilities(body: Any, images: Tensor) -> set[str]:
    from timm.models.vision_transformer import VisionTransformer

    can = set()
    if isinstance(body, VisionTransformer) and isinstance(body.patch_drop, nn.Identity):
        can.add("visible-only")
    if hasattr(body, "set_grad_checkpointing"):
        can.add("grad-checkpointing")
    if any(getattr(module, "drop_prob", 0) for module in body.modules()):
        can.add("drop-path")
    try:
        body.forward_intermediates(images.repeat(1, 1, 2, 2))
    except Exception:  # each model has its own way to refuse another size
        return can
    return can | {"any-size"}


def _find_stem(body: Any, images: Tensor) -> Stem | None:
    """The stem, if it is one convolution that steps as far as it reaches, with norms at most."""
    for name in ("patch_embed", "stem"):
        stem = getattr(body, name, None)
        if not isinstance(stem, nn.Module):
            continue
        convolutions = [module for module in stem.modules() if isinstance(module, nn.Conv2d)]
        if len(convolutions) != 1 or convolutions[0].kernel_size != convolutions[0].stride:
            return None
        output, step = stem(images), convolutions[0].stride[0]
        side, dim = images.shape[-1] // step, convolutions[0].out_channels
        layouts = {"NLC": (side * side, dim), "NCHW": (dim, side, side), "NHWC": (side, side, dim)}
        fitting = [layout for layout, shape in layouts.items() if tuple(output.shape[1:]) == shape]
        if len(fitting) > 1:  # as many channels as rows
            fitting = [layout for layout in fitting if layout in str(getattr(stem, "output_fmt", "NCHW"))]
        return Stem(name, fitting[0], dim, step) if fitting else None
    return None


def _unused(body: Any, output: Tensor) -> frozenset[str]:
    head = [norm for norm in (find_head_norm(body),) if norm is not None]
    reached = {id(parameter) for norm in head for parameter in norm.parameters()}
    output.sum().backward()
    return frozenset(
        name for name, parameter in body.named_parameters() if parameter.grad is None and id(parameter) not in reached
    )


def find_head_norm(body: Any) -> nn.Module | None:
    """The norm before timm's classifier, of a model whose trunk ends without one (ConvNeXt, EVA-02)."""
    for norm in (getattr(body, "fc_norm", None), getattr(getattr(body, "head", None), "norm", None)):
        if isinstance(norm, nn.LayerNorm) and any(True for _ in norm.parameters()):
            return norm
    return None


def _matcher(body: Any) -> dict[str, Any]:
    matcher = body.group_matcher(coarse=True) if hasattr(body, "group_matcher") else None
    return matcher if isinstance(matcher, dict) else {}


def _is_stem(body: Any, module: str) -> bool:
    stem = _matcher(body).get("stem", "^stem")
    patterns = [pattern for pattern, _ in stem] if isinstance(stem, list | tuple) else [stem]
    return module.startswith("act") or any(re.match(pattern, module) for pattern in patterns)


def _depths(body: Any, layers: list[str]) -> dict[str, int]:
    """Depth of each parameter by timm's groups: 0 the stem, i + 1 layer i, len(layers) + 1 what comes after."""
    from timm.models._manipulate import group_with_matcher

    names = [name for name, _ in body.named_parameters()]
    matcher = _matcher(body)
    if not matcher:
        return _depths_in_order(names, layers)
    groups: dict[str, int] = group_with_matcher(body.named_parameters(), matcher, reverse=True)
    ends = [max((groups[name] for name in names if name.startswith(f"{layer}.")), default=0) for layer in layers]
    specs = [spec for spec in matcher.values() if isinstance(spec, list | tuple)]
    after = [pattern for spec in specs for pattern, value in spec if value is not None and value[-1] == 99999]

    def depth_of(name: str) -> int:
        if any(re.match(pattern, name) for pattern in after):
            return len(layers) + 1
        if groups[name] == 0:
            return 0
        return next((index + 1 for index, end in enumerate(ends) if groups[name] <= end), len(layers) + 1)

    return {name: depth_of(name) for name in names}


def _depths_in_order(names: list[str], layers: list[str]) -> dict[str, int]:
    """For a model without groups: by the layer that a parameter is in, or the order of parameters."""
    depths: dict[str, int] = {}
    for name in names:
        inside = next((index + 1 for index, layer in enumerate(layers) if name.startswith(f"{layer}.")), None)
        depths[name] = inside if inside is not None else (len(layers) + 1 if any(depths.values()) else 0)
    return depths
