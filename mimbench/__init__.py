"""mimbench: a benchmark and evaluation harness for masked image modeling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mimbench._version import __version__

if TYPE_CHECKING:
    from mimbench.report.records.frame import load_records

__all__ = ["__version__", "load_records"]


def __getattr__(name: str) -> Any:
    """`load_records` brings pandas with it, so it is imported where it is asked for."""
    if name == "load_records":
        from mimbench.report.records.frame import load_records

        return load_records
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
