"""Dependencies point one way: each room may import only what is listed for it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "mimbench"
PLUGINS = ("mimbench_methods", "mimbench_tasks")
MM = ("mmengine", "mmcv", "mmdet", "mmseg")


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it; `from a import b` counts as a and a.b."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def below(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def offences(folder: Path, forbidden: tuple[str, ...], *, but: tuple[Path, ...] = ()) -> list[str]:
    files = [path for path in sorted(folder.rglob("*.py")) if not any(path.is_relative_to(room) for room in but)]
    assert files, folder
    return [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in files
        for module in imported(path)
        if below(module, *forbidden)
    ]


def test_the_core_imports_no_plugin():
    assert offences(CORE, (*PLUGINS, "methods", "tasks")) == []


@pytest.mark.parametrize("room", ["methods", "tasks"])
def test_plugins_see_contracts_and_public_core_modules_only(room):
    private = tuple(
        f"mimbench.{name}" for name in ("engine", "cli", "harness", "store", "report", "recipe", "registry")
    )
    assert offences(ROOT / room, private) == []


def test_methods_and_tasks_do_not_know_each_other():
    assert offences(ROOT / "methods", ("mimbench_tasks",)) == []
    assert offences(ROOT / "tasks", ("mimbench_methods",)) == []


def test_no_task_imports_another_task():
    shared = [f"mimbench_tasks.{path.stem}" for path in (ROOT / "tasks").glob("_[a-z]*.py")]
    for path in sorted((ROOT / "tasks").rglob("*.py")):
        own = path.relative_to(ROOT / "tasks").parts[0].removesuffix(".py")
        others = {module for module in imported(path) if below(module, "mimbench_tasks")} - {"mimbench_tasks"}
        assert all(below(module, f"mimbench_tasks.{own}", *shared) for module in others), path


def test_the_report_needs_neither_torch_nor_the_engine():
    heavy = ("torch", "torchvision", "timm", *MM)
    rooms = tuple(f"mimbench.{name}" for name in ("engine", "harness", "data", "encoders", "optim", "contract"))
    assert offences(CORE / "report", heavy + rooms) == []


def test_only_encoders_import_timm_but_for_its_optimizers_and_augmentation():
    # torch has no LARS; timm's is kept up with torch's releases. The official fine-tuning recipes are made of timm's
    # augmentation, which one module seeds. Whatever else of timm stays in encoders.
    augmentation = CORE / "data" / "augment.py"
    assert offences(CORE, ("timm",), but=(CORE / "encoders", CORE / "optim", augmentation)) == []
    assert all(below(module, "timm.data") for module in imported(augmentation) if below(module, "timm"))
    found = {m for path in (CORE / "optim").rglob("*.py") for m in imported(path) if below(m, "timm")}
    assert found == {"timm.optim", "timm.optim.Lars"}
    assert offences(ROOT / "methods", ("timm",)) == []
    assert offences(ROOT / "tasks", ("timm",)) == []


def test_only_the_engine_detection_and_segmentation_import_mmengine():
    assert offences(CORE, MM, but=(CORE / "engine",)) == []
    assert offences(ROOT / "methods", MM) == []
    rooms = tuple(ROOT / "tasks" / name for name in ("detection", "segmentation", "_mm.py"))
    assert offences(ROOT / "tasks", MM, but=rooms) == []


@pytest.mark.parametrize(
    ("room", "above"),
    [
        (
            "contract",
            ("data", "recipe", "engine", "store", "harness", "report", "encoders", "optim", "cli", "registry"),
        ),
        ("optim", ("data", "recipe", "engine", "store", "harness", "report", "encoders", "cli", "registry")),
        ("encoders", ("data", "recipe", "engine", "store", "harness", "report", "cli", "registry")),
        ("data", ("engine", "store", "harness", "report", "encoders", "optim", "cli")),
        ("recipe", ("data", "engine", "store", "harness", "report", "encoders", "optim", "cli")),
        ("convert", ("data", "recipe", "engine", "store", "harness", "report", "cli", "registry")),
        ("store", ("data", "recipe", "engine", "harness", "report", "encoders", "optim", "cli", "contract")),
        # The engine seals its files as the store does, and knows nothing of results folders.
        (
            "engine",
            (
                "recipe",
                "store.store",
                "store.record",
                "store.failure",
                "harness",
                "report",
                "encoders",
                "cli",
                "registry",
            ),
        ),
        ("harness", ("cli",)),
    ],
)
def test_rooms_do_not_look_up(room, above):
    assert offences(CORE / room, tuple(f"mimbench.{name}" for name in above)) == []


def test_the_check_can_fail(tmp_path):
    (tmp_path / "bad.py").write_text("def f():\n    from mimbench.engine import fit\n")
    assert list(imported(tmp_path / "bad.py")) == ["mimbench.engine", "mimbench.engine.fit"]
    assert below("mimbench.engine.fit", "mimbench.engine")
    assert not below("mimbench.engineer", "mimbench.engine")
