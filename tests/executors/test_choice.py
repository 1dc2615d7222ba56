"""Which executor a run asks for: entry points, and options from three places."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from helpers.refusals import refused
from mimbench.errors import InputError
from mimbench.executors import choice
from mimbench.executors.choice import choose_executor, executor_names, load_executor
from mimbench.executors.local import Local
from mimbench.executors.slurm import Slurm


@pytest.fixture
def settings_file(tmp_path, monkeypatch):
    path = tmp_path / "config.toml"
    path.touch()
    monkeypatch.setenv("MIMBENCH_CONFIG", str(path))
    return path


def test_built_in_executors_are_entry_points():
    assert {"local", "slurm"} <= set(executor_names())
    assert (load_executor("local"), load_executor("slurm")) == (Local, Slurm)


def test_a_package_can_bring_an_executor(monkeypatch):
    points = (EntryPoint("pbs", "mimbench.executors.local:Local", choice.GROUP),)
    monkeypatch.setattr(choice, "installed_points", lambda group: points)
    assert load_executor("pbs") is Local


@pytest.mark.parametrize(
    ("target", "problem"),
    [("mimbench.no_module:Pbs", "No module named"), ("mimbench.errors:InputError", "no subclass of mimbench.api")],
)
def test_a_broken_executor_is_named_with_its_problem(monkeypatch, target, problem):
    monkeypatch.setattr(choice, "installed_points", lambda group: (EntryPoint("pbs", target, group),))
    with pytest.raises(InputError, match=problem):
        load_executor("pbs")


def test_an_unknown_executor_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="unknown executor 'slum'; did you mean 'slurm'"):
        load_executor("slum")


def test_the_command_line_beats_the_grid_and_the_grid_the_users_file(settings_file):
    settings_file.write_text('[executor]\npartition = "user"\nqos = "user"\naccount = "user"\njobs = 2\n')
    chosen = choose_executor("slurm", 7, {"partition": "command"}, {"partition": "grid", "qos": "grid"}).config
    assert (chosen.partition, chosen.qos, chosen.account, chosen.jobs) == ("command", "grid", "user", 7)


def test_a_table_for_another_executor_is_left_out(settings_file):
    settings_file.write_text('[executor]\nname = "slurm"\npartition = "gpu"\n')
    assert choose_executor("local", None, {}, {"name": "local", "jobs": 3}).config.jobs == 3
    assert choose_executor("slurm", None, {}, {"name": "local", "jobs": 3}).config.partition == "gpu"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[executr]\n", "unknown key 'executr' in settings file"),
        ("executor = 3\n", "executor in settings file"),
        ('[executor]\nname = "slum"\n', "unknown executor 'slum'"),
        ('[executor]\npartitions = "gpu"\n', "unknown key 'executor.partitions'; did you mean 'partition'"),
    ],
)
def test_a_wrong_users_file_is_refused(settings_file, text, problem):
    settings_file.write_text(text)
    with pytest.raises(InputError, match="executor") as error:
        choose_executor("slurm", None, {}, {})
    assert problem in str(error.value)


def test_a_users_file_that_is_named_must_exist(settings_file):
    settings_file.unlink()
    with pytest.raises(InputError, match="does not exist"):
        choose_executor("slurm", None, {}, {})


RUN = ["run", "--method", "mae", "--task", "knn", "--recipe", "smoke"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--executor", "local", "--fresh"], "--fresh with --executor"),
        (["--jobs", "2"], "--jobs is for --executor"),
        (["--set", "executor.jobs=2"], "--set executor.KEY is for --executor"),
        (
            ["--executor", "local", "--set", "executor.thread=2"],
            "unknown key 'executor.thread'; did you mean 'threads'",
        ),
        (["--executor", "local", "--set", "executor.jobs"], "has no '='"),
        (["--executor", "local", "--jobs", "0"], "--jobs"),
        (["--executor", "local", "--dry-run", "--set", "executor.jobs=0"], "executor.jobs = 0"),
    ],
)
def test_what_cannot_be_shared_by_workers_is_refused(quick, arguments, words):
    refused(quick(*RUN, *arguments), words)


def test_a_grid_file_may_hold_the_options(quick, tmp_path):
    (tmp_path / "grid.toml").write_text(
        'methods = ["random-init"]\ntasks = ["knn"]\nrecipe = "smoke"\n[executor]\nname = "slurm"\nnods = 2\n'
    )
    refused(quick("run", "--grid", "grid.toml", "--executor", "slurm"), "unknown key 'executor.nods'; did you mean")
    assert quick("run", "--grid", "grid.toml", "--dry-run").returncode == 0
