"""Offers `mmcv._ext` where pip installed mmcv without its compiled ops; a compiled one always wins."""

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
    """A compiled op that nothing here replaces: present, so that mmcv imports, but not callable."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotSupported(f"the mmcv op {self.name!r} is compiled code that this mmcv lacks; {HOW_TO_INSTALL}")


class _StandIn(ModuleType):
    """mmcv asks for every op by name when it is imported; unknown ones become MissingOp."""

    def __getattr__(self, name: str) -> MissingOp:
        if name.startswith("__"):
            raise AttributeError(name)
        missing = MissingOp(name)
        setattr(self, name, missing)
        return missing


class _Loader(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name, "Stand-in for mmcv's compiled ops, from torchvision.")

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(importlib.import_module("mimbench_tasks.detection.ops").SUPPLIED)


class _Finder(MetaPathFinder):
    """Stands last on sys.meta_path, so it is asked only where no compiled extension was found."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(NAME, _Loader(), origin="mimbench, from torchvision") if fullname == NAME else None


def install() -> None:
    """Make `mmcv._ext` importable. Imports nothing; calling it again changes nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
