"""Datasets by name: every built-in is registered, and bad options are one clear line."""

from pathlib import Path

import pytest

from mimbench.contract import Dataset
from mimbench.data import default_cache, open_dataset
from mimbench.errors import InputError
from mimbench.registry import datasets

BUILT_IN = ("cifar10", "cifar100", "digit-scenes", "digits", "folder", "imagenet", "mnist5k", "stl10")


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_keeps_the_contract(name):
    cls = datasets.load(name)
    assert issubclass(cls, Dataset)
    assert cls.name == name
    assert cls.provides in ({"images", "labels"}, {"boxes", "masks"})
    assert "root" not in cls.Config().shaping()


def test_options_reach_the_dataset(tmp_path):
    dataset = open_dataset("digits", {"train_limit": 30}, tmp_path)
    assert len(dataset.split("train")) == 30


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digit", {}, "unknown dataset 'digit'; did you mean 'digits'"),
        ("digits", {"train_limits": 3}, r"unknown key 'data\.train_limits'; did you mean 'train_limit'"),
        ("digits", {"train_limit": 0}, r"data\.train_limit"),
        ("folder", {"channels": 4}, r"data\.channels"),
        ("folder", {"on_bad_image": "skip", "verify": False}, r"on_bad_image=skip needs verify=true"),
    ],
)
def test_bad_input_is_one_line(name, options, message, tmp_path):
    with pytest.raises(InputError, match=message) as caught:
        open_dataset(name, options, tmp_path)
    assert "\n" not in str(caught.value)


def test_where_the_cache_is(monkeypatch):
    monkeypatch.setenv("MIMBENCH_CACHE", "/a/b")
    assert default_cache() == Path("/a/b")
    monkeypatch.delenv("MIMBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert default_cache() == Path("/c/mimbench")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache" / "mimbench"
