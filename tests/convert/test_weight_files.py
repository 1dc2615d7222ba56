"""Weights on disk: read as data, never as code."""

import argparse
import sys
import types

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mimbench.convert import read_weights
from mimbench.errors import InputError

STATE = {"a.weight": torch.arange(4.0)}


class Evil:
    ran = False

    def __reduce__(self):
        return (_run, ())


def _run():
    Evil.ran = True
    return {}


def test_plain_files(tmp_path):
    torch.save(STATE, tmp_path / "plain.pth")
    torch.save({"state_dict": STATE, "meta": {"epoch": 3}}, tmp_path / "wrapped.pt")
    save_file(STATE, tmp_path / "safe.safetensors")
    torch.save({"model": STATE}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("plain.pth", "wrapped.pt", "safe.safetensors", "old.pth"):
        assert torch.equal(read_weights(tmp_path / name).state["a.weight"], STATE["a.weight"])


def test_what_training_scripts_save_with_the_weights_is_ignored(tmp_path, monkeypatch):
    yacs = types.ModuleType("yacs.config")

    class CfgNode(dict):
        pass

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    yacs.CfgNode = CfgNode
    monkeypatch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", yacs)
    config = CfgNode({"MODEL": CfgNode({"TYPE": "vit"})})
    config.frozen = True
    extras = {"args": argparse.Namespace(lr=1e-3), "max_accuracy": np.float64(83.8), "config": config, "epoch": 99}
    torch.save({"model": STATE, **extras}, tmp_path / "checkpoint.pth")
    monkeypatch.delitem(sys.modules, "yacs.config")
    assert list(read_weights(tmp_path / "checkpoint.pth").state) == ["a.weight"]


def test_a_pickle_that_needs_code_is_refused_and_not_run(tmp_path):
    torch.save({"model": STATE, "extra": Evil()}, tmp_path / "evil.pth")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    torch.save({"model": STATE, "extra": Evil()}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name, word in (("evil.pth", "_run"), ("module.pth", "Linear"), ("old.pth", "_run")):
        with pytest.raises(InputError, match=rf"pickle that needs code to be run \(.*{word}.*state_dict"):
            read_weights(tmp_path / name)
    assert not Evil.ran


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_weights(tmp_path / "none.pth")
    for name in ("broken.safetensors", "broken.pth", "empty.pth"):
        path = tmp_path / name
        path.write_bytes(b"" if name.startswith("empty") else b"not weights at all")
        with pytest.raises(InputError, match=name):
            read_weights(path)
    torch.save({"model": STATE}, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:400])
    with pytest.raises(InputError, match=r"cut\.pth"):
        read_weights(tmp_path / "cut.pth")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        ("a.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        ("a.pth", b"<!DOCTYPE html><html>404</html>", "is a web page"),
        ("a.bin", b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
        ("a.pth.gz", b"\x1f\x8b\x08", "is compressed"),
        ("model.safetensors.index.json", b"{}", "index of weights in several files; join those"),
    ],
)
def test_files_that_are_taken_for_checkpoints(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_weights(tmp_path / name)


def test_torchscript_is_named(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "a.pt")
    with pytest.raises(InputError, match="is a TorchScript archive, which holds code"):
        read_weights(tmp_path / "a.pt")
