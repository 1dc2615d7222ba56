"""Leaves out parts of large libraries that they import at once and mimbench does not use: half of a command's start.

`install` is called by the command line only, so that who imports mimbench as a library gets the libraries whole.

- mmengine imports torch.distributed.fsdp for three classes of sharded training. They are left out.
- timm, torchvision and the optimizers of torch import torch._dynamo to mark functions that it must not compile. Nothing
  is compiled before torch._dynamo is imported, so until something else of it is used, the marks do nothing.
- Garbage is collected more rarely until a run begins to compute, and never among the objects of imported libraries.
"""

from __future__ import annotations

import functools
import gc
import importlib
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import FunctionType, ModuleType
from typing import Any

from mimbench.errors import RunError

LEFT_OUT = {
    "mmengine.model.wrappers.fully_sharded_distributed": "MMFullyShardedDataParallel",
    "mmengine.optim.optimizer.zero_optimizer": "ZeroRedundancyOptimizer",
    "mmengine._strategy.fsdp": "FSDPStrategy",
}
"""Module -> the one class that the rest of mmengine imports from it."""
POSTPONED = "torch._dynamo"
_USUAL = gc.get_threshold()
_COLLECT_EVERY = 50_000
"""New objects between two garbage collections during imports, which make many objects and no garbage."""
_UTILS = f"{POSTPONED}.utils"
_IMPORTS_UTILS = "torchvision.ops.roi_align"
"""Imports one function of the utils, `is_compile_supported`, and calls it in some operations."""


def install() -> None:
    """Leave the parts out in this process from now on. Modules that are imported already stay as they are."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    gc.set_threshold(_COLLECT_EVERY, *_USUAL[1:])


def keep_imports() -> None:
    """Leave what is imported so far out of all garbage collections: libraries stay, and torch alone is many objects.

    The first call in a process counts, and only if `install` was called.
    """
    if not gc.get_freeze_count() and any(isinstance(finder, _Finder) for finder in sys.meta_path):
        gc.freeze()


def end_of_imports() -> None:
    """Collect garbage as often as usual again: a training may leave large tensors in it."""
    gc.set_threshold(*_USUAL)


class _Finder(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in LEFT_OUT:
            return ModuleSpec(name, _LeftOut())
        if name == POSTPONED and not _Postponed.is_over:
            return ModuleSpec(name, _Postponed())
        if name.startswith(f"{POSTPONED}.") and name in sys.modules:
            # The import of this submodule has just imported the whole package, and with it this submodule.
            return ModuleSpec(name, _Existing(sys.modules[name]))
        if name == _IMPORTS_UTILS and not _Postponed.is_over:
            spec = PathFinder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _WithoutUtils(spec.loader)
            return spec
        return None


class _LeftOut(Loader):
    """A module with a class that cannot be instantiated."""

    def exec_module(self, module: ModuleType) -> None:
        name = LEFT_OUT[module.__name__]

        def refuse(self: object, *arguments: Any, **options: Any) -> None:
            raise RunError(f"the mimbench command leaves out {module.__name__}.{name}; see mimbench/lean_imports.py")

        setattr(module, name, type(name, (), {"__init__": refuse, "__module__": module.__name__}))


class _Postponed(Loader):
    """torch._dynamo with `disable` and `graph_break` only; any other name of it imports it whole, in its place."""

    is_over = False
    """Whether it has been imported whole."""

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(disable=_disable, graph_break=lambda msg="": None, __getattr__=self.other)

    def other(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":  # the import system asks for __file__ and the like
            raise AttributeError(name)
        return getattr(whole(), name)


def whole() -> Any:
    """torch._dynamo itself."""
    if not _Postponed.is_over:
        _Postponed.is_over = True
        for name in (POSTPONED, _UTILS):
            sys.modules.pop(name, None)
    return importlib.import_module(POSTPONED)


def _disable(fn: Any = None, *arguments: Any, **options: Any) -> Any:
    """As torch._dynamo.disable, for functions: calls that are not compiled pass straight through."""
    if _Postponed.is_over or not isinstance(fn, FunctionType):
        return whole().disable(fn, *arguments, **options)
    disabled = functools.cache(lambda: whole().disable(fn, *arguments, **options))

    @functools.wraps(fn)
    def call(*values: Any, **named: Any) -> Any:
        return (disabled() if _Postponed.is_over else fn)(*values, **named)

    return call


class _Existing(Loader):
    """Gives a module that exists, as it is."""

    def __init__(self, module: ModuleType) -> None:
        self.module, self.spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        with suppress(AttributeError):  # a module of options, whose attributes cannot be set
            module.__spec__ = self.spec  # the import system has replaced it


class _WithoutUtils(Loader):
    """Runs a module that imports `is_compile_supported`, which then imports torch._dynamo when it is called."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        utils = ModuleType(_UTILS)
        is_supported: Callable[[str], bool] = lambda device: whole().utils.is_compile_supported(device)  # noqa: E731
        vars(utils).update(is_compile_supported=is_supported)
        sys.modules[_UTILS] = utils
        try:
            self.loader.exec_module(module)
        finally:
            if sys.modules.get(_UTILS) is utils:
                del sys.modules[_UTILS]
