"""Subsets of splits: their samples, labels and attributes stay together."""

from __future__ import annotations

import pytest
import torch

from mimbench.contract import ArraySplit, ImageSplit
from mimbench.data.pipeline.subsets import share_of, subset
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


def test_a_share_has_every_class_in_proportion():
    split = numbered()
    part = share_of(split, 0.3, seed=1)
    assert torch.bincount(part.labels).tolist() == [3, 3, 3, 3]
    assert torch.equal(part.attributes["number"], share_of(split, 0.3, seed=1).attributes["number"])
    assert not torch.equal(part.attributes["number"], share_of(split, 0.3, seed=2).attributes["number"])
    assert share_of(split, 1, seed=0) is split
    with pytest.raises(InputError, match=r"pretrain\.data_share 0\.01 of 40 images leaves none"):
        share_of(split, 0.01, seed=0)
