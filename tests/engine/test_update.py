"""The optimizer's step: clipping of all gradients or of each, weight decay over steps."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from mimbench.contract import TrainConfig
from mimbench.engine.update import UpdateWrapper
from mimbench.optim import Schedule

BASE = {"epochs": 4, "batch_size": 8, "base_lr": 1e-3}


def clipped_norms(clip_each):
    """Norms of two gradients of norm 6 and 8, clipped at 5, as the optimizer gets them."""
    one, other = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    norms = []
    wrapper = UpdateWrapper(
        torch.optim.SGD([one, other], lr=1.0),
        before_update=lambda: norms.extend([float(one.grad.norm()), float(other.grad.norm())]),
        bf16_on=None,
        clip_each=clip_each,
        clip_grad={"max_norm": 5.0},
    )
    wrapper.update_params((6 * one + 8 * other).sum())
    return norms


def test_gradients_are_clipped_together_or_each_before_the_hook_sees_them():
    assert clipped_norms(clip_each=False) == pytest.approx([3.0, 4.0], rel=1e-4)
    assert clipped_norms(clip_each=True) == pytest.approx([5.0, 5.0], rel=1e-4)


def test_weight_decay_follows_a_half_cosine_to_its_end():
    schedule = Schedule(TrainConfig(**BASE, weight_decay=0.04, final_weight_decay=0.4), steps_per_epoch=5)
    values = [schedule.weight_decay(step) for step in range(20)]
    expected = [0.4 + (0.04 - 0.4) * (1 + math.cos(math.pi * step / 20)) / 2 for step in range(20)]
    assert values == pytest.approx(expected, abs=1e-12)
    constant = Schedule(TrainConfig(**BASE, weight_decay=0.04), steps_per_epoch=5)
    assert {constant.weight_decay(step) for step in range(20)} == {0.04}


def test_options_without_effect_are_refused():
    with pytest.raises(ValidationError, match="clip_each needs clip_grad"):
        TrainConfig(**BASE, clip_each=True)
    with pytest.raises(ValidationError, match="final_weight_decay needs a weight_decay above 0"):
        TrainConfig(**BASE, weight_decay=0.0, final_weight_decay=0.4)


def test_new_options_leave_fingerprints_as_they_were():
    assert not {"clip_each", "final_weight_decay"} & set(TrainConfig(**BASE).shaping())
