"""Views whose sizes change between epochs: the same for loaders with and without workers."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from mimbench.contract import InputConfig, View
from mimbench.data import ViewSchedule, training_loader, views_at
from mimbench.data.sources.folder import Folder
from mimbench.data.sources.folder_config import FolderConfig
from mimbench.errors import InputError

INPUT = InputConfig(image_size=16, crop_scale=(0.3, 1.0), flip=0.5, eval_resize=20)
LOCAL = View.from_input(INPUT, image_size=8, blur=0.5)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    (root / "train" / "a").mkdir(parents=True)
    for index in range(9):
        Image.linear_gradient("L").rotate(20 * index).resize((30 + index, 40)).save(root / "train/a" / f"{index}.png")
    return Folder(FolderConfig(root=root, val_fraction=0.1), tmp_path_factory.mktemp("cache")).split("train")


def test_all_views_scale_by_the_same_factor():
    schedule = ViewSchedule.from_sizes([INPUT, LOCAL], [(0, 8), (2, 32), (3, 16)])
    sizes = [[view.image_size for view in schedule.at(epoch)] for epoch in range(5)]
    assert sizes == [[8, 4], [8, 4], [32, 16], [16, 8], [16, 8]]
    first, local = schedule.at(2)
    assert (first.crop_scale, local.blur, type(local)) == (INPUT.crop_scale, 0.5, View)
    assert views_at(schedule, 2) == (first, local)
    assert views_at([INPUT, LOCAL], 2) == (INPUT, LOCAL)


def test_a_view_without_a_whole_number_of_pixels_is_refused():
    with pytest.raises(InputError, match=r"at 11 px of 16, a view of 8 px would have 5\.5 px, since all views scale"):
        ViewSchedule.from_sizes([INPUT, LOCAL], [(0, 11)])


def epochs_of(split, views, workers):
    loader = training_loader(split, views, batch_size=4, seed=0, device=torch.device("cpu"), workers=workers)
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        yield [views for views, _ in loader]


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_crop_to_the_size_of_the_epoch(pictures, workers):
    schedule = ViewSchedule.from_sizes([INPUT, LOCAL], [(0, 8), (1, 16)])
    fixed = {8: list(epochs_of(pictures, schedule.at(0), 0)), 16: list(epochs_of(pictures, [INPUT, LOCAL], 0))}
    for epoch, batches in enumerate(epochs_of(pictures, schedule, workers)):
        size = 16 if epoch else 8
        assert len(batches) == 2
        for views, expected in zip(batches, fixed[size][epoch], strict=True):
            assert [view.shape[-1] for view in views] == [size, size // 2]
            assert all(torch.equal(view, other) for view, other in zip(views, expected, strict=True))
