"""Memory and operations of a step without values, against a real step on the CPU."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from helpers.measured_memory import measured_peak
from helpers.traced_steps import memory_of, recipe_of, step_of, target_of
from mimbench.contract import DataSizes
from mimbench.harness.forecast.memory import StepMemory
from mimbench.harness.forecast.stages import pretraining_step, task_step
from mimbench.harness.forecast.tracing import count_flops, largest_that_fits, traced
from mimbench.harness.planning.step_cost import count_step

DIGITS = DataSizes(24, 8, classes=10, channels=1, source="a test", side=96)


@pytest.mark.parametrize(
    ("method", "assignments"),
    [
        ("mae", []),
        ("simmim", ["encoder.name=swin"]),
        ("simmim", ["encoder.name=convnext"]),
        ("data2vec", ["pretrain.grad_checkpointing=true"]),
        ("fcmae", ["pretrain.precision=bf16"]),
        ("spark", ["encoder.name=convnext"]),
    ],
)
def test_memory_and_operations_are_those_of_a_real_step(method, assignments):
    step = step_of(method, *assignments)
    real = step.build()
    assert memory_of(step, 32).total == pytest.approx(measured_peak(real, 32), rel=0.05)
    generator = torch.Generator().manual_seed(0)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        real.model.train().training_step(real.batch(2), generator).loss.backward()
    assert count_flops(step.build) == pytest.approx(counter.get_total_flops() / 2, rel=0.02)


@pytest.mark.parametrize("task", ["finetune", "linear-probe"])
def test_steps_of_tasks_are_traced(task):
    recipe = recipe_of("simmim", *(["task.probe=trained"] if task == "linear-probe" else []), task=task)
    step = task_step(recipe, recipe.task(task), 1, DIGITS)
    assert memory_of(step, 8).total == pytest.approx(measured_peak(step.build(), 8), rel=0.05)


def test_one_counter_counts_for_cost_and_plan():
    recipe = recipe_of("mae")
    assert count_flops(pretraining_step(recipe, 1).build) == count_step(recipe, 1).flops


def test_parts_of_memory_are_those_of_the_formula():
    """AdamW has two moments of each weight and one number of steps; a teacher has neither gradient nor moments."""
    step = step_of("data2vec")
    model = step.build().model
    trained = 4 * sum(value.numel() for value in model.parameters() if value.requires_grad)
    held = sum(value.numel() * value.element_size() for value in (*model.parameters(), *model.buffers()))
    memory = memory_of(step, 2)
    assert memory.weights == held
    assert memory.states == pytest.approx(2 * trained, rel=0.02)
    assert held > 1.8 * trained
    with_buckets = memory_of(step, 2, processes=2)
    assert with_buckets.gradients - memory.gradients == trained
    with traced(step.build, target_of(step)) as trace:
        accumulating = trace(2, True)
    assert accumulating.gradients == trained


def test_kernels_of_a_gpu_keep_no_matrix_of_scores():
    """On the CPU, a bias with a gradient makes torch compute attention by its formula."""
    step = step_of("simmim", "encoder.position=relative")
    assert memory_of(step, 64, on_cuda=True, has_flash=True).activations < 0.9 * memory_of(step, 64).activations


def test_mixed_precision_takes_less_memory():
    step = step_of("mae")
    whole, mixed = (memory_of(step, 64, on_cuda=True, has_flash=True, precision=name) for name in ("fp32", "bf16"))
    assert mixed.activations < 0.8 * whole.activations
    assert mixed.weights == whole.weights


def test_the_largest_micro_batch_divides_the_share_and_fits():
    traces = []

    def trace(images, keeps_gradients):
        traces.append((images, keeps_gradients))
        return StepMemory(images, 100, 0, 0, 7 * images + images % 5)

    known = trace(96, False)
    for usable in (110, 150, 250, 500, 772, 773, 774, 10_000):
        fitting = [size for size in (96, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2) if 100 + 7 * size + size % 5 <= usable]
        traces.clear()
        largest = largest_that_fits(trace, 96, 2, usable, known)
        assert (largest.images if largest else None) == (fitting[0] if fitting else None), usable
        assert len(traces) <= 4, usable
        assert all(keeps == (images < 96) for images, keeps in traces)
