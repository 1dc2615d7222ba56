"""Test views of clips: which frames and pixels they show, and shuffled frames."""

from __future__ import annotations

import pytest
import torch

from mimbench.contract import ArraySplit, ImageSplit, InputConfig, InputError
from mimbench.data import evaluation_loader
from mimbench.data.pipeline.clip_views import clip_views, shuffle_frames
from mimbench.data.pipeline.subsets import subset

INPUT = InputConfig(image_size=8, eval_resize=8, frames=4)


class Videos(ImageSplit):
    """Ten frames of 8 x 24 px: pixels hold the frame in the first channel and the column in the second."""

    labels, classes, has_test_clips = torch.arange(3), ("a", "b", "c"), True

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return self.test_clip(index, 0, 1)

    def test_clip(self, index, clip, clips):
        start = 3 if clips == 1 else 6 * clip // (clips - 1)
        video = torch.zeros(2, 10, 8, 24, dtype=torch.uint8)
        video[0] = torch.arange(10)[:, None, None]
        video[1] = torch.arange(24)
        return video[:, start : start + 4], index


def shown(split):
    (batch,) = evaluation_loader(split, INPUT, batch_size=3, device=torch.device("cpu"))
    return batch[0]


def test_one_view_is_the_split_itself():
    split = Videos()
    assert clip_views(split, 1, 1) == [split]


def test_views_show_each_clip_and_crop_once():
    views = clip_views(Videos(), 3, 3)
    assert len(views) == 9
    starts = [int(shown(view)[0, 0, 0, 0, 0]) for view in views]
    lefts = [int(shown(view)[0, 1, 0, 0, 0]) for view in views]
    assert starts == [0, 0, 0, 3, 3, 3, 6, 6, 6]
    assert lefts == [0, 8, 16] * 3
    assert [int(shown(view)[0, 1, 0, 0, -1]) for view in views[:3]] == [7, 15, 23]
    assert all(torch.equal(view.labels, torch.arange(3)) for view in views)


def test_tall_videos_are_cropped_along_their_height():
    class Tall(Videos):
        def test_clip(self, index, clip, clips):
            video, label = super().test_clip(index, clip, clips)
            return video.mT, label

    assert [int(shown(view)[0, 1, 0, 0, 0]) for view in clip_views(Tall(), 1, 3)] == [0, 8, 16]


def test_views_reach_through_subsets():
    (view, _) = clip_views(subset(Videos(), [2, 0]), 2, 1)
    assert int(view[0][0][0, 0, 0, 0]) == 0
    assert view[0][1] == 2


def test_views_that_a_dataset_does_not_have_are_refused():
    clips = ArraySplit(torch.zeros(2, 1, 4, 8, 8, dtype=torch.uint8), torch.arange(2), ("a", "b"))
    with pytest.raises(InputError, match=r"task.clips 2: .* set task.clips=1"):
        clip_views(clips, 2, 1)
    with pytest.raises(InputError, match=r"task.crops 3: .* set task.crops=1"):
        clip_views(clips, 1, 3)


@pytest.mark.parametrize("is_in_memory", [True, False])
def test_shuffled_clips_have_the_same_frames_in_another_order(is_in_memory):
    split = Videos()
    if is_in_memory:
        split = ArraySplit(torch.stack([split[index][0] for index in range(3)]), split.labels, split.classes)
    shuffled = shuffle_frames(split)
    assert shuffled.is_in_memory == is_in_memory
    orders = [shuffled[index][0][0, :, 0, 0].tolist() for index in range(3)]
    assert all(sorted(order) == [3, 4, 5, 6] for order in orders)
    assert len(set(map(tuple, orders))) > 1
    assert [shuffle_frames(split)[index][0][0, :, 0, 0].tolist() for index in range(3)] == orders
    assert [shuffled[index][1] for index in range(3)] == [0, 1, 2]
    assert torch.equal(shuffled.labels, split.labels)


def test_all_orders_are_equally_likely():
    count = 600
    clips = torch.arange(3, dtype=torch.uint8).view(1, 1, 3, 1, 1).expand(count, 1, 3, 1, 1)
    shuffled = shuffle_frames(ArraySplit(clips, torch.zeros(count, dtype=torch.long), ("a",)))
    _, numbers = shuffled.images.flatten(1).unique(dim=0, return_counts=True)
    assert len(numbers) == 6
    assert numbers.min() > 70  # 100 are expected, with a deviation of 9


def test_each_view_of_a_shuffled_video_is_a_view_in_another_order():
    views = clip_views(shuffle_frames(Videos()), 3, 1)
    assert [sorted(view[1][0][0, :, 0, 0].tolist()) for view in views] == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
