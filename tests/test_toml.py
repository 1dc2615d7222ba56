"""TOML files of every wrong kind: one line each, in every command that takes one."""

from __future__ import annotations

import os

import pytest

from helpers.refusals import refused
from mimbench.errors import InputError
from mimbench.toml import read_toml


@pytest.fixture
def files(tmp_path):
    (tmp_path / "lists.toml").write_text("x=" + "[" * 5000 + "]" * 5000)
    (tmp_path / "tables.toml").write_text("x=" + "{a=" * 5000 + "1" + "}" * 5000)
    (tmp_path / "dotted.toml").write_text("[" + ".".join("a" * 200) + "]\nx = 1\n")
    (tmp_path / "latin.toml").write_bytes('summary = "é"'.encode("latin-1"))
    (tmp_path / "zero.toml").write_bytes(b"x = 'a\0b'")
    with (tmp_path / "huge.toml").open("wb") as stream:
        stream.truncate(2**30)
    (tmp_path / "folder.toml").mkdir()
    os.mkfifo(tmp_path / "pipe.toml")
    return tmp_path


WRONG = [
    ("lists", "nested more than"),
    ("tables", "nested more than"),
    ("dotted", "nested more than"),
    ("latin", "UTF-8"),
    ("zero", "not valid TOML"),
    ("huge", "1,024 MiB"),
    ("folder", "is a folder"),
    ("pipe", "no regular file"),
    ("none", "does not exist"),
]


@pytest.mark.parametrize(("name", "words"), WRONG)
def test_each_command_refuses_it_in_one_line(name, words, files, quick):
    path = f"./{name}.toml"
    run = ("run", "--method", "random-init", "--task", "knn", "--dry-run")
    for command in (
        (*run, "--recipe", path),
        (*run, "--grid", path),
        ("show", "recipe", path),
        ("show", "task", "detection", "--config", "--recipe", path),
    ):
        refused(quick(*command), f"{name}.toml", words)


def test_a_byte_order_mark_is_no_trouble(tmp_path):
    (tmp_path / "mark.toml").write_bytes(b'\xef\xbb\xbfextends = "smoke"\n')
    assert read_toml(tmp_path / "mark.toml", "recipe file") == {"extends": "smoke"}


def test_an_empty_file_is_an_empty_table(tmp_path):
    (tmp_path / "empty.toml").write_text("")
    assert read_toml(tmp_path / "empty.toml", "recipe file") == {}
    with pytest.raises(InputError, match="does not exist"):
        read_toml(tmp_path / "none.toml", "recipe file")
