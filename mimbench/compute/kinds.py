"""Kinds of blocks. Blocks of one kind differ in weights and drop path rates only, so one graph serves them all."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mimbench.compute.blocks import mark_blocks
from mimbench.compute.drop_path import DropPath, drawn, drawn_paths, is_drop_path, paths_of
from mimbench.errors import RunError

MOST_GRAPHS = 6
"""Graphs of one kind: training and evaluation, with and without mask tokens, at two sizes. A block that is called with
ever new shapes, such as contexts of I-JEPA, runs eagerly for those beyond."""
_PLAIN = (bool, int, float, str, type(None))


class Kind:
    """Blocks that share compiled graphs. It is what `set_runner` takes.

    A graph is compiled per function, mode, precision and shape of the inputs. Each has its own code object, because
    torch keeps graphs by code object and gives up after a few. So within one of them nothing is ever recompiled.
    """

    def __init__(self, options: Mapping[str, Any], on_failure: Callable[[str], None] | None = None) -> None:
        """
        Args:
            options: of torch.compile.
            on_failure: called with what is wrong if torch cannot compile a block, which then runs eagerly; None: it is
                an error.
        """
        self.options, self.on_failure, self.is_paused = dict(options), on_failure, False
        self.paths: dict[nn.Module, list[DropPath]] = {}
        """The drop paths of each block, in their order."""
        self.problem = ""
        """Why blocks of this kind run eagerly; "" if they do not."""
        self.graphs: dict[Any, Callable[..., Tensor]] = {}
        self.is_full = False
        """Whether some inputs were run eagerly, because there were too many shapes."""

    def __call__(self, function: Callable[..., Tensor], block: nn.Module, *inputs: Any, **named: Any) -> Tensor:
        x, paths = inputs[0], self.paths.get(block)
        if paths is None:  # a copy of a block
            paths = drawn_paths(block)
        if block.training:
            for path in paths:
                path.factors = path.draw(len(x), x.device)
        try:
            return self._run(function, block, inputs, named)
        finally:
            for path in paths:
                path.factors = None

    def _run(self, function: Callable[..., Tensor], block: nn.Module, inputs: tuple, named: dict[str, Any]) -> Tensor:
        compiled = self._compiled(function, block, (*inputs, tuple(named.items())))
        if compiled is function:
            return function(block, *inputs, **named)
        try:
            return compiled(block, *inputs, **named)
        except Exception as error:
            problem = _compiler_problem(error)
            if problem is None:
                raise
            self.problem = f"torch cannot compile {type(block).__name__} ({problem})"
            if self.on_failure is None:
                raise RunError(f'{self.problem}; set compile to "off"') from error
        self.on_failure(self.problem)
        return function(block, *inputs, **named)

    def _compiled(self, function: Callable[..., Tensor], block: nn.Module, inputs: tuple) -> Callable[..., Tensor]:
        if self.is_paused or self.problem or torch.compiler.is_compiling():
            return function
        device = inputs[0].device.type
        autocast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
        mode = (block.training, torch.is_grad_enabled(), torch.is_inference_mode_enabled(), autocast)
        key = (function, mode, tuple(_form(value) for value in inputs))
        if key not in self.graphs:
            if len(self.graphs) >= MOST_GRAPHS:
                self.is_full = True
                return function
            self.graphs[key] = torch.compile(_copied(function), fullgraph=True, dynamic=False, **self.options)
        return self.graphs[key]

    def __deepcopy__(self, memo: dict[int, Any]) -> Kind:
        return self


def _compiler_problem(error: Exception) -> str | None:
    """The first line of an error of torch's compiler; None for an error of what it compiled."""
    from torch._dynamo.exc import TorchDynamoException

    if not isinstance(error, TorchDynamoException):
        return None
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]


def _copied(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A copy of the function with a separate code object."""
    made = types.FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    made.__kwdefaults__ = function.__kwdefaults__
    return made


def _form(value: Any) -> Any:
    """What a graph depends on: all of a tensor but its values, and plain values."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.stride(), value.dtype, value.device, value.requires_grad
    if isinstance(value, tuple | list):
        return tuple(_form(item) for item in value)
    if is_dataclass(value):
        return type(value), tuple(_form(getattr(value, field.name)) for field in fields(value))
    return value


def structure(block: nn.Module) -> Any:
    """What two blocks must share to use one graph: classes, options and shapes of all parts, not rates of drop path."""
    paths = paths_of(block)
    parts = (_part(name, module) for name, module in block.named_modules() if name not in paths)
    return *parts, tuple(sorted(paths))


def _part(name: str, module: nn.Module) -> Any:
    tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return (
        name,
        type(module),
        tuple(
            (key, tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.requires_grad) for key, tensor in tensors
        ),
        tuple(_options(module)),
    )


def _options(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """The plain attributes of a module, such as a number of heads."""
    for name, value in vars(module).items():
        if name.startswith("_") or name == "training":
            continue
        if isinstance(value, _PLAIN):
            yield name, value
        elif isinstance(value, tuple | list | torch.Size) and all(isinstance(item, _PLAIN) for item in value):
            yield name, tuple(value)


def mark_repeated(model: nn.Module) -> None:
    """Mark repeated parts of a model as blocks: those in a list or sequence with several layers and equal structure."""
    listed = [
        child
        for module in model.modules()
        if isinstance(module, nn.Sequential | nn.ModuleList)
        for child in module.children()
        if sum(1 for part in child.modules() if any(True for _ in part.parameters(recurse=False))) > 1
    ]
    groups: dict[Any, list[nn.Module]] = {}
    for child in listed:
        groups.setdefault(structure(child), []).append(child)
    mark_blocks(child for group in groups.values() if len(group) > 1 for child in group)


def draw_outside(blocks: list[nn.Module]) -> list[tuple[nn.Module, str, nn.Module]]:
    """Replace drop paths of blocks of one kind by those that are drawn outside, unless no block drops any.

    Returns:
        (parent, name, module before) of each, to put it back.
    """
    if not any(is_drop_path(path) and path.drop_prob for block in blocks for path in paths_of(block).values()):
        return []
    replaced = []
    for block in blocks:
        for name, path in paths_of(block).items():
            parent, _, leaf = name.rpartition(".")
            owner = block.get_submodule(parent)
            replaced.append((owner, leaf, path))
            setattr(owner, leaf, drawn(path))
    return replaced
