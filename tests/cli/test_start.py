"""What each command imports before it needs it. Times depend on the machine; imported modules do not."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = (
    "torch", "torch._dynamo.utils", "torch.distributed.fsdp", "sympy", "torchvision", "timm", "mmengine", "mmcv",
    "mmdet", "mmseg", "sklearn", "scipy", "pandas", "numpy", "matplotlib", "seaborn", "rich",
)  # fmt: skip
COMPILER = {"torch._dynamo.utils", "torch.distributed.fsdp", "sympy"}
"""What takes as long to import as torch, and only compiled models need; see mimbench/lean_imports.py."""
NO_MODEL = set(HEAVY) - {"torch", "numpy", "rich"}
"""What a command does not import that reads plugins and builds no model."""
SCRIPT = f"""
import atexit, json, sys
sys.argv = ["mimbench", *json.loads(sys.argv[1])]
heavy = {HEAVY!r}
atexit.register(lambda: print("IMPORTED", json.dumps([name for name in heavy if name in sys.modules])))
from mimbench.cli import main
main()
"""


def imported_by(*arguments: str, folder) -> set[str]:
    command = [sys.executable, "-c", SCRIPT, json.dumps(arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.rpartition("IMPORTED")[2]))


@pytest.mark.parametrize(
    "arguments", [("--help",), ("run", "--help"), ("show", "--help"), ("list",), ("list", "--names"), ("--version",)]
)
def test_help_and_list_import_nothing_heavy(tmp_path, arguments):
    assert imported_by(*arguments, folder=tmp_path) == set()


@pytest.mark.parametrize(
    ("arguments", "not_yet"),
    [
        (("show", "recipe", "smoke"), NO_MODEL),
        (("show", "recipe", "smoke", "--method", "mae"), NO_MODEL),
        (("show", "recipe", "imagenet-swin-base"), NO_MODEL),
        (("show", "method", "simmim"), NO_MODEL),
        (("show", "encoder", "resnet"), NO_MODEL),
        (("show", "task", "knn"), NO_MODEL),
        (("show", "task", "robustness"), NO_MODEL),
        # The detection task checks which compiled ops mmcv has, so doctor imports mmcv and torchvision.
        (("doctor",), {"timm", "mmdet", "mmseg", "pandas", "matplotlib"} | COMPILER),
        # A dry run builds each model once, so it imports timm.
        (
            ("run", "--method", "simmim", "--task", "knn", "--recipe", "smoke", "--dry-run"),
            {"mmcv", "mmdet", "mmseg", "sklearn", "scipy", "pandas", "matplotlib"} | COMPILER,
        ),
        (
            ("run", "--method", "simmim", "--task", "knn", "--recipe", "smoke"),
            {"mmcv", "mmdet", "mmseg", "sklearn", "scipy", "matplotlib", "seaborn"} | COMPILER,
        ),
        (("plot",), {"torch", "mmengine", "timm", "sklearn"}),
        (("table", "--published"), {"torch", "mmengine", "timm", "sklearn", "matplotlib"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_commands_leave_out_what_they_do_not_need(tmp_path, arguments, not_yet):
    assert imported_by(*arguments, folder=tmp_path) & not_yet == set()
