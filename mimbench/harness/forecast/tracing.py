"""The peak memory of a training step, and the largest micro-batch that fits, found without values."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from mimbench.contract import Encoder, PlannedStep
from mimbench.engine.bare_step import BareStep
from mimbench.harness.forecast.kernels import CudaKernels
from mimbench.harness.forecast.memory import PeakMemory, StepMemory, bytes_of
from mimbench.harness.forecast.split_memory import split_pass, split_update
from mimbench.harness.forecast.workspaces import workspace_of
from mimbench.harness.planning.fake_step import strip_values, without_values
from mimbench.harness.planning.step_cost import counted_flops

_CUDA_BLOCK = 512
"""Bytes that torch's CUDA allocator rounds each allocation up to."""
_FEW = 2
"""Images of a step whose operations are counted: the least that batch norm and methods that mix images take."""


@dataclass(frozen=True)
class Target:
    """What a step is traced for."""

    on_cuda: bool
    has_flash: bool
    precision: str
    """fp32, tf32 or bf16."""
    processes: int = 1


Trace = Callable[[int, bool], StepMemory]
"""(images of a micro-batch, whether gradients of earlier micro-batches are kept) -> memory."""


@contextmanager
def traced(build: Callable[[], PlannedStep], target: Target) -> Iterator[Trace]:
    """Build a step without values. Within this context, the yielded function gives its memory for any micro-batch.

    Args:
        build: called with torch's default device set to "meta".

    Raises:
        InputError: the model is not possible.
    """
    with ExitStack() as stack:
        stack.enter_context(quiet())
        stack.enter_context(without_values())
        planned = _built(build)
        model: Any = strip_values(planned.model)
        memory = stack.enter_context(
            PeakMemory(_CUDA_BLOCK) if target.on_cuda else PeakMemory(workspace_of=workspace_of)
        )
        if target.on_cuda:
            stack.enter_context(CudaKernels(has_flash=target.has_flash))
        changes = {"accumulate": 1, "precision": "bf16" if target.precision == "bf16" else "fp32"}
        config = planned.config.model_copy(update=changes)
        step = BareStep(model, config, torch.device("cpu"))
        tensors = [*model.parameters(), *model.buffers()]
        memory.add(*tensors)
        memory.watch_gradients(model)
        _add_gradients(model)
        step.optimizer.step()  # makes the states
        states = bytes_of(*(value for state in step.optimizer.state.values() for value in state.values()
                            if isinstance(value, Tensor)))  # fmt: skip
        step.optimizer.zero_grad()
        weights = bytes_of(*{id(tensor): tensor for tensor in tensors}.values())

        def look(images: int) -> StepMemory:
            gradients = memory.gradients_at_peak
            rest = memory.peak - weights - states - gradients
            return StepMemory(images, weights, gradients, states, rest, saved=weights + states)

        def trace(images: int, keeps_gradients: bool) -> StepMemory:
            batch = planned.batch(images)
            if keeps_gradients:
                _add_gradients(model)
            trained = _trained_bytes(model)
            memory.start_step(trained if keeps_gradients else 0)
            peaks = []

            def start_update(*_: object) -> None:
                peaks.append(look(images))
                memory.start_step(trained)

            handle = step.optimizer.register_step_pre_hook(start_update)
            step(batch)
            handle.remove()
            return _on_one_device(model, peaks[0], look(images), config.parallel, target.processes)

        yield trace


def count_flops(build: Callable[[], PlannedStep]) -> float:
    """Floating-point operations of a step's forward and backward pass, per image.

    Raises:
        InputError: the model is not possible.
    """
    with quiet(), without_values():
        planned = _built(build)
        model: Any = strip_values(planned.model).train()
        if hasattr(model, "before_step"):
            model.before_step(0.0, 0)
        with torch.random.fork_rng(devices=[]), counted_flops() as counter:
            model.training_step(planned.batch(_FEW), torch.Generator().manual_seed(0)).loss.backward()
        return counter.get_total_flops() / _FEW


@dataclass(frozen=True)
class Forward:
    """What a forward pass of an encoder needs."""

    flops: float
    """Per image."""
    memory: StepMemory
    width: int
    """Numbers per image in its features."""


def count_forward(build: Callable[[], Encoder], images: int, on_cuda: bool) -> Forward:
    """A forward pass without gradients, in fp32, as frozen features are taken."""
    with quiet(), without_values(), torch.inference_mode():
        with unset_fake_temporarily(), torch.device("meta"):
            encoder = build().eval()
        strip_values(encoder)
        tensors = (*encoder.parameters(), *encoder.buffers())
        with counted_flops() as counter:
            width = encoder.features(torch.empty(_FEW, *encoder.input_shape), -1).pooled.shape[1]
        with ExitStack() as stack:
            memory = stack.enter_context(PeakMemory(_CUDA_BLOCK) if on_cuda else PeakMemory(workspace_of=workspace_of))
            if on_cuda:
                stack.enter_context(CudaKernels(has_flash=False))
            memory.add(*tensors)
            encoder.features(torch.empty(images, *encoder.input_shape), -1)
        weights = bytes_of(*tensors)
        traced_memory = StepMemory(images, weights, 0, 0, memory.peak - weights)
        return Forward(counter.get_total_flops() / _FEW, traced_memory, width)


def largest_that_fits(trace: Trace, share: int, smallest: int, usable: int, known: StepMemory) -> StepMemory | None:
    """The memory of the largest micro-batch that fits, among those that divide `share`; None: not even the smallest.

    Memory grows almost linearly with the images, so that few steps have to be traced.

    Args:
        share: images of an optimizer step on one device.
        smallest: images that a micro-batch has at least.
        usable: bytes.
        known: memory of some micro-batch.
    """
    sizes = [size for size in range(share, 0, -1) if share % size == 0 and size >= smallest] or [share]
    tried = {known.images: known} if known.images == share else {}

    def at(size: int) -> StepMemory:
        if size not in tried:
            tried[size] = trace(size, size < share)
        return tried[size]

    low = at(sizes[-1])
    if low.total > usable:
        return None
    fits = low
    candidates: Sequence[int] = sizes[:-1]
    while candidates:
        other = known if known.images != low.images else None
        guess = _largest_below(candidates, low, other, usable) if other else candidates[0]
        known = at(guess)
        if known.total <= usable:
            fits = known
            candidates = [size for size in candidates if size > guess]
        else:
            candidates = [size for size in candidates if size < guess]
        candidates = [size for size in candidates if size > fits.images]
    return fits


def _largest_below(candidates: Sequence[int], low: StepMemory, other: StepMemory, usable: int) -> int:
    """The largest candidate that fits by the line through two micro-batches; the smallest one if none does."""
    slope = (other.total - low.total) / (other.images - low.images)
    fitting = [size for size in candidates if low.total + slope * (size - low.images) <= usable]
    return fitting[0] if fitting else candidates[-1]


def _on_one_device(
    model: nn.Module, in_pass: StepMemory, in_update: StepMemory, parallel: str, processes: int
) -> StepMemory:
    """The higher of the peaks of the forward and backward pass and of the update, on one of the processes' devices."""
    peaks = [in_pass, in_update]
    if processes > 1 and parallel == "fsdp":
        peaks = [split_pass(in_pass, model, processes), split_update(in_update, model, processes)]
    elif processes > 1:  # the buckets in which gradients are summed over the processes
        buckets = _trained_bytes(model)
        peaks = [replace(peak, gradients=peak.gradients + buckets) for peak in peaks]
    return max(peaks, key=lambda peak: peak.total)


def _built(build: Callable[[], PlannedStep]) -> PlannedStep:
    with unset_fake_temporarily(), torch.device("meta"):
        return build()


def _add_gradients(model: nn.Module) -> None:
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)


def _trained_bytes(model: nn.Module) -> int:
    return bytes_of(*(parameter for parameter in model.parameters() if parameter.requires_grad))


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of libraries, such as torch's of weights on the meta device; MIMBENCH_DEBUG=1 shows them."""
    with warnings.catch_warnings():
        if not os.environ.get("MIMBENCH_DEBUG"):
            warnings.simplefilter("ignore")
        yield
