"""`mimbench doctor`."""

from __future__ import annotations

import typer

from mimbench.cli.options import PluginOption
from mimbench.text import print_text


def doctor(plugin: PluginOption = None) -> None:
    """Print versions, devices, available mmcv ops, and how to get what is missing. Exit code 1: a run would fail."""
    from mimbench.harness.doctor import examine

    health = examine()
    print_text("\n".join(health.lines))
    raise typer.Exit(0 if health.is_healthy else 1)
