"""What is installed, what is missing, and how to get it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from mimbench import registry
from mimbench.data import default_cache
from mimbench.engine.trackers import TRACKERS, how_to_install
from mimbench.harness.running.provenance import package_versions


@dataclass(frozen=True)
class Health:
    """Lines to print, and whether every run can work."""

    is_healthy: bool
    lines: Sequence[str]


def examine() -> Health:
    """Check packages, devices and plugins. Unhealthy: a package that every run needs is missing, or a plugin broken."""
    lines = [f"python          {platform.python_version()} on {platform.platform()}"]
    versions = package_versions()
    for name, version in versions.items():
        lines.append(f"{name:<15} {version or f'MISSING: pip install {name}'}")
    for name, tracker in TRACKERS.items():
        absent = f"not installed (optional): {how_to_install(name)} (pretrain.track={name})"
        lines.append(f"{name:<15} {'installed' if find_spec(tracker.package) else absent}")
    lines += _devices()
    lines.append(f"cache           {default_cache()}")
    problems = [
        plugin.problem for kind in (*registry.ALL, registry.monitors) for plugin in kind.survey() if plugin.problem
    ]
    lines += [f"broken          {problem}" for problem in problems]
    for name in registry.tasks.names():
        lines += [f"{name:<15} {line}" for line in _checkup(name)]
    return Health(None not in versions.values() and not problems, lines)


def _devices() -> list[str]:
    import torch

    lines = [f"cpu             {torch.get_num_threads()} threads"]
    if not torch.cuda.is_available():
        built = torch.version.cuda
        return [
            *lines,
            f"cuda            none available (this torch was built {f'for CUDA {built}' if built else 'without CUDA'})",
        ]
    for index in range(torch.cuda.device_count()):
        free, total = (size / 2**30 for size in torch.cuda.mem_get_info(index))
        bf16 = "yes" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
        name = torch.cuda.get_device_name(index)
        lines.append(f"cuda:{index}          {name}, {free:.1f} of {total:.1f} GiB free, bf16 {bf16}")
    return lines


def _checkup(task: str) -> list[str]:
    try:
        return registry.tasks.load(task).checkup()
    except Exception as error:
        return [f"cannot be checked: {type(error).__name__}: {error}"]
