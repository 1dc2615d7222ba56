"""Values of official code in tests/golden, and methods with official weights."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mimbench.contract import Method, ModelSetup, TrainConfig
from mimbench.harness.planning.build import build
from mimbench.masks.official import python_block_mask
from mimbench.optim import Schedule, param_groups

GOLDEN = Path(__file__).parents[1] / "golden"


def read_json(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def read_arrays(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The numbers of a golden file as tensors, and its meta; {} if it has none."""
    arrays = dict(np.load(GOLDEN / f"{name}.npz"))
    meta = json.loads(str(arrays.pop("meta", "{}")))
    return {key: torch.from_numpy(value) for key, value in arrays.items() if value.dtype.kind in "fiub"}, meta


def method_name(official: str, parts: Mapping[str, str]) -> str:
    """mimbench's name of an official parameter. parts: beginnings of names of the method's own -> here."""
    for there, here in parts.items():
        if official.startswith(there):
            return here + official.removeprefix(there)
    return f"encoder.body.{official}"


GRN = (("mlp.grn.weight", "grn.gamma"), ("mlp.grn.bias", "grn.beta"))


def convnext_name(name: str) -> str:
    """The name of a ConvNeXt's parameter in facebookresearch/ConvNeXt or ConvNeXt-V2, from timm's."""
    for here, there in (("stem.", "downsample_layers.0."), ("conv_dw", "dwconv"), ("mlp.fc", "pwconv"), *GRN):
        name = name.replace(here, there)
    name = re.sub(r"^stages\.(\d+)\.downsample", r"downsample_layers.\1", name)
    return name.replace(".blocks.", ".")


def state_of(arrays: Mapping[str, Tensor], group: str, parts: Mapping[str, str]) -> dict[str, Tensor]:
    """The trainable tensors of `group`, such as "param", in mimbench's names."""
    named = {key.removeprefix(f"{group}/"): value for key, value in arrays.items() if key.startswith(f"{group}/")}
    fixed = ("position_index", "weight_x", "weight_y")
    return {method_name(key, parts): value for key, value in named.items() if not key.endswith(fixed)}


def set_parameters(module: torch.nn.Module, state: Mapping[str, Tensor]) -> None:
    """Set each of the module's parameters to the value of its name in `state`."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(state[name].reshape(parameter.shape))


def build_official(meta: Mapping[str, Any]) -> Method:
    """The method of `meta.setup`, with random weights, in evaluation mode."""
    return build(ModelSetup(**meta["setup"])).eval()


def check_gradients(method: Method, arrays: Mapping[str, Tensor], parts: Mapping[str, str]) -> None:
    """Check the gradients that the last backward pass left against those of the file, and their total norm."""
    grads = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
    expected = state_of(arrays, "grad", parts)
    assert len(expected) >= 6
    for name, value in expected.items():
        assert torch.allclose(grads[name].reshape(value.shape), value, rtol=1e-5, atol=1e-6), name
    total = torch.stack([grad.double().norm() for grad in grads.values()]).norm()
    assert abs(total / arrays["grad_norm_f64"] - 1) < 2e-6


def check_initial_weights(method: Method, official: Mapping[str, list[float]], parts: Mapping[str, str]) -> None:
    """Check mean, spread and largest value of each parameter against [mean, std, maximum], within sampling errors."""
    values = {name: p.detach().double() for name, p in method.named_parameters()}
    for there, (mean, std, largest) in official.items():
        value = values[method_name(there, parts)]
        error = 5 * std / value.numel() ** 0.5
        assert abs(value.mean() - mean) <= 2 * error + 1e-7, there
        assert abs(value.std(correction=0) - std) <= error + 1e-7, there
        assert value.abs().max() <= 1.5 * largest + 1e-7, there
        assert value.abs().max() >= largest / 1.5 - 1e-7, there


def check_block_masks(monkeypatch: pytest.MonkeyPatch, method: Method, name: str) -> None:
    """Check the method's block masks, drawn from the official random stream, against those of mask_exact_b, `name`."""
    stream = random.Random()
    monkeypatch.setattr(
        f"{type(method).__module__}.block_mask",
        lambda batch, grid, count, generator, **options: python_block_mask(batch, grid, count, stream, **options),
    )
    for seed, expected in enumerate(read_arrays("mask_exact_b")[0][name].bool()):
        stream.seed(seed)
        assert torch.equal(method.sample_mask(len(expected), torch.Generator()), expected), seed


def check_decay(method: Method, official: Mapping[str, Any], parts: Mapping[str, str]) -> None:
    """Check which parameters pretraining decays."""
    train = TrainConfig(epochs=1, batch_size=1, base_lr=1.0)
    groups = param_groups(method, train, no_decay=method.no_weight_decay())
    decayed = {name: group["weight_decay"] > 0 for group in groups for name in group["names"]}
    expected = {method_name(name, parts): True for name in official["decay"]}
    assert decayed == expected | {method_name(name, parts): False for name in official["no_decay"]}


def check_rates(train: TrainConfig, official: Mapping[str, Any]) -> None:
    """Check the rate at each step of a training with the case's epochs, at each depth that the case gives."""
    schedule = {**train.schedule.model_dump(), "warmup_epochs": official["warmup_epochs"]}
    config = TrainConfig(
        **{
            **{name: getattr(train, name) for name in ("batch_size", "base_lr", "lr_divisor")},
            "epochs": official["epochs"],
            "schedule": schedule,
        }
    )
    plan = Schedule(config, official["n_iter_per_epoch"])
    for group, expected in official["lr_at_optimizer_step"].items():
        scale = 1.0 if group == "all" else train.layer_decay ** int(group.rpartition("**")[2])
        rates = [plan.lr(step, scale) for step in range(plan.steps)]
        assert rates == pytest.approx(expected, rel=1e-12, abs=1e-18)
