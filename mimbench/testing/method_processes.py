"""A check that a step on several processes is the step of one process on all their images."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from mimbench.contract import Batch, Method
from mimbench.engine.sharing import shared_parts
from mimbench.errors import NotSupported
from mimbench.testing.checks import Failure, Skip, check
from mimbench.testing.lockstep import Lockstep, RanksDiffer
from mimbench.testing.method_subject import IMAGES, MethodSubject
from mimbench.testing.tensors import differ

PROCESSES = 2
SEEDS = 50
"""Of which one is chosen whose masks hide more in one half of the batch than in the other, if there is one."""
LOSS, GRADIENT = 1e-5, 1e-3
"""How far losses, gradients and buffers may differ, relative to the largest value: sums are rounded otherwise."""
REMEDY = (
    "draw per image with mimbench's masks, DropPath or draw_rows, and once per batch with draw_once; divide by "
    "mean_over_shares of a count; or say in depends_on_processes why the step cannot be shared"
)


@check(
    "step",
    needs=[
        "mask_comes_from_the_generator",
        "masks_differ",
        "equal_seeds_give_equal_losses",
        "inputs_stay_unchanged",
        "images_of_a_batch_are_independent",
        "takes_a_batch_of_one",
    ],
)
def processes_share_a_step(subject: MethodSubject) -> None:
    """Two processes with half of a batch each have the loss, gradients and buffers of one with the whole batch.

    With drop path, if the encoder has it. A method that says in `depends_on_processes` that this is not so must be
    right.
    """
    drops = "drop-path" in subject.make_encoder().can
    reason = subject.plugin.depends_on_processes(subject.make_config())
    problem = _compare(subject, {"drop_path": 0.5} if drops else {})
    if reason and problem:
        raise Skip(f"depends_on_processes: {reason}")
    if reason:
        raise Failure(
            f"depends_on_processes says {reason!r}, and yet two processes make the same step as one; return '' there"
        )
    if problem:
        raise Failure(f"{problem}; {REMEDY}")


def _compare(subject: MethodSubject, encoder_options: dict[str, float]) -> str:
    """What differs between a step of one process and the steps of two; "" if nothing does."""
    batch = subject.batch(progress=0.5)
    seed = _uneven_seed(subject)
    whole = _step(subject, batch, encoder_options, seed)
    try:
        parts = Lockstep[dict[str, Tensor]](PROCESSES).run(
            lambda rank: _step(subject, _part(batch, rank), encoder_options, seed)
        )
    except RanksDiffer as error:
        return f"of two processes, {error}"
    for name, expected in whole.items():
        if name.startswith("the buffer"):
            if any(differ(part[name], parts[0][name], GRADIENT) for part in parts[1:]):
                return f"{name} differs between two processes"
            shared, tolerance = parts[0][name], GRADIENT
        else:
            shared = torch.stack([part[name] for part in parts]).mean(0)
            tolerance = LOSS if name == "the loss" else GRADIENT
        if differ(shared, expected, tolerance):
            values = f": {shared.item():.7g}, and not {expected.item():.7g}" if not expected.ndim else ""
            return f"{name} of two processes is not that of one with the whole batch{values}"
    return ""


def _step(subject: MethodSubject, batch: Batch, encoder_options: dict[str, float], seed: int) -> dict[str, Tensor]:
    """Loss, gradients, and the floating point buffers after a step."""
    method = subject.build(encoder_options=encoder_options)
    with shared_parts(method):
        loss = subject.step(method, batch, seed).loss
        loss.backward()
    result = {"the loss": loss.detach().double()}
    for name, gradient in _gradients(method).items():
        result[f"the gradient of {name}"] = gradient
    for name, buffer in method.named_buffers():
        if buffer.is_floating_point():
            result[f"the buffer {name}"] = buffer.detach().clone()
    return result


def _uneven_seed(subject: MethodSubject) -> int:
    method = subject.build()
    for seed in range(SEEDS):
        try:
            cells = method.masked_cells(method.sample_mask(IMAGES, torch.Generator().manual_seed(seed)))
        except NotSupported:
            return 0
        if cells is None:
            return 0
        first, second = (part.sum() for part in cells.chunk(PROCESSES))
        if first != second:
            return seed
    return 0


def _gradients(method: Method) -> dict[str, Tensor]:
    return {name: one.grad for name, one in method.named_parameters() if one.grad is not None}


def _part(batch: Batch, rank: int) -> Batch:
    """The images of one process."""

    def take(values: Tensor) -> Tensor:
        return values.chunk(PROCESSES)[rank].clone()

    labels = None if batch.labels is None else take(batch.labels)
    return dataclasses.replace(batch, views=tuple(map(take, batch.views)), labels=labels)


PROCESS_CHECKS = (processes_share_a_step,)
