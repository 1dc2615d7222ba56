"""The memory of a step whose weights, gradients and optimizer states are split over processes (`parallel = "fsdp"`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from torch import Tensor, nn

from mimbench.engine.sharding import separate_blocks
from mimbench.harness.forecast.memory import StepMemory, bytes_of


def split_pass(whole: StepMemory, model: nn.Module, processes: int) -> StepMemory:
    """What one process needs at the peak of forward and backward pass. whole: what the unsplit model needs there.

    Weights are whole while they are used: those outside of blocks from the first use to the end, and those of two
    blocks, of which one runs and the next one is gathered. Gradients are whole until they are split: those outside of
    blocks, those of a block, and the copy of the block before that is being sent.
    """
    blocks = separate_blocks(model)
    inside = {id(parameter) for block in blocks for parameter in block.parameters()}
    outside = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    sizes = sorted((bytes_of(*block.parameters()) for block in blocks), reverse=True)
    trained = max((bytes_of(*_trained(block.parameters())) for block in blocks), default=0)
    split = _split(whole, model, processes)
    return replace(
        split,
        weights=split.weights + bytes_of(*outside) + sum(sizes[:2]),
        gradients=split.gradients + bytes_of(*_trained(outside)) + 2 * trained,
    )


def split_update(whole: StepMemory, model: nn.Module, processes: int) -> StepMemory:
    """What one process needs at the peak of the update, which computes with the parts that it holds."""
    split = _split(whole, model, processes)
    return replace(split, activations=round(whole.activations * _share(model, processes)))


def _split(whole: StepMemory, model: nn.Module, processes: int) -> StepMemory:
    """The same with the part of weights, gradients and states that a process holds. Buffers are not split."""
    share = _share(model, processes)
    weights = bytes_of(*model.parameters())
    return replace(
        whole,
        weights=whole.weights - round(weights * (1 - share)),
        gradients=round(whole.gradients * share),
        states=round(whole.states * share),
    )


def _share(model: nn.Module, processes: int) -> float:
    """Share of the weights that the first process holds: of each tensor 1 / processes of its rows, rounded up."""
    held = sum(
        bytes_of(parameter) // len(parameter) * -(-len(parameter) // processes) for parameter in model.parameters()
    )
    return held / bytes_of(*model.parameters())


def _trained(parameters: Iterable[Tensor]) -> list[Tensor]:
    return [parameter for parameter in parameters if parameter.requires_grad]
