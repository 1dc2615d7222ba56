"""Pretrainings whose images change their size: training, record, resuming, plan and estimate."""

from __future__ import annotations

import json

import pytest
import torch

from mimbench import registry
from mimbench.contract import ImageSplit, Method, View
from mimbench.engine.device import device_name
from mimbench.engine.hooks import HistoryHook
from mimbench.errors import InputError
from mimbench.harness.planning.cells import Pretraining
from mimbench.harness.planning.dryrun import describe_plan, summarize_plan
from mimbench.harness.planning.estimate import Estimator
from mimbench.recipe.show import describe

GROWING = ["pretrain.image_sizes=[[0, 14], [0.5, 28]]", "encoder.patch_size=7", "pretrain.epochs=4"]
PLAIN = ["encoder.patch_size=7", "pretrain.epochs=4"]


def weights(bench) -> str:
    (path,) = bench.store.root.glob("checkpoints/*/checkpoint.json")
    return json.loads(path.read_text())["sha256"]["encoder.safetensors"]


class Files(ImageSplit):
    """The images of an ArraySplit as if each were read from a file, so that workers crop them."""

    def __init__(self, split):
        self.split = split
        self.labels, self.classes, self.pixel_range = split.labels, split.classes, split.pixel_range

    def __len__(self):
        return len(self.split)

    def __getitem__(self, index):
        return self.split[index]


def test_mae_trains_small_and_then_large(bench):
    (record,) = bench.run("mae", settings=GROWING).records
    assert len(record.checkpoint.loss) == 4
    assert all(torch.isfinite(torch.tensor(record.checkpoint.loss)))
    assert record.checkpoint.cost.images_seen == 4 * 64
    assert record.recipe["pretrain"]["image_sizes"] == [[0.0, 14], [0.5, 28]]
    small = weights(bench)
    bench.moves("plain")
    bench.run("mae", settings=PLAIN)
    assert weights(bench) != small


@pytest.mark.parametrize("stop", [3, 4, 5])
@pytest.mark.parametrize("source", ["memory", "files"])
def test_a_stopped_training_that_resumes_has_the_same_weights(bench, monkeypatch, source, stop):
    settings = [*GROWING, "pretrain.checkpoint_steps=1", "pretrain.workers=2"]
    if source == "files":
        images = Pretraining.images
        monkeypatch.setattr(Pretraining, "images", lambda pretraining: Files(images(pretraining)))
    bench.run("mae", settings=settings)
    whole = weights(bench)
    bench.moves("stopped")
    after = HistoryHook.after_train_iter

    def fail(hook, runner, *arguments, **named):
        after(hook, runner, *arguments, **named)
        if runner.iter == stop:
            raise RuntimeError("stopped")

    with monkeypatch.context() as patched:
        patched.setattr(HistoryHook, "after_train_iter", fail)
        assert len(bench.run("mae", settings=settings).failures) == 1
    assert len(bench.run("mae", settings=settings).records) == 1
    assert "resumes after" in bench.said
    assert weights(bench) == whole


def test_the_estimate_uses_trainings_with_the_same_sizes(bench, tmp_path):
    bench.run("mae", settings=GROWING)
    device = device_name(torch.device("cpu"))
    estimator = Estimator.from_results(bench.store.root, device)
    seconds = {
        name: estimator.pretraining_seconds(bench.planned("mae", settings=settings)[1][0].pretraining)
        for name, settings in (("growing", [*GROWING, "pretrain.epochs=8"]), ("plain", PLAIN))
    }
    assert estimator.checkpoints == 1
    assert seconds["plain"] is None
    assert seconds["growing"] > 0
    _, cells = bench.planned("mae", settings=PLAIN)
    assert "no estimate for: pretraining mae (1)" in describe_plan(
        summarize_plan(cells, bench.store.root, device), tmp_path
    )


def test_sizes_enter_the_fingerprint_only_if_they_are_set(bench):
    def print_of(method, *settings):
        return bench.planned(method, settings=[*PLAIN, *settings])[1][0].pretraining.fingerprint

    sizes = "pretrain.image_sizes=[[0, 14], [0.5, 28]]"
    assert print_of("mae", sizes) != print_of("mae")
    assert print_of("mae", "pretrain.image_sizes=[]") == print_of("mae")
    assert print_of("random-init", sizes) == print_of("random-init")


def test_a_recipe_shows_the_masks_at_each_size():
    shown = describe("smoke", "mae", {"pretrain.image_sizes": [[0, 16], [0.5, 28]]})
    assert "image_sizes = [[0.0, 16], [0.5, 28]]  # set on the command line" in shown
    assert "# at 16 px, mask: 12 of 4 x 4 = 16 patches masked (75.0%)" in shown
    assert "# at 28 px, mask: 37 of 7 x 7 = 49 patches masked (75.5%)" in shown
    uneven = describe("smoke", "mae", {"pretrain.image_sizes": [[0, 14]]})
    assert "# at 14 px, mask: not counted: 14 px is no multiple of the encoder's stride, 4 px" in uneven


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("mae", ["pretrain.epochs=1"], "28 px, from 0.5 of the training on, would never be used"),
        ("mae", ["pretrain.image_sizes=[[0, 15]]"], "at 15 px: 15 px is no multiple of the encoder's stride, 7 px"),
        ("mae", ["pretrain.image_sizes=[[0, 28]]"], "images have 28 px anyway; leave the option out"),
        ("mae", ["pretrain.image_sizes=[[0, 7]]"], "at 7 px: mask ratio 0.75 masks everything of 1 cells"),
        ("mae", ["method.mask=grid", "pretrain.image_sizes=[[0, 21]]"], "at 21 px: a grid mask of period 2 does not"),
        (
            "simmim",
            ["method.mask_patch_size=14", "pretrain.image_sizes=[[0, 21]]"],
            "at 21 px: method.mask_patch_size 14 px does not divide the image, 21 px",
        ),
        ("simmim", ["method.mask_patch_size=7", "method.head=inverse-swin"], 'at 14 px: method.head "inverse-swin" is'),
        (
            "simmim",
            ["method.mask_patch_size=7", "method.target_size=4"],
            "at 14 px: method.target_size 4 px is for images of one",
        ),
        (
            "simmim",
            ["method.mask_patch_size=7", "encoder.position=relative-per-block"],
            "pretrain.image_sizes needs an encoder that can take images of other sizes than input.image_size; vit",
        ),
        (
            "mae",
            ["pretrain.image_sizes=[[0, 70000]]"],
            "lower the sizes in pretrain.image_sizes or pretrain.batch_size",
        ),
    ],
)
def test_what_cannot_follow_is_refused_in_one_line(bench, method, settings, message):
    with pytest.raises(InputError) as refused:
        bench.planned(method, settings=[*GROWING, *settings])
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


class Fixed(registry.methods.load("simmim")):
    name = "fixed"
    set_image_size = Method.set_image_size


class Local(registry.methods.load("mae")):
    name = "local"

    @classmethod
    def views(cls, config, input):
        return input, View.from_input(input, image_size=14)


def test_a_plugin_that_does_not_follow_is_refused_by_name(bench, monkeypatch):
    for cls in (Fixed, Local):
        monkeypatch.setitem(registry.methods.replacements, cls.name, cls)
    with pytest.raises(InputError, match=r"at 14 px: method 'fixed' trains on images of one size; leave"):
        bench.planned("fixed", settings=[*GROWING, "method.mask_patch_size=7"])
    assert bench.planned("local", settings=GROWING)
    with pytest.raises(InputError, match=r"at 21 px of 28, a view of 14 px would have 10\.5 px, since all views scale"):
        bench.planned("local", settings=[*GROWING, "pretrain.image_sizes=[[0, 21]]"])


def test_plans_of_several_schedules_check_each(bench):
    with pytest.raises(InputError, match="at 15 px"):
        bench.planned("mae", settings=PLAIN, vary=["pretrain.image_sizes=[],[[0, 15]]"])
