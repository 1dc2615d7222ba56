"""What one training step of a method costs: patches encoded, floating-point operations, parameters."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mimbench.contract import Batch, Encoder, Method
from mimbench.contract.input import image_shape
from mimbench.errors import InputError
from mimbench.harness.planning.build import build_method
from mimbench.harness.planning.fake_step import strip_values, without_values
from mimbench.optim import Schedule
from mimbench.recipe.resolve import Recipe

_IMAGES = 2
"""Images of the step that is counted: the least that batch norm and methods that mix images take."""
LEAST_STEPS = 100
"""Optimizer steps from which a training is worth the seconds that counting its operations takes."""


@dataclass(frozen=True)
class StepCost:
    """Per image of the training set, all its views together."""

    patches: float
    """Patches that encoders process, teachers included; 0 if they process maps, as convolutional ones do. One that only
    half of the blocks process counts half."""
    flops: float
    """Of the forward and the backward pass, two per multiplication with addition. Element-wise work is not counted."""
    trained: int
    """Parameters with a gradient."""
    stored: int
    """Parameters and buffers in a checkpoint."""


def count_step(recipe: Recipe, channels: int, progress: float = 1.0, seed: int = 0) -> StepCost:
    """Count one step on a few images. Its tensors have no values, unless a plugin needs them: then it runs on the CPU.

    The step is one at `input.image_size`, whatever schedule that has.

    Args:
        progress: share of the training before this step; the default is the end. A scheduled mask ratio depends on it.
        seed: of images and masks.

    Raises:
        InputError: the model is not possible.
    """
    try:
        with warnings.catch_warnings(), without_values():
            warnings.simplefilter("ignore")  # torch warns that weights loaded onto the meta device are ignored
            with unset_fake_temporarily(), torch.device("meta"):
                method = build_method(recipe, 0, channels, to_train=True)
            strip_values(method)
            return _count(method, recipe, channels, progress, seed)
    except InputError:
        raise
    except Exception:  # a shape may depend on values; an error of the step itself comes again below
        return _count(build_method(recipe, 0, channels, to_train=True), recipe, channels, progress, seed)


def _count(method: Method, recipe: Recipe, channels: int, progress: float, seed: int) -> StepCost:
    method.train()
    method.progress = progress
    method.before_step(progress)
    generator = torch.Generator().manual_seed(seed)
    shapes = [image_shape(channels, view.image_size, view.frames) for view in recipe.views()]
    views = tuple(torch.randn(_IMAGES, *shape, generator=generator) for shape in shapes)
    labels = torch.arange(_IMAGES) if "labels" in method.supervision else None
    patches: list[float] = []
    with torch.random.fork_rng(devices=[]), _counted_patches(method, patches):
        torch.default_generator.manual_seed(0)
        with counted_flops() as counter:
            method.step(Batch(views, labels), generator).loss.backward()
    return StepCost(
        sum(patches) / _IMAGES,
        counter.get_total_flops() / _IMAGES,
        sum(value.numel() for value in method.parameters() if value.requires_grad),
        sum(value.numel() for value in method.state_dict().values()),
    )


@contextmanager
def counted_flops() -> Iterator[FlopCounterMode]:
    """Count floating-point operations within this context, two per multiplication with addition.

    Attention is computed by its plain formula meanwhile, since torch counts no operations of its fused kernels.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter


def count_training(recipe: Recipe, channels: int, images: int) -> StepCost | None:
    """What each step of a training on `images` images costs.

    None if steps differ by more than a twentieth, such as by a schedule of the mask ratio or by contexts of other
    lengths, if the image size changes, and for trainings under `LEAST_STEPS`. The caller's random numbers stay.

    Raises:
        InputError: the model is not possible.
    """
    steps = Schedule(recipe.pretrain, steps_per_epoch=images // recipe.pretrain.batch_size).steps
    if recipe.pretrain.image_sizes or steps < LEAST_STEPS:
        return None
    first, last = count_step(recipe, channels, progress=0.0), count_step(recipe, channels, seed=1)
    if abs(first.flops - last.flops) > last.flops / 20 or abs(first.patches - last.patches) > last.patches / 20:
        return None
    flops, patches = (first.flops + last.flops) / 2, (first.patches + last.patches) / 2
    return replace(last, flops=flops, patches=patches)


_ENCODE = ("forward_layers", "encode_late", "encode_visible", "encode_mixed", "mlp_outputs")
"""Functions of an encoder that process patches."""


@contextmanager
def _counted_patches(method: Method, counts: list[float]) -> Iterator[None]:
    """While active, add to `counts` how many patches each call of an encoder processes."""
    encoders = [module for module in method.modules() if isinstance(module, Encoder)]
    for encoder in encoders:
        for name in _ENCODE:
            _watch(encoder, name, counts)
    try:
        yield
    finally:
        for encoder in encoders:
            for name in _ENCODE:
                del vars(encoder)[name]


def _watch(encoder: Encoder, name: str, counts: list[float]) -> None:
    encode = getattr(encoder, name)

    def counted(tokens: Tensor, *others: Any, **options: Any) -> Any:
        arguments = signature(encode).bind(tokens, *others, **options).arguments
        before = len(counts)
        result = encode(tokens, *others, **options)
        del counts[before:]  # what it called itself
        counts.append(_count_patches(encoder, name, tokens, arguments.get("keep"), arguments.get("late")))
        return result

    vars(encoder)[name] = counted


def _count_patches(encoder: Encoder, name: str, tokens: Tensor, keep: Tensor | None, late: int | None) -> float:
    """keep: the visible patches, or for `encode_visible` the visible cells of the last map. late: of `encode_late`."""
    if keep is None:
        return tokens[..., 0].numel()
    if late is not None:
        share = late / encoder.num_layers
        return (1 - share) * keep.numel() + share * tokens[..., 0].numel()
    if name == "encode_visible":
        return len(tokens) * keep.shape[1] * (encoder.stride // encoder.patch_size) ** 2
    return keep.numel()
