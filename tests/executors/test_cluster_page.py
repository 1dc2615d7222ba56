"""docs/cluster.md: its commands for clusters are those of this version, down to each option and setting."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from mimbench.cli.application import app
from mimbench.executors.choice import choose_executor
from mimbench.executors.command import split_settings
from mimbench.executors.slurm import Slurm
from mimbench.recipe import document as recipe_document
from mimbench.recipe.grid_file import GridFile, read_grid
from mimbench.recipe.resolve import resolve

PAGE = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text(encoding="utf-8")
LINES = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
(GRID,) = (text for text in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL) if text.startswith("# imagenet.toml"))


@pytest.fixture
def grid(tmp_path, monkeypatch) -> GridFile:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "imagenet.toml").write_text(GRID)
    return read_grid(tmp_path / "imagenet.toml")


@pytest.mark.parametrize("line", LINES)
def test_each_command_would_run(line, grid):
    words = shlex.split(line)
    start = words.index("mimbench", words.index("-m") if "-m" in words else 0) + 1
    command = get_command(app).commands[words[start]]
    arguments = command.make_context("mimbench", words[start + 1 :]).params
    if words[start] != "run":
        return
    settings, of_executor = split_settings(arguments["set_"] or [])
    values = recipe_document.parse_assignments(settings)
    recipe, methods, tasks = arguments["recipe"], arguments["method"], arguments["task"]
    if arguments["grid"]:
        recipe, values = grid.recipe, {**grid.settings, **values}
        methods, tasks = ",".join(grid.methods), ",".join(grid.tasks)
    if arguments["executor"]:
        choose_executor(arguments["executor"], arguments["jobs"], of_executor, grid.executor)
    for method in methods.split(","):
        for task in tasks.split(","):
            resolved = resolve(recipe, recipe_document.read(recipe), method, values, task)
            assert str(resolved.data.root) == "/data/imagenet"
            name, options = resolved.task_data(resolved.task(task))
            assert (name, str(options["root"])) == (
                ("coco", "/data/coco") if task == "detection" else ("imagenet", "/data/imagenet")
            )


def test_each_option_of_slurm_is_in_the_table():
    table = PAGE[PAGE.index("| Option | Meaning") : PAGE.index("A value comes from")]
    named = {name for row in table.strip().splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named >= set(Slurm.Config.model_fields)


def test_the_grid_is_for_eight_gpus(grid):
    assert tomllib.loads(GRID)["executor"]["gpus_per_node"] == 8
    config = choose_executor("slurm", None, {"nodes": 4}, grid.executor).config
    assert (config.nodes, config.gpus_per_node, config.minutes) == (4, 8, 1440)
