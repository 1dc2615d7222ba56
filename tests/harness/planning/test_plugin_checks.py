"""What plugins give at planning and after a run, held against their contract."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from torch import nn

from helpers.refusals import refused
from helpers.toy_plugins import Toy
from mimbench import registry
from mimbench.contract import (
    ArraySplit,
    Dataset,
    Features,
    GroupedSamples,
    Measured,
    Metric,
    SampleScores,
    SegmentedPixels,
    TaskResult,
)
from mimbench.errors import RunError
from mimbench.harness.planning.plugin_checks import check_result


class Grey(Dataset):
    name = "grey"
    channels = 1

    def fingerprint(self):
        return "grey"

    def split(self, name):
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (40, 1, 28, 28), dtype=torch.uint8, generator=generator)
        return self.changed(ArraySplit(images, torch.arange(40) % 4, ("a", "b", "c", "d")))

    def changed(self, split):
        return split


@pytest.fixture
def planned(quick, monkeypatch):
    def run(*settings, method="random-init", dataset=Grey):
        monkeypatch.setitem(registry.datasets.replacements, "grey", dataset)
        monkeypatch.setattr(type(registry.datasets), "names", lambda self: ["grey"])
        options = [word for setting in settings for word in ("--set", setting)]
        arguments = ("run", "--method", method, "--task", "knn", "--recipe", "./own.toml", "--dry-run", *options)
        return quick(*arguments)

    return run


RECIPE = """
[data]
name = "grey"
[input]
image_size = 28
mean = [0.1]
std = [0.3]
[encoder]
name = "vit"
patch_size = 4
embed_dim = 32
depth = 1
num_heads = 2
[pretrain]
epochs = 1
batch_size = 8
base_lr = 1e-3
"""


@pytest.fixture(autouse=True)
def _own_recipe(tmp_path):
    (tmp_path / "own.toml").write_text(RECIPE)


def with_change(change):
    return type("Changed", (Grey,), {"changed": lambda self, split: change(split)})


def test_a_sound_dataset_passes(planned):
    assert planned().returncode == 0


CHANGES = [
    (
        lambda s: ArraySplit(s.images.double(), s.labels, s.classes),
        "image 0 is torch.float64 [1, 28, 28]; return a tensor of uint8",
    ),
    (
        lambda s: ArraySplit(s.images.float() / 255, s.labels, s.classes),
        "image 0 has pixels from 0 to 1, and pixel_range is (0, 255); set pixel_range = (0.0, 1.0)",
    ),
    (
        lambda s: ArraySplit(8.0 * s.images, s.labels, s.classes),
        "and pixel_range is (0, 255); set it to the values of black and of full brightness",
    ),
    (
        lambda s: ArraySplit(s.images, s.labels, s.classes, pixel_range=(0, 1)),
        "image 0 is uint8, and pixel_range is (0, 1); leave it at (0, 255)",
    ),
    (lambda s: ArraySplit(s.images, s.labels + 1, s.classes), "labels run from 1 to 4, beyond 0 to 3"),
    (lambda s: ArraySplit(s.images, s.labels - 1, s.classes), "labels run from -1 to 2"),
    (lambda s: ArraySplit(s.images, s.labels.int(), s.classes), "labels are torch.int32 [40]; return int64 [40]"),
    (lambda s: ArraySplit(s.images, s.labels[:9], s.classes), "labels are torch.int64 [9]; return int64 [40]"),
    (lambda s: ArraySplit(s.images, s.labels.tolist(), s.classes), "labels are a list; return int64 [40]"),
    (
        lambda s: ArraySplit(s.images.expand(-1, 4, -1, -1), s.labels, s.classes),
        "image 0 has shape [4, 28, 28], and channels is 1; return [1, H, W]",
    ),
    (lambda s: ArraySplit(s.images.squeeze(1), s.labels, s.classes), "image 0 has shape [28, 28]"),
    (
        lambda s: ArraySplit(s.images, s.labels, s.classes, {"ground": s.labels[:3]}),
        "values of the attribute 'ground' are torch.int64 [3]; return int64 [40]",
    ),
    (
        lambda s: ArraySplit(s.images, s.labels, s.classes, {"ground": s.labels.tolist()}),
        "values of the attribute 'ground' are a list; return int64 [40]",
    ),
]


@pytest.mark.parametrize(
    "change",
    [
        lambda s: ArraySplit(s.images.float() / 255, s.labels, s.classes, pixel_range=(0, 1)),
        lambda s: ArraySplit(s.images.to(torch.uint16), s.labels, s.classes, pixel_range=(0, 4095)),
    ],
)
def test_pixels_of_other_types_pass_with_their_range(planned, change):
    assert planned(dataset=with_change(change)).returncode == 0


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_images_and_labels_are_looked_at_before_anything_is_computed(change, words, planned):
    refused(
        planned(dataset=with_change(change)),
        "dataset 'grey' of ",
        "in its train split",
        words,
        "test_plugin_checks.py:",
    )


def test_a_dataset_has_a_train_and_a_test_split(planned):
    refused(planned(dataset=type("Odd", (Grey,), {"parts": ("train", "validation")})), "without 'train' and 'test'")
    assert planned(dataset=type("More", (Grey,), {"parts": ("train", "test", "validation")})).returncode == 0


@pytest.mark.parametrize("fingerprint", [lambda self: os.urandom(8).hex(), lambda self: 3, lambda self: None])
def test_a_fingerprint_is_a_text_that_stays(fingerprint, planned):
    restless = type("Restless", (Grey,), {"fingerprint": fingerprint})
    refused(planned(dataset=restless), "dataset 'grey'", "its fingerprint is", "depends on the content alone")


def method_with(monkeypatch, **attributes):
    cls = type("Odd", (registry.methods.load("random-init"),), {"name": "odd", **attributes})
    monkeypatch.setitem(registry.methods.replacements, "odd", cls)
    return ("run", "--method", "odd", "--task", "knn", "--recipe", "smoke", "--dry-run")


def test_what_a_method_exports_is_a_separate_encoder(quick, monkeypatch):
    for exported, words in (
        (lambda self: nn.Linear(2, 2), "gives a Linear, not an Encoder"),
        (lambda self: None, "gives a NoneType, not an Encoder"),
        (lambda self: _built_again(self.encoder), "no part of the method"),
    ):
        refused(quick(*method_with(monkeypatch, exported_encoder=exported)), "method 'odd' of ", words)


def _built_again(encoder):
    return type(encoder)(encoder.config, image_size=encoder.image_size, in_channels=encoder.in_channels)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"embed": lambda vit, self, images: vit.embed(self, images).flatten(1, 2)}, "embed has shape [1, 49, "),
        ({"embed": lambda vit, self, images: [vit.embed(self, images)]}, "embed is a list; return a tensor [1, 7, 7, "),
        (
            {"forward_layers": lambda vit, self, *rest, **named: vit.forward_layers(self, *rest, **named)[:1]},
            "forward_layers returns 1 layers, and num_layers is ",
        ),
        (
            {"forward_layers": lambda vit, self, *_, **named: [torch.zeros(1, 7, 7, 4)]},
            "forward_layers returns a list of torch.float32 [1, 7, 7, 4]; return a list of mimbench.api.Features",
        ),
        (
            {"forward_layers": lambda vit, self, *_, **named: [Features.from_map(torch.zeros(1, 4, 7, 7))] * 2},
            "layer 0 of forward_layers: prefix has shape [1, 0, 4], and by the declared sizes [1, 1, 4]",
        ),
    ],
)
def test_an_encoder_of_other_shapes_is_blamed_before_anything_is_trained(changes, words, quick, monkeypatch):
    vit = registry.encoders.load("vit")

    def changed(call):
        return lambda self, *rest, **named: call(vit, self, *rest, **named)

    methods = {name: changed(call) for name, call in changes.items()}
    monkeypatch.setitem(registry.encoders.replacements, "vit", type("Odd", (vit,), methods))
    arguments = ("run", "--method", "simmim", "--task", "knn", "--recipe", "smoke", "--set", "encoder.depth=2")
    refused(quick(*arguments), "encoder 'vit' of mimbench", words, "test_plugin_checks.py:")


@pytest.mark.parametrize("value", [None, 2.0, "2"])
def test_an_encoder_has_its_numbers(value, quick, monkeypatch):
    vit = registry.encoders.load("vit")

    class Odd(vit):
        def __init__(self, config, **sizes):
            super().__init__(config, **sizes)
            self.__dict__["num_layers"] = value

    monkeypatch.setitem(registry.encoders.replacements, "vit", Odd)
    arguments = ("run", "--method", "random-init", "--task", "knn", "--recipe", "smoke", "--dry-run")
    refused(quick(*arguments), "encoder 'vit' of mimbench", f"num_layers is {value!r}", "test_plugin_checks.py:")


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (
            lambda batch: torch.zeros(batch, 7, 7),
            "is torch.float32 [2, 7, 7] for 2 images; return bool [2, rows, columns], True = masked",
        ),
        (lambda batch: torch.zeros(1, 7, 7, dtype=torch.bool), "is torch.bool [1, 7, 7] for 2 images"),
        (lambda batch: torch.zeros(batch, 49, dtype=torch.bool), "is torch.bool [2, 49] for 2 images"),
        (lambda batch: torch.zeros(batch, 5, 5, dtype=torch.bool), "has 5 x 5 cells, and the encoder has 7 x 7"),
    ],
)
def test_masks_are_looked_at_before_anything_is_trained(mask, words, quick, monkeypatch):
    attributes = {"pretrains": True, "sample_mask": lambda self, batch, generator: mask(batch)}
    refused(quick(*method_with(monkeypatch, **attributes)), "method 'odd' of ", "sample_mask", words)


@pytest.mark.parametrize("mask", [object(), torch.zeros(2, 14, 7, dtype=torch.bool)])
def test_masks_of_a_method_s_own_kind_and_on_any_grid_pass(mask, quick, monkeypatch):
    attributes = {"pretrains": True, "sample_mask": lambda self, batch, generator: mask}
    assert quick(*method_with(monkeypatch, **attributes)).returncode == 0


class Two(Toy):
    metrics = (Metric("score", "percent", 0.0, 100.0), Metric("other", "percent", 0.0, 100.0))


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ({"other": Measured(1.0, 1)}, "left out its primary metric 'score'; it reported other"),
        ({}, "left out its primary metric 'score'"),
        ({"score": Measured(float("nan"), 1)}, "reported score = nan, which is no finite number"),
        ({"score": Measured(1.0, 1), "other": Measured(float("inf"), 1)}, "reported other = inf"),
        ({"score": Measured(None, 1)}, "reported score = None"),
        ({"score": 3.0}, r"reported score = 3.0, a float; return mimbench.api.Measured\(value, number of samples\)"),
        ({"score": Measured(1.0, 1), "purity": Measured(1.0, 1)}, "undeclared metrics: purity"),
    ],
)
def test_a_result_has_its_primary_metric_and_finite_numbers(metrics, words):
    with pytest.raises(RunError, match=f"task 'toy' of .*{words}"):
        check_result(Two(Two.Config()), TaskResult(metrics))


def test_a_secondary_metric_may_be_left_out():
    check_result(Two(Two.Config()), TaskResult({"score": Measured(torch.tensor(3.0), 1)}))


def test_such_a_result_is_a_failure_that_is_noted(bench, monkeypatch):
    monkeypatch.setattr(Toy, "run", lambda self, *_: TaskResult({"score": Measured(float("nan"), 1)}))
    ((_, reason),) = bench.run().failures
    assert "task 'toy' of no installed package reported score = nan" in reason


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ({"loss": [1.0]}, "reported scores as a dict; return mimbench.api.SampleScores"),
        (
            SampleScores(torch.arange(2), {"loss": torch.ones(3)}),
            r"be stored: loss is \[3\], and there are 2 ids",
        ),
    ],
)
def test_scores_of_another_form_are_refused(scores, words):
    with pytest.raises(RunError, match=words):
        check_result(Two(Two.Config()), TaskResult({"score": Measured(3.0, 1)}, scores=scores))


def test_an_artifact_may_not_take_the_name_of_the_scores(tmp_path):
    scores = SampleScores(torch.arange(2), {"loss": torch.ones(2)})
    for artifacts in ({"scores": tmp_path / "a.csv"}, {"mine": tmp_path / "scores.npz"}):
        with pytest.raises(RunError, match=r"an artifact 'scores' or a file scores\.npz; rename the artifact"):
            check_result(Two(Two.Config()), TaskResult({"score": Measured(3.0, 1)}, artifacts=artifacts, scores=scores))


@pytest.mark.parametrize(
    ("by_sample", "words"),
    [
        ({"other": torch.ones(4)}, "by_sample of 'other', which is no metric of this result"),
        ({"score": torch.tensor(50.0)}, r"by_sample\['score'\] in another form than \[4\]"),
        ({"score": torch.ones(3, dtype=torch.bool)}, r"by_sample\['score'\] in another form than \[4\]"),
        ({"score": torch.tensor([1.0, 2.0, torch.nan, 0.0])}, "bool or finite numbers"),
        ({"score": [True] * 4}, "bool or finite numbers"),
        ({"score": torch.tensor([True, True, False, True])}, r"score = 50.0, and by_sample of it has the mean 75\.0"),
        ({"score": GroupedSamples(np.array([30.0, 70, 50, 90]), np.array([0, 0, 0, 1]))}, r"has the mean 70\.0"),
        ({"score": GroupedSamples(np.full(4, 50.0), np.array([0, 0, 2, 2]))}, "with groups in another form than"),
        ({"score": GroupedSamples(np.full(4, 50.0), np.array([0, 1]))}, "with groups in another form than"),
        ({"score": torch.tensor([0.5, 0.5, 0.5, 0.5])}, r"has the mean 0\.5; nothing is recorded"),
    ],
)
def test_values_of_samples_that_are_not_those_of_the_metric_are_refused(by_sample, words):
    with pytest.raises(RunError, match=words):
        check_result(Two(Two.Config()), TaskResult({"score": Measured(50.0, 4)}, by_sample=by_sample))


def test_counts_of_pixels_that_cannot_be_are_refused():
    counts = np.array([[5, 1], [2, 2]])
    for pixels, words in (
        (SegmentedPixels(counts, counts, counts[:1], {"score": "iou"}), r"predicted is \[1, 2\], and hits is \[2, 2\]"),
        (SegmentedPixels(counts[0], counts[0], counts[0], {"score": "iou"}), r"hits is \[2\], not \[images, classes\]"),
        (SegmentedPixels(counts, counts - 1, counts, {"score": "iou"}), "hits are more than pixels of the class"),
        (SegmentedPixels(counts, counts, counts, {"other": "iou"}), "pixels of 'other', which is no metric"),
        (SegmentedPixels(counts, counts, counts, {"score": "dice"}), "'dice' is none of iou, class-accuracy, accuracy"),
    ):
        with pytest.raises(RunError, match=words):
            check_result(Two(Two.Config()), TaskResult({"score": Measured(50.0, 2)}, pixels=pixels))


def test_values_of_samples_are_bits_or_in_the_unit_of_the_metric():
    for values in (torch.tensor([True, False, True, False]), np.array([20.0, 80.0, 60.0, 40.0])):
        check_result(Two(Two.Config()), TaskResult({"score": Measured(50.0, 4)}, by_sample={"score": values}))
