"""Blocks: the repeated parts of a network, which are compiled once per kind. They are called through `run_block`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mimbench.shared_batch import current_share, in_share

_MARK, _RUNNER, _WITHIN_HOOKS = "_is_block", "_block_runner", "_runs_within_hooks"


class Runner(Protocol):
    """Runs a block instead of the block's forward pass."""

    is_paused: bool

    def __call__(self, function: Callable[..., Tensor], block: nn.Module, *inputs: Any, **named: Any) -> Tensor:
        """`function(block, *inputs, **named)`."""


def mark_blocks(blocks: Iterable[nn.Module]) -> None:
    """Mark these modules as blocks: a training may compile one graph for all with the same structure.

    A block takes tensors [B, ...] and returns one. Its forward pass must not depend on values of tensors, nor set
    attributes. Random numbers may come from drop path (timm's DropPath) and dropout.
    """
    for block in blocks:
        vars(block)[_MARK] = True


def marked_blocks(model: nn.Module) -> Iterator[nn.Module]:
    """The blocks of a model, except those that lie within another block."""
    for child in model.children():
        if _MARK in vars(child):
            yield child
        else:
            yield from marked_blocks(child)


def forward(block: nn.Module, *inputs: Any, **named: Any) -> Tensor:
    """The block's own forward pass with its hooks, never a compiled one."""
    return block._call_impl(*inputs, **named)


def run_block(
    block: nn.Module, *inputs: Any, by: Callable[..., Tensor] | None = None, recompute: bool = False
) -> Tensor:
    """Run a block, compiled if the training compiles its kind.

    Args:
        block: a module that `mark_blocks` has marked, or any other.
        inputs: of the block. The first is a tensor [B, ...].
        by: computes the block as by(block, *inputs), such as its parts in another order; None: its own forward pass.
        recompute: do not keep activations for the backward pass, but compute them again (gradient checkpointing).
    """

    def run(*inputs: Any) -> Tensor:
        runner = vars(block).get(_RUNNER)
        if _WITHIN_HOOKS in vars(block):
            return _call_within_hooks(block, by or type(block).forward, *inputs)
        if runner is None:
            return block(*inputs) if by is None else by(block, *inputs)
        return runner(by or forward, block, *inputs)

    if not recompute:
        return run(*inputs)
    share = current_share()

    def run_again(*inputs: Any) -> Tensor:
        with in_share(share):  # what is drawn in the backward pass is for the same rows
            return run(*inputs)

    return checkpoint(run_again, *inputs, use_reentrant=False)


def set_runner(block: nn.Module, runner: Runner | None) -> None:
    """Let `runner` run the block from now on, also if it is called as a module; None: the block runs itself."""
    # torch calls _compiled_call_impl in place of the forward pass; it is neither copied nor pickled with the module.
    if runner is None:
        vars(block).pop(_RUNNER, None)
        block._compiled_call_impl = None
        return
    vars(block)[_RUNNER] = runner
    if _WITHIN_HOOKS in vars(block):
        block._compiled_call_impl = functools.partial(_call_within_hooks, block, type(block).forward)
    else:
        block._compiled_call_impl = functools.partial(runner, forward, block)


def run_within_hooks(block: nn.Module) -> None:
    """From now on the block's hooks surround whatever runs the block: a runner, or a function given to `run_block`.

    The hooks of FSDP gather the block's weights and free them again. They cannot be compiled. Call it before
    `set_runner`.
    """
    vars(block)[_WITHIN_HOOKS] = True


def _call_within_hooks(block: nn.Module, function: Callable[..., Tensor], *inputs: Any, **named: Any) -> Tensor:
    runner = vars(block).get(_RUNNER)
    inner = functools.partial(function, block) if runner is None else functools.partial(runner, function, block)
    vars(block)["forward"] = inner  # torch calls it between the hooks
    try:
        return block._call_impl(*inputs, **named)
    finally:
        del vars(block)["forward"]


@contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """Within this context, all blocks of `model` run eagerly, such as under hooks that change in every step."""
    runners = {id(runner): runner for module in model.modules() if (runner := vars(module).get(_RUNNER))}
    before = {key: runner.is_paused for key, runner in runners.items()}
    for runner in runners.values():
        runner.is_paused = True
    try:
        yield
    finally:
        for key, runner in runners.items():
            runner.is_paused = before[key]


def has_runner(module: nn.Module) -> bool:
    """Whether the module is a block that `set_runner` was called for."""
    return _RUNNER in vars(module)
