"""Everything that a plugin may import from mimbench.

    from mimbench.api import Config, Method, random_mask

The stub next to this file, `api.pyi`, is the list: each name with the module that defines it. A listed name keeps its
meaning, or the changelog says what changed. All other names may be renamed or removed at any time. The tests of a
plugin may also use `mimbench.testing`.

A name is imported from its module when it is first used, so a method does not wait for scikit-learn. Scientific
Python's SPEC 1 describes this pattern.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any


def _read_stub() -> dict[str, str]:
    """Public name -> the module that defines it."""
    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    return {
        alias.name: node.module
        for node in stub.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


_MODULES = _read_stub()
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return __all__
