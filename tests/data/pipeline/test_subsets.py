"""Subsets of splits: their samples, labels and attributes stay together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mimbench.contract import ArraySplit, DataChoice, ImageSplit
from mimbench.data.pipeline.subsets import planted_indices, subset, training_images, training_indices
from mimbench.errors import InputError


class Files(ImageSplit):
    """The images of an ArraySplit, one by one."""

    def __init__(self, split):
        self.split = split
        self.labels, self.classes, self.attributes = split.labels, split.classes, split.attributes

    def __len__(self):
        return len(self.split)

    def __getitem__(self, index):
        return self.split[index]


def numbered(size=40):
    numbers = torch.arange(size)
    images = numbers.to(torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2)
    return ArraySplit(images, numbers % 4, tuple("abcd"), {"number": numbers, "parity": numbers % 2})


@pytest.mark.parametrize("wrap", [lambda split: split, Files])
def test_a_subset_keeps_labels_and_attributes_of_its_samples(wrap):
    part = subset(wrap(numbered()), [7, 2, 30])
    assert [int(part[index][0][0, 0, 0]) for index in range(3)] == [7, 2, 30]
    assert part.attributes["number"].tolist() == [7, 2, 30]
    assert part.attributes["parity"].tolist() == [1, 0, 0]
    assert part.labels.tolist() == [3, 2, 2]
    assert part.is_in_memory == wrap(numbered()).is_in_memory


def numbers_in(split: ImageSplit) -> list[int]:
    return split.attributes["number"].tolist()


def test_a_share_has_every_class_in_proportion():
    split = numbered()
    part = training_images(split, DataChoice(0.3, seed=1))
    assert torch.bincount(part.labels).tolist() == [3, 3, 3, 3]
    assert numbers_in(part) == numbers_in(training_images(split, DataChoice(0.3, seed=1)))
    assert numbers_in(part) != numbers_in(training_images(split, DataChoice(0.3, seed=2)))
    assert training_images(split, DataChoice()) is split
    with pytest.raises(InputError, match=r"pretrain\.data_share 0\.01 of 40 images leaves none"):
        training_images(split, DataChoice(0.01))


@pytest.mark.parametrize("wrap", [lambda split: split, Files])
@pytest.mark.parametrize("copies", [0, 1, 16])
def test_each_planted_image_occurs_as_often_as_its_dose_says(wrap, copies):
    choice = DataChoice(0.5, seed=3, plant_count=5, plant_copies=copies, plant_seed=2)
    split = wrap(numbered())
    part, planted = training_images(split, choice), planted_indices(40, choice)
    counts = torch.bincount(torch.tensor(numbers_in(part)), minlength=40)
    assert len(planted) == 5
    assert counts[planted].tolist() == [copies] * 5
    assert [int(part[index][0][0, 0, 0]) for index in range(len(part))] == numbers_in(part)
    assert numbers_in(part) == training_indices(split.labels, choice).tolist()
    others = [number for number in numbers_in(part) if number not in planted]
    assert len(others) == len(set(others)) == 18  # half of 35, rounded to even
    # The other images do not depend on the dose.
    twice = numbers_in(training_images(split, replace(choice, plant_copies=2)))
    assert others == [number for number in twice if number not in planted]


def test_planted_images_depend_on_their_seed_and_grow_with_their_number():
    def planted(count: int, seed: int = 0) -> set[int]:
        return set(planted_indices(40, DataChoice(plant_count=count, plant_seed=seed)).tolist())

    assert planted(5) < planted(9)
    assert planted(5) != planted(5, seed=1)
    assert planted(40) == set(range(40))


def test_planting_that_leaves_nothing_is_refused():
    labels = numbered().labels
    with pytest.raises(InputError, match=r"pretrain\.plant_count 41 is more than the 40 images"):
        training_indices(labels, DataChoice(plant_count=41))
    with pytest.raises(InputError, match=r"all images are planted, with pretrain\.plant_copies 0"):
        training_indices(labels, DataChoice(plant_count=40, plant_copies=0))


def test_a_choice_is_read_back_from_its_identity():
    for choice in (DataChoice(), DataChoice(0.5, seed=3), DataChoice(plant_count=5, plant_copies=0, plant_seed=2)):
        assert DataChoice.from_identity({"name": "mnist5k", **choice.identity()}) == choice
    assert DataChoice().identity() == {}
