"""Dependencies point one way: each room imports only the rooms that are listed for it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "mimbench"
PLUGINS = ("mimbench_methods", "mimbench_tasks")
MM = ("mmengine", "mmcv", "mmdet", "mmseg")
HEAVY = ("torch", "torchvision", "timm", *MM)

BASE = frozenset(
    {
        "_version",
        "errors",
        "files",
        "lease_states",
        "leases",
        "process_identity",
        "text",
        "toml",
        "options",
        "advice",
        "seeds",
        "distributed",
        "rank_watch",
        "shared_batch",
        "text_files",
        "lean_imports",
    }
)
"""Modules that every room may import. They import nothing but each other."""

ALLOWED: dict[str, set[str]] = {
    "masks": set(),
    "drawing": set(),
    "contract": {"masks"},
    "plugin_source": set(),
    "registry": {"contract", "plugin_source"},
    "plugin_file": {"contract", "registry", "plugin_source"},
    "scaffold": {"registry"},
    "display_file": set(),
    "display": {"display_file", "registry"},
    "optim": {"contract"},
    "compute": set(),
    "encoders": {"compute", "contract", "masks", "optim"},
    "convert": {"contract", "encoders"},
    "parts": {"compute", "masks", "encoders", "contract"},
    "data.files": set(),
    "data.pipeline": {"contract", "data.files"},
    "data.sources": {"contract", "data.files", "data.pipeline"},
    "data": {"contract", "registry", "data.files", "data.pipeline", "data.sources"},
    "recipe": {"contract", "plugin_source", "registry"},
    "store": set(),
    # The engine seals its files as the store does, and knows nothing of results folders.
    "engine": {"compute", "contract", "data", "optim", "plugin_source", "store", "engine.ranks"},
    # Work that several processes share. Tasks share theirs in the same way.
    "engine.ranks": set(),
    "harness.planning": {
        "contract", "plugin_source", "registry", "data", "encoders", "optim", "convert", "recipe", "engine", "store",
    },
    "harness.running": {
        "contract", "registry", "masks", "drawing", "data", "data.pipeline", "recipe", "engine", "engine.ranks",
        "store", "harness.planning",
    },
    "harness.forecast": {
        "contract", "registry", "data", "optim", "recipe", "engine", "harness.planning",
    },
    "harness": {
        "contract", "encoders", "plugin_source", "registry", "data", "convert", "recipe", "engine", "engine.ranks",
        "store", "harness.forecast", "harness.planning", "harness.running",
    },
    "executors": {
        "contract", "registry", "plugin_file", "recipe", "engine", "store", "harness", "harness.planning",
        "harness.running",
    },
    "toolkit": {"contract", "convert", "drawing", "encoders", "optim", "data", "data.files", "data.pipeline",
                "engine.ranks"},
    # What plugins may import: the modules that api.pyi names.
    "api": {"compute", "contract", "masks", "drawing", "encoders", "convert", "optim", "data", "data.files",
            "data.pipeline", "data.sources", "engine.ranks", "parts", "toolkit"},
    "parity": {"contract", "convert", "engine", "harness.planning", "optim", "registry"},
    "testing": {"contract", "masks", "data.files", "encoders", "engine", "store", "harness.running"},
    "report.records": {"display", "recipe", "store"},
    "report.published": {"display", "recipe", "report.records"},
    "report.scores": {"display", "recipe", "store", "report.records"},
    "report.tables": {
        "display", "display_file", "recipe", "store", "report.records", "report.published", "report.scores",
    },
    "report.plots": {
        "display", "display_file", "recipe", "store", "report.records", "report.published", "report.scores",
    },
    "report.notebook": {"store", "report.records", "report.scores", "report.tables"},
    # A template, a style and a script: no record is read here.
    "report.viewer": set(),
    "report.page": {
        "display", "recipe", "store", "report.records", "report.published", "report.scores", "report.tables",
        "report.plots", "report.viewer",
    },
    "": {"report.notebook", "report.records"},
    "cli": {
        "contract", "display", "registry", "plugin_file", "scaffold", "recipe",
        "engine", "executors", "store", "harness", "harness.forecast", "harness.planning", "harness.running", "parity",
        "report.scores", "report.tables", "report.plots", "report.page", "testing",
    },
    "__main__": {"cli"},
}  # fmt: skip
"""Room -> the rooms that it may import. data.files and the like are separate rooms; "" is the package root."""


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it. `from a import b` is a.b if that is a module, else a."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if is_module(name) else node.module


def room_of(module: str) -> str | None:
    """The longest name in ALLOWED or BASE that the module lies in; None for a module outside of mimbench."""
    if module == "mimbench":
        return ""
    if not module.startswith("mimbench."):
        return None
    parts = module.split(".")[1:]
    names = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next((name for name in names if name in ALLOWED or name in BASE), names[-1])


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def core_imports() -> Iterator[tuple[Path, str, str]]:
    """Each file of the core with its room, and each other room of the core that it imports."""
    for path in sorted([*CORE.rglob("*.py"), *CORE.rglob("*.pyi")]):
        room_here = room_of(module_of(path))
        for module in imported(path):
            room = room_of(module)
            if room is not None and room != room_here:
                yield path, room_here, room


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


def test_each_room_imports_only_what_is_listed_for_it():
    wrong = [
        f"{path.relative_to(ROOT)} imports {room or 'mimbench'}"
        for path, room_here, room in core_imports()
        if room not in (BASE if room_here in BASE else BASE | ALLOWED[room_here])
    ]
    assert wrong == []


def test_each_listed_edge_is_used_and_none_is_part_of_a_circle():
    used = {(room_here, room) for _, room_here, room in core_imports()}
    unused = [
        (room_here, room) for room_here, rooms in ALLOWED.items() for room in rooms if (room_here, room) not in used
    ]
    assert unused == []
    assert list(TopologicalSorter(ALLOWED).static_order())


def test_the_core_imports_no_plugin():
    assert offences(CORE, (*PLUGINS, "methods", "tasks")) == []


@pytest.mark.parametrize("plugins", ["methods", "tasks", "examples/plugin", "tests/plugins"])
def test_plugins_import_the_public_names_only(plugins):
    files = [path for path in sorted((ROOT / plugins).rglob("*.py")) if not path.stem.startswith(("test_", "conftest"))]
    assert files
    for path in files:
        of_mimbench = {module for module in imported(path) if below(module, "mimbench")}
        assert of_mimbench <= {"mimbench.api"}, path


def test_methods_and_tasks_do_not_know_each_other():
    assert offences(ROOT / "methods", ("mimbench_tasks",)) == []
    assert offences(ROOT / "tasks", ("mimbench_methods",)) == []


BUILDS_ON = {
    "ood": {"finetune", "robustness"},
    "representation": {"feature_quality"},
    "video": {"finetune", "attentive_probe", "knn"},
}
"""Task -> the tasks that it is made of: it shares their classifiers, heads, corrupted images or measures."""


def test_no_task_imports_another_task_but_those_that_it_is_made_of():
    for path in sorted((ROOT / "tasks").rglob("*.py")):
        task = path.relative_to(ROOT / "tasks").parts[0].removesuffix(".py")
        others = {module for module in imported(path) if below(module, "mimbench_tasks")} - {"mimbench_tasks"}
        allowed = [f"mimbench_tasks.{name}" for name in (task, *BUILDS_ON.get(task, ()))]
        assert all(any(below(module, name) for name in allowed) for module in others), path


def test_the_report_does_not_need_torch():
    assert offences(CORE / "report", HEAVY) == []


def test_only_encoders_import_timm_except_for_its_optimizers_and_augmentation():
    # torch has no LARS; timm's is kept up with torch's releases. The official fine-tuning recipes are made of timm's
    # augmentation, which one module seeds. Whatever else of timm stays in encoders.
    augmentation = CORE / "data" / "pipeline" / "augment.py"
    assert offences(CORE, ("timm",), but=(CORE / "encoders", CORE / "optim", augmentation)) == []
    assert all(below(module, "timm.data") for module in imported(augmentation) if below(module, "timm"))
    assert {m for path in (CORE / "optim").rglob("*.py") for m in imported(path) if below(m, "timm")} == {"timm.optim"}
    assert offences(ROOT / "methods", ("timm",)) == []
    assert offences(ROOT / "tasks", ("timm",)) == []


def test_only_the_engine_and_tasks_on_mm_models_import_mmengine():
    assert offences(CORE, MM, but=(CORE / "engine", CORE / "toolkit" / "mm.py")) == []
    assert offences(ROOT / "methods", MM) == []
    rooms = tuple(ROOT / "tasks" / name for name in ("detection", "segmentation"))
    assert offences(ROOT / "tasks", MM, but=rooms) == []


def test_the_check_can_fail(tmp_path):
    (tmp_path / "bad.py").write_text("def f():\n    from mimbench.engine import fit\n")
    assert list(imported(tmp_path / "bad.py")) == ["mimbench.engine.fit"]
    assert room_of("mimbench.engine.fit") == "engine"
    assert room_of("mimbench.data.files.cache") == "data.files"
    assert room_of("mimbench.data.open") == "data"
    assert room_of("mimbench.new_room.module") == "new_room"
    assert below("mimbench.engine.fit", "mimbench.engine")
    assert not below("mimbench.engineer", "mimbench.engine")
