"""A slow copy of a module: the teacher of self-distillation."""

from __future__ import annotations

import copy
import inspect
import types
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from mimbench.errors import InputError

Copied = TypeVar("Copied", bound=nn.Module)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Teacher(nn.Module, Generic[Copied]):
    """A copy of a module that follows it slowly: always in evaluation mode, never with gradients.

    It starts with the student's weights, on the student's device (also "meta"). Its tensors are its own, so a
    checkpoint stores each once. Parts of the student that torch.compile made are plain modules in the copy, under
    their plain names. Hooks of the student act on the copy too.

    Attributes:
        module: the copy. Call methods other than `forward` on it: `teacher.module.encode(tokens)`.
    """

    module: Copied

    def __init__(self, student: Copied) -> None:
        super().__init__()
        self.module = _copy(student).requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Teacher[Copied]:
        """Stay in evaluation mode: no dropout, and batch norms use their running statistics."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Call the copy, without gradients."""
        return self.module(*inputs, **options)

    @torch.no_grad()
    def follow(self, student: nn.Module, momentum: float) -> None:
        """Move each parameter p to momentum * p + (1 - momentum) * (the student's p), and copy each buffer.

        Call it in `Method.after_step`.

        Args:
            student: the module that was copied. It may hold this teacher, whose own tensors are then left out.
            momentum: in [0, 1]; 1 leaves the parameters as they are.

        Raises:
            InputError: the student has other parameters or buffers than the copy.
        """
        tensors_here = {id(tensor) for tensor in (*self.parameters(), *self.buffers())}
        slow, fast = _same(_parameters(self.module), _others(_parameters(student), tensors_here))
        if slow:
            torch._foreach_lerp_(slow, fast, 1 - momentum)
        for old, new in zip(*_same(_buffers(self.module), _others(_buffers(student), tensors_here)), strict=True):
            old.copy_(new)


def _copy(student: Copied) -> Copied:
    """A deep copy. What `copy.deepcopy` cannot copy, or would share with the student, is treated first."""
    memo: dict[int, Any] = {}
    for module in list(student.modules()):
        for name in _HOOKS:
            # deepcopy would also copy the module that a bound method belongs to.
            memo |= {id(hook): hook for hook in getattr(module, name).values()}
        for value in vars(module).values():
            # A tensor that the last forward pass computed, such as the weight of torch's old weight_norm.
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    for module in reversed(list(student.modules())):  # inner ones first
        if _is_compiled(module):
            memo[id(module)] = copy.deepcopy(module._orig_mod, memo)
    made = copy.deepcopy(student, memo)
    for module in made.modules():
        for name, value in list(vars(module).items()):
            # `encoder.forward = torch.compile(encoder.forward)` would run the student's weights.
            original = inspect.unwrap(value) if hasattr(value, "_torchdynamo_orig_callable") else None
            if isinstance(original, types.MethodType):
                setattr(module, name, types.MethodType(original.__func__, module))
    return made


def _is_compiled(module: nn.Module) -> bool:
    return isinstance(getattr(module, "_orig_mod", None), nn.Module)


def _parameters(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from ((_plain(name), parameter) for name, parameter in module.named_parameters())


def _buffers(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from ((_plain(name), buffer) for name, buffer in module.named_buffers())


def _others(tensors: Iterator[tuple[str, Tensor]], left_out: set[int]) -> Iterator[tuple[str, Tensor]]:
    """`tensors` without those whose id is in `left_out`."""
    return ((name, tensor) for name, tensor in tensors if id(tensor) not in left_out)


def _plain(name: str) -> str:
    """The name without what torch.compile adds."""
    return name.replace("_orig_mod.", "")


def _same(
    copied: Iterator[tuple[str, Tensor]], student: Iterator[tuple[str, Tensor]]
) -> tuple[list[Tensor], list[Tensor]]:
    """Tensors of both, in the same order. Raises InputError if names or shapes differ."""
    old, new = dict(copied), dict(student)
    wrong = sorted(old.keys() ^ new.keys()) or [name for name in old if old[name].shape != new[name].shape]
    if wrong:
        raise InputError(
            f"a teacher cannot follow a student that differs from it in {wrong[0]!r}; call follow() with the module "
            "that the teacher was made from"
        )
    return list(old.values()), [new[name] for name in old]
