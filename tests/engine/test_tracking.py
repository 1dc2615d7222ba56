"""Trackers: they get the curves, send nothing else, change no bit of the training, and are checked before it."""

from __future__ import annotations

import os
import platform
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from helpers.noting import Probe, train
from mimbench.engine.monitoring import Monitoring
from mimbench.engine.trackers import TRACKERS, check_trackers
from mimbench.engine.tracking import BUILD
from mimbench.errors import InputError, RunError

STUB = '''
"""Stands in for {name}: notes every call."""
CALLS = []


def note(*call):
    CALLS.append(call)
'''
WANDB = (
    STUB.format(name="wandb")
    + """
config = type("Config", (), {"update": lambda self, values, **kw: note("config", values)})()


def init(**options):
    note("init", options)


def log(values, step):
    note("log", values, step)


def finish():
    note("finish")
"""
)
MLFLOW = (
    STUB.format(name="mlflow")
    + """
import random
from collections import namedtuple
from types import SimpleNamespace as Values

entities = Values(Metric=namedtuple("Metric", "key value timestamp step"), Param=namedtuple("Param", "key value"))


class MlflowClient:
    def __init__(self, tracking_uri):
        note("uri", tracking_uri)

    def get_experiment_by_name(self, name):
        return None

    def create_experiment(self, name, artifact_location=None):
        note("create", name)
        return "1"

    def create_run(self, experiment_id, tags, run_name):
        random.random()
        note("init", {"experiment": experiment_id, "tags": tags, "name": run_name})
        return Values(info=Values(run_id="abc"))

    def log_batch(self, run_id, metrics=(), params=()):
        if params:
            note("config", {param.key: param.value for param in params})
        if metrics:
            note("log", {metric.key: metric.value for metric in metrics}, metrics[0].step)

    def set_terminated(self, run_id):
        note("finish")
"""
)
AIM = (
    STUB.format(name="aim")
    + """
class Run:
    def __init__(self, **options):
        note("init", options)

    def __setitem__(self, name, values):
        note("config", values)

    def track(self, value, name, step):
        note("log", {name: value}, step)

    def close(self):
        note("finish")
"""
)
STUBS = {"wandb": WANDB, "mlflow": MLFLOW, "aim": AIM}


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """Puts a module in place of a tracker's package; returns it once it is imported."""
    folder = tmp_path / "stubs"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    for name in STUBS:
        monkeypatch.delitem(sys.modules, name, raising=False)

    def place(name: str, text: str | None = None):
        (folder / f"{name}.py").write_text(text or STUBS[name])
        return SimpleNamespace(calls=lambda: sys.modules[name].CALLS)

    yield place
    for name in STUBS:
        sys.modules.pop(name, None)


def logged(calls) -> dict[int, dict[str, float]]:
    """What was sent, by step."""
    sent: dict[int, dict[str, float]] = {}
    for _, values, step in (call for call in calls if call[0] == "log"):
        sent.setdefault(step, {}).update(values)
    return sent


@pytest.mark.parametrize("name", STUBS)
def test_a_tracker_gets_settings_losses_logs_and_monitors(name, stub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tracker, model = stub(name), Probe()
    monitoring = Monitoring(lambda: {"rankme": 2.5}, every=5)
    report, _ = train(model, tmp_path / "work", track=[name], monitoring=monitoring, identity="abc")
    sent = logged(tracker.calls())
    assert sorted(sent) == [0, 5, 10, 15]
    assert [sent[step]["loss"] for step in (5, 10, 15)] == report.loss
    assert [sent[step]["epoch"] for step in (5, 10, 15)] == [1, 2, 3]
    assert sent[0] == {"monitor/rankme": 2.5}
    assert sent[15]["log/a_loss_that_is_only_shown"] == report.logs["a_loss_that_is_only_shown"][-1]
    (config,) = (call[1] for call in tracker.calls() if call[0] == "config")
    assert config["label"] == "probe"
    assert config["task.train"]["base_lr"] == 0.01 if name != "mlflow" else config["task.train.base_lr"] == "0.01"
    assert tracker.calls()[-1] == ("finish",)
    kinds = {call[0] for call in tracker.calls()}
    assert kinds <= {"init", "config", "log", "finish", "uri", "create"}  # no code, files or pictures


def test_a_run_of_wandb_goes_on_when_the_training_does(stub, tmp_path):
    wandb, broken = stub("wandb"), Probe()
    broken.fail_at = 8
    with pytest.raises(RunError):
        train(broken, tmp_path, track=["wandb"], identity="abc")
    train(Probe(), tmp_path, track=["wandb"], identity="abc")
    first, second = (call[1] for call in wandb.calls() if call[0] == "init")
    assert first["id"] == second["id"]
    assert first["resume"] == "allow"
    assert (first["name"], first["project"]) == ("probe", "mimbench")
    train(Probe(), tmp_path / "other", track=["wandb"], identity="abc")
    assert [call[1]["id"] for call in wandb.calls() if call[0] == "init"][-1] != first["id"]


def test_mlflow_writes_a_file_unless_a_server_is_named(stub, tmp_path, monkeypatch):
    mlflow = stub("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    train(Probe(), tmp_path / "one", track=["mlflow"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    train(Probe(), tmp_path / "two", track=["mlflow"])
    uris = [call[1] for call in mlflow.calls() if call[0] == "uri"]
    assert uris == [f"sqlite:///{tmp_path / 'one' / 'tracks' / 'mlflow.db'}", "http://localhost:5000"]


def test_mlflow_gets_no_tag_but_the_key(stub, tmp_path):
    mlflow = stub("mlflow")
    train(Probe(), tmp_path, track=["mlflow"], identity="abc")
    (started,) = (call[1] for call in mlflow.calls() if call[0] == "init")
    assert started == {"experiment": "1", "tags": {"mimbench": "probe-abc"}, "name": "probe"}


def test_aim_takes_neither_the_system_nor_the_terminal(stub, tmp_path):
    aim = stub("aim")
    train(Probe(), tmp_path, track=["aim"])
    (options,) = (call[1] for call in aim.calls() if call[0] == "init")
    off = {"system_tracking_interval": None, "log_system_params": False, "capture_terminal_logs": False}
    assert options == {"repo": str(tmp_path / "tracks"), "experiment": "probe", **off}


def test_tensorboard_is_written_and_read_back(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    report, _ = train(Probe(), tmp_path, track=["tensorboard"], identity="sha/1")
    (file,) = tmp_path.rglob("events.out.tfevents.*")
    assert file.parent == tmp_path / "tracks" / "probe-sha-1"
    events = EventAccumulator(str(file.parent)).Reload()
    assert [event.step for event in events.Scalars("loss")] == [5, 10, 15]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(report.loss)


def test_tracking_changes_no_bit_of_the_training(stub, tmp_path):
    class Drawing(Probe):
        def after_step(self, progress: float) -> None:
            self.seen.append((random.random(), float(np.random.rand()), float(torch.rand(1))))

    stub("mlflow")  # it draws from Python's random numbers
    plain, tracked = Drawing(), Drawing()
    for model, folder, track in ((plain, "plain", []), (tracked, "tracked", ["mlflow"])):
        torch.manual_seed(5), np.random.seed(5), random.seed(5)
        train(model, tmp_path / folder, track=track)
    assert plain.seen == tracked.seen
    assert torch.equal(plain.linear.weight, tracked.linear.weight)


def test_a_tracker_that_cannot_start_ends_the_run_before_its_first_step(stub, tmp_path):
    stub("wandb", "def init(**options):\n    raise ValueError('no network')\n")
    model = Probe()
    with pytest.raises(RunError, match="probe: tracker wandb cannot start: no network; mend it, or leave it out"):
        train(model, tmp_path, track=["wandb"])
    assert model.seen == []


def test_a_tracker_that_fails_on_the_way_is_left_out(stub, tmp_path):
    stub("wandb", WANDB.replace('note("log", values, step)', 'raise OSError("server is gone")'))
    report, said = train(Probe(), tmp_path, track=["wandb"])
    assert report.steps == 15
    assert said.count("probe: tracker wandb is left out from here on") == 1


def test_every_tracker_has_a_backend_and_an_extra():
    import tomllib

    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert BUILD.keys() == TRACKERS.keys()
    assert {tracker.package for tracker in TRACKERS.values()} <= extras["optional-dependencies"].keys()


def test_trackers_are_checked_in_advance(stub, monkeypatch, tmp_path):
    with pytest.raises(InputError, match=r"pretrain\.track: unknown tracker 'wandbe'; did you mean 'wandb'\?"):
        check_trackers(["wandbe"], "pretrain")
    monkeypatch.setattr("mimbench.engine.trackers.find_spec", lambda package: None)
    with pytest.raises(InputError, match=r"task\.train\.track: aim is not installed; pip install \"mimbench\[aim\]\""):
        check_trackers(["aim"], "task.train")


def test_wandb_needs_a_login_unless_it_is_offline(stub, monkeypatch, tmp_path):
    stub("wandb")
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    netrc = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(netrc))
    with pytest.raises(InputError, match=r"wandb is not logged in; run `wandb login`, .* or set WANDB_MODE=offline"):
        check_trackers(["wandb"], "pretrain")
    netrc.write_text("machine api.wandb.ai login user password secret\n")
    check_trackers(["wandb"], "pretrain")
    netrc.unlink()
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_trackers(["wandb"], "pretrain")


@pytest.fixture
def secrets(tmp_path, monkeypatch):
    """Strings of the user, host, git repository, arguments, environment and terminal, which nobody asked to send.

    Call it with what to scan besides the files of a folder.
    """
    work = tmp_path / "here"
    work.mkdir()
    (work / "secretcode.py").write_text("print('secretcode')")
    git = ["git", "-c", "user.name=secretauthor", "-c", "user.email=secretmail@example.com"]
    for command in (["init", "-q"], ["remote", "add", "origin", "https://example.com/secretrepository"]):
        subprocess.run([*git, *command], cwd=work, check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "secretmessage"], cwd=work, check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=work, check=True, capture_output=True, text=True).stdout
    monkeypatch.chdir(work)
    for name in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(name, "secretuser")
    monkeypatch.setenv("SECRET_OF_THE_ENVIRONMENT", "secretvalue")
    monkeypatch.setattr(sys, "argv", ["secretscript.py", "--secretargument"])
    monkeypatch.setattr(socket, "gethostname", lambda: "secrethost")
    for name in ("WANDB_ERROR_REPORTING", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "")  # so that the value from before the test comes back
        monkeypatch.delenv(name)
    host = rf"\b{re.escape(platform.node())}\b"

    words = "secret(?:author|mail|message|repository|code|user|value|script|argument|host|line)"

    def leaks(folder: Path) -> set[str]:
        pattern = re.compile(f"{words}|{host}|{commit.strip()}|torchvision".encode())
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert files
        texts = [str(path.relative_to(folder)).encode() + b"\n" + path.read_bytes() for path in files]
        return {match.decode() for text in texts for match in pattern.findall(text)}

    return leaks


class Talking(Probe):
    """A probe that prints."""

    def after_step(self, progress: float) -> None:
        print("secretline")


def test_tensorboard_writes_nothing_about_the_host_or_user(secrets, tmp_path):
    train(Talking(), tmp_path / "work", track=["tensorboard"], identity="abc")
    assert secrets(tmp_path / "work" / "tracks") == set()


def test_wandb_itself_offline_writes_nothing_about_the_host_or_user(secrets, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(Talking(), tmp_path / "work", track=["wandb"], identity="abc")
    (folder,) = (tmp_path / "work" / "tracks" / "wandb").glob("offline-run-*")
    (file,) = folder.glob("run-*.wandb")
    deadline = time.monotonic() + 60
    while b"a_loss_that_is_only_shown" not in file.read_bytes():  # wandb's service may write it after `finish`
        assert time.monotonic() < deadline
        time.sleep(0.05)
    shutil.rmtree(folder / "logs")  # of wandb itself; they stay here
    assert secrets(folder) == set()


def test_mlflow_itself_in_a_file_has_no_tag_of_the_host_or_user(secrets, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("alembic")  # mlflow-skinny comes without a database
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    report, _ = train(Talking(), tmp_path, track=["mlflow"], identity="abc")
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'tracks' / 'mlflow.db'}")
    (experiment,) = [each for each in client.search_experiments() if each.name == "mimbench"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics["loss"] == pytest.approx(report.loss[-1])
    assert run.data.params["label"] == "probe"
    assert run.info.status == "FINISHED"
    assert run.data.tags == {"mimbench": "probe-abc", "mlflow.runName": "probe"}
    assert secrets(tmp_path / "tracks") == set()


def test_aim_itself_writes_nothing_about_the_host_or_user(secrets, tmp_path):
    aim = pytest.importorskip("aim")
    train(Talking(), tmp_path, track=["aim"], identity="abc")
    (key,) = aim.Repo(str(tmp_path / "tracks")).list_all_runs()
    assert secrets(tmp_path / "tracks") == set()
    off = {"system_tracking_interval": None, "capture_terminal_logs": False}
    run = aim.Run(key, repo=str(tmp_path / "tracks"), **off)  # read-only runs are empty until `aim up` has indexed them
    assert {metric.name for metric in run.metrics()} >= {"loss", "epoch"}
    assert not any(metric.name.startswith("__system") for metric in run.metrics())
    assert run.get_terminal_logs() is None
    assert run["hparams", "label"] == "probe"
    assert run.get("__system_params") is None
    run.close()
