"""Words that are no names in this code: they say neither what a value is nor what a function does."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("mimbench", "methods", "tasks", "tests", "examples", "benchmarks", "docs")
BANNED = {
    "told",
    "tells",
    "alike",
    "beside",
    "wanted",
    "lacking",
    "standing",
    "found",
    "of",
    "sides",
    "apart",
    "kept",
    "own",
    "given",
    "asked",
}
NOT_DONE: dict[str, int] = {
    "tests/masks/test_sampling.py": 1,
    "tests/methods/test_controls.py": 1,
    "tests/methods/test_mae.py": 1,
    "tests/methods/test_maskfeat.py": 2,
    "tests/methods/test_simmim.py": 2,
    "tests/methods/test_tokenizers.py": 3,
    "tests/report/page/test_build.py": 10,
    "tests/report/plots/test_fit.py": 13,
    "tests/report/plots/test_looks.py": 7,
    "tests/report/plots/test_pictures.py": 3,
    "tests/report/plots/test_plots.py": 8,
    "tests/report/published/test_numbers.py": 4,
    "tests/report/published/test_settings.py": 10,
    "tests/report/records/test_frame.py": 1,
    "tests/report/scores/test_axes.py": 1,
    "tests/report/scores/test_baseline.py": 4,
    "tests/report/scores/test_failed.py": 3,
    "tests/report/scores/test_statistics.py": 11,
    "tests/report/tables/test_command.py": 1,
    "tests/report/tables/test_comparison.py": 3,
    "tests/report/tables/test_render.py": 8,
    "tests/report/viewer/test_script.py": 1,
    "tests/report/viewer/test_viewer.py": 6,
    "tests/tasks/detection/test_evaluation.py": 1,
    "tests/tasks/detection/test_export.py": 4,
    "tests/tasks/detection/test_model.py": 3,
    "tests/tasks/detection/test_prediction_figure.py": 1,
    "tests/tasks/detection/test_protocols.py": 3,
    "tests/tasks/detection/test_scenes.py": 1,
    "tests/tasks/detection/test_torchvision_ops.py": 4,
    "tests/tasks/finetune/test_model.py": 5,
    "tests/tasks/finetune/test_task.py": 2,
    "tests/tasks/reconstruction/test_generation.py": 5,
    "tests/tasks/reconstruction/test_task.py": 1,
    "tests/tasks/robustness/test_task.py": 6,
    "tests/tasks/segmentation/test_data.py": 2,
    "tests/tasks/segmentation/test_model.py": 2,
    "tests/tasks/segmentation/test_scores.py": 5,
    "tests/tasks/test_few_shot.py": 1,
    "tests/tasks/test_knn.py": 1,
    "tests/tasks/test_linear_probe.py": 1,
    "tests/testing/test_tasks.py": 2,
    "tests/toolkit/test_fine_tuning.py": 8,
}
"""Files that still have such names, and how many at most (28 November 2026). Only ever make this smaller."""


def names_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of every function, class, parameter, variable, attribute and alias that a module defines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.alias) and node.asname:
            yield getattr(node, "lineno", 0), node.asname
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.lineno, node.name


def banned_names(path: Path) -> list[str]:
    """`file:line: name` of each banned name; a module may not have such a name either."""
    where = path.relative_to(ROOT)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named = [(0, path.stem), *names_in(tree)]
    return [f"{where}:{line}: {name}" for line, name in named if name.strip("_").lower() in BANNED]


def test_no_banned_word_is_a_name():
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    assert files
    offences = []
    for path in files:
        names = banned_names(path)
        if len(names) > NOT_DONE.get(path.relative_to(ROOT).as_posix(), 0):
            offences += names
    assert offences == []


def test_the_check_can_fail():
    source = "def told(own): found = [kept for kept in own]\nimport x as beside\nself.given = 1\n"
    assert {name for _, name in names_in(ast.parse(source))} == {"told", "own", "found", "kept", "beside", "given"}
