"""Provides the module `mmcv._ext` if mmcv is installed without its compiled ops.

Importing mmcv.ops fails without that module. A compiled one is always used if it is there.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

from mimbench.api import NotSupported

NAME = "mmcv._ext"
HOW_TO_INSTALL = (
    "install an onedl-mmcv with compiled ops (`MMCV_WITH_OPS=1 pip install --no-build-isolation --no-binary "
    "onedl-mmcv onedl-mmcv`, under a torch release that it still compiles with)"
)


class MissingOp:
    """Placeholder for a compiled op that has no replacement. mmcv can import it; calling it raises NotSupported."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotSupported(f"the mmcv op {self.name!r} is compiled code, and this mmcv has none; {HOW_TO_INSTALL}")


class _Extension(ModuleType):
    """The module itself. mmcv looks up every op by name on import; an op without replacement becomes a MissingOp."""

    def __getattr__(self, name: str) -> MissingOp:
        if name.startswith("__"):
            raise AttributeError(name)
        missing = MissingOp(name)
        setattr(self, name, missing)
        return missing


class _Loader(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Extension(spec.name, "Stand-in for mmcv's compiled ops, from torchvision.")

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(importlib.import_module("mimbench_tasks.detection.torchvision_ops").SUPPLIED)


class _Finder(MetaPathFinder):
    """Finds `mmcv._ext`. It is last on sys.meta_path, so Python uses it only if no compiled extension exists."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(NAME, _Loader(), origin="mimbench, from torchvision") if fullname == NAME else None


def install() -> None:
    """Make `mmcv._ext` importable. It imports nothing yet, and a second call has no effect."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
