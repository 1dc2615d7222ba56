"""Files are whole or not there, errors name them, and what killed processes leave is removed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mimbench.files import (
    FOREIGN_SECONDS,
    error_number,
    naming,
    remove_abandoned,
    temporary_prefix,
    write_atomic,
    writing_into,
)

WRITE = """
import os, signal, sys
from pathlib import Path
from mimbench import files

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(os, sys.argv[2], die)
files.write_atomic(Path(sys.argv[1]), b"content")
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def kill_while_writing(path, step):
    """A process that is killed by SIGKILL at one step of writing `path`."""
    done = subprocess.run([sys.executable, "-c", WRITE, str(path), step], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("step", ["fdopen", "fsync", "chmod", "replace"])
def test_what_a_killed_write_leaves_is_removed_by_the_next(step, tmp_path):
    path = tmp_path / "record.json"
    path.write_bytes(b"old")
    kill_while_writing(path, step)
    left = [name for name in names(tmp_path) if name != "record.json"]
    assert len(left) == 1
    assert left[0].startswith(".record.json.")
    assert path.read_bytes() == b"old"
    remove_abandoned(tmp_path)
    assert names(tmp_path) == ["record.json"]


def test_writing_any_file_removes_temporary_files_left_in_its_folder(tmp_path):
    kill_while_writing(tmp_path / "a", "fsync")
    write_atomic(tmp_path / "b", b"b")
    assert names(tmp_path) == ["b"]


def test_temporary_files_of_living_processes_stay(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    current = temporary_prefix("own") + "abcdefgh"
    start = subprocess.check_output(["sed", r"s/.*) //", f"/proc/{other.pid}/stat"], text=True).split()[19]
    place = current.split(".")[2].split("-")[0]
    alive, recycled = f".x.{place}-{other.pid}-{start}.abcdefgh", f".x.{place}-{other.pid}-7.abcdefgh"
    for name in (current, alive, recycled, ".x.json", ".hidden", "x.deadbeef-1-1.abcdefgh"):
        (tmp_path / name).write_bytes(b"")
    remove_abandoned(tmp_path)
    assert set(names(tmp_path)) == {current, alive, ".x.json", ".hidden", "x.deadbeef-1-1.abcdefgh"}
    other.kill()
    try:
        deadline = time.monotonic() + 10
        while (tmp_path / alive).exists() and time.monotonic() < deadline:
            remove_abandoned(tmp_path)  # the killed process was not waited for: it is a zombie
        assert not (tmp_path / alive).exists()
    finally:
        other.wait()


def test_temporary_files_of_other_machines_stay_for_a_day(tmp_path):
    young, old = tmp_path / ".x.0123abcd-1-1.abcdefgh", tmp_path / ".y.0123abcd-1-1.abcdefgh"
    for path in (young, old):
        path.mkdir()
        (path / "encoder.safetensors").write_bytes(b"half")
    past = time.time() - FOREIGN_SECONDS - 60
    os.utime(old, (past, past))
    remove_abandoned(tmp_path)
    assert names(tmp_path) == [young.name]


def test_a_folder_that_is_not_there_holds_nothing_to_remove(tmp_path):
    remove_abandoned(tmp_path / "none")
    (tmp_path / "file").write_bytes(b"")
    remove_abandoned(tmp_path / "file")


@pytest.mark.parametrize("name", ["x" * 250, "ä" * 120, "a\nb"])
def test_long_and_odd_names_are_written_and_their_litter_recognised(name, tmp_path):
    write_atomic(tmp_path / name, b"1")
    assert (tmp_path / name).read_bytes() == b"1"
    kill_while_writing(tmp_path / name, "fsync")
    remove_abandoned(tmp_path)
    assert names(tmp_path) == [name]


def test_a_write_that_fails_names_the_file_and_leaves_nothing(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as raised:
        write_atomic(tmp_path / "a.json", b"x")
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(tmp_path / "a.json"))
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_named_by_the_file_not_its_temporary_one():
    with pytest.raises(OSError, match=r"'/proc/none/a\.json'") as raised:
        write_atomic(Path("/proc/none/a.json"), b"x")
    assert raised.value.errno in (errno.ENOENT, errno.EACCES, errno.EROFS)


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded"), errno.EDQUOT),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), errno.ENOSPC),
        (RuntimeError("Caught OSError in DataLoader worker process 0.\nOSError: [Errno 5] Input/output"), errno.EIO),
        (OSError("1000000 requested and 38384 written"), errno.ENOSPC),
        (ValueError("28"), None),
    ],
)
def test_the_number_of_an_error_is_found_in_its_text_too(error, number):
    assert error_number(error) == number


def test_errors_of_any_library_come_to_name_the_file(tmp_path):
    with pytest.raises(OSError, match=r"w\.safetensors") as raised, naming(tmp_path / "w.safetensors"):
        raise RuntimeError("I/O error: No space left on device (os error 28)")
    assert raised.value.errno == errno.ENOSPC
    with pytest.raises(ValueError, match="other"), naming(tmp_path):
        raise ValueError("other")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_that_no_file_is_named_of_names_the_folder(number, tmp_path):
    with pytest.raises(OSError, match=str(tmp_path)) as raised, writing_into(tmp_path):
        raise OSError(number, "full")
    assert raised.value.errno == number
    with pytest.raises(OSError, match="'named'"), writing_into(tmp_path):
        raise OSError(number, "full", "named")
    for other in (OSError(errno.EACCES, "no"), ValueError("other")):
        with pytest.raises(type(other)) as raised, writing_into(tmp_path):
            raise other
        assert raised.value is other
