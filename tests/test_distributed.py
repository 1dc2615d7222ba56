"""Means over ranks: in one process, and in two that train together."""

from __future__ import annotations

import os

import torch

from helpers.two_processes import run_in_two
from mimbench.distributed import gather_over_ranks, get_rank, mean_over_ranks, standing_in


def test_in_a_single_process_it_is_a_copy():
    tensor = torch.ones(2, requires_grad=True)
    plain, smooth = mean_over_ranks(tensor), mean_over_ranks(tensor, differentiable=True)
    assert torch.equal(plain, tensor)
    assert not plain.requires_grad
    plain.zero_()
    assert tensor.sum() == 2
    (smooth * torch.tensor([1.0, 3.0])).sum().backward()
    assert tensor.grad.tolist() == [1.0, 3.0]


class Second:
    """The second of two ranks, of which the first one has zeros."""

    rank, size = 1, 2

    def gather(self, tensor):
        return [torch.zeros_like(tensor), tensor]


def test_another_group_may_stand_in():
    with standing_in(Second()):
        assert get_rank() == 1
        assert mean_over_ranks(torch.ones(2)).tolist() == [0.5, 0.5]
        assert gather_over_ranks(torch.ones(2)).tolist() == [0.0, 0.0, 1.0, 1.0]
    assert get_rank() == 0


def compare(rank, port, failures):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    try:
        local = torch.tensor([[1.0, 2.0], [3.0, 5.0]][rank], requires_grad=True)
        mean = mean_over_ranks(local)
        assert mean.tolist() == [2.0, 3.5]
        assert not mean.requires_grad
        assert local.tolist() == [[1.0, 2.0], [3.0, 5.0]][rank]
        # The losses of both ranks depend on both tensors: d(loss 0 + loss 1) / d(local) = (weight 0 + weight 1) / 2.
        weight = torch.tensor([[1.0, 10.0], [3.0, 30.0]][rank])
        (mean_over_ranks(local, differentiable=True) * weight).sum().backward()
        assert local.grad.tolist() == [2.0, 20.0]
        assert gather_over_ranks(local[:1]).tolist() == [1.0, 3.0]
    except AssertionError as error:
        failures.put(f"rank {rank}: {error}")
    torch.distributed.destroy_process_group()


def test_two_processes_get_the_same_mean_and_gradients():
    run_in_two(compare)
