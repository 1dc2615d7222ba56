"""Compiles the blocks of a model: each kind once, for all depths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from mimbench.compute.blocks import marked_blocks, set_runner
from mimbench.compute.drop_path import drawn_paths
from mimbench.compute.kinds import Kind, draw_outside, structure

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "kernels": {"options": {"fallback_random": True}},
    "cuda-graphs": {"options": {"fallback_random": True, "triton.cudagraphs": True}},
}
"""Options of torch.compile. Dropout draws from torch's own generator (`fallback_random`), as it does uncompiled."""


@contextmanager
def compiled_blocks(
    model: nn.Module,
    options: Mapping[str, Any] = OPTIONS["kernels"],
    *,
    on_failure: Callable[[str], None] | None = None,
) -> Iterator[list[Kind]]:
    """Within this context, the blocks of `model` that `mark_blocks` has marked run compiled.

    Nothing is compiled before a block is first called. Masks, their generator and what lies between blocks stay as
    they are. Random numbers are drawn as without compilation. At the end all blocks are as before.

    Args:
        model: on its device, with its final precision and memory format.
        options: of torch.compile.
        on_failure: called with a line once per kind that torch cannot compile, which then runs eagerly. None: such a
            kind is an error.

    Yields:
        The kinds of blocks, in their order in the model.

    Raises:
        RunError: at the first call of a block that cannot be compiled.
    """
    groups: dict[Any, list[nn.Module]] = {}
    for block in marked_blocks(model):
        groups.setdefault(structure(block), []).append(block)
    kinds, replaced = [], []
    try:
        for blocks in groups.values():
            replaced += draw_outside(blocks)
            kinds.append(Kind(options, on_failure))
            kinds[-1].paths = {block: drawn_paths(block) for block in blocks}
            for block in blocks:
                set_runner(block, kinds[-1])
        yield kinds
    finally:
        for blocks in groups.values():
            for block in blocks:
                set_runner(block, None)
        for owner, name, module in replaced:
            module.train(owner.training)
            setattr(owner, name, module)
