"""`mimbench run` on grids: files, plans, several processes, kills, ranks; all through the command itself."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.forked import Forked
from helpers.refusals import refused
from helpers.toy_plugins import TINY, OtherToy, Toy
from mimbench import registry
from mimbench.distributed import get_rank
from mimbench.errors import InputError, RunError
from mimbench.store.failure import read_failures
from mimbench.store.reading import failure_files
from mimbench.store.record import read_records

SETTINGS = [word for setting in TINY for word in ("--set", setting)]
GRID = ["run", "--recipe", "smoke", *SETTINGS, "--method", "simmim,random-init", "--task", "toy,other-toy"]


@pytest.fixture(autouse=True)
def _toys(monkeypatch):
    for toy in (Toy, OtherToy):
        monkeypatch.setitem(registry.tasks.replacements, toy.name, toy)


@pytest.fixture
def log(monkeypatch, tmp_path) -> Path:
    """A line for each task that ran, in whichever process: "PID TASK SEED"."""
    path = tmp_path / "log"
    path.touch()
    monkeypatch.setattr(Toy, "hook", staticmethod(functools.partial(note, path)))
    return path


def note(path: Path, name: str, seed: int) -> None:
    with path.open("a") as stream:
        stream.write(f"{os.getpid()} {name} {seed}\n")


def note_slowly(path: Path, name: str, seed: int) -> None:
    note(path, name, seed)
    time.sleep(0.3)


def note_and_die(path: Path, name: str, seed: int) -> None:
    note(path, name, seed)
    if (name, seed) == ("other-toy", 0):
        os.kill(os.getpid(), signal.SIGKILL)


def fail_on_second_rank(name: str, seed: int) -> None:
    if name == "toy" and get_rank() == 1:
        raise RunError("no luck on the second rank")


def command(folder: Path, *arguments: str, hook: Callable[[str, int], None], **environment: str) -> Forked:
    """The command in a new process, in which the toys are registered and call `hook`."""
    number = len(list(folder.glob("*.out")))
    files = folder / f"{number}.out", folder / f"{number}.err"
    for file in files:
        file.touch()
    return Forked(folder, *files, arguments, environment, functools.partial(register_toys, hook))


def register_toys(hook: Callable[[str, int], None]) -> None:
    registry.tasks.replacements.update({toy.name: toy for toy in (Toy, OtherToy)})
    Toy.hook = staticmethod(hook)


def test_a_dry_run_prints_the_plan_and_writes_nothing(quick, log, tmp_path):
    arguments = (*GRID, "--seeds", "0,1", "--vary", "method.mask_ratio=0.3,0.6")
    done = quick(*arguments, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines()[2:5]] == [
        ["simmim", "method.mask_ratio=0.3", "0,1", "0/2", "0/2", "0/2"],
        ["simmim", "method.mask_ratio=0.6", "0,1", "0/2", "0/2", "0/2"],
        ["random-init", "-", "0,1", "0/2", "0/2", "0/2"],
    ]
    assert "cells: 12, 0 recorded, 12 to run" in done.stdout
    assert "pretrainings: 6, 0 done, 6 to run" in done.stdout
    assert "time: no estimate, since runs holds no checkpoint and no record made on this device" in done.stdout
    assert not (tmp_path / "runs").exists()
    assert log.read_text() == ""

    assert quick(*arguments, "--seeds", "0").returncode == 0
    done = quick(*arguments, "--dry-run")
    assert done.stdout.splitlines()[2].split()[-3:] == ["1/2", "1/2", "1/2"]
    assert "cells: 12, 6 recorded, 6 to run" in done.stdout
    assert "time: about " in done.stdout
    assert "based on 2 checkpoints (seconds per image, " in done.stdout
    done = quick(*arguments, "--method", "simmim,random-init,mae", "--dry-run")
    assert "no estimate for: pretraining mae (4)" in done.stdout
    plan = json.loads(quick(*arguments, "--dry-run", "--json").stdout)
    assert [cell["state"] for cell in plan["cells"]] == ["recorded"] * 6 + ["to run"] * 6
    assert plan["estimate"]["without_estimate"] == {}
    assert "nothing is left to run" in quick(*arguments, "--seeds", "0", "--dry-run").stdout


def test_a_dry_run_needs_no_data_and_says_what_it_left_out(quick, tmp_path):
    tasks = ("--task", "linear-probe,segmentation", "--set", "tasks.segmentation.dataset=ade20k")
    arguments = ("run", "--method", "mae,random-init", "--seeds", "0,1", *tasks)
    elsewhere = (*arguments, "--recipe", "imagenet-vit-small")
    done = quick(*elsewhere, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines()[2:4]] == [
        ["mae", "-", "0,1", "?/2", "?/2", "?/2"],
        ["random-init", "-", "0,1", "0/2", "?/2", "?/2"],
    ]
    assert "cells: 8\npretrainings: 4\nnot on this machine: imagenet (imagenet needs data.root: pass" in done.stdout
    assert "not on this machine: ade20k (ade20k needs task.data.root: pass" in done.stdout
    assert "left out: which of its cells are recorded, " in done.stdout
    assert "time: " not in done.stdout
    plan = json.loads(quick(*elsewhere, "--dry-run", "--json").stdout)
    assert plan["absent"].keys() == {"imagenet", "ade20k"}
    assert {(cell["id"], cell["state"]) for cell in plan["cells"]} == {(None, "unknown")}
    assert [bool(cell["checkpoint"]) for cell in plan["cells"]] == [cell["method"] != "mae" for cell in plan["cells"]]
    assert not (tmp_path / "runs").exists()

    splits = quick(*elsewhere, "--task", "linear-probe", "--dry-run", "--vary", "data.split_seed=0,1,2")
    assert "cells: 12\n" in splits.stdout

    done = quick(*arguments, "--recipe", "smoke", "--dry-run")
    assert [line.split()[-3:] for line in done.stdout.splitlines()[2:4]] == [["0/2", "0/2", "?/2"]] * 2
    assert "cells: 8, 0 recorded, 8 to run, of which 4 need data that is not here" in done.stdout
    assert "not on this machine: ade20k" in done.stdout
    assert "imagenet" not in done.stdout


def test_a_dry_run_without_data_refuses_other_faults_and_a_run_needs_the_data(quick, tmp_path):
    arguments = ("run", "--method", "mae", "--task", "knn", "--recipe", "imagenet-vit-small")
    refused(quick(*arguments), "imagenet needs data.root: pass --set data.root=PATH")
    refused(quick(*arguments, "--set", "data.rot=/x", "--dry-run"), "data.rot")
    refused(quick(*arguments, "--set", "pretrain.batch_size=0", "--dry-run"), "batch_size")
    (tmp_path / "images").mkdir()
    other = ("--set", "data.root=images", "--dry-run")
    refused(quick(*arguments, *other), "images")


def test_bad_input_that_one_cell_finds_is_printed_once_and_ends_with_code_1(quick, monkeypatch):
    def refuse(name: str, seed: int) -> None:
        raise InputError("level is too high; lower task.level")

    monkeypatch.setattr(Toy, "hook", staticmethod(refuse))
    done = quick("run", "--recipe", "smoke", *SETTINGS, "--method", "random-init", "--task", "toy")
    assert done.returncode == 1
    assert done.stderr.count("level is too high") == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert line.startswith("failed: toy of random-init seed 0: level is too high; lower task.level (task 'toy' of ")
    assert "Traceback" not in done.stderr


def test_failures_are_listed_and_the_same_command_runs_only_those(quick, log, tmp_path, monkeypatch):
    noted = Toy.hook

    def unlucky(name: str, seed: int) -> None:
        noted(name, seed)
        if (name, seed) == ("toy", 0):
            raise RunError("no luck")

    monkeypatch.setattr(Toy, "hook", staticmethod(unlucky))
    done = quick(*GRID, "--seeds", "0,1")
    assert done.returncode == 1
    first, *others = done.stderr.splitlines()[-3:]
    assert first.startswith("failed: toy of simmim seed 0 and 1 more: no luck (task 'toy' of ")
    assert others == [
        "8 cells: 6 new, 0 already recorded, 2 failed",
        "failures: runs/failures; the same command runs only these cells again",
    ]
    assert "2 to run, of which 2 failed at the last attempt" in quick(*GRID, "--seeds", "0,1", "--dry-run").stdout
    monkeypatch.setattr(Toy, "hook", staticmethod(noted))
    log.write_text("")
    done = quick(*GRID, "--seeds", "0,1")
    assert done.returncode == 0
    assert [line.split()[1:] for line in log.read_text().splitlines()] == [["toy", "0"]] * 2
    assert done.stderr.splitlines()[0] == "already recorded: 6 of 8 cells (runs/records)"
    assert done.stderr.splitlines()[-2:] == [
        "8 cells: 2 new, 6 already recorded, 0 failed",
        "next: mimbench report --results runs --output page",
    ]
    assert failure_files(tmp_path / "runs") == []


def write_grid(tmp_path: Path, text: str) -> Path:
    folder = tmp_path / "paper"
    folder.mkdir(exist_ok=True)
    (folder / "mine.toml").write_text('extends = "smoke"\n[data]\ntrain_limit = 64\ntest_limit = 20\n')
    path = folder / "grid.toml"
    path.write_text(text)
    return path


GOOD = """
summary = "a test"
methods = ["simmim", "random-init"]
tasks = ["toy"]
recipe = "mine.toml"
seeds = [3, 4]
results = "out"

[set]
"pretrain.batch_size" = 32
pretrain.schedule.warmup_epochs = 0

[vary]
method.mask_ratio = [0.3, 0.6]
"""


def test_a_grid_file_says_all_of_it_and_flags_override(quick, tmp_path):
    grid = str(write_grid(tmp_path, GOOD).relative_to(tmp_path))
    done = quick("run", "--grid", grid, "--dry-run")
    assert "cells: 6, 0 recorded, 6 to run" in done.stdout, done.stderr
    assert "method.mask_ratio=0.6  3,4" in done.stdout
    done = quick("run", "--grid", grid, "--seeds", "3", "--method", "simmim", "--set", "pretrain.epochs=1", "--json")
    assert done.returncode == 0, done.stderr
    records = read_records(tmp_path / "paper" / "out")
    assert {record.recipe["pretrain"]["batch_size"] for record in records} == {32}
    assert {record.recipe_name for record in records} == {"paper/mine.toml"}
    assert sorted(record.varied["method.mask_ratio"] for record in records) == [0.3, 0.6]
    assert records[0].recipe_passed["set"] == {
        "pretrain.batch_size": 32,
        "pretrain.schedule.warmup_epochs": 0,
        "pretrain.epochs": 1,
    }
    fixed = quick("run", "--grid", grid, "--set", "method.mask_ratio=0.5", "--dry-run").stdout
    assert "cells: 4, 0 recorded, 4 to run" in fixed
    other = quick("run", "--grid", grid, "--vary", "method.mask_ratio=0.5,0.6,0.7", "--dry-run").stdout
    assert "cells: 8, 0 recorded, 8 to run" in other
    assert "0 recorded" in quick("run", "--grid", grid, "--results", "elsewhere", "--dry-run").stdout


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("methods =", "method ="), ("unknown key 'method' in grid", "'methods'")),
        (('["toy"]', '"toy"'), ("tasks in grid", "list of names")),
        (('["simmim", "random-init"]', '["simim"]'), ("unknown method 'simim'", "'simmim'")),
        (("[3, 4]", "[3, -4]"), ("seeds in grid", "whole numbers")),
        (("[3, 4]", "[true]"), ("seeds in grid", "whole numbers")),
        (("[3, 4]", "[]"), ("seeds in grid", "whole numbers")),
        (("[0.3, 0.6]", "0.3"), ("[vary] of grid", "method.mask_ratio", "list of values")),
        (('"pretrain.batch_size"', '"pretrian.batch_size"'), ("pretrian.batch_size", "[set] of grid", "'pretrain'")),
        (("mine.toml", "yours.toml"), ("paper/yours.toml does not exist",)),
        (("[set]", "[set"), ("grid.toml is not valid TOML",)),
        (('tasks = ["toy"]', ""), ("--task is empty",)),
        (("method.mask_ratio", "method.mask_rato"), ("mask_rato", "'mask_ratio'")),
    ],
)
def test_a_bad_grid_file_is_one_clear_line(quick, tmp_path, change, words):
    path = write_grid(tmp_path, GOOD.replace(*change))
    refused(quick("run", "--grid", str(path.relative_to(tmp_path))), *words)


def test_a_grid_file_that_is_not_there_is_named(quick):
    refused(quick("run", "--grid", "none.toml"), "grid file none.toml does not exist")


def test_two_processes_share_a_grid(log, tmp_path):
    slowly = functools.partial(note_slowly, log)
    both = [command(tmp_path, *GRID, "--seeds", "0,1,2", "--json", hook=slowly) for _ in range(2)]
    assert [one.wait() for one in both] == [0, 0], both[0].err.read_text() + both[1].err.read_text()
    assert [len(json.loads(one.out.read_text())) for one in both] == [12, 12]
    ran = [line.split() for line in log.read_text().splitlines()]
    assert len(ran) == 12
    assert {int(pid) for pid, _, _ in ran} == {one.process.pid for one in both}
    said = "".join(one.err.read_text() for one in both)
    for seed in range(3):
        assert said.count(f"pretraining simmim seed {seed} on") == 1


def test_killed_between_two_cells_it_goes_on(quick, log, tmp_path):
    assert command(tmp_path, *GRID, hook=functools.partial(note_and_die, log)).wait() == -signal.SIGKILL
    assert [record.task.name for record in read_records(tmp_path / "runs")] == ["toy"]
    log.write_text("")
    done = quick(*GRID)
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in log.read_text().splitlines()] == ["other-toy", "toy", "other-toy"]
    assert "pretraining simmim seed 0 on" not in done.stderr
    assert len(read_records(tmp_path / "runs")) == 4
    assert list(tmp_path.glob("runs/*/.*")) == []


@pytest.fixture
def ranks(tmp_path):
    """Start the command as torchrun would, on two gloo processes."""

    def start(*arguments: str, hook: Callable[[str, int], None]) -> list[Forked]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        fork = functools.partial(
            command, tmp_path, *arguments, hook=hook, WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port
        )
        return [fork(RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(2)]

    return start


def test_two_ranks_train_together_and_one_writes(ranks, quick, log, tmp_path):
    noted = functools.partial(note, log)
    first, second = ranks(*GRID, hook=noted)
    assert [first.wait(), second.wait()] == [0, 0], first.err.read_text() + second.err.read_text()
    assert len(read_records(tmp_path / "runs")) == 4
    assert len(log.read_text().splitlines()) == 8
    assert "pretraining simmim seed 0 on" in first.err.read_text()
    assert "score" in first.out.read_text()
    assert second.out.read_text() == ""
    assert "simmim" not in second.err.read_text()
    again = ranks(*GRID, hook=noted)
    assert [one.wait() for one in again] == [0, 0]
    assert again[0].err.read_text().startswith("already recorded: 4 of 4 cells")
    alone = quick(*GRID)  # the number of processes is part of no fingerprint
    assert alone.stderr.startswith("already recorded: 4 of 4 cells")
    assert len(log.read_text().splitlines()) == 8


def test_what_fails_on_one_rank_fails_on_all_and_the_rest_goes_on(ranks, tmp_path):
    both = ranks(*GRID, hook=fail_on_second_rank)
    assert [one.wait() for one in both] == [1, 1], both[0].err.read_text() + both[1].err.read_text()
    failures, _ = read_failures(failure_files(tmp_path / "runs"))
    assert [failure.reason for failure in failures] == ["no luck on the second rank"] * 2
    assert len(read_records(tmp_path / "runs")) == 2


def test_ranks_stop_together_and_go_on_where_they_stopped(ranks, log, tmp_path):
    command = ["run", "--recipe", "smoke", *SETTINGS, "--method", "simmim", "--task", "toy"]
    command += ["--set", "pretrain.epochs=200", "--set", "pretrain.checkpoint_every=1000"]
    noted = functools.partial(note, log)
    both = ranks(*command, "--results", "stopped", hook=noted)
    deadline = time.monotonic() + 60
    while not (both[0].err.exists() and "pretraining simmim seed 0 on" in both[0].err.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.3)
    for one in both:
        os.kill(one.process.pid, signal.SIGTERM)
    assert [one.wait() for one in both] == [128 + signal.SIGTERM] * 2, both[0].err.read_text()
    assert re.search(r"stopped by SIGTERM; pretrain simmim seed 0: saved after", both[0].err.read_text())
    hashes = []
    for results in ("stopped", "whole"):
        both = ranks(*command, "--results", results, hook=noted)
        assert [one.wait() for one in both] == [0, 0], both[0].err.read_text()
        (record,) = read_records(tmp_path / results)
        hashes.append(record.checkpoint.weights_sha256)
        assert (record.provenance["processes"], record.provenance["nodes"]) == (2, 1)
        assert list(record.provenance["devices"].values()) == [2]
    assert hashes[0] == hashes[1]
