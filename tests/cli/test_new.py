"""`mimbench new`: the package that it writes is sound as it is, and runs without installation."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from mimbench.errors import InputError
from mimbench.scaffold import KINDS, write_package

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("make_pages", ROOT / "docs" / "make_pages.py")
make_pages = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_pages)
NAMES = {kind: f"my-own-{kind}" for kind in KINDS}


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> dict[str, Path]:
    """A new package of each kind."""
    folder = tmp_path_factory.mktemp("packages")
    for kind, name in NAMES.items():
        write_package(kind, name, folder / kind)
    return {kind: folder / kind for kind in KINDS}


def run(*command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **environment}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, env=environment)


def test_templates_are_those_of_the_example():
    for path, text in make_pages.templates().items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run `make pages`"


@pytest.mark.parametrize("kind", KINDS)
def test_the_package_registers_its_plugin(packages, kind):
    project = tomllib.loads((packages[kind] / "pyproject.toml").read_text())
    ((name, target),) = project["project"]["entry-points"][f"mimbench.{kind}s"].items()
    module, _, class_name = target.partition(":")
    assert name == NAMES[kind]
    text = (packages[kind] / f"{module.replace('.', '/')}.py").read_text()
    assert f"class {class_name}(" in text
    leftovers = '[Dd]eblur|nearest[-_]mean|NearestMean|\\bShapes\\b|"shapes"|plain[-_]cnn|PlainCNN|mimbench.example|\\$'
    files = [path for path in packages[kind].rglob("*") if path.is_file()]
    assert len(files) == 5
    assert [path for path in files if re.search(leftovers, path.read_text())] == []


def test_the_packages_pass_ruff_and_mypy(packages, tmp_path):
    for kind, folder in packages.items():
        for arguments in (("check", "--no-cache", "."), ("format", "--no-cache", "--check", ".")):
            done = run(sys.executable, "-m", "ruff", *arguments, folder=folder)
            assert done.returncode == 0, (kind, done.stdout)
    paths = [str(path) for folder in packages.values() for path in folder.glob("mimbench_*")]
    options = ("--disallow-untyped-defs", "--follow-imports=silent", "--cache-dir", str(tmp_path))
    done = run(sys.executable, "-m", "mypy", *options, *paths, folder=tmp_path, MYPYPATH=str(ROOT))
    assert done.returncode == 0, done.stdout


@pytest.mark.e2e
@pytest.mark.parametrize("kind", KINDS)
def test_the_tests_of_the_package_pass(packages, kind):
    """They run the plugin with --plugin, as the README says."""
    done = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", folder=packages[kind])
    assert done.returncode == 0, done.stdout
    assert "--plugin" in next(packages[kind].glob("tests/*.py")).read_text()


@pytest.mark.e2e
def test_the_command_writes_a_package_that_can_be_installed(mimbench, tmp_path):
    done = mimbench("new", "method", "my-method")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "mimbench-my-method"
    assert "mimbench run --method my-method --task knn --recipe smoke" in (folder / "README.md").read_text()
    assert done.stdout.splitlines()[0].endswith("mimbench_my_method/my_method.py")
    site = tmp_path / "site"
    pip = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(site), str(folder))
    installed = run(sys.executable, *pip, folder=tmp_path)
    assert installed.returncode == 0, installed.stderr
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    listed = mimbench("list", "--check", PYTHONPATH=path).stdout
    (row,) = [line for line in listed.splitlines() if line.split()[:1] == ["my-method"]]
    assert "mimbench-my-method 0.1.0" in row
    assert "BROKEN" not in row
    again = mimbench("new", "method", "my-method")
    assert again.returncode == 2
    assert "--output mimbench-my-method is not empty" in again.stderr


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("metod", "mine", "unknown kind of plugin 'metod'; did you mean 'method'"),
        ("method", "My_Method", "'My_Method' is no name of a method; use small letters"),
        ("method", "2nd", "is no name of a method"),
        ("method", "a--b", "is no name of a method"),
        ("method", "../evil", "is no name of a method"),
        ("method", "class", "'class' is a keyword of Python"),
        ("method", "simmim", r"method 'simmim' exists already, in mimbench \S+; choose another name"),
        ("method", "config", "class Config would hide another one that the module uses"),
        ("method", "methods", "a package 'mimbench_methods' is installed already"),
    ],
)
def test_bad_names_are_refused_and_nothing_is_written(tmp_path, kind, name, message):
    with pytest.raises(InputError, match=message):
        write_package(kind, name, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for folder, message in ((tmp_path, "is not empty"), (tmp_path / "file", "is a file")):
        with pytest.raises(InputError, match=message):
            write_package("method", "mine", folder)
    (tmp_path / "empty").mkdir()
    assert len(write_package("method", "mine", tmp_path / "empty")) == 5
