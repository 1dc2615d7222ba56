"""Sinkhorn-Knopp: against plain loops, in one process and in two that train together."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from helpers.two_processes import run_in_two
from mimbench.parts.sinkhorn import sinkhorn


def by_loops(scores, steps):
    weights = np.exp(scores - scores.max())
    for _ in range(steps):
        for column in weights.T:
            column /= column.sum()
        for row in weights:
            row /= row.sum()
    return weights


def test_it_is_that_of_plain_loops():
    scores = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0)) * 3
    before = scores.clone()
    result = sinkhorn(scores, 3)
    assert torch.equal(scores, before)
    for one, expected in zip(result, scores.double().numpy(), strict=True):
        np.testing.assert_allclose(one.numpy(), by_loops(expected, 3), atol=1e-6)


def test_large_scores_and_half_precision_stay_finite():
    scores = (100 * torch.randn(8, 5, generator=torch.Generator().manual_seed(0))).bfloat16()
    result = sinkhorn(scores, 3)
    assert result.dtype == torch.float32
    assert torch.isfinite(result).all()
    assert (result.sum(-1) < 1 + 1e-5).all()
    assert torch.allclose(sinkhorn(scores / 10, 3).sum(-1), torch.ones(8))


def test_assignments_have_no_gradient_and_many_steps_balance():
    scores = torch.randn(12, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    result = sinkhorn(scores, 100)
    assert not result.requires_grad
    assert result.sum(0).tolist() == pytest.approx([3.0] * 4, rel=1e-4)


def compare(rank, port, failures):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    try:
        scores = torch.randn(2, 3, 6, 4, generator=torch.Generator().manual_seed(0))
        scores[1] += 3
        expected = by_loops_of(torch.cat((scores[0], scores[1]), 1))
        assert torch.allclose(sinkhorn(scores[rank], 3), expected[:, 6 * rank : 6 * rank + 6], atol=1e-6)
        # A shift by the largest score of each process alone would not do here.
        far = torch.full((2, 4), 100.0 * rank)
        assert torch.isfinite(sinkhorn(far, 3)).all()
    except AssertionError as error:
        failures.put(f"rank {rank}: {error}")
    torch.distributed.destroy_process_group()


def by_loops_of(scores):
    return torch.stack([torch.from_numpy(by_loops(one.double().numpy(), 3)).float() for one in scores])


def test_two_processes_assign_the_samples_of_both():
    run_in_two(compare)
