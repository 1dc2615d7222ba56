"""Code is part of a record: noted with it, compared later, and run anew with --fresh."""

from __future__ import annotations

import hashlib
import importlib
import json
import signal
import subprocess
import sys

import pytest
import torch

from mimbench import registry
from mimbench.engine.hooks import HistoryHook
from mimbench.errors import Interrupted
from mimbench.harness.planning import code
from mimbench.harness.running.scheduler import Scheduler
from mimbench.harness.running.session import Session
from mimbench.store.store import read_checkpoint

CPU = torch.device("cpu")
SOURCE = "from helpers.toy_plugins import Toy\nclass Theirs(Toy):\n    name, version = 'theirs', '1'\n"
METHOD = "from mimbench_methods.random_init import RandomInit\nclass Own(RandomInit):\n    name, version = 'own', '1'\n"


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """Files of a task and a method, as an author edits them."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "their_task.py").write_text(SOURCE)
    (tmp_path / "their_own.py").write_text(METHOD)
    import their_own
    import their_task

    monkeypatch.setitem(registry.tasks.replacements, "theirs", their_task.Theirs)
    monkeypatch.setitem(registry.methods.replacements, "own", their_own.Own)
    for kind in (registry.tasks, registry.methods):
        monkeypatch.setattr(kind, "names", lambda: ["theirs", "own"])
    forget()
    yield tmp_path
    forget()
    del sys.modules["their_task"], sys.modules["their_own"]


def forget():
    """As in another process."""
    code.code_of_plugin.cache_clear()
    code._commit.cache_clear()


def fresh_run(bench, **named):
    request, cells = bench.planned(**named)
    return Scheduler(Session(bench.store, CPU, bench.console, fresh=True), request, cells).run()


def test_records_and_cards_name_the_code_that_made_them(bench, theirs):
    (record,) = bench.run("own", "theirs").records
    plugins = record.provenance["plugins"]
    assert sorted(plugins) == ["dataset", "encoder", "method", "task"]
    assert plugins["task"] == {
        "name": "theirs",
        "version": "1",
        "package": "no installed package",
        "file": "their_task.py",
        "sha256": hashlib.sha256(SOURCE.encode()).hexdigest(),
        "commit": None,
    }
    assert plugins["method"]["sha256"] == hashlib.sha256(METHOD.encode()).hexdigest()
    assert plugins["encoder"]["package"].startswith("mimbench ")
    assert plugins["dataset"]["name"] == "mnist5k"
    (folder,) = (bench.store.root / "checkpoints").iterdir()
    card = read_checkpoint(folder).card["provenance"]["plugins"]
    assert {kind: card[kind] for kind in ("method", "encoder", "dataset")} == {
        kind: plugins[kind] for kind in ("method", "encoder", "dataset")
    }


def test_an_edit_without_a_new_version_is_reported_once(bench, theirs):
    run = {"methods": "own", "tasks": "theirs", "seeds": (0, 1)}
    bench.run(**run)
    forget()
    bench.run(**run)
    assert "has changed" not in bench.said
    (theirs / "their_task.py").write_text(SOURCE + "# edited\n")
    forget()
    bench.run(**run)
    note = "code of task 'theirs' (no installed package, their_task.py) has changed since this was recorded, and its "
    assert "already recorded: 2 of 2 cells" in bench.said
    assert bench.said.count(f"{note}version is still '1': raise `version`, or rerun with --fresh") == 1


def test_an_edited_method_is_reported_when_its_checkpoint_is_used_again(bench, theirs):
    bench.run("own", "theirs")
    (theirs / "their_own.py").write_text(METHOD + "# edited\n")
    forget()
    bench.run("own", "other-toy")
    assert (
        "code of method 'own' (no installed package, their_own.py) has changed since the checkpoint was" in bench.said
    )


def test_records_without_code_and_other_versions_say_nothing():
    now = {"method": {"name": "x", "version": "1", "package": "p 1", "file": "x.py", "sha256": "a" * 64}}
    for noted in (None, {}, {"plugins": None}, {"plugins": {}}, {"plugins": {"method": 3}}):
        assert list(code.describe_changes(noted, now, "then")) == []
    for then, count in (({}, 1), ({"version": "0"}, 0), ({"name": "y"}, 0), ({"sha256": None}, 0)):
        noted = {"plugins": {"method": {**now["method"], "sha256": "b" * 64, **then}}}
        assert len(list(code.describe_changes(noted, now, "then"))) == count
    dataset = {"dataset": {**now["method"], "version": None}}
    noted = {"plugins": {"dataset": {**dataset["dataset"], "sha256": "b" * 64}}}
    assert next(code.describe_changes(noted, dataset, "then")).endswith("has changed since then: rerun with --fresh")


def test_fresh_trains_and_measures_again_once_and_replaces_the_records(bench):
    bench.run("simmim", "toy")
    (folder,) = (bench.store.root / "checkpoints").iterdir()
    (folder / "old").write_text("")
    before = bench.ran.copy(), bench.trained.copy()
    outcome = fresh_run(bench, methods="simmim", tasks="toy,other-toy")
    assert bench.trained == [*before[1], "simmim seed 0"]
    assert bench.ran == [*before[0], ("toy", 0), ("other-toy", 0)]
    assert (outcome.before, len(outcome.records)) == (0, 2)
    assert [entry.name for entry in (bench.store.root / "checkpoints").iterdir()] == [folder.name]
    assert not (folder / "old").exists()
    assert read_checkpoint(folder)
    assert bench.run("simmim", "toy,other-toy").before == 2


def test_fresh_does_not_go_on_from_what_an_interrupted_training_left(bench):
    _, (cell,) = bench.planned("simmim", "toy")
    work = bench.store.work(cell.pretraining.training)
    (work / "epoch_1.pth").write_bytes(b"left by other code")
    assert fresh_run(bench, methods="simmim", tasks="toy").failures == []


def test_fresh_replaces_a_damaged_record_and_a_damaged_checkpoint(bench):
    (record,) = bench.run("random-init", "toy").records
    path = bench.store.record_path(record.id)
    path.write_text("damaged")
    (weights,) = bench.store.root.glob("checkpoints/*/encoder.safetensors")
    weights.write_bytes(b"damaged")
    assert fresh_run(bench, methods="random-init", tasks="toy").failures == []
    assert json.loads(path.read_text())["id"] == record.id


def test_the_command_takes_fresh_and_lists_records_of_old_weights(quick, theirs, tmp_path, monkeypatch):
    run = ("run", "--method", "random-init", "--recipe", "smoke", "--task")
    assert quick(*run, "knn,few-shot").returncode == 0
    assert "cells: 1, 1 recorded, 0 to run" in quick(*run, "knn", "--dry-run").stdout
    assert "cells: 1, 0 recorded, 1 to run" in quick(*run, "knn", "--dry-run", "--fresh").stdout
    done = quick(*run, "knn", "--fresh")
    assert "already recorded" not in done.stderr
    assert "of the replaced weights" not in done.stderr  # equal seeds gave equal weights
    vit = registry.encoders.load("vit")
    init = vit.__init__
    monkeypatch.setattr(vit, "__init__", lambda *a, **k: (torch.manual_seed(9), init(*a, **k))[1])
    done = quick(*run, "knn", "--fresh")
    assert "1 other record of the replaced weights, such as random-init-few-shot-s0-" in done.stderr


def test_a_dry_run_says_what_has_changed(quick, theirs):
    run = ("run", "--method", "own", "--recipe", "smoke", "--task", "theirs")
    assert quick(*run).returncode == 0
    (theirs / "their_task.py").write_text(SOURCE + "# edited\n")
    forget()
    done = quick(*run, "--dry-run")
    assert "code of task 'theirs'" in done.stderr
    assert "code of" not in quick(*run, "--dry-run", "--fresh").stderr


def test_a_package_of_one_plugin_counts_as_a_whole_and_its_commit_is_noted(tmp_path, monkeypatch):
    package = tmp_path / "their_lone"
    package.mkdir()
    for name, text in (("__init__", ""), ("task", SOURCE), ("helpers", "A = 1\n")):
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    from their_lone.task import Theirs

    monkeypatch.setitem(registry.tasks.replacements, "theirs", Theirs)
    forget()
    first = code.code_of_plugin("task", "theirs")
    (package / "helpers.py").write_text("A = 2\n")
    for arguments in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a", "commit", "-qm", "a"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    forget()
    second = code.code_of_plugin("task", "theirs")
    assert first["sha256"] != second["sha256"]
    assert (first["commit"], len(second["commit"])) == (None, 40)
    (package / "helpers.py").write_text("A = 3\n")
    forget()
    assert code.code_of_plugin("task", "theirs")["commit"] == second["commit"] + "+"
    forget()


def interrupt_in_second_epoch(monkeypatch, bench, *names, settings):
    def interrupted(hook, runner):
        if runner.epoch == 1:
            raise Interrupted(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(HistoryHook, "before_train_epoch", interrupted)
        with pytest.raises(Interrupted):
            bench.run(*names, settings=settings)


def test_a_resumed_training_says_that_its_code_was_edited(bench, theirs, monkeypatch):
    (theirs / "their_own.py").write_text(
        METHOD.replace("random_init", "supervised").replace("RandomInit", "Supervised")
    )
    import their_own

    importlib.reload(their_own)
    monkeypatch.setitem(registry.methods.replacements, "own", their_own.Own)
    forget()
    settings = ["pretrain.epochs=3", "pretrain.checkpoint_every=1"]
    interrupt_in_second_epoch(monkeypatch, bench, "own", settings=settings)
    assert "code of" not in bench.said
    (theirs / "their_own.py").write_text((theirs / "their_own.py").read_text() + "# edited\n")
    forget()
    (record,) = bench.run("own", settings=settings).records
    assert "resumes after epoch 1 of 3" in bench.said
    assert bench.said.count("code of method 'own'") == 1
    assert "has changed since this training began, and its version is still '1'" in bench.said
    assert record.checkpoint.cost.steps == 6


def test_a_resumed_task_says_that_its_code_was_edited(bench, theirs, monkeypatch):
    source = SOURCE.replace("helpers.toy_plugins", "mimbench_tasks.finetune.task").replace("Toy", "Finetune")
    (theirs / "their_task.py").write_text(source)
    import their_task

    importlib.reload(their_task)
    monkeypatch.setitem(registry.tasks.replacements, "theirs", their_task.Theirs)
    forget()
    settings = ["tasks.theirs.train.epochs=3", "tasks.theirs.train.checkpoint_every=1"]
    interrupt_in_second_epoch(monkeypatch, bench, "own", "theirs", settings=settings)
    assert "code of" not in bench.said
    (theirs / "their_task.py").write_text(source + "# edited\n")
    forget()
    assert len(bench.run("own", "theirs", settings=settings).records) == 1
    assert "resumes after epoch 1 of 3" in bench.said
    assert bench.said.count("code of task 'theirs'") == 1
    assert "has changed since this training began, and its version is still '1'" in bench.said
