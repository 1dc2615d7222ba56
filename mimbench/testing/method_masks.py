"""Checks of a method's masks, and of what a prediction depends on."""

from __future__ import annotations

import torch
from torch import Tensor

from mimbench.contract import Method
from mimbench.contract.forms import describe_mask_problem
from mimbench.errors import InputError
from mimbench.masks import mask_at_pixels
from mimbench.testing.checks import BadOptions, Failure, Skip, check
from mimbench.testing.method_subject import IMAGES, MethodSubject
from mimbench.testing.tensors import seeded, tensors_in

RATIO_TOLERANCE = 0.1
"""How far the mean mask ratio may be from the declared one, if one cell of the grid is less than that."""
TOLERANCE = 1e-4
"""How far a prediction may move, relative to its largest value, if nothing that it may depend on changes."""


def sample(subject: MethodSubject, method: Method, count: int = IMAGES, seed: int = 0) -> Tensor:
    return subject.grid(method, method.sample_mask(count, torch.Generator().manual_seed(seed)))


@check("__init__", needs=["metadata_is_complete"])
def builds_around_an_encoder(subject: MethodSubject) -> None:
    """The method is built, and holds the encoder that it gets as `self.encoder`."""
    try:
        encoder = subject.make_encoder()
        with seeded(0):
            method = subject.plugin(subject.make_config(), encoder)
    except InputError as error:
        raise BadOptions(f"the options do not suit {subject.describe_encoder()}: {error}") from error
    if getattr(method, "encoder", None) is not encoder:
        raise Failure("self.encoder is not the encoder that __init__ gets; call super().__init__(config, encoder)")


@check("sample_mask", needs=["builds_around_an_encoder"])
def mask_has_its_form(subject: MethodSubject) -> None:
    """bool [B, Gh, Gw], of clips [B, Gt, Gh, Gw], for any B, on a grid that fits the encoder's."""
    method = subject.build()
    for count in (IMAGES, 1):
        problem = describe_mask_problem(sample(subject, method, count), count, method.encoder.grid)
        if problem:
            raise Failure(f"the mask {problem}")


@check("sample_mask", needs=["mask_has_its_form"])
def mask_comes_from_the_generator(subject: MethodSubject) -> None:
    """Equal seeds of the generator give equal masks, whatever other generators do."""
    method, masks = subject.build(), []
    for seed in (0, 1):
        with seeded(seed):
            masks.append(sample(subject, method))
    if not torch.equal(*masks):
        raise Failure(
            "equal seeds give different masks; draw from `generator` only: torch.rand(..., generator=generator)"
        )


@check("sample_mask", needs=["mask_has_its_form"])
def masks_differ(subject: MethodSubject) -> None:
    """Images of a batch, and batches, get different masks."""
    method = subject.build()
    mask = sample(subject, method, 2 * IMAGES)
    if not mask.any() or mask.all():
        raise Skip(f"it masks {'everything' if mask.all() else 'nothing'}")
    if (mask == mask[:1]).all():
        raise Failure("every image of a batch gets the same mask; draw one per image")
    if all(torch.equal(mask, sample(subject, method, 2 * IMAGES, seed)) for seed in (1, 2)):
        raise Failure("different seeds give equal masks; draw from `generator`")


@check("sample_mask", needs=["mask_has_its_form"])
def mask_ratio_is_as_declared(subject: MethodSubject) -> None:
    """The mean share of masked cells is the option `mask_ratio`, if there is one."""
    declared = getattr(subject.make_config(), "mask_ratio", None)
    if not isinstance(declared, float):
        raise Skip("it has no option `mask_ratio`")
    mask = sample(subject, subject.build(), 4 * IMAGES)
    ratio = float(mask.float().mean())
    if abs(ratio - declared) > max(RATIO_TOLERANCE, 1 / mask[0].numel()):
        raise Failure(f"{ratio:.2f} of the cells are masked, and mask_ratio is {declared:g}; mask that share")


def predicted(method: Method, images: Tensor, mask: object) -> list[Tensor]:
    with torch.no_grad(), seeded(0):
        return [value.float() for value in tensors_in(method.predict(images, mask))]


def moved(before: list[Tensor], after: list[Tensor]) -> float:
    """The largest change of a value, relative to the largest value."""
    if [value.shape for value in before] != [value.shape for value in after]:
        return float("inf")
    gaps = [float((a - b).abs().max()) / max(float(a.abs().max()), 1e-6) for a, b in zip(before, after, strict=True)]
    return max(gaps, default=0.0)


def _with_noise(images: Tensor, where: Tensor) -> Tensor:
    noise = 3 * torch.randn(images.shape, generator=torch.Generator().manual_seed(7))
    return torch.where(where, noise, images)


def _masked_pixels(grid: Tensor, images: Tensor) -> Tensor:
    return mask_at_pixels(grid, images)


@check("predict", needs=["step_returns_a_loss"])
def masked_pixels_do_not_reach_predict(subject: MethodSubject) -> None:
    """In evaluation mode a prediction stays as it is if masked pixels change.

    A method that fills masked patches with those of other images of the batch waives this.
    """
    method, images = subject.shaken(), subject.images()
    mask = method.sample_mask(IMAGES, torch.Generator().manual_seed(0))
    grid = subject.grid(method, mask)
    if not grid.any():
        raise Skip("it masks nothing")
    change = moved(
        predicted(method, images, mask), predicted(method, _with_noise(images, _masked_pixels(grid, images)), mask)
    )
    if change > TOLERANCE:
        raise Failure(
            f"the prediction moves by {change:.0%} when only masked pixels change; remove them from the input: "
            "encode_masked, forward_tokens with `keep`, or masked_fill"
        )


@check("predict", needs=["step_returns_a_loss"])
def visible_pixels_reach_predict(subject: MethodSubject) -> None:
    """A prediction changes if visible pixels change."""
    method, images = subject.shaken(), subject.images()
    mask = method.sample_mask(IMAGES, torch.Generator().manual_seed(0))
    grid = subject.grid(method, mask)
    if grid.all():
        raise Skip("it masks everything")
    visible = ~_masked_pixels(grid, images)
    change = moved(predicted(method, images, mask), predicted(method, _with_noise(images, visible), mask))
    if change <= TOLERANCE:
        raise Failure("the prediction stays the same when all visible pixels change; encode the visible pixels")


@check("predict", needs=["step_returns_a_loss"])
def images_of_a_batch_are_independent(subject: MethodSubject) -> None:
    """In evaluation mode the prediction for an image stays as it is if the other images change."""
    method, images = subject.shaken(), subject.images()
    mask = method.sample_mask(IMAGES, torch.Generator().manual_seed(0))
    others = torch.arange(IMAGES).view(-1, *[1] * (images.ndim - 1)) > 0
    before, after = predicted(method, images, mask), predicted(method, _with_noise(images, others), mask)
    if any(value.ndim == 0 or len(value) != IMAGES for value in before):
        raise Skip("its predictions have no axis of images")
    change = moved([value[:1] for value in before], [value[:1] for value in after])
    if change > TOLERANCE:
        raise Failure(
            f"the prediction for one image moves by {change:.0%} when the others change; use each image alone, "
            "or waive the check if the method mixes images"
        )


MASK_CHECKS = (
    builds_around_an_encoder,
    mask_has_its_form,
    mask_comes_from_the_generator,
    masks_differ,
    mask_ratio_is_as_declared,
)
PREDICTION_CHECKS = (
    masked_pixels_do_not_reach_predict,
    visible_pixels_reach_predict,
    images_of_a_batch_are_independent,
)
