"""Finds the operations for which a CUDA device would be waited for, in code that runs on the CPU."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_READS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "bincount", "lift_fresh"}
"""Operations whose result, or whose shape, the host has to know; and tensors made of Python's numbers (lift_fresh)."""
_INDEXES = {"index", "index_put", "index_put_", "_unsafe_index"}
_TO_HOST = ("tolist", "numpy", "cpu", "__array__")
_ON_HOST = {
    # Drawn by a generator on the CPU, whatever the device is; see mimbench/masks/host.py.
    ("masks/blocks.py", "_draw_blocks"),
    ("masks/multi_block.py", "draw_sizes"),
    ("masks/multi_block.py", "_draw_contexts"),
    ("masks/multi_block.py", "multi_block_mask"),
    ("masks/mixed.py", "mixed_ratio_mask"),
    ("masks/blocks.py", "block_mask"),
}


class Waits(TorchDispatchMode):
    """While active, lists where the host would wait: "operation at file:line in function"."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        name = function._schema.name.partition("::")[2]
        if name in _READS or name.startswith("unique") or (name in _INDEXES and _has_mask(arguments[1])):
            self.note(name)
        if name == "repeat_interleave" and (named or {}).get("output_size") is None:
            self.note(name)
        return function(*arguments, **named or {})

    def note(self, name: str) -> None:
        frame: FrameType | None = sys._getframe(1)
        place = ""
        while frame is not None:
            file, code = frame.f_code.co_filename, frame.f_code
            if any(file.endswith(path) and code.co_name == inside for path, inside in _ON_HOST):
                return
            if code.co_name == "visible_indices" and not isinstance(frame.f_locals.get("expected"), Tensor):
                return  # a check that is made on the CPU alone
            if not place and "mimbench" in file and file != __file__:
                place = f"{name} at {file}:{frame.f_lineno} in {code.co_name}"
            frame = frame.f_back
        self.places.append(place or name)


def _has_mask(indices: Any) -> bool:
    return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in indices)


@contextmanager
def waits(monkeypatch):
    """The list of places, complete at the end of the context."""
    mode = Waits()
    with monkeypatch.context() as patch, mode:
        for name in _TO_HOST:
            before = getattr(Tensor, name)

            def noting(self: Tensor, *arguments: Any, _before: Any = before, _name: str = name, **named: Any) -> Any:
                mode.note(_name)
                return _before(self, *arguments, **named)

            patch.setattr(Tensor, name, noting)
        yield mode.places
