"""LARS as MAE's probe uses it, against steps computed by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mimbench.contract import TrainConfig
from mimbench.optim import build_optimizer

MOMENTUM, TRUST = 0.9, 0.001


def lars(model, lr=6.4, **options):
    config = TrainConfig(epochs=1, batch_size=8, base_lr=lr, optimizer="lars", **({"weight_decay": 0.0} | options))
    return build_optimizer(model, config)


def gradients(shape, steps=4):
    return torch.randn(steps, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_a_matrix_moves_by_a_thousandth_of_its_norm_with_momentum_and_a_bias_by_plain_momentum():
    torch.manual_seed(0)
    layer = nn.Linear(3, 2).double()
    optimizer = lars(layer)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    weight_speed, bias_speed = torch.zeros_like(weight), torch.zeros_like(bias)
    for step, (dw, db) in enumerate(zip(gradients((2, 3)), gradients((2,)), strict=True)):
        for group in optimizer.param_groups:
            group["lr"] = 6.4 / (step + 1)  # the engine sets it before every step
        layer.weight.grad, layer.bias.grad = dw.clone(), db.clone()
        optimizer.step()
        weight_speed = MOMENTUM * weight_speed + TRUST * weight.norm() / dw.norm() * dw
        bias_speed = MOMENTUM * bias_speed + db
        weight, bias = weight - 6.4 / (step + 1) * weight_speed, bias - 6.4 / (step + 1) * bias_speed
        torch.testing.assert_close(layer.weight.detach(), weight, rtol=1e-12, atol=0)
        torch.testing.assert_close(layer.bias.detach(), bias, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("weight", "gradient", "step"), [(0.0, 1.0, 1.0), (1.0, 0.0, 0.0)])
def test_where_weight_or_gradient_is_zero_the_step_is_not_adapted(weight, gradient, step):
    model = nn.ParameterList([nn.Parameter(torch.full((2, 2), weight))])
    optimizer = lars(model, lr=1.0)
    model[0].grad = torch.full((2, 2), gradient)
    optimizer.step()
    assert torch.equal(model[0].detach(), torch.full((2, 2), weight - step))


def test_weight_decay_joins_the_gradient_and_the_trust_ratio_as_in_the_paper():
    torch.manual_seed(0)
    layer = nn.Linear(3, 2).double()
    optimizer = lars(layer, lr=1.0, weight_decay=0.1)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    dw, db = gradients((2, 3))[0], gradients((2,))[0]
    layer.weight.grad, layer.bias.grad = dw.clone(), db.clone()
    optimizer.step()
    ratio = TRUST * weight.norm() / (dw.norm() + 0.1 * weight.norm())
    torch.testing.assert_close(layer.weight.detach(), weight - ratio * (dw + 0.1 * weight), rtol=1e-12, atol=0)
    torch.testing.assert_close(layer.bias.detach(), bias - db, rtol=1e-12, atol=0)


def test_groups_contain_every_parameter_once_with_its_scale():
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    groups = lars(model).param_groups
    adapted = {name: group["always_adapt"] for group in groups for name in group["names"]}
    assert adapted == {"0.weight": True, "0.bias": False, "1.weight": False, "1.bias": False}
    assert all(group["lr_scale"] == 1 and group["momentum"] == MOMENTUM for group in groups)
    assert sum(len(group["params"]) for group in groups) == 4


def test_it_learns_and_resumes_from_its_state():
    def steps(layer, optimizer, count):
        x = torch.randn(64, 3, generator=torch.Generator().manual_seed(2))
        for _ in range(count):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(layer(x), x[:, :2])
            loss.backward()
            optimizer.step()
        return loss.item()

    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    optimizer = lars(layer, lr=1.0)
    first = steps(layer, optimizer, 20)
    other = nn.Linear(3, 2)
    other.load_state_dict(layer.state_dict())
    again = lars(other, lr=1.0)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert steps(layer, optimizer, 100) == steps(other, again, 100) < first
