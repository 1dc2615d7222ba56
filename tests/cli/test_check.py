"""`mimbench check`."""

from __future__ import annotations

from typing import ClassVar

import pytest

from mimbench import registry
from mimbench_methods.mae import MAE
from mimbench_methods.simmim import SimMIM


class Waived(MAE):
    """MAE with a waiver for a check that it passes, and a mask that is drawn from elsewhere."""

    waivers: ClassVar = {"one_batch_overfits": "it was slow once"}

    def sample_mask(self, batch, generator):
        generator = generator.manual_seed(0)
        return super().sample_mask(batch, generator)


@pytest.fixture
def mae(monkeypatch):
    def replace(method):
        monkeypatch.setattr(registry.methods, "replacements", {"mae": method})

    return replace


@pytest.mark.parametrize(
    "arguments",
    [
        ("method", "mae"),
        ("method", "mae", "--set", "method.mask=block"),
        ("method", "random-init", "--set", "encoder.name=swin"),
        ("encoder", "vit", "--set", "encoder.position=sincos"),
        ("dataset", "digits", "--set", "data.test_limit=20"),
        ("task", "knn"),
    ],
    ids=" ".join,
)
def test_a_sound_plugin_passes(quick, arguments):
    done = quick("check", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"{arguments[0]} {arguments[1]}, from mimbench 0.1.0"
    assert "  metadata_is_complete" in lines[1]
    assert lines[1].endswith("passed")
    assert "failed" not in done.stdout
    assert lines[-1].split(", ")[0].endswith(" passed")


def test_failures_are_printed_and_end_with_1(quick, mae):
    mae(Waived)
    done = quick("check", "method", "mae")
    assert done.returncode == 1
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line.startswith("  ")}
    assert "failed   different seeds give equal masks; draw from `generator` (" in rows["masks_differ"]
    assert "test_check.py:" in rows["masks_differ"]
    assert "in Waived.sample_mask)" in rows["masks_differ"]
    assert "failed   it passes, and is waived; remove the waiver" in rows["one_batch_overfits"]
    assert done.stdout.splitlines()[-1] == "28 passed, 2 failed, 1 skipped"


def test_a_method_that_needs_another_encoder_gets_a_small_one(quick, monkeypatch):
    class ForPyramids(SimMIM):
        encoder_needs = frozenset({"mask-tokens", "pyramid"})

    monkeypatch.setattr(registry.methods, "replacements", {"simmim": ForPyramids})
    done = quick("check", "method", "simmim")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("metod", "mae"), "unknown kind 'metod'; did you mean 'method'"),
        (("method", "maee"), "unknown method 'maee'; did you mean 'mae'"),
        (("method", "mae", "--set", "method.mask_ration=1"), "unknown key 'method.mask_ration'"),
        (("method", "mae", "--set", "method.mask_ratio=1"), "method.mask_ratio = 1: it must be less than 1"),
        (("method", "mae", "--set", "method.mask=grid"), "do not suit a small ViT at 28 px: a grid mask of period 2"),
        (("encoder", "vit", "--set", "encoder.patch_size=5"), "do not suit images of 28 px: image size 28 px is not"),
        (("encoder", "vit", "--set", "method.mask_ratio=0.5"), "'method.mask_ratio' is a setting of a method"),
        (("dataset", "coco"), "coco needs task.data.root"),
        (("dataset", "coco", "--set", "task.data.root=nowhere"), "nowhere"),
    ],
    ids=str,
)
def test_bad_input_is_one_line(quick, arguments, error):
    done = quick("check", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert error in done.stderr


def test_an_unknown_waiver_is_bad_input(quick, mae):
    class Misspelt(MAE):
        waivers: ClassVar = {"one_batch_overfit": "slow"}

    mae(Misspelt)
    done = quick("check", "method", "mae")
    assert done.returncode == 2
    assert (
        "class Misspelt: waivers: 'one_batch_overfit' is no check of a method; did you mean 'one_batch_overfits'"
        in done.stderr
    )
