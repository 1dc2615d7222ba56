"""Options as they enter fingerprints: files by their content."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mimbench.contract import Config, InputError, PretrainConfig, cosmetic
from mimbench.contract.config import shaping_at
from mimbench.contract.validation import validate


class Inner(Config):
    files: tuple[Path, ...] = ()


class Trained(Config):
    train: PretrainConfig


class Options(Config):
    teacher: Path | None = None
    inner: Inner = Inner()
    by_name: dict[str, Path] | None = None
    log: Path | None = cosmetic(None)
    anything: Any = None


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "teacher.bin"
    path.write_bytes(b"one")
    return path


def test_a_path_option_is_identified_by_the_files_content(file, tmp_path):
    (tmp_path / "other.bin").write_bytes(b"one")
    one = Options(teacher=file).shaping()
    assert one["teacher"].startswith("sha256:")
    assert one == Options(teacher=tmp_path / "other.bin").shaping()
    assert Options().shaping()["teacher"] is None


@pytest.mark.parametrize("wrap", [lambda p: {"teacher": p}, lambda p: {"inner": Inner(files=(p,))},
                                  lambda p: {"by_name": {"a": p}}])  # fmt: skip
def test_another_file_under_the_same_name_size_and_date_is_another_value(wrap, file):
    options, stat = Options(**wrap(file)), file.stat()
    before = options.shaping()
    file.write_bytes(b"two")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert options.shaping() != before
    file.write_bytes(b"one")
    assert options.shaping() == before


def test_a_path_without_a_file_is_one_line(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    paths = {tmp_path / "none": "cannot be read", tmp_path: "is a folder", tmp_path / "pipe": "is a device, pipe"}
    for path, words in paths.items():
        with pytest.raises(InputError, match=f"^teacher: {path} {words}"):
            Options(teacher=path).shaping()
    assert "log" not in Options(log=tmp_path / "none").shaping()


def test_an_option_of_a_nested_table_is_named_by_its_full_path(tmp_path):
    with pytest.raises(InputError, match=rf"^pretrain\.inner\.files: {tmp_path} is a folder"):
        shaping_at(Options(inner=Inner(files=(tmp_path,))), "pretrain")
    with pytest.raises(InputError, match=r"^task\.train\.start is the folder"):
        validate(Trained, {"train": {"epochs": 1, "batch_size": 1, "base_lr": 1.0, "start": tmp_path}}, "task")


def test_a_set_in_an_open_option_is_refused():
    with pytest.raises(InputError, match=r"^anything: it is a set"):
        Options(anything={"a"}).shaping()
