"""Statistics of attention: identities that hold exactly, the weights that give a block's output, and a run."""

from __future__ import annotations

import math

import pytest
import torch

from helpers.refusals import refused
from mimbench.testing import parametrize_checks, task_suite
from mimbench_tasks.attention import measures
from mimbench_tasks.attention.task import Attention


@parametrize_checks(task_suite(Attention, {"images": 8}))
def test_it_passes_the_checks_for_tasks(check):
    check()


@pytest.mark.parametrize(("side", "stride", "distance"), [(7, 4, 14.438), (14, 16, 116.492)])
def test_uniform_attention_has_known_values(side, stride, distance):
    count = side**2
    uniform = torch.full((1, 2, count, count), 1 / count, dtype=torch.float64)
    distances = measures.patch_distances((side, side), stride)
    assert measures.distance(uniform, distances)[0].tolist() == pytest.approx([distance] * 2, abs=1e-3)
    assert measures.entropy(uniform)[0].tolist() == pytest.approx([1, 1])
    assert measures.mutual_information(uniform)[0].tolist() == pytest.approx([0, 0], abs=1e-9)
    assert measures.head_divergence(uniform)[0].tolist() == pytest.approx([0, 0], abs=1e-9)


def test_attention_to_itself_has_no_distance_and_full_information():
    itself = torch.eye(49, dtype=torch.float64).expand(1, 1, 49, 49)
    assert measures.distance(itself, measures.patch_distances((7, 7), 4)).item() == 0
    assert measures.entropy(itself).item() == 0
    assert measures.mutual_information(itself).item() == pytest.approx(1)


def test_attention_to_one_patch_has_no_information():
    one = torch.zeros(1, 1, 49, 49, dtype=torch.float64)
    one[..., 10] = 1
    assert measures.mutual_information(one).item() == 0  # the official code divides 0 by 0


def test_heads_that_differ_diverge():
    uniform, itself = torch.full((9, 9), 1 / 9, dtype=torch.float64), torch.eye(9, dtype=torch.float64)
    divergence = measures.head_divergence(torch.stack((itself, uniform))[None])[0]
    assert divergence[0].item() == pytest.approx(math.log(9))  # KL of one patch from all nine
    assert divergence[1].item() > divergence[0].item()


def test_prefix_tokens_are_left_out():
    weights = torch.full((1, 1, 5, 5), 0.2)
    weights[..., 0] = 0.6
    weights[..., 1:] = 0.1
    assert torch.allclose(measures.between_patches(weights, 1), torch.full((1, 1, 4, 4), 0.25, dtype=torch.float64))


def test_a_swin_is_refused_in_one_line(quick):
    run = ["run", "--method", "simmim", "--task", "attention", "--recipe", "smoke", "--set", "encoder.name=swin"]
    refused(quick(*run), "return its attention weights")
