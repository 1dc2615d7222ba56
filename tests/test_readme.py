"""The README does what it says: its commands run, its Python runs, its table is that of the records."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest

from mimbench import load_records

ROOT = Path(__file__).parents[1]
_spec = importlib.util.spec_from_file_location("make_pictures", ROOT / "docs" / "make_pictures.py")
make_pictures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_pictures)
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


COMMANDS = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines() if line.strip()]
QUICK = [command for command in COMMANDS if command.startswith("mimbench") and "detection" not in command]


def test_every_command_is_accounted_for():
    assert [command for command in COMMANDS if command not in QUICK] == [
        "mimbench run --method simmim --task detection",
        "make demo",
        "make test",
        "pip install .",
    ]
    makefile = (ROOT / "Makefile").read_text()
    assert "mimbench run --method simmim --task detection" in makefile


@pytest.mark.e2e
def test_the_commands_and_the_python_run(mimbench, tmp_path):
    for command in QUICK:
        done = mimbench(*shlex.split(command.replace("tests/golden", str(ROOT / "tests" / "golden")))[1:])
        assert done.returncode == 0, (command, done.stderr)
    recipe = next(block for block in blocks("toml") if block.startswith("# mine.toml: "))
    (tmp_path / "mine.toml").write_text(recipe)
    done = mimbench(*shlex.split(recipe.splitlines()[0].removeprefix("# mine.toml: "))[1:])
    assert done.returncode == 0, done.stderr
    method, reading = blocks("python")
    done = subprocess.run([sys.executable, "-c", reading], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "linear-probe" in done.stdout
    plugin = tmp_path / "plugin"
    info = plugin / "my_package-1.dist-info"
    info.mkdir(parents=True)
    (plugin / "my_package.py").write_text(method)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1\n")
    (points,) = (block for block in blocks("toml") if "entry-points" in block)
    (info / "entry_points.txt").write_text("[mimbench.methods]\n" + points.splitlines()[1].replace('"', "") + "\n")
    done = mimbench(
        "run", "--method", "sharpen", "--task", "linear-probe", "--recipe", "smoke", PYTHONPATH=os.fspath(plugin)
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", make_pictures.PAGES)
def test_the_tables_are_those_of_the_records(page):
    tables = re.findall(r"<!-- mimbench (table [^>]*) -->\n(.*?)<!-- end -->", (ROOT / page).read_text(), re.DOTALL)
    assert tables
    for command, shown in tables:
        done = subprocess.run(
            [sys.executable, "-m", "mimbench", *shlex.split(command)], cwd=ROOT, capture_output=True, text=True
        )
        assert done.stdout == shown, "run `make pictures`"


def test_the_pictures_are_those_of_the_records():
    note = (ROOT / "docs" / "made_from.sha256").read_text().strip()
    assert note == make_pictures.digest(), "the reference records are others: run `make pictures`"


@pytest.mark.parametrize("name", make_pictures.PLOTS)
def test_a_plot_drawn_again_is_identical(name, tmp_path):
    expected = (ROOT / "docs" / name).read_text()
    drawn_by = re.search(r"Matplotlib v([0-9.]+)", expected)[1]
    if drawn_by != matplotlib.__version__:
        pytest.skip(f"docs/{name} was drawn by matplotlib {drawn_by}, here is {matplotlib.__version__}")
    command = [*make_pictures.PLOTS[name], "--output", str(tmp_path / name)]
    done = subprocess.run([sys.executable, "-m", "mimbench", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / name).read_text() == expected


@pytest.mark.parametrize("pattern", make_pictures.SHOWN)
def test_a_picture_is_that_of_its_record(pattern):
    kind = make_pictures.SHOWN[pattern]
    (record,) = (ROOT / "results" / "reference" / "records").glob(pattern)
    picture = ROOT / "results" / "reference" / json.loads(record.read_text())["artifacts"][kind]
    assert picture.read_bytes() == (ROOT / "docs" / f"{kind}.png").read_bytes()


def test_what_it_says_of_mae_s_initial_weights_is_measured():
    stated = re.search(
        r"which probe at\s+([0-9.]+) before.* so of its ([0-9]+) points\D+([0-9]+) are not", README, re.DOTALL
    )
    records = load_records(ROOT / "results" / "reference", earlier_epochs=True)
    probes = records[(records["task"] == "linear-probe") & records["primary"]]
    mae = probes[probes["method"] == "mae"].groupby("at_epoch")["value"].mean()
    control = probes[probes["method"] == "random-init"]["value"].mean()
    measured = (f"{mae[0]:.1f}", f"{mae.iloc[-1] - control:.0f}", f"{mae[0] - control:.0f}")
    assert stated.groups() == measured


def test_what_it_links_to_exists():
    for target in re.findall(r"\]\(([^)#:]+)\)", README) + re.findall(r'src="([^":]+)"', README):
        assert (ROOT / target).exists(), target
