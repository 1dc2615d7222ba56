"""Checks of a method's training step: its loss, its gradients, its inputs, and what it can run on."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mimbench.contract import StepOutput
from mimbench.testing.checks import Failure, Skip, check
from mimbench.testing.method_subject import MethodSubject, update
from mimbench.testing.tensors import seeded, tensors_in

OVERFIT_STEPS = 40
OVERFIT_RATE = 2e-3


@check("step", needs=["mask_has_its_form"])
def step_returns_a_loss(subject: MethodSubject) -> None:
    """StepOutput with a finite scalar loss that has a gradient."""
    output = subject.step(subject.build(), subject.batch())
    if not isinstance(output, StepOutput):
        raise Failure(f"step returns a {type(output).__name__}; return StepOutput(loss)")
    loss: Any = output.loss
    if not isinstance(loss, Tensor):
        raise Failure(f"the loss is a {type(loss).__name__}; return a tensor without axes")
    if loss.ndim:
        raise Failure(f"the loss has shape {list(loss.shape)}; take its mean")
    if not torch.isfinite(loss):
        raise Failure(f"the loss is {loss.item()} at the first step; look for a division or a logarithm")
    if not loss.requires_grad:
        raise Failure("the loss has no gradient; do not detach the prediction")


@check("step", needs=["step_returns_a_loss"])
def logs_are_detached_scalars(subject: MethodSubject) -> None:
    """Every log of a step is a tensor without axes and without gradient."""
    for name, value in subject.step(subject.build(), subject.batch()).logs.items():
        if not isinstance(value, Tensor):
            raise Failure(f"log {name!r} is a {type(value).__name__}; return a tensor")
        if value.ndim or value.requires_grad:
            fault = f"has shape {list(value.shape)}" if value.ndim else "has a gradient"
            raise Failure(f"log {name!r} {fault}; return value.detach().mean()")


@check("step", needs=["step_returns_a_loss"])
def equal_seeds_give_equal_losses(subject: MethodSubject) -> None:
    """The first step of two equal methods gives the same loss to the last bit."""
    losses = [subject.step(subject.build(), subject.batch(), seed=3).loss.item() for _ in range(2)]
    if losses[0] != losses[1]:
        raise Failure(
            f"equal seeds give the losses {losses[0]:.7g} and {losses[1]:.7g}; draw from `generator` or torch's own "
            "generator, never from numpy's, Python's or the clock"
        )


@check("step", needs=["step_returns_a_loss"])
def inputs_stay_unchanged(subject: MethodSubject) -> None:
    """A step does not write into its images and labels."""
    method, batch = subject.build(), subject.batch()
    inputs = tensors_in(batch)
    before = [value.clone() for value in inputs]
    subject.step(method, batch)
    if not all(map(torch.equal, inputs, before)):
        raise Failure("a step changes the batch that it gets; replace in-place operations on it, or clone it first")


@check("target", needs=["step_returns_a_loss"])
def target_has_no_gradient(subject: MethodSubject) -> None:
    """The target that `loss` gets has no gradient."""
    method: Any = subject.build()
    targets: list[Any] = []
    original = method.loss

    def record(prediction: Any, target: Any, *rest: Any, **named: Any) -> Tensor:
        targets.append(target)
        return original(prediction, target, *rest, **named)

    method.loss = record
    subject.step(method, subject.batch())
    if not targets:
        raise Skip("its step does not call `loss`")
    if any(value.requires_grad for value in tensors_in(targets)):
        raise Failure("the target has a gradient, so training may collapse; decorate target with @torch.no_grad()")


@check("predict", needs=["step_returns_a_loss"])
def encoder_gets_a_gradient(subject: MethodSubject) -> None:
    """The loss has a gradient with respect to the encoder that is not zero."""
    method = subject.build()
    subject.step(method, subject.batch()).loss.backward()
    gradients = [one.grad for one in method.encoder.parameters() if one.grad is not None]
    if not any(bool(gradient.any()) for gradient in gradients):
        raise Failure("the encoder gets no gradient, so it is not trained; do not detach its output or use no_grad")


@check("__init__", needs=["encoder_gets_a_gradient"])
def trainable_parameters_get_gradients(subject: MethodSubject) -> None:
    """Every parameter with requires_grad gets a gradient. Distributed training needs that."""
    method = subject.build()
    subject.step(method, subject.batch()).loss.backward()
    idle = [name for name, one in method.named_parameters() if one.requires_grad and one.grad is None]
    if idle:
        more = f" and {len(idle) - 3} more" if len(idle) > 3 else ""
        raise Failure(
            f"no gradient reaches {', '.join(idle[:3])}{more}; use them in the loss, or call requires_grad_(False)"
        )


@check("step", needs=["step_returns_a_loss"])
def steps_in_bf16(subject: MethodSubject) -> None:
    """A step under bf16 autocast has a finite loss, and a backward pass."""
    method, batch = subject.build(), subject.batch()
    with torch.autocast("cpu", torch.bfloat16):
        loss = subject.step(method, batch).loss
    loss.backward()
    if not torch.isfinite(loss):
        raise Failure(f"the loss is {loss.item()} under bf16 autocast; compute targets and losses with .float()")


@check("step", needs=["step_returns_a_loss"])
def takes_a_batch_of_one(subject: MethodSubject) -> None:
    """A step on one image has a finite loss."""
    loss = subject.step(subject.build(), subject.batch(1)).loss.item()
    if not math.isfinite(loss):
        raise Failure(f"the loss of a batch of one image is {loss}; do not divide by the spread over images")


@check("__init__", needs=["builds_around_an_encoder"])
def builds_on_the_meta_device(subject: MethodSubject) -> None:
    """A method built on the meta device reads no values, so that a run is planned without its weights."""
    with torch.device("meta"), seeded(0):
        method = subject.plugin(subject.make_config(), subject.make_encoder())
    elsewhere = [name for name, one in method.named_parameters() if not one.is_meta]
    if elsewhere:
        raise Failure(
            f"parameter {elsewhere[0]} is not on the meta device; create it without `device=` and without from_numpy"
        )


@check("loss", needs=["step_returns_a_loss", "equal_seeds_give_equal_losses"])
def one_batch_overfits(subject: MethodSubject) -> None:
    """The loss on one batch with one seed falls over 40 steps."""
    method, batch, losses = subject.build(), subject.batch(), []
    optimizer = torch.optim.AdamW([one for one in method.parameters() if one.requires_grad], OVERFIT_RATE)
    for number in range(OVERFIT_STEPS):
        loss = subject.step(method, batch).loss
        update(method, optimizer, loss, number / OVERFIT_STEPS, (number + 1) / OVERFIT_STEPS)
        losses.append(loss.item())
    first, last = sum(losses[:3]) / 3, sum(losses[-3:]) / 3
    if not last < first:
        raise Failure(
            f"the loss on one batch goes from {first:.4g} to {last:.4g} in {OVERFIT_STEPS} steps; it should fall: "
            "compare the sign of the loss, and what the prediction can express"
        )


STEP_CHECKS = (
    step_returns_a_loss,
    logs_are_detached_scalars,
    equal_seeds_give_equal_losses,
    inputs_stay_unchanged,
    target_has_no_gradient,
    encoder_gets_a_gradient,
    trainable_parameters_get_gradients,
)
LIMIT_CHECKS = (steps_in_bf16, takes_a_batch_of_one, builds_on_the_meta_device, one_batch_overfits)
