"""VideoMAE's crops: sizes, places and pixels, for images in memory and in files."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from pydantic import ValidationError

from helpers.random_inputs import seeded
from mimbench.contract import InputConfig
from mimbench.data.pipeline.multi_scale_crop import PLACES, multi_scale_boxes
from mimbench.data.pipeline.transforms import DeviceTransform, TrainingCrop


def config(**options) -> InputConfig:
    return InputConfig(**{"image_size": 8, "mean": (0.0,), "std": (1.0,), "crop": "multi-scale", **options})


def test_sizes_are_equally_frequent_and_differ_by_one_step_at_most():
    boxes = multi_scale_boxes(4000, 240, 320, 112, seeded())
    lengths = [240, 210, 180, 158]
    counts = Counter((height, width) for _, _, height, width in boxes.tolist())
    assert set(counts) == {(a, b) for i, a in enumerate(lengths) for j, b in enumerate(lengths) if abs(i - j) <= 1}
    assert max(counts.values()) < 1.3 * min(counts.values())


def test_places_are_quarters_of_the_room():
    boxes = multi_scale_boxes(4000, 240, 320, 112, seeded())
    seen = Counter()
    for top, left, height, width in boxes.tolist():
        rows, columns = (240 - height) // 4, (320 - width) // 4
        if rows:
            seen[top // rows, left // columns] += 1
            assert top % rows == 0
        assert 0 <= top <= 240 - height
        assert 0 <= left <= 320 - width
    assert set(seen) == set(PLACES)
    assert len(set(PLACES)) == 13


def test_a_side_near_the_result_is_the_results():
    heights = {box[2] for box in multi_scale_boxes(500, 256, 340, 226, seeded()).tolist()}
    assert heights == {256, 226, 192, 168}  # 0.875 x 256 is 224


def test_images_in_files_are_cropped_by_such_boxes():
    ramp = (torch.arange(64)[:, None] * 2 + torch.arange(48)).to(torch.uint8)[None]
    crop = TrainingCrop(config(interpolation="bilinear"))
    for seed in range(10):
        torch.manual_seed(seed)
        cropped = crop(ramp)
        torch.manual_seed(seed)
        top, left, height, width = crop.box(64, 48)
        assert height in (48, 42, 36, 31)
        middle = ramp[0, top : top + height, left : left + width].float().mean()
        assert abs(cropped.float().mean() - middle) < 1


def test_clips_in_memory_are_cropped_once_for_all_frames():
    clip = torch.randint(0, 256, (1, 1, 1, 24, 24), generator=seeded(), dtype=torch.uint8)
    clips = clip.expand(4, 1, 3, 24, 24)
    done = DeviceTransform(config(), 1, train=True, batched=True)(clips, seeded(2))
    assert done.shape == (4, 1, 3, 8, 8)
    assert torch.equal(done[:, :, 0], done[:, :, 2])
    assert not torch.equal(done[0], done[1])


def test_scales_of_other_crops_are_refused():
    with pytest.raises(ValidationError, match='crop "multi-scale" has no crop_scale'):
        config(crop_scale=(0.5, 1.0))
