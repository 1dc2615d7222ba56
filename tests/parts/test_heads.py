"""The projection head: its shapes, its norms, and the gradients that are dropped."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mimbench.errors import InputError
from mimbench.parts.heads import ProjectionHead, WeightNormLinear, cancel_gradients

GOLDEN = dict(np.load(Path(__file__).parents[1] / "golden" / "ibot_vit_tiny.npz"))


def test_it_is_ibots_head():
    """bytedance/ibot@da316d82, with its weights: the logits of the class token."""
    start = "param/student.head."
    weights = {key.removeprefix(start): torch.from_numpy(value) for key, value in GOLDEN.items() if start in key}
    for ours, theirs in (("weight", "weight_v"), ("gain", "weight_g")):
        weights[f"last.{ours}"] = weights.pop(f"last_layer.{theirs}")
        del weights[f"last_layer2.{theirs}"]  # the same layer again
    made = ProjectionHead(32, 64, hidden_dim=48, bottleneck_dim=16, fixed_gain=False)
    made.load_state_dict(weights)
    with torch.no_grad():
        logits = made(torch.from_numpy(GOLDEN["out/student_tokens"]))[:, 0]
    assert torch.allclose(logits, torch.from_numpy(GOLDEN["out/student_cls"]), atol=1e-5)


def head(**options):
    torch.manual_seed(0)
    return ProjectionHead(8, 12, **{"hidden_dim": 16, "bottleneck_dim": 6} | options)


def test_logits_are_cosines_with_the_rows_of_the_last_layer():
    made, x = head(), torch.randn(5, 3, 8)
    out = made(x)
    assert out.shape == (5, 3, 12)
    expected = F.cosine_similarity(made.mlp(x).unsqueeze(-2), made.last.weight, dim=-1)
    assert torch.allclose(out, expected, atol=1e-6)
    assert torch.equal(made(x[:, 0]), made(x)[:, 0])


def test_the_last_layer_is_torchs_weight_norm():
    torch.manual_seed(0)
    layer = WeightNormLinear(6, 4, fixed_gain=False)
    reference = nn.utils.parametrizations.weight_norm(nn.Linear(6, 4, bias=False))
    with torch.no_grad():
        layer.gain.copy_(torch.rand(4, 1) + 0.5)
        reference.parametrizations.weight.original0.copy_(layer.gain)
        reference.parametrizations.weight.original1.copy_(layer.weight)
    x = torch.randn(3, 6)
    for module in (layer, reference):
        module(x).square().sum().backward()
    assert torch.allclose(layer(x), reference(x), atol=1e-6)
    original = reference.parametrizations.weight
    assert torch.allclose(layer.gain.grad, original.original0.grad, atol=1e-5)
    assert torch.allclose(layer.weight.grad, original.original1.grad, atol=1e-5)


def test_a_fixed_gain_is_not_trained():
    assert {n for n, p in head().last.named_parameters() if p.requires_grad} == {"weight"}
    assert {n for n, p in head(fixed_gain=False).last.named_parameters() if p.requires_grad} == {"weight", "gain"}
    assert set(head().last.state_dict()) == set(head(fixed_gain=False).last.state_dict()) == {"weight", "gain"}


def test_layers_and_batch_norm():
    assert [type(part).__name__ for part in head(batch_norm=True, layers=2).mlp] == [
        "Linear", "BatchNorm1d", "GELU", "Linear",
    ]  # fmt: skip
    assert [type(part).__name__ for part in head(layers=1).mlp] == ["Linear"]
    assert head(batch_norm=True)(torch.randn(4, 5, 8)).shape == (4, 5, 12)
    with pytest.raises(InputError, match="one layer or more, not 0"):
        head(layers=0)


def test_cancelled_gradients_leave_the_layer_as_it_is():
    made = head()
    optimizer = torch.optim.AdamW(made.parameters(), lr=0.1, weight_decay=0.1)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    made(torch.randn(4, 8)).sum().backward()
    cancel_gradients(made.last)
    optimizer.step()
    changed = {name for name, value in made.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith("mlp")}
