"""LAMB as SparK uses it, against steps computed by hand; SparK's golden files hold official steps."""

from __future__ import annotations

import copy

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from mimbench.contract import PartOptions, TrainConfig
from mimbench.optim import build_optimizer


def lamb(model, **options):
    settings = {"epochs": 1, "batch_size": 8, "base_lr": 0.1, "optimizer": "lamb", "eps": 1e-6, "weight_decay": 0.2}
    return build_optimizer(model, TrainConfig(**settings | options))


def gradients(shape, seed=1, steps=4):
    return torch.randn(steps, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layer():
    torch.manual_seed(0)
    return nn.Linear(3, 2).double()


def test_a_decayed_parameter_moves_by_its_own_norm_and_a_bias_as_with_adam():
    model = layer()
    optimizer = lamb(model, betas=(0.9, 0.95))
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    means, squares = (
        [torch.zeros_like(weight), torch.zeros_like(bias)],
        [torch.zeros_like(weight), torch.zeros_like(bias)],
    )
    for step, grads in enumerate(zip(gradients((2, 3)), gradients((2,), 2), strict=True), 1):
        rate, decay = 0.1 / step, 0.2 * step
        for group in optimizer.param_groups:  # the engine sets both before every step
            group["lr"] = rate
            group["weight_decay"] = decay if group["weight_decay"] else 0.0
        model.weight.grad, model.bias.grad = (gradient.clone() for gradient in grads)
        optimizer.step()
        steps = []
        for index, gradient in enumerate(grads):
            means[index] = 0.9 * means[index] + 0.1 * gradient
            squares[index] = 0.95 * squares[index] + 0.05 * gradient**2
            root = (squares[index] / (1 - 0.95**step)).sqrt() + 1e-6
            steps.append(means[index] / (1 - 0.9**step) / root)
        move = steps[0] + decay * weight
        weight = weight - rate * move * weight.norm() / move.norm()
        bias = bias - rate * steps[1]
        torch.testing.assert_close(model.weight.detach(), weight, rtol=1e-10, atol=0)
        torch.testing.assert_close(model.bias.detach(), bias, rtol=1e-10, atol=0)


def test_it_does_not_clip_by_itself():
    """The recipe's clip_grad does, for every optimizer."""
    first, second = layer(), layer()
    one, two = lamb(first), lamb(second)
    for gradient in gradients((2, 3)) * torch.tensor([1.0, 100.0, 1.0, 1.0], dtype=torch.float64).view(4, 1, 1):
        for model, optimizer in ((first, one), (second, two)):
            model.weight.grad, model.bias.grad = gradient.clone(), torch.zeros(2).double()
            if model is second:
                nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
    assert not torch.allclose(first.weight, second.weight)


def test_a_resumed_training_makes_the_same_steps():
    first, second = layer(), layer()
    one = lamb(first)
    batches = list(zip(gradients((2, 3)), gradients((2,), 2), strict=True))
    for index, (dw, db) in enumerate(batches):
        first.weight.grad, first.bias.grad = dw.clone(), db.clone()
        one.step()
        if index == 1:
            state, weights = copy.deepcopy(one.state_dict()), copy.deepcopy(first.state_dict())
    second.load_state_dict(weights)
    two = lamb(second)
    two.load_state_dict(state)
    for dw, db in batches[2:]:
        second.weight.grad, second.bias.grad = dw.clone(), db.clone()
        two.step()
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)


def test_a_part_has_betas_of_its_own():
    config = TrainConfig(epochs=1, batch_size=8, base_lr=0.1, optimizer="lamb")
    model = layer()
    groups = build_optimizer(model, config, parts={"bias": PartOptions(betas=(0.5, 0.6))}).param_groups
    assert {group["betas"] for group in groups} == {(0.9, 0.999), (0.5, 0.6)}


def test_without_weight_decay_it_is_refused():
    with pytest.raises(ValidationError, match="lamb adapts the steps of decayed parameters only"):
        TrainConfig(epochs=1, batch_size=8, base_lr=0.1, optimizer="lamb", weight_decay=0.0)
