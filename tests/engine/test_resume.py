"""Going on with an interrupted training: exact, strict, and without running anything that a file holds."""

from __future__ import annotations

import errno
import os
import resource
import signal
import threading
from pathlib import Path

import pytest
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer

from helpers.noting import Probe, train
from mimbench.engine.state_files import amount_done, load_state, save_state
from mimbench.engine.tracking import TrackingVisualizer
from mimbench.errors import InputError, Interrupted, RunError
from mimbench.files import file_sha256
from mimbench.store.sealing import write_sealed


class Stopping(Probe):
    """Gets a signal within its n-th training step."""

    def __init__(self, at: int, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.at, self.number = at, number

    def training_step(self, batch, generator):
        if len(self.seen) + 1 == self.at:
            os.kill(os.getpid(), self.number)
        return super().training_step(batch, generator)


@pytest.fixture(autouse=True)
def signals_are_listened_to():
    """A suite that a shell runs in the background has SIGINT ignored, which would be respected."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("accumulate", "at"), [(1, 1), (1, 5), (1, 8), (1, 15), (2, 7), (2, 8)])
def test_a_signal_saves_the_step_and_the_training_goes_on_from_there(tmp_path, number, accumulate, at):
    unbroken, resumed = Probe(), Probe()
    whole, _ = train(unbroken, tmp_path / "whole", accumulate=accumulate)
    stopping = Stopping(at, number)
    with pytest.raises(Interrupted) as stopped:
        train(stopping, tmp_path / "stopped", accumulate=accumulate)
    done = -(-at // accumulate) * accumulate  # micro-batches of whole steps
    assert stopping.seen == unbroken.seen[:done]
    assert stopped.value.exit_code == 128 + number
    epoch, step = divmod(done // accumulate, 5)
    where = f"after step {step} of 5 in epoch {epoch + 1} of 3" if step else f"after epoch {epoch} of 3"
    assert str(stopped.value) == f"probe: saved {where}"
    report, said = train(resumed, tmp_path / "stopped", accumulate=accumulate)
    assert f"probe: resumes {where}" in said
    assert resumed.seen == unbroken.seen[done:]
    assert torch.equal(resumed.linear.weight, unbroken.linear.weight)
    assert report.loss == whole.loss
    assert (report.steps, report.images_seen) == (whole.steps, whole.images_seen)


def test_a_second_signal_stops_at_once_and_says_what_is_kept(tmp_path):
    class Twice(Stopping):
        def training_step(self, batch, generator):
            if len(self.seen) + 1 == self.at:  # and once more in super()
                os.kill(os.getpid(), self.number)
            return super().training_step(batch, generator)

    for at, message in ((3, "nothing is saved yet, so it starts over"), (8, "saved after epoch 1 of 3")):
        with pytest.raises(Interrupted) as stopped:
            train(Twice(at), tmp_path / str(at))
        assert str(stopped.value) == f"probe: {message}"


def test_a_signal_that_was_ignored_stays_ignored(tmp_path):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    model = Stopping(3)
    train(model, tmp_path)
    assert len(model.seen) == 15
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def stopped_at(step: int, folder):
    model = Probe()
    model.fail_at = step
    with pytest.raises(RunError):
        train(model, folder)


def test_only_the_newest_two_states_are_kept(tmp_path):
    stopped_at(14, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("step_*")) == [
        "step_10.json", "step_10.pth", "step_5.json", "step_5.pth",
    ]  # fmt: skip


def flip_a_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES = {
    "half": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "bit": flip_a_bit,
}


@pytest.mark.parametrize("suffix", [".pth", ".json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_named_and_the_one_before_it_is_used(tmp_path, damage, suffix):
    unbroken, resumed, anew = Probe(), Probe(), Probe()
    train(unbroken, tmp_path / "whole")
    stopped_at(14, tmp_path / "work")
    last = tmp_path / "work" / f"step_10{suffix}"
    last.write_bytes(DAMAGES[damage](last.read_bytes()))
    assert amount_done(tmp_path / "work") == 1
    _, said = train(resumed, tmp_path / "work")
    assert "step_10.pth is damaged and not used" in said
    assert "probe: resumes after epoch 1 of 3" in said
    assert torch.equal(resumed.linear.weight, unbroken.linear.weight)
    for left in (tmp_path / "work").glob(f"*{suffix}"):
        left.write_bytes(DAMAGES[damage](left.read_bytes()))
    _, said = train(anew, tmp_path / "work")
    assert "resumes" not in said
    assert torch.equal(anew.linear.weight, unbroken.linear.weight)


def test_every_flipped_bit_is_seen(tmp_path):
    save_state(tmp_path, {"model": {"weight": torch.arange(8.0)}}, steps=1, epochs=0.5)
    path = tmp_path / "step_1.pth"
    content = path.read_bytes()
    for place in range(0, len(content), max(1, len(content) // 40)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        problems = []
        assert load_state(tmp_path, problems.append) is None
        assert len(problems) == 1


def seal_of(path, **position):
    return {**position, "file_sha256": file_sha256(path), "identity": ""}


class Payload:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_state_that_would_run_code_is_not_unpickled(tmp_path):
    """Its hash and seal are right: whoever can write the folder can write them too."""
    path = tmp_path / "step_5.pth"
    torch.save({"model": {}, "iteration": 5, "extra": Payload(f"touch {tmp_path / 'ran'}")}, path)
    write_sealed(path.with_suffix(".json"), seal_of(path, steps=5, epochs=1.0))
    model = Probe()
    _, said = train(model, tmp_path)
    assert "is not the state of a training" in said
    assert len(model.seen) == 15
    assert not (tmp_path / "ran").exists()


class Renamed(Probe):
    """The same model after its code was edited: one layer has another name."""

    def __init__(self) -> None:
        super().__init__()
        self.head = self.linear
        del self.linear

    def training_step(self, batch, generator):
        raise AssertionError("must not train")


class Wider(Probe):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(64, 5)


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (Renamed, r"missing: head.bias, head.weight; unexpected: linear.bias, linear.weight"),
        (Wider, r"of another shape: linear.bias, linear.weight"),
    ],
)
def test_the_state_of_other_code_is_refused(tmp_path, other, difference):
    stopped_at(8, tmp_path)
    with pytest.raises(InputError, match=rf"step_5\.pth was left by other code or data of probe \({difference}\)"):
        train(other(), tmp_path)


def test_the_state_of_another_schedule_is_refused(tmp_path):
    stopped_at(8, tmp_path)
    with pytest.raises(InputError, match="5 steps per epoch, not 10"):
        train(Probe(), tmp_path, batch_size=4)


def test_the_state_of_another_training_is_not_used(tmp_path):
    """The same model, data and label, but another seed and rate: nothing in the weights shows it."""
    alone, swapped = Probe(), Probe()
    train(alone, tmp_path / "alone", seed=9, identity="mine")
    with pytest.raises(Interrupted):
        train(Stopping(8), tmp_path / "work", identity="another")
    _, said = train(swapped, tmp_path / "work", seed=9, identity="mine")
    assert "step_8.pth is the state of another training and not used" in said
    assert torch.equal(swapped.linear.weight, alone.linear.weight)


@pytest.mark.parametrize("suffix", [".pth", ".json"])
def test_after_damage_a_newly_saved_state_is_used(tmp_path, suffix):
    with pytest.raises(Interrupted):
        train(Stopping(13), tmp_path)
    (tmp_path / "step_12.pth").write_bytes(b"left by a kill before its card")
    for left in tmp_path.glob(f"step_*{suffix}"):
        left.write_bytes(b"damaged")
    with pytest.raises(Interrupted, match="saved after step 3 of 5 in epoch 1 of 3"):
        train(Stopping(3), tmp_path)
    assert sorted(path.name for path in tmp_path.glob("step_*")) == ["step_3.json", "step_3.pth"]
    resumed = Probe()
    _, said = train(resumed, tmp_path)
    assert "resumes after step 3 of 5 in epoch 1 of 3" in said
    assert len(resumed.seen) == 12


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES])
@pytest.mark.parametrize("suffix", [".pth", ".json"])
def test_a_state_that_cannot_be_read_now_is_not_taken_for_a_damaged_one(tmp_path, monkeypatch, suffix, number):
    stopped_at(8, tmp_path)
    files_before = sorted(tmp_path.iterdir())
    opened = Path.open

    def refuse(path, *arguments, **named):
        if path.name == f"step_5{suffix}":
            raise OSError(number, os.strerror(number), str(path))
        return opened(path, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with pytest.raises((OSError, InputError), match=rf"step_5\{suffix}"):
            train(Probe(), tmp_path)
    assert sorted(path for path in tmp_path.iterdir() if path in files_before) == files_before
    resumed = Probe()
    train(resumed, tmp_path)
    assert len(resumed.seen) == 10


@pytest.mark.parametrize("iteration", [-1, 7.5, 16, "seven", None])
def test_a_position_outside_of_the_training_is_refused(tmp_path, iteration):
    stopped_at(8, tmp_path)
    _, state = load_state(tmp_path)
    save_state(tmp_path, {**state, "iteration": iteration}, steps=7, epochs=1.4)
    with pytest.raises(InputError, match=r"step_7\.pth was left by other code of probe .*; delete"):
        train(Probe(), tmp_path)


def test_nothing_of_a_training_stays_open(tmp_path):
    train(Probe(), tmp_path / "first")
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    for number in range(3):
        train(Probe(), tmp_path / str(number))
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before
    for kind in (MMLogger, MessageHub, Visualizer, TrackingVisualizer, DefaultScope):
        assert not [name for name in kind._instance_dict if name.startswith("mimbench")]


def test_a_state_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    state = {"model": {"weight": torch.zeros(1000)}}
    save_state(tmp_path, state, steps=1, epochs=0.5)

    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*step_2\.pth'"):
        save_state(tmp_path, state, steps=2, epochs=1.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_1.json", "step_1.pth"]
    assert amount_done(tmp_path) == 0.5


@pytest.mark.parametrize("limit", [500, 20_000, 60_000, 100_000])
def test_a_state_that_grows_too_large_names_its_file(tmp_path, limit):
    """torch replaces the error of the disk by one of its own, which names neither file nor reason."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: '.*step_1\.pth'"):
            save_state(tmp_path, {"model": {str(n): torch.zeros(5000) for n in range(5)}}, steps=1, epochs=1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_a_stop_on_a_full_disk_says_what_is_left(tmp_path, monkeypatch):
    def full(*arguments, **named):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "step_8.pth")

    class Full(Stopping):
        def training_step(self, batch, generator):
            if len(self.seen) + 1 == self.at:
                monkeypatch.setattr("mimbench.engine.resume.save_state", full)
            return super().training_step(batch, generator)

    with pytest.raises(Interrupted) as stopped:
        train(Full(8), tmp_path)
    assert str(stopped.value).startswith(
        "probe: stopped after step 3 of 5 in epoch 2 of 3, which cannot be saved (OSError"
    )
    assert str(stopped.value).endswith("; saved after epoch 1 of 3")
