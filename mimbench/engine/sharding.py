"""`parallel = "fsdp"`: weights, gradients and optimizer states are split over the processes (torch's FSDP2).

A copy of the model is split and trained. Each process holds a part of every weight, a DTensor. torch gathers the whole
weights of a block right before it runs, and frees them afterwards. The model itself waits on the CPU, and gets the
weights whenever they are needed as a whole: for a checkpoint, and at the end.

States on disk hold whole tensors, so a training goes on with any number of processes, split or not.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mimbench.compute.blocks import marked_blocks, run_within_hooks
from mimbench.distributed import get_rank, get_world_size, reduce_over_ranks
from mimbench.errors import InputError

_USE_DDP = 'set parallel to "ddp"'


def is_split(value: object) -> bool:
    """Whether a value is a DTensor. Their module takes half a second to import, so it is not asked."""
    return hasattr(value, "to_local")


def own_part(tensor: Any) -> Tensor:
    """What this process holds of a tensor: all of it, if it is not split."""
    return tensor.to_local() if is_split(tensor) else tensor


def copy_to_split(model: nn.Module, label: str) -> nn.Module:
    """A copy of `model`, which is moved to the CPU. label: names the training in messages.

    Raises:
        InputError: the model cannot be copied, or torch cannot split its weights.
    """
    problem = _describe_problem(model)
    if problem:
        raise InputError(f'{label}: parallel = "fsdp" cannot split {problem}; {_USE_DDP}')
    try:
        return copy.deepcopy(model.cpu())
    except (TypeError, RuntimeError, NotImplementedError, AttributeError) as error:
        raise InputError(
            f'{label}: parallel = "fsdp" trains a copy of {type(model).__name__}, which cannot be copied '
            f"({type(error).__name__}: {error}); {_USE_DDP}"
        ) from error


def _describe_problem(model: nn.Module) -> str:
    """Which weights torch cannot split; "" if it can split all."""
    parameters = dict(model.named_parameters())
    scalars = [name for name, parameter in parameters.items() if not parameter.ndim]
    types = sorted({str(parameter.dtype).removeprefix("torch.") for parameter in parameters.values()})
    if scalars:
        return f"{scalars[0]}, which has no dimension; give it the shape [1]"
    if len(types) > 1 or not all(parameter.is_floating_point() for parameter in parameters.values()):
        return f"weights of the types {' and '.join(types)}"
    return ""


def split(model: nn.Module, device: torch.device) -> None:
    """Split the weights of `model` over all processes, block by block, and move the rest to the device.

    All ranks call it. The weights of rank 0 count.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    for tensor in (*model.parameters(), *model.buffers()):
        on_device = tensor.detach().to(device)
        torch.distributed.broadcast(on_device, src=0)
        tensor.detach().copy_(on_device)
    mesh = init_device_mesh(device.type, (get_world_size(),))
    for block in separate_blocks(model):
        fully_shard(block, mesh=mesh)
        run_within_hooks(block)
    fully_shard(model, mesh=mesh)


def separate_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks that share no weight with another part of the model."""
    everywhere = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    blocks = []
    for block in marked_blocks(model):
        inside = Counter(id(parameter) for _, parameter in block.named_parameters(remove_duplicate=False))
        if inside and all(everywhere[key] == count for key, count in inside.items()):
            blocks.append(block)
    return blocks


@torch.no_grad()
def gather_weights(trained: nn.Module, model: nn.Module) -> None:
    """Copy the weights and buffers of the split copy into the model that it was made from. All ranks call it."""
    targets = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, value in (*trained.named_parameters(), *trained.named_buffers()):
        targets[name].copy_(_whole(value))


def _whole(tensor: Any) -> Tensor:
    return tensor.full_tensor().detach() if is_split(tensor) else tensor


def gather_whole(state: Any) -> Any:
    """Nested values, with whole tensors on the CPU in place of split ones. All ranks call it.

    Other ranks than the first get empty tensors, so that only one holds the whole state.
    """
    if is_split(state):
        whole = _whole(state)
        return whole.cpu() if get_rank() == 0 else whole.new_empty(0)
    if isinstance(state, Mapping):
        return {key: gather_whole(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(gather_whole(value) for value in state)
    return state


def split_as(value: Any, like: Any) -> Any:
    """The part of a whole tensor that this process holds, if `like` is split; else `value` itself."""
    if not is_split(like) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    # distribute_tensor returns a view of the whole tensor, which would stay in memory.
    part = distribute_tensor(value.to(like.dtype), like.device_mesh, like.placements, src_data_rank=None)
    return torch.empty_like(like, requires_grad=False).copy_(part)


def split_optimizer_state(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A saved state of the optimizer, with tensors split as the weights that they belong to."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    by_number = {
        number: {name: split_as(value, parameters[number].detach()) for name, value in values.items()}
        for number, values in state["state"].items()
    }
    return {**state, "state": by_number}


def whole_norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The L2 norm of each tensor: of all of it, if it is split. All ranks call it, with the same tensors."""
    norms = list(torch._foreach_norm([own_part(tensor) for tensor in tensors]))
    if not any(map(is_split, tensors)):
        return norms
    squares = torch.stack([norm.float().square() for norm in norms])
    return list(reduce_over_ranks(squares, "sum").sqrt())


def describe_use(error: RuntimeError) -> str:
    """What is wrong if a step used a weight while it was split, from torch's error; "" for other errors."""
    if "DTensor" not in str(error):
        return ""
    return (
        'the training step uses weights outside of the forward pass of their block, where parallel = "fsdp" has split '
        f"them; call blocks as modules or by run_block, or {_USE_DDP} ({' '.join(str(error).split())[:200]})"
    )
