"""The peak memory of a real step on the CPU, from the allocations that torch's profiler notes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_iter

from mimbench.contract import PlannedStep
from mimbench.engine.bare_step import BareStep


def measured_peak(planned: PlannedStep, images: int) -> int:
    """Bytes at the peak of the second step: weights, states and batch, and what the step allocates besides.

    In a process of several, of which each holds a part of the weights, it is this process's peak.
    """
    step = BareStep(planned.model, planned.config.model_copy(update={"accumulate": 1}), torch.device("cpu"))
    batch = planned.batch(images)
    step(batch)  # makes the states of the optimizer
    states = [value for state in step.optimizer.state.values() for value in state.values()]
    held = [*planned.model.parameters(), *planned.model.buffers(), *tree_iter(batch), *states]
    parts = [value.to_local() if isinstance(value, DTensor) else value for value in held if isinstance(value, Tensor)]
    before = sum(part.untyped_storage().nbytes() for part in parts)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step(batch)
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return before + peak
