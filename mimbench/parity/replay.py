"""This implementation on a golden file's weights and inputs: one step, and the steps of its trajectory."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from operator import mul

import torch
from torch import Tensor

from mimbench.contract import Golden, Method, OfficialCode
from mimbench.engine.update import UpdateWrapper
from mimbench.errors import InputError
from mimbench.optim import build_optimizer, decay_rules, set_rates
from mimbench.parity.weights import load_groups


@dataclass(frozen=True)
class Step:
    """One forward and backward pass."""

    outputs: Mapping[str, Tensor]
    """By the names of the file's arrays, "out/loss" among them."""
    gradients: Mapping[str, Tensor]
    """By the names of the method's parameters."""
    state: Mapping[str, Tensor]
    """The state dict after `OfficialCode.update`."""

    @property
    def norm(self) -> Tensor:
        """L2 norm of the whole gradient."""
        norms = [gradient.double().norm() for gradient in self.gradients.values()]
        return torch.linalg.vector_norm(torch.stack(norms))


@dataclass(frozen=True)
class Trajectory:
    """Several steps of the optimizer."""

    losses: Tensor
    """[T]"""
    state: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    """Other quantities after the last step, by the names of the file's arrays."""


def run_step(golden: Golden, code: OfficialCode, method: Method, dtype: torch.dtype) -> Step:
    """One step of a copy of `method`, in the precision `dtype`.

    Raises:
        InputError: the loss is not one finite number with a gradient.
    """
    method = _copy(method, dtype)
    golden = golden.to(dtype)
    outputs = code.replay(golden, method)
    loss = outputs["out/loss"]
    if loss.ndim or not loss.requires_grad:
        raise InputError(f"golden file {golden.path}: the replay of {method.name!r} gives no scalar loss to train on")
    loss.backward()
    gradients = {name: value.grad for name, value in method.named_parameters() if value.grad is not None}
    load_groups(golden, code, method, code.followed)
    code.update(golden, method)
    return Step({name: value.detach() for name, value in outputs.items()}, gradients, method.state_dict())


def run_trajectory(golden: Golden, code: OfficialCode, method: Method, dtype: torch.dtype) -> Trajectory:
    """The steps of `traj/`, with the learning rates and weight decays that the file holds, on a copy of `method`."""
    method = _copy(method, dtype)
    golden = golden.to(dtype)
    config = code.training(golden)
    code.begin(golden, method)
    optimizer = build_optimizer(method, config, **decay_rules(method))
    rates, decays = golden.tensor("traj/lr").tolist(), golden.tensor("traj/wd").tolist()
    progress = 0.0
    wrapper = UpdateWrapper(
        optimizer,
        before_update=lambda: method.before_update(progress),
        bf16_on=None,
        clip_each=config.clip_each,
        accumulative_counts=1,
        clip_grad={"max_norm": config.clip_grad} if config.clip_grad else None,
    )
    losses = []
    if len(rates) != len(decays):
        raise InputError(f"golden file {golden.path}: traj/lr has {len(rates)} steps, and traj/wd {len(decays)}")
    for step, (rate, decay) in enumerate(zip(rates, decays, strict=True)):
        progress = step / len(rates)
        method.progress = progress
        method.before_step(progress)
        set_rates(optimizer, partial(mul, rate), decay)
        loss = code.step_loss(golden, method, step)
        losses.append(loss.detach())
        wrapper.update_params(loss)
        code.after_step(golden, method, step)
    return Trajectory(torch.stack(losses), method.state_dict(), code.after_all_steps(golden, method))


def _copy(method: Method, dtype: torch.dtype) -> Method:
    torch.manual_seed(0)  # nothing is random in these models but what drop path and the like would draw
    return copy.deepcopy(method).to(dtype).train()
