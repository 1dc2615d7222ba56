"""The core knows no plugin by name: labels and facts of plugins come from their display files and contracts."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "mimbench"
POINTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
KINDS = ("methods", "tasks", "datasets")
"""Encoders live in the core, and may name themselves."""
OTHER_MEANINGS = {"depth", "attention"}
"""Names that the core needs in another meaning, such as the number of an encoder's blocks, and what blocks compute."""
NAMES = {name for kind in KINDS for name in POINTS[f"mimbench.{kind}"]} - OTHER_MEANINGS
WORDS = {
    "folder",
    "digits",
    "detection",
    "segmentation",
    "reconstruction",
    "supervised",
    "robustness",
    "autoencoder",
    "external",
    "suite",
    "transfer",
}
"""Names that are English words too. They count as names in commands and as whole strings only, not within either."""
BUILT_IN_DATASETS = "data/sources/"
"""The built-in datasets live here, and may name themselves and each other."""
ALLOWED = {
    # What a person reads: examples, and the method that `show` assumes. Commands are examples, see `is_example`.
    "cli/": {"simmim", "detection", "random-init"},
    "options.py": {"simmim"},
    "executors/": {"folder"},  # a key of JSON
    "data/suite.py": {"digits", "digit-crops", "suite"},  # a dataset of datasets, and its default
    "convert/external.py": {"external"},  # the core's own, which stands for weights from elsewhere
    "recipe/grid_file.py": {"simmim", "mae"},
    "report/scores/baseline.py": {"simmim"},
    "report/viewer/script/published.js": {"simmim"},
    "toolkit/splits.py": {"digit-scenes"},
    "toolkit/semantic_splits.py": {"digit-scenes", "ade20k", "segmentation"},  # the last one a key of a COCO object
    "toolkit/trained_probe.py": {"linear-probe"},
    "recipe/__init__.py": {"mnist5k", "moving-digits"},  # within the names of the default recipes
    # Values of options and layouts that are named after the official code which they follow, not after the plugin.
    "optim/schedules.py": {"simmim", "mae", "beit", "ijepa", "spark"},
    "recipe/show.py": {"simmim", "spark"},
    "contract/schedule_config.py": {"simmim", "mae", "beit", "ijepa", "spark"},
    "masks/sampling.py": {"mae", "spark"},
    "convert/timm_config.py": {"beit"},  # in timm's name of an architecture
    "convert/key_layouts.py": {
        *("simmim", "mae", "beit", "beitv2", "greenmim", "mixmim", "cae", "hpm", "localmim", "crossmae"),
        *("dbot", "data2vec", "data2vec2", "capi", "videomae", "maskfeat"),
        "huggingface",  # in timm's address
    },
    "convert/network_choice.py": {"ibot", "data2vec"},
    "encoders/vit_body.py": {"beit"},  # timm's class of that name
    "encoders/blocks.py": {"beit"},  # likewise
    "encoders/towers.py": {"beit"},  # likewise
    # Formats: the type of a COCO file, the key of a COCO object, a record's artifact.
    "data/__init__.py": {"coco"},
    "testing/scenes.py": {"coco", "segmentation"},
    "harness/running/pictures.py": {"reconstruction"},
    "report/plots/reconstructions.py": {"reconstruction"},
    "toolkit/": {"coco"},
}
"""File or folder of the core -> the names that it may hold."""


def texts_of(source: str) -> Iterator[tuple[int, str, bool]]:
    """(line, text, whether it is a string) of each string but docstrings, and of each identifier."""
    tree = ast.parse(source)
    # A string that is a statement of its own documents something.
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in docstrings:
                yield node.lineno, node.value, True
        elif isinstance(node, ast.alias | ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name, False
        elif isinstance(node, ast.Name):
            yield node.lineno, node.id, False
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr, False
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg, False


def names_in(text: str, is_string: bool) -> set[str]:
    """Names of built-in plugins in a text; "-" and "_" are the same, and so are small and capital letters."""
    plain = text.lower().replace("_", "-")
    matches = set()
    for name in NAMES:
        if name not in WORDS:
            if re.search(rf"(?<![a-z0-9]){name}(?![a-z0-9])", plain):
                matches.add(name)
        elif is_string and (text == name or re.search(rf"--(method|task) (\S*,)?{name}\b", text)):
            matches.add(name)
    return matches


def allowed(path: str) -> set[str]:
    return {name for start, names in ALLOWED.items() if path.startswith(start) for name in names}


def is_example(path: str, text: str) -> bool:
    """Whether a text of the command line is a command to copy, for --help."""
    return path.startswith("cli/") and text.startswith("mimbench ")


@pytest.mark.parametrize("room", sorted({path.relative_to(CORE).parts[0] for path in CORE.rglob("*.py")}))
def test_the_core_names_no_built_in_plugin(room):
    root = CORE / room
    offences = []
    for path in sorted(root.rglob("*.py")) if root.is_dir() else [root]:
        where = path.relative_to(CORE).as_posix()
        if where.startswith(BUILT_IN_DATASETS):
            continue
        for line, text, is_string in texts_of(path.read_text(encoding="utf-8")):
            if is_string and is_example(where, text):
                continue
            offences += [f"{where}:{line} {name}: {text[:60]!r}" for name in names_in(text, is_string) - allowed(where)]
    assert offences == []


def test_the_check_can_fail():
    source = '"""About mae."""\nx = "mae"\n"""mae"""\ndef draw_mae(simmim_pixel): return "run --task knn,detection"\n'
    matches = {(line, name) for line, text, is_string in texts_of(source) for name in names_in(text, is_string)}
    assert matches == {(2, "mae"), (4, "mae"), (4, "simmim"), (4, "simmim-pixel"), (4, "knn"), (4, "detection")}
    assert names_in("segmentation", True) == {"segmentation"}
    assert names_in("the segmentation of it", True) == names_in("segmentation", False) == set()
    assert names_in("mean", True) == names_in("maestro", True) == set()


def test_the_viewer_names_no_built_in_plugin():
    files = [path for path in CORE.rglob("*") if path.suffix in (".js", ".html", ".css")]
    assert files
    offences = [
        f"{path.relative_to(CORE)}:{number}: {line.strip()[:80]}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if names_in(line.partition("// ")[0], False) - allowed(path.relative_to(CORE).as_posix())
    ]
    assert offences == []
