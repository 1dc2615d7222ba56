"""--plugin FILE.py: the commands that name plugins take those of a file, without a package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def plugin(tmp_path) -> str:
    source = (ROOT / "examples" / "plugin" / "mimbench_example" / "deblur.py").read_text()
    (tmp_path / "mine.py").write_text(source.replace('"deblur"', '"mine"'))
    return "mine.py"


def test_a_method_of_a_file_runs_and_an_edit_is_reported(mimbench, plugin, tmp_path):
    run = ("run", "--plugin", plugin, "--method", "mine", "--task", "knn", "--recipe", "smoke")
    done = mimbench(*run, "--json")
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    code = record["provenance"]["plugins"]["method"]
    assert (code["name"], code["package"], code["file"]) == ("mine", "mine.py", "mine.py")
    path = tmp_path / plugin
    path.write_text(path.read_text() + "# edited\n")
    short = ("run", "--method", "mine.py:Deblur", "--task", "knn", "--recipe", "smoke")
    again = mimbench(*short)
    assert again.returncode == 0, again.stderr
    assert "code of method 'mine' (mine.py) has changed since this was recorded" in again.stderr
    exported = mimbench("export", record["checkpoint"]["fingerprint"], "--output", "encoder.safetensors")
    assert exported.returncode == 0, exported.stderr
    assert "pretrained with mine" in exported.stdout
    table = mimbench("table", "--method", "mine")
    assert "mine" in table.stdout, table.stderr


def test_list_and_show_take_a_file(mimbench, plugin):
    listed = mimbench("list", "--plugin", plugin)
    (row,) = [line for line in listed.stdout.splitlines() if line.split()[:1] == ["mine"]]
    assert "mine.py" in row
    assert "Predict sharp pixels" in row
    shown = mimbench("show", "method", "mine", "--plugin", plugin)
    assert "mask_ratio" in shown.stdout, shown.stderr
    recipe = mimbench("show", "recipe", "smoke", "--plugin", plugin, "--method", "mine")
    assert "resolved for mine" in recipe.stdout, recipe.stderr


def test_a_broken_file_is_one_line_and_exit_code_2(mimbench, plugin, tmp_path):
    (tmp_path / plugin).write_text("import torch\nfrom torch import not_there\n")
    done = mimbench("run", "--plugin", plugin, "--method", "mine", "--task", "knn")
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("mimbench: plugin file mine.py:2: ImportError: cannot import name 'not_there'")
