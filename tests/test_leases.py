"""Leases keep processes apart without file locks, and a process that has lost its lease writes nothing."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from mimbench import leases
from mimbench.errors import InputError, LeaseLost
from mimbench.files import write_atomic
from mimbench.lease_states import list_leases
from mimbench.leases import confirm_leases, has_lost_lease, hold_lease, hold_lease_if_free

ELSEWHERE = "deadbeef-1-1-0a1b2c3d-1"
"""Holder of a lease of one second, on another machine."""

HOLD = """
import sys, time
from pathlib import Path
from mimbench.files import write_atomic
from mimbench.leases import hold_lease
with hold_lease(Path(sys.argv[1]) / "k", "train"):
    print("held", flush=True)
    input()
    write_atomic(Path(sys.argv[1]) / "result", b"first")
"""
"""Holds the lease of `k` until it reads a line, and then publishes a result."""

COUNT = """
import sys
from pathlib import Path
from mimbench.leases import hold_lease
for _ in range(25):
    with hold_lease(Path(sys.argv[1]) / "k", "count"):
        counter = Path(sys.argv[1]) / "counter"
        counter.write_text(str(int(counter.read_text()) + 1))
"""

DIE = """
import os, signal, sys
from pathlib import Path
from mimbench import leases

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[3] == "taking":
    setattr(os, sys.argv[2], die)
with leases.hold_lease(Path(sys.argv[1]) / "k", "train"):
    setattr(os, sys.argv[2], die)
"""

NO_LOCKS = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>
static int refuse(void) { errno = ENOLCK; return -1; }
int flock(int fd, int operation) { return refuse(); }
int lockf(int fd, int command, off_t size) { return refuse(); }
int link(const char *from, const char *to) { return refuse(); }
int linkat(int a, const char *from, int b, const char *to, int flags) { return refuse(); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) { errno = EINVAL; return -1; }
int fcntl64(int fd, int command, ...) {
    va_list arguments; va_start(arguments, command); void *value = va_arg(arguments, void *); va_end(arguments);
    if (command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK || command == F_OFD_SETLKW) return refuse();
    return syscall(SYS_fcntl, fd, command, value);
}
int fcntl(int fd, int command, ...) {
    va_list arguments; va_start(arguments, command); void *value = va_arg(arguments, void *); va_end(arguments);
    return fcntl64(fd, command, value);
}
"""
"""A file system without locks and hard links, as a library to preload."""


def start(code, *arguments, seconds=1, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "MIMBENCH_LEASE_SECONDS": str(seconds), **environment},
    )


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lease of tmp_path/k, of one second."""
    process = start(HOLD, tmp_path)
    assert process.stdout.readline() == "held\n", process.stderr.read()
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def short(monkeypatch):
    """Leases of this process last one second."""
    monkeypatch.setenv("MIMBENCH_LEASE_SECONDS", "1")


def is_free(path):
    with hold_lease_if_free(path, "test") as is_held:
        return is_held


def leave_one_elsewhere(folder, beat=0):
    """A lease of a process on another machine, at `folder`/k. Returns the file that is its state."""
    path = folder / "k.lease"
    path.mkdir(exist_ok=True)
    for old in path.iterdir():
        old.unlink()
    (path / f"{ELSEWHERE}.{beat}").touch()
    return path / f"{ELSEWHERE}.{beat}"


def test_one_process_holds_a_lease_and_nothing_is_left_of_it(tmp_path):
    with hold_lease(tmp_path / "k", "train"):
        assert not is_free(tmp_path / "k")
        assert is_free(tmp_path / "other")
    assert is_free(tmp_path / "k")
    assert list(tmp_path.iterdir()) == []


def test_a_lease_says_who_holds_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    with hold_lease(tmp_path / "one", "pretraining mae"):
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "16")
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
        with hold_lease(tmp_path / "two", "mae, knn"):
            one, two = list_leases(tmp_path)
    assert (one.key, one.what, one.host, one.pid) == ("one", "pretraining mae", socket.gethostname(), os.getpid())
    assert (one.job, two.job) == ("17", "16_3")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", one.since)
    assert one.silent < 10
    assert not one.is_over
    assert list_leases(tmp_path) == list_leases(tmp_path / "missing") == []


def test_the_lease_of_a_killed_process_is_taken_over_at_once(tmp_path, holder):
    assert not is_free(tmp_path / "k")
    holder.kill()
    holder.wait()
    assert [lease.is_over for lease in list_leases(tmp_path)] == [True]
    assert is_free(tmp_path / "k")
    assert not (tmp_path / "k.lease").exists()


def test_a_process_that_was_stopped_too_long_writes_nothing_when_it_goes_on(tmp_path, holder):
    holder.send_signal(signal.SIGSTOP)
    waited = []
    started = time.monotonic()
    with hold_lease(tmp_path / "k", "train again", lambda: waited.append(True)):
        assert waited == [True]
        assert 0.9 < time.monotonic() - started < 5
        write_atomic(tmp_path / "result", b"second")
        holder.send_signal(signal.SIGCONT)
        _, errors = holder.communicate("\n", timeout=20)
        assert f"LeaseLost: train: stopped, since process {os.getpid()} on {socket.gethostname()} has taken" in errors
        confirm_leases()
        assert [lease.what for lease in list_leases(tmp_path)] == ["train again"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result"]
    assert (tmp_path / "result").read_bytes() == b"second"


def test_a_process_that_was_stopped_keeps_a_lease_that_nobody_took(tmp_path, holder):
    holder.send_signal(signal.SIGSTOP)
    time.sleep(1.5)
    holder.send_signal(signal.SIGCONT)
    _, errors = holder.communicate("\n", timeout=20)
    assert (holder.returncode, errors) == (0, "")
    assert (tmp_path / "result").read_bytes() == b"first"


def test_a_busy_process_gives_signs_of_life(tmp_path, holder):
    deadline = time.monotonic() + 2.5
    while time.monotonic() < deadline:
        assert not is_free(tmp_path / "k")
        time.sleep(0.1)


@pytest.mark.parametrize("years", [-10, 10])
def test_a_lease_of_another_machine_is_over_when_it_stays_silent_by_the_own_clock(tmp_path, monkeypatch, years):
    state = leave_one_elsewhere(tmp_path)
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    shifted = time.time() + years * 3e7
    monkeypatch.setattr(time, "time", lambda: shifted)
    path = tmp_path / "k"
    assert not is_free(path)
    now[0] += 0.9
    assert not is_free(path)
    state.rename(state.with_suffix(".1"))
    now[0] += 0.9
    assert not is_free(path)
    now[0] += 1.1
    assert is_free(path)


def test_a_sign_of_life_in_the_last_moment_saves_a_lease(tmp_path, monkeypatch):
    state = leave_one_elsewhere(tmp_path)
    monkeypatch.setattr(leases, "_is_over", lambda *_: state.rename(state.with_suffix(".1")))
    assert not is_free(tmp_path / "k")
    assert [path.name for path in state.parent.iterdir()] == [f"{ELSEWHERE}.1"]


@pytest.mark.parametrize("step", ["take", "take over", "confirm"])
def test_a_rename_that_a_network_file_system_repeats_is_no_loss(tmp_path, monkeypatch, step):
    rename = os.rename

    def twice(source, target):
        rename(source, target)
        rename(source, target)

    if step == "take over":
        leave_one_elsewhere(tmp_path)
        monkeypatch.setattr(leases, "_is_over", lambda *_: True)
    if step != "confirm":
        monkeypatch.setattr(os, "rename", twice)
    with hold_lease_if_free(tmp_path / "k", "train") as is_held:
        assert is_held
        monkeypatch.setattr(os, "rename", twice)
        confirm_leases()
        monkeypatch.setattr(os, "rename", rename)
        confirm_leases()
        assert not has_lost_lease()
    assert not list(tmp_path.iterdir())


def test_a_lease_whose_folder_was_deleted_is_lost(tmp_path):
    with hold_lease(tmp_path / "k", "train"):
        shutil.rmtree(tmp_path / "k.lease")
        with pytest.raises(LeaseLost, match=r"train: stopped, since .*k\.lease was deleted"):
            write_atomic(tmp_path / "f", b"")
        assert has_lost_lease()
    assert not has_lost_lease()
    confirm_leases()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("step", "when"), [("mkdir", "taking"), ("rename", "taking"), ("unlink", "giving"), ("rmdir", "giving")]
)
def test_a_process_may_be_killed_at_any_step(tmp_path, step, when):
    process = start(DIE, tmp_path, step, when)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGKILL, errors
    assert is_free(tmp_path / "k")
    assert not (tmp_path / "k.lease").exists()


def test_a_killed_taker_leaves_what_the_next_removes(tmp_path):
    (tmp_path / "k.lease").mkdir()
    (tmp_path / "k.lease" / f"{ELSEWHERE}.json").write_text("{")
    assert list_leases(tmp_path) == []
    assert is_free(tmp_path / "k")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not shutil.which("gcc"), reason="gcc compiles the library that refuses locks")
def test_four_processes_take_turns_without_file_locks_and_hard_links(tmp_path):
    library = tmp_path / "no_locks.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", library], input=NO_LOCKS, text=True, check=True)
    refused = "import fcntl; fcntl.flock(open('f', 'w'), fcntl.LOCK_EX)"
    process = subprocess.run([sys.executable, "-c", refused], env={"LD_PRELOAD": str(library)}, cwd=tmp_path)
    assert process.returncode == 1
    (tmp_path / "counter").write_text("0")
    counters = [start(COUNT, tmp_path, LD_PRELOAD=str(library)) for _ in range(4)]
    for counter in counters:
        _, errors = counter.communicate(timeout=60)
        assert (counter.returncode, errors) == (0, "")
    assert (tmp_path / "counter").read_text() == "100"
    assert not (tmp_path / "k.lease").exists()


def test_a_forked_process_holds_no_lease(tmp_path):
    with hold_lease(tmp_path / "k", "train"):
        child = os.fork()
        if child == 0:
            confirm_leases()
            os._exit(len(leases._held))
        assert os.waitpid(child, 0)[1] == 0
        confirm_leases()


def test_what_is_no_folder_of_a_lease_is_one_line(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link.lease").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "file.lease").touch()
    for name, advice in (("link", "it is a link; delete it"), ("file", "is a file; delete that")):
        with pytest.raises(InputError, match=rf"{name}\.lease cannot be made \(.*\); .*{advice}"):
            is_free(tmp_path / name)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert list_leases(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "advice"), [(errno.ENOSPC, "free space on its disk"), (errno.EROFS, "make its folder writable")]
)
def test_a_lease_that_cannot_be_made_says_why(tmp_path, monkeypatch, number, advice):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(InputError, match=rf"k\.lease cannot be made \({os.strerror(number)}\); {advice}.*--results"):
        is_free(tmp_path / "k")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "two", ""])
def test_the_seconds_of_a_lease_are_checked(tmp_path, monkeypatch, text):
    monkeypatch.setenv("MIMBENCH_LEASE_SECONDS", text)
    with pytest.raises(InputError, match=f"MIMBENCH_LEASE_SECONDS = {text!r}: it must be a whole number from 1"):
        is_free(tmp_path / "k")
