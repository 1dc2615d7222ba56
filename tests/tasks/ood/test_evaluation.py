"""Scores on other test sets: mean corruption errors and ReaL by hand, sets of images that say their class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mimbench.contract import ArraySplit, Dataset, InputConfig, TaskContext
from mimbench.errors import InputError
from mimbench_tasks.ood import evaluation
from mimbench_tasks.ood.config import OodConfig
from mimbench_tasks.ood.corruption_errors import ALEXNET_ERRORS, EXTRA_ERRORS, mean_relative_error, relative_error
from mimbench_tasks.ood.evaluation import METRICS, Scores, add_corruption_errors, chance, evaluate, real_accuracy
from mimbench_tasks.ood.sets import class_list

PLAIN = InputConfig(image_size=8, mean=(0.0,), std=(1.0,), eval_resize=8)
RIGHT, WRONG = (200, 0, 0), (0, 0, 0)
"""Colours of images that `SaysClass` classifies rightly or as class 0."""


class SaysClass(nn.Module):
    """Scores [B, classes] of images whose green and blue levels, times 256, spell the class; class 0 if red is dark."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, images):
        red, green, blue = (255 * images.mean((2, 3))).round().long().unbind(1)
        return nn.functional.one_hot(torch.where(red > 0, 256 * green + blue, 0), self.classes).float()


class Digits(Dataset):
    """Images of the classes of a list, one per class."""

    name, channels = "wnids", 3

    def __init__(self, classes, extra=()) -> None:
        """extra: labels of more training images."""
        self.classes, self.extra = tuple(classes), list(extra)

    def fingerprint(self) -> str:
        return ""

    def split(self, name):
        labels = torch.tensor([*range(len(self.classes)), *(self.extra if name == "train" else [])])
        return ArraySplit(torch.zeros(len(labels), 3, 8, 8, dtype=torch.uint8), labels, self.classes)


def write(path: Path, label: int, red: int, size: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), (red, label // 256, label % 256)).save(path)


def measure(config: OodConfig, dataset: Digits, tmp_path: Path) -> Scores:
    context = TaskContext(0, torch.device("cpu"), tmp_path, PLAIN, None, None, lambda _: None)
    clean = np.eye(len(dataset.classes))
    return evaluate(config, SaysClass(len(dataset.classes)), clean, dataset, PLAIN, context, channels=3)


def test_a_mean_corruption_error_is_the_mean_of_ratios():
    assert relative_error([60, 40, 20, 10, 20], 80.0) == pytest.approx(100 * 70 / 80)
    alexnet = {name: [100 - error] * 5 for name, error in ALEXNET_ERRORS.items()}
    assert mean_relative_error(alexnet) == pytest.approx(100.0)
    halved = alexnet | {"fog": [100 - ALEXNET_ERRORS["fog"] / 2] * 5}
    assert mean_relative_error(halved) == pytest.approx(100 * 14.5 / 15)
    assert mean_relative_error(halved | {"saturate": [0.0] * 5}) == mean_relative_error(halved)
    assert (len(ALEXNET_ERRORS), len(EXTRA_ERRORS)) == (15, 4)


def test_mean_errors_leave_the_extra_corruptions_out():
    scores = Scores()
    hits = [np.arange(10) < right for right in (5, 4, 3, 2, 1)]
    of_each = dict.fromkeys(ALEXNET_ERRORS, hits) | {"spatter": [np.zeros(10, bool)] * 5}
    add_corruption_errors(scores, of_each)
    assert scores.metrics["mean_error_c"].value == pytest.approx(70.0)
    assert scores.metrics["mce"].value == pytest.approx(np.mean([7000 / error for error in ALEXNET_ERRORS.values()]))
    assert scores.metrics["mce"].n == 10
    for name in ("mce", "mean_error_c"):
        assert scores.by_sample[name].mean() == pytest.approx(scores.metrics[name].value)
    assert [one.mean() for one in scores.sets] == [pytest.approx(30.0)]
    assert scores.curves["top1"] == pytest.approx([50, 40, 30, 20, 10])
    assert scores.curves["top1, spatter"] == [0.0] * 5


def test_folders_of_imagenet_c_with_other_numbers_of_images_are_named():
    of_each = dict.fromkeys(ALEXNET_ERRORS, [np.ones(10, bool)] * 5)
    of_each["fog"] = [*of_each["fog"][:4], np.ones(9, bool)]
    with pytest.raises(InputError, match=r"task\.imagenet_c: fog, severity 5 has 9 images, and another folder 10"):
        add_corruption_errors(Scores(), of_each)


def test_real_counts_any_of_several_labels_and_no_image_without():
    measured = real_accuracy(np.array([4, 4, 1, 7]), [[4], [3, 5], [], [2, 7, 9]])
    assert (measured.value, measured.n) == (pytest.approx(200 / 3), 3)


def test_imagenet_a_is_scored_among_its_classes(tmp_path):
    classes = ["n00000001", *class_list("imagenet-a"), "n99999999"]
    for label, wnid in enumerate(classes[1:201], 1):
        write(tmp_path / "a" / wnid / "1.png", label, red=label % 4)  # a quarter is dark: class 0, not in the set
    config, dataset = OodConfig(imagenet_a=tmp_path / "a"), Digits(classes)
    scores = measure(config, dataset, tmp_path)
    assert (scores.metrics["top1_a"].value, scores.metrics["top1_a"].n) == (75.0, 200)
    assert scores.metrics["top1_ood"] == scores.metrics["top1_a"]
    assert scores.metrics["top1_clean"].value == 100.0
    assert set(scores.details["absent"]) == {metric.name for metric in METRICS} - set(scores.metrics)
    assert chance(config, dataset) == 0.5  # every training class is as frequent, and class 1 is the first in the set


def test_chance_is_the_most_frequent_class_that_a_set_allows(tmp_path):
    classes = ["n00000001", *class_list("imagenet-a"), "n99999999"]
    for label, wnid in enumerate(classes[1:201], 1):
        for number in range(3 if label == 7 else 1):
            write(tmp_path / "a" / wnid / f"{number}.png", label, red=1)
    dataset = Digits(classes, extra=[0] * 5 + [7] * 3)  # class 0 is the most frequent, and not in the set
    assert chance(OodConfig(imagenet_a=tmp_path / "a"), dataset) == pytest.approx(100 * 3 / 202)


def test_chance_of_real_alone_is_by_its_labels(tmp_path, monkeypatch):
    several = [[2, 3], [], [2], [1]]
    monkeypatch.setattr(evaluation, "real_labels", lambda path, test, classes: several)
    dataset = Digits(("a", "b", "c", "d"), extra=[2])
    assert chance(OodConfig(imagenet_real=tmp_path / "real.json"), dataset) == pytest.approx(200 / 3)


def test_imagenet_c_is_cropped_as_it_lies(tmp_path):
    classes = ("n01440764", "n01443537", "n01498041", "n01514668")
    for name in (*ALEXNET_ERRORS, "saturate"):
        for severity in range(1, 6):
            for label, wnid in enumerate(classes):
                dark = name == "fog" and severity > label  # severities 1 to 5: 3, 2, 1, 0 and 0 of 3 classes are right
                path = tmp_path / "c" / name / str(severity) / wnid / "1.png"
                write(path, label, red=0 if dark else 9, size=8)
    scores = measure(OodConfig(imagenet_c=tmp_path / "c"), Digits(classes), tmp_path)
    assert scores.curves["top1, fog"] == [100.0, 75.0, 50.0, 25.0, 25.0]
    assert scores.metrics["mean_error_c"].value == pytest.approx(45 / 15)
    assert scores.metrics["mce"].value == pytest.approx(100 * 45 / ALEXNET_ERRORS["fog"] / 15)
    assert scores.metrics["top1_ood"].value == pytest.approx(100 - 45 / 15)


@pytest.mark.parametrize("task", ["ood", "finetune-ood"])
def test_a_set_that_does_not_fit_is_refused_before_anything_runs(task, quick, tmp_path):
    (tmp_path / "a" / "n01498041").mkdir(parents=True)
    write(tmp_path / "a" / "n01498041" / "1.png", 0, 1)
    arguments = ("run", "--method", "random-init", "--task", task, "--recipe", "smoke", "--dry-run")
    done = quick(*arguments, "--set", f"task.imagenet_a={tmp_path / 'a'}")
    assert (done.returncode, done.stdout) == (2, "")
    assert "task.imagenet_a: the training images lack 200 of the 200 classes" in done.stderr
    assert done.stderr.count("\n") == 1
