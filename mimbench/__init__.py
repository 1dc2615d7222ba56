"""mimbench: a benchmark and evaluation harness for masked image modeling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mimbench.report.records.frame import load_records

__all__ = ["load_records"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`load_records` brings pandas with it, so it is imported where it is asked for."""
    if name == "load_records":
        from mimbench.report.records.frame import load_records

        return load_records
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
