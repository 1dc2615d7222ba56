"""What one training step of a method costs: patches encoded, floating-point operations, parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mimbench.contract import Batch, Encoder, Method
from mimbench.contract.input import image_shape
from mimbench.harness.planning.plan import build_method
from mimbench.recipe.resolve import Recipe

_IMAGES = 2
"""Images of the step that is counted: the least that batch norm and methods that mix images take."""


@dataclass(frozen=True)
class StepCost:
    """Per image of the training set, all its views together."""

    patches: float
    """Patches that encoders process, teachers included."""
    flops: float
    """Of the forward and the backward pass, two per multiplication with addition. Element-wise work is not counted."""
    trained: int
    """Parameters with a gradient."""
    stored: int
    """Parameters and buffers in a checkpoint."""


def count_step(recipe: Recipe, channels: int) -> StepCost:
    """Run one step on random images on the CPU and count, at input.image_size whatever pretrain.image_sizes says.

    Attention is computed by its plain formula meanwhile, since torch counts no operations of its fused kernels.

    Raises:
        InputError: the model is not possible.
    """
    method = build_method(recipe, 0, channels, to_train=True).train()
    generator = torch.Generator().manual_seed(0)
    shapes = [image_shape(channels, view.image_size, view.frames) for view in recipe.views()]
    views = tuple(torch.randn(_IMAGES, *shape, generator=generator) for shape in shapes)
    labels = torch.arange(_IMAGES) if "labels" in method.supervision else None
    patches: list[int] = []
    with torch.random.fork_rng(devices=[]), sdpa_kernel(SDPBackend.MATH), _counted_patches(method, patches):
        torch.manual_seed(0)
        with FlopCounterMode(display=False) as counter:
            method.step(Batch(views, labels), generator).loss.backward()
    return StepCost(
        sum(patches) / _IMAGES,
        counter.get_total_flops() / _IMAGES,
        sum(value.numel() for value in method.parameters() if value.requires_grad),
        sum(value.numel() for value in method.state_dict().values()),
    )


@contextmanager
def _counted_patches(method: Method, counts: list[int]) -> Iterator[None]:
    """While active, add to `counts` how many patches each call of an encoder's `forward_layers` processes."""
    encoders = [module for module in method.modules() if isinstance(module, Encoder)]
    for encoder in encoders:
        _watch(encoder, counts)
    try:
        yield
    finally:
        for encoder in encoders:
            del vars(encoder)["forward_layers"]


def _watch(encoder: Encoder, counts: list[int]) -> None:
    forward_layers = encoder.forward_layers

    def counted(
        tokens: Tensor, layers: Sequence[int] | None = None, *, keep: Tensor | None = None, **options: Any
    ) -> Any:
        counts.append(tokens[..., 0].numel() if keep is None else keep.numel())
        return forward_layers(tokens, layers, keep=keep, **options)

    vars(encoder)["forward_layers"] = counted
