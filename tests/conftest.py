"""What many tests share: a cache of their own, and the real command."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from helpers.forked import Forked

ROOT = Path(__file__).parents[1]
PRELOADED = [
    "mimbench.cli.run",
    "mimbench.harness.run",
    "mimbench.harness.planning.size",
    "mimbench.report.tables.command",
    "mimbench.data.sources.digit_scenes",
    "mimbench.encoders.biased_attention",
    "mimbench_methods.simmim",
    "mimbench_tasks.finetune.task",
    "mimbench_tasks.knn",
    "torchmetrics.classification",
    "timm.models.vision_transformer",
]
"""Modules of the process that processes of tests are forked from."""


def pytest_configure(config):
    # Models here are so small that a second thread only waits, and on a busy machine waits long.
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    # Processes of tests come from one that has all imports behind it and has never computed. A fork of the tests' own
    # process may wait for ever for threads that earlier tests had and that it has not.
    multiprocessing.set_forkserver_preload(PRELOADED)


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if "cuda" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """Derived data (parsed MNIST, scenes), built once for the whole session."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(cache, monkeypatch):
    monkeypatch.setenv("MIMBENCH_CACHE", str(cache))


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def mimbench(tmp_path, tmp_path_factory) -> Command:
    """Run the command in a separate folder and a new process: mimbench("run", "--method", ...)."""

    def run(*arguments: str, timeout: float = 240, **environment: str) -> subprocess.CompletedProcess[str]:
        logs = tmp_path_factory.mktemp("command")
        command = Forked(tmp_path, logs / "out", logs / "err", arguments, {"COLUMNS": "200", **environment})
        code = command.wait(timeout)
        return subprocess.CompletedProcess(arguments, code, command.out.read_text(), command.err.read_text())

    return run


@pytest.fixture(scope="session")
def example_plugin(tmp_path_factory) -> str:
    """PYTHONPATH with examples/plugin installed by pip, and one more method, whose module does not exist."""
    site = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source") / "plugin"
    ignored = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT / "examples" / "plugin", source, ignore=ignored)
    project = source / "pyproject.toml"
    methods = '[project.entry-points."mimbench.methods"]\n'
    text = project.read_text()
    assert methods in text
    broken = 'deblur-broken = "mimbench_example.needs_what_is_not_there:Nothing"\n'
    project.write_text(text.replace(methods, methods + broken))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
    done = subprocess.run([*command, str(site), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return str(site)


@pytest.fixture
def quick(monkeypatch, capfd, tmp_path):
    """The command in this process: where no second one is needed, seconds of imports are saved."""
    from mimbench import registry
    from mimbench.cli import main

    for kind in registry.ALL:  # what a plugin file registers in this test is unknown in the next
        monkeypatch.setattr(kind, "_added", dict(kind._added))
        monkeypatch.setattr(kind, "_loaded", dict(kind._loaded))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["mimbench", *arguments])
        monkeypatch.setattr(warnings, "filterwarnings", lambda *_, **__: None)
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, ended.value.code, said.out, said.err)

    return run
