"""Frozen features on disk: written in full or not at all, also on a disk that fills."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.feature_files import write_large
from mimbench.errors import RunError
from mimbench.store import features
from mimbench.store.features import FeatureFile, is_whole, seal_of

ROWS = np.arange(12, dtype=np.float32).reshape(6, 2)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        assert not (os.environ.get("CI") and os.geteuid() == 0), mounted.stderr
        pytest.skip("a file system can be mounted by root alone")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_rows_come_back_as_numpy_reads_them(tmp_path):
    file = FeatureFile(tmp_path / "features" / "a.npy", 6)
    for block in (ROWS[:4], ROWS[4:]):
        file.add(file.filled, block)
    file.finish()
    file.discard()
    rows = np.load(tmp_path / "features" / "a.npy", mmap_mode="r")
    assert (rows.dtype, rows.tolist()) == (np.dtype("<f4"), ROWS.tolist())
    assert is_whole(tmp_path / "features" / "a.npy")
    assert sorted(path.name for path in (tmp_path / "features").iterdir()) == ["a.npy", "a.seal"]


def test_the_features_of_another_encoder_are_not_sound_under_this_ones_name(tmp_path):
    for name, rows in (("a", ROWS), ("b", ROWS + 1)):
        file = FeatureFile(tmp_path / f"{name}.npy", 6)
        file.add(file.filled, rows)
        file.finish()
    for suffix in (".npy", ".seal"):
        (tmp_path / f"b{suffix}").replace(tmp_path / f"a{suffix}")
    assert not is_whole(tmp_path / "a.npy")


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["pickle", "objects", "flat"])
def test_a_sealed_file_of_something_else_is_not_sound_and_runs_nothing(tmp_path, kind):
    path = tmp_path / "a.npy"
    content = {"objects": np.array([[Payload(tmp_path / "ran")]], dtype=object), "flat": ROWS.ravel()}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    else:
        np.save(path, content[kind], allow_pickle=True)
    seal_of(path).write_text(features._seal(path, features.checksum(path)))
    assert not is_whole(path)
    assert not (tmp_path / "ran").exists()


def interrupted(path):
    """A file of which four rows are noted, and a fifth one is written."""
    file = FeatureFile(path, 6)
    file.add(0, ROWS[:4])
    file.note_progress()
    file.add(4, ROWS[4:5])
    file._stream.flush()


def test_an_interrupted_file_goes_on_after_the_rows_that_are_noted(tmp_path):
    interrupted(path := tmp_path / "a.npy")
    assert not is_whole(path)
    file = FeatureFile(path, 6)
    file.resume()
    assert file.filled == 4
    for start in (0, 2, 4):  # rows that are there are left out
        file.add(start, ROWS[start : start + 2])
    file.finish()
    assert np.load(path).tolist() == ROWS.tolist()
    assert is_whole(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "a.seal"]
    with pytest.raises(RunError, match="rows 0 to 1 are missing"):
        FeatureFile(tmp_path / "b.npy", 6).add(2, ROWS[2:])


@pytest.mark.parametrize("damage", ["bit", "cut", "header", "no part", "no note", "other note", "other rows"])
def test_a_damaged_start_is_written_again(damage, tmp_path):
    interrupted(path := tmp_path / "a.npy")
    part, note = features.part_of(path), features.progress_of(path)
    content = bytearray(part.read_bytes())
    flipped, header = bytearray(content), bytearray(content)
    flipped[128 + 5] ^= 1
    header[20] ^= 1
    {
        "bit": lambda: part.write_bytes(flipped),
        "cut": lambda: part.write_bytes(content[: 128 + 8]),
        "header": lambda: part.write_bytes(header),
        "no part": part.unlink,
        "no note": note.unlink,
        "other note": lambda: note.write_text('{"rows": "x"}'),
        "other rows": lambda: note.write_text(note.read_text().replace("4", "7", 1)),
    }[damage]()
    file = FeatureFile(path, 6)
    file.resume()
    assert file.filled == 0
    assert list(tmp_path.iterdir()) == []
    file.add(0, ROWS)
    file.finish()
    assert np.load(path).tolist() == ROWS.tolist()


def test_missing_rows_are_an_error_and_leave_nothing(tmp_path):
    file = FeatureFile(tmp_path / "a.npy", 6)
    file.add(file.filled, ROWS[:4])
    with pytest.raises(RunError, match="has 6 images and its loader gave 4"):
        file.finish()
    file.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_small_is_an_error_before_the_work(small_disk):
    file = FeatureFile(small_disk / "a.npy", 50_000)
    with pytest.raises(OSError, match="No space left on device") as raised:
        file.add(file.filled, np.ones((1, 8), np.float32))
    file.discard()
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(small_disk / "a.npy"))
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL])
def test_a_disk_that_fills_meanwhile_is_an_error_too(number, small_disk, monkeypatch):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OSError, match="No space left on device") as raised:
        write_large(small_disk)
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(small_disk / "a.npy"))
    assert list(small_disk.iterdir()) == []
    write_large(small_disk, rows=1000)
    assert is_whole(small_disk / "a.npy")


def test_a_seal_that_finds_no_room_leaves_features_that_count_for_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", str(seal_of(tmp_path / "a.npy")))

    monkeypatch.setattr(features, "write_atomic", full)
    with pytest.raises(OSError, match="No space left"):
        write_large(tmp_path, rows=1000)
    assert not is_whole(tmp_path / "a.npy")


def test_a_limit_on_the_size_of_files_is_an_error(tmp_path):
    code = (
        "import resource, sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
        "from helpers.feature_files import write_large; write_large(Path(sys.argv[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path, str(Path(__file__).parents[1])],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr.splitlines()[-1] == f"OSError: [Errno 27] File too large: '{tmp_path / 'a.npy'}'"
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_place_of_the_temporary_file_is_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(b"kept")
    folder = tmp_path / "features"
    folder.mkdir()
    (folder / "a.npy").symlink_to(outside)
    (folder / ".a.npy.part").symlink_to(outside)
    write_large(folder, rows=1000)
    assert outside.read_bytes() == b"kept"
    assert not (folder / "a.npy").is_symlink()
