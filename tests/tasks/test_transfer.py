"""Transfer: accuracies per set and their means, by features whose accuracy is known, and sets that do not fit."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mimbench.contract import ArraySplit, Dataset, InputConfig, TaskContext
from mimbench.data.suite import SuiteMember
from mimbench.errors import InputError
from mimbench.toolkit.regression import RegressionConfig
from mimbench_tasks.transfer import Transfer

CLASSES = ("a", "b")


class Known(Dataset):
    """20 training and 10 test images of two classes; pixels show the label of all, or of a share of the test images."""

    channels = 1

    def __init__(self, name: str, shown: float, parts=("train", "test")) -> None:
        self.name, self.shown, self.parts = name, shown, parts

    def fingerprint(self) -> str:
        return self.name

    def split(self, part):
        labels = torch.arange({"train": 20, "fit": 16, "validation": 4, "test": 10}[part]) % 2
        seen = labels.clone()
        if part == "test":
            seen[: round(10 * (1 - self.shown))] = 1 - seen[: round(10 * (1 - self.shown))]
        images = (200 * seen.view(-1, 1, 1, 1)).expand(-1, 1, 4, 4).to(torch.uint8)
        return ArraySplit(images, labels, CLASSES)


class Members(Dataset):
    name, channels = "members", 1

    def __init__(self, **members) -> None:
        self.members = members

    def fingerprint(self) -> str:
        return "all"

    def split(self, part):
        return next(iter(self.members.values())).dataset.split(part)


def measure(suite: Dataset, calls: list | None = None, **options):
    def features(split, which, *, layer, pooling):
        calls is not None and calls.append((which, len(split)))
        return split.images.flatten(1).float()

    context = TaskContext(0, torch.device("cpu"), None, InputConfig(image_size=4), None, features, lambda _: None)
    return Transfer(RegressionConfig(**options)).run(None, suite, context)


def test_means_are_over_sets_and_per_group():
    suite = Members(
        first=SuiteMember(Known("first", 1.0), "natural"),
        second=SuiteMember(Known("second", 0.6), "natural"),
        third=SuiteMember(Known("third", 0.2), "structured"),
    )
    calls: list = []
    result = measure(suite, calls)
    assert {name: values[0] for name, values in result.curves.items()} == pytest.approx(
        {"top1, first": 100.0, "top1, second": 60.0, "top1, third": 20.0}
    )
    values = {name: (measured.value, measured.n) for name, measured in result.metrics.items()}
    assert values == {
        "top1_over_sets": (pytest.approx(60.0), 30),
        "top1_natural": (pytest.approx(80.0), 20),
        "top1_structured": (pytest.approx(20.0), 10),
    }
    assert set(result.details["absent"]) == {"top1_specialized", "top1_fine_grained"}
    assert result.details["top1"]["second"] == pytest.approx(60.0)
    assert len({which for which, _ in calls}) == 6  # features of each part of each set are stored apart
    assert Transfer(RegressionConfig()).chance(suite) == 50.0


def test_regularisation_is_chosen_on_the_validation_part_of_a_set():
    calls: list = []
    parts = ("train", "test", "fit", "validation")
    suite = Members(one=SuiteMember(Known("one", 1.0, parts), "specialized"))
    result = measure(suite, calls, inverse_regularisation=(0.1, 1.0))
    assert sorted(count for _, count in calls) == [4, 10, 16, 20]
    assert result.details["sets"]["one"]["held_out_top1"] == {"0.1": 100.0, "1": 100.0}
    assert result.details["sets"]["one"]["inverse_regularisation"] == 0.1
    assert result.metrics["top1_specialized"].value == 100.0


def test_a_dataset_that_is_no_suite_is_one_natural_set():
    result = measure(Known("alone", 0.8))
    assert set(result.metrics) == {"top1_over_sets", "top1_natural"}
    assert result.metrics["top1_over_sets"].value == pytest.approx(80.0)


def test_sets_that_do_not_fit_are_refused():
    encoder = SimpleNamespace(in_channels=1, layer_index=lambda _: 0, check_pooling=lambda _: None)
    wide = Known("wide", 1.0)
    wide.channels = 3
    for member, message in (
        (SuiteMember(Known("x", 1.0), "odd"), "set 'x' of the suite: group 'odd' is none of natural, specialized"),
        (SuiteMember(wide, "natural"), "set 'x' of the suite has 3 channels, the encoder takes 1"),
    ):
        with pytest.raises(InputError, match=message):
            Transfer(RegressionConfig()).check(encoder, Members(x=member))
    assert np.isfinite(Transfer(RegressionConfig()).chance(wide))
