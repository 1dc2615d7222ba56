"""mimbench: a benchmark and evaluation harness for masked image modeling."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mimbench._version import __version__

if TYPE_CHECKING:
    from mimbench.report.notebook.frames import curves, summary, table
    from mimbench.report.records.frame import load_records
    from mimbench.report.records.scores import join_scores, load_scores

__all__ = ["__version__", "curves", "join_scores", "load_records", "load_scores", "summary", "table"]
_MODULES = {
    "load_records": "records.frame",
    "load_scores": "records.scores",
    "join_scores": "records.scores",
    "summary": "notebook.frames",
    "curves": "notebook.frames",
    "table": "notebook.frames",
}
"""Public function -> its module in mimbench.report. They bring pandas, so they are imported on first use."""


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"mimbench.report.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
