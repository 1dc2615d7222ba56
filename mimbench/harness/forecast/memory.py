"""The memory that the tensors of a step take, followed from their making to their end."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


@dataclass(frozen=True)
class StepMemory:
    """Bytes on one device at the peak of one optimizer step."""

    images: int
    """Of the micro-batch."""
    weights: int
    """Parameters and buffers, teachers and tokenizers included."""
    gradients: int
    """Those that exist at the peak, and with several processes the buckets that are summed over them."""
    states: int
    """Of the optimizer."""
    activations: int
    """All other tensors: the batch, what the backward pass needs, and what is computed at the moment of the peak."""
    saved: int = 0
    """What a saved state holds: weights and states, whole even if the processes split them."""

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.states + self.activations


class PeakMemory(TorchDispatchMode):
    """While active, adds up the storages of all tensors that are alive, and keeps the highest sum.

    Tensors may have no values. Views share a storage, which counts once. What a kernel allocates for itself and frees
    before it returns is not seen, except for what `workspace_of` says.
    """

    def __init__(self, block: int = 1, workspace_of: Callable[[Any, Any], int] | None = None) -> None:
        """
        Args:
            block: bytes that each storage is rounded up to a multiple of.
            workspace_of: (operator, its arguments) -> bytes that it takes besides its results while it runs.
        """
        super().__init__()
        self.block, self.bytes, self.peak = block, 0, 0
        self.workspace_of = workspace_of
        self.gradients, self.gradients_at_peak = 0, 0
        """Bytes of gradients, as far as `watch_gradients` follows them."""
        self._adds_gradients = False
        self._alive: dict[int, int] = {}

    def add(self, *tensors: Tensor) -> None:
        """Count tensors that were made outside of this context."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self._alive:
                self._alive[key] = -(-storage.nbytes() // self.block) * self.block
                self.bytes += self._alive[key]
                weakref.finalize(storage, self._end, key)
        self._look(self.bytes)

    def _look(self, now: int) -> None:
        if now > self.peak:
            self.peak, self.gradients_at_peak = now, self.gradients

    def watch_gradients(self, model: nn.Module) -> None:
        """Follow the gradients of a model's parameters. Set `gradients` back when they are freed."""

        def count(parameter: Tensor) -> None:
            if self._adds_gradients and parameter.grad is not None:
                self.gradients += bytes_of(parameter.grad)

        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(count)

    def start_step(self, gradients: int) -> None:
        """Forget the peak so far. gradients: bytes of those that exist: of all parameters, or 0."""
        self.gradients, self._adds_gradients = gradients, not gradients
        self.peak, self.gradients_at_peak = self.bytes, gradients

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **kwargs or {})
        self.add(*(value for value in tree_iter(result) if isinstance(value, Tensor)))
        if self.workspace_of is not None:
            self._look(self.bytes + self.workspace_of(func, args))
        return result

    def _end(self, key: int) -> None:
        self.bytes -= self._alive.pop(key)


def bytes_of(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
