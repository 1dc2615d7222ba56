"""The memory of a step with `parallel = "fsdp"`, against two gloo processes that make it."""

from __future__ import annotations

import pytest
import torch

from helpers.measured_memory import measured_peak
from helpers.traced_steps import memory_of, step_of
from helpers.two_processes import exit_codes_of_two, join

IMAGES = 4
LARGE = ["encoder.depth=8", "encoder.embed_dim=192"]
"""Weights, gradients and states take more than the activations of IMAGES images."""
CASES = [
    ("mae", []),
    ("mae", LARGE),
    ("mae", [*LARGE, "pretrain.grad_checkpointing=true"]),
    ("simmim", LARGE),
    ("data2vec", LARGE),
]


def measure(rank, port, results):
    join(rank, port)
    for method, assignments in CASES:
        peak = measured_peak(step_of(method, *assignments, "pretrain.parallel=fsdp").build(), IMAGES)
        if rank == 0:
            results.put(peak)
    torch.distributed.destroy_process_group()


def test_each_of_two_processes_takes_the_memory_that_is_planned():
    codes, peaks = exit_codes_of_two(measure)
    assert codes == [0, 0]
    for (method, assignments), peak in zip(CASES, peaks, strict=True):
        split = memory_of(step_of(method, *assignments, "pretrain.parallel=fsdp"), IMAGES, processes=2)
        # When a process sends its gradients depends on the other one, and so does how many are whole at the peak.
        assert split.total == pytest.approx(peak, rel=0.15), (method, assignments)


def test_more_processes_hold_less_each():
    step = step_of("mae", *LARGE, "pretrain.parallel=fsdp")
    one, two, eight = (memory_of(step, IMAGES, processes=count) for count in (1, 2, 8))
    assert two.states == pytest.approx(one.states / 2, rel=0.01)
    assert eight.states == pytest.approx(one.states / 8, rel=0.05)
    assert eight.total < two.total < one.total
    assert two.total < 0.7 * memory_of(step_of("mae", *LARGE), IMAGES, processes=2).total
