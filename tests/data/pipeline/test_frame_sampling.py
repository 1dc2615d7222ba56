"""Which frames make a clip: those of VideoMAE's loaders, for the same random numbers."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.official_values import read_json
from mimbench.data.pipeline.frame_sampling import (
    dense_frames,
    dense_starts,
    dense_view,
    segment_frames,
    segment_length,
    segment_view,
    spread_frames,
    spread_starts,
)

OFFICIAL = read_json("video_sampling")


@pytest.mark.parametrize(("name", "stride"), [("pretrain_k400_16x4", 4), ("pretrain_ssv2_16x2", 2)])
def test_dense_frames_are_those_of_the_pretraining(name, stride):
    for case in OFFICIAL[name]:
        length, stream = case["frames"], np.random.RandomState(case["seed"])
        start = stream.randint(dense_starts(length, 16, stride)) if length >= 16 * stride else 0
        assert dense_frames(length, 16, stride, start) == case["indices"], case


def test_spread_frames_are_those_of_fine_tuning_on_kinetics():
    for case in OFFICIAL["finetune_train_k400_16x4"]:
        length, stream = case["frames"], np.random.RandomState(case["seed"])
        start = stream.randint(64, length) - 64 if length > 64 else 0
        assert spread_frames(length, 16, 4, start) == case["indices"], case
        assert start < spread_starts(length, 16, 4)


def test_segment_frames_are_those_of_fine_tuning_on_ssv2():
    for case in OFFICIAL["finetune_train_ssv2_16"]:
        length, stream = case["frames"], np.random.RandomState(case["seed"])
        part = segment_length(length, 16)
        offsets = stream.randint(part, size=16) if part else np.zeros(16, int)
        assert segment_frames(length, 16, offsets) == case["indices"], case


def test_test_views_are_the_official_ones():
    for case in OFFICIAL["test_k400_16x4"]:
        assert [dense_view(case["frames"], 16, 4, view, 5) for view in range(5)] == case["clips"]
    for case in OFFICIAL["test_ssv2_16"]:
        assert [segment_view(case["frames"], 16, view, 2) for view in range(2)] == case["clips"]


def test_one_view_lies_in_the_middle():
    assert dense_view(300, 16, 4, 0, 1)[0] == 4 * ((75 - 16) // 2)
    assert segment_view(32, 16, 0, 1) == list(range(1, 32, 2))
    assert dense_view(5, 4, 4, 0, 1) == [0, 4, 4, 4]


@pytest.mark.parametrize("length", [1, 2, 3, 15, 16, 63, 64, 65, 300])
def test_no_frame_lies_outside_of_the_video(length):
    for start in range(dense_starts(length, 16, 4)):
        assert max(dense_frames(length, 16, 4, start)) < length
    for start in range(spread_starts(length, 16, 4)):
        frames = spread_frames(length, 16, 4, start)
        assert len(frames) == 16
        assert min(frames) >= 0
        assert max(frames) < length
        assert frames == sorted(frames)
    assert max(segment_view(length, 16, 0, 1)) < length
    assert len(dense_view(length, 16, 4, 0, 1)) == 16
