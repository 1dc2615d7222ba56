"""Models and steps of tensors that have shapes and types, and no values: nothing is computed, and no memory is used."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

from mimbench.contract import Method

_MOST_VALUES = 2**20
"""Numbers of a drawn or counted tensor that gets values; masks have fewer."""
_INDEXING = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default)


class _KnownValues(TorchDispatchMode):
    """Computes what depends on masks alone: they have values, so the shapes that follow from them are known."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [value for value in tree_iter((args, kwargs)) if isinstance(value, Tensor)]
        known = all(_has_values(value) for value in tensors) if tensors else _is_drawn(func, args, kwargs)
        if known:
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if func in _INDEXING:
            args = (args[0], list(_per_axis(args[1])), *args[2:])
        return func(*args, **kwargs)


def _is_drawn(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a function without tensors draws or counts a few numbers, from which masks or places may follow."""
    name = func._schema.name.removeprefix("aten::")
    if name == "arange":
        return True
    if name not in ("rand", "randn", "randint", "randperm") or kwargs.get("generator") is None:
        return False
    sizes = next((value for value in args if isinstance(value, list | tuple)), [])
    return math.prod(sizes) <= _MOST_VALUES


def _has_values(tensor: Tensor) -> bool:
    return not isinstance(tensor, FakeTensor) and not tensor.is_meta


def _per_axis(indices: Any) -> Iterator[Any]:
    """Boolean indices with values as one index per axis, since a tensor without values cannot take them."""
    for index in indices:
        if isinstance(index, Tensor) and index.dtype == torch.bool and _has_values(index):
            with unset_fake_temporarily():
                yield from index.nonzero().unbind(1)
        else:
            yield index


@contextmanager
def without_values() -> Iterator[FakeTensorMode]:
    """Within this context, torch's functions give tensors without values, on the CPU as far as anyone can see."""
    with ExitStack() as stack:
        mode = stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(_KnownValues())
        yield mode


def strip_values(model: nn.Module) -> nn.Module:
    """Replace all tensors of a model that was built on the meta device by ones that pass for tensors of the CPU.

    To be called within `without_values`. Masks are still drawn, as the model's methods draw them.
    """
    model.to_empty(device="cpu")
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if not name.startswith("_"):
                replaced = tree_map_only(Tensor, _on_cpu, value)
                if any(one is not other for one, other in zip(tree_iter(value), tree_iter(replaced), strict=True)):
                    setattr(module, name, replaced)
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.numel() == 1 and not buffer.is_floating_point():
                with unset_fake_temporarily():  # a number of steps or stages, which methods read
                    module._buffers[name] = torch.zeros(buffer.shape, dtype=buffer.dtype)
        if isinstance(module, Method):
            _draw_masks(module)
    return model


def _on_cpu(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="cpu") if tensor.is_meta else tensor


def _draw_masks(method: Method) -> None:
    """Let `sample_mask` of this method compute, with a generator that draws."""
    sample_mask = method.sample_mask

    def sample(batch: int, generator: torch.Generator) -> Any:
        with unset_fake_temporarily():
            return sample_mask(batch, generator)

    method.sample_mask = sample  # type: ignore[method-assign]
