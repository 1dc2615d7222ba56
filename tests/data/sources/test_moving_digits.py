"""Clips of moving digits: each frame says nothing, the order of frames says all, and equal options give equal clips."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.linear_model import RidgeClassifier

from mimbench.data.sources.clip_drawing import MOTIONS, ClipStyle, draw_clip
from mimbench.data.sources.moving_digits import MovingDigits, MovingDigitsConfig
from mimbench.testing import dataset_suite, parametrize_checks

SMALL = {"train_clips": 48, "test_clips": 24}
PLAIN = ClipStyle(frames=4, size=32, step=2.0, clutter=0, noise=0.0)


def make(cache, **options) -> MovingDigits:
    return MovingDigits(MovingDigitsConfig(**SMALL | options), cache)


@parametrize_checks(dataset_suite(MovingDigits, SMALL))
def test_it_passes_the_checks_for_datasets(check):
    check()


def centre(frame: np.ndarray) -> complex:
    """Where the ink is, as angles on the torus: real part by columns, imaginary part by rows, px."""
    ink = frame.astype(float) - frame.min()
    turn = np.exp(2j * np.pi * np.arange(32) / 32)
    return complex(*(np.angle((ink.sum(axis) * turn).sum()) * 32 / (2 * np.pi) for axis in (0, 1)))


def clip_of(motion: str, glyph: np.ndarray) -> np.ndarray:
    return draw_clip(np.random.RandomState(3), glyph, glyph[None], motion, PLAIN)


@pytest.mark.parametrize(("motion", "step"), [("right", 2), ("left", -2), ("down", 2j), ("up", -2j)])
def test_a_digit_moves_by_the_step(motion, step):
    glyph = np.zeros((28, 28), np.uint8)
    glyph[10:18, 10:18] = 255
    places = [centre(frame) for frame in clip_of(motion, glyph)]
    for before, after in pairwise(places):
        moved = after - before
        wrapped = complex((moved.real + 16) % 32 - 16, (moved.imag + 16) % 32 - 16)
        assert abs(wrapped - step) < 0.1


@pytest.mark.parametrize(("motion", "turn"), [("clockwise", 20), ("counter-clockwise", -20)])
def test_a_digit_turns_by_20_degrees(motion, turn):
    glyph = np.zeros((28, 28), np.uint8)
    glyph[13:15, 14:22] = 255  # a hand of a clock, from the centre to the right
    angles = []
    for frame in draw_clip(np.random.RandomState(33), glyph, glyph[None], motion, ClipStyle(4, 64, 2.0, 0, 0.0)):
        ink = frame.astype(float) - frame.min()
        places = np.stack(np.meshgrid(np.arange(64), np.arange(64))).reshape(2, -1)  # columns and rows
        axis = np.linalg.eigh(np.cov(places, aweights=ink.ravel()))[1][:, 1]
        angles.append(np.degrees(np.arctan2(axis[1], axis[0])))  # rows grow downwards, so clockwise is positive
    turned = (np.diff(angles) + 90) % 180 - 90
    assert np.allclose(turned, turn, atol=4)


@pytest.mark.parametrize(("motion", "grows"), [("grow", True), ("shrink", False)])
def test_a_digit_changes_its_size(motion, grows):
    glyph = np.zeros((28, 28), np.uint8)
    glyph[8:20, 8:20] = 255
    ink = [int((frame > frame.min() + 60).sum()) for frame in clip_of(motion, glyph)]
    changes = np.diff(ink) > 0
    assert (changes == grows).sum() >= 2  # at most one of the three steps goes around the circle


def test_motions_are_pairs_of_reversals_with_equal_numbers_of_clips(tmp_path):
    split = make(tmp_path).split("train")
    assert split.labels.bincount().tolist() == [6] * 8
    for (coordinate, direction), (other, back) in zip(
        list(MOTIONS.values())[::2], list(MOTIONS.values())[1::2], strict=True
    ):
        assert (coordinate, direction) == (other, -back)


def test_motion_is_seen_in_two_frames_and_not_in_one(tmp_path):
    dataset = make(tmp_path, train_clips=1200, test_clips=400, frames=2, clutter=0, step=4.0, noise=0.0)
    train, test = dataset.split("train"), dataset.split("test")

    def score(features) -> float:
        model = RidgeClassifier(10.0).fit(features(train), train.labels)
        return 100 * model.score(features(test), test.labels)

    frame = score(lambda split: split.images[:, 0, 0].flatten(1).numpy() / 255)

    # The correlation of both frames at each displacement: a linear model of pixels cannot see motion.
    def moved(split):
        clips = split.images[:, 0].float() / 255
        before, after = torch.fft.rfft2(clips[:, 0]), torch.fft.rfft2(clips[:, 1])
        correlation = torch.fft.irfft2(before.conj() * after)
        return (correlation / correlation.amax((1, 2), keepdim=True)).flatten(1).numpy()

    assert frame < 12.5 + 3 * 100 * (0.125 * 0.875 / 400) ** 0.5
    assert score(moved) > 40


def test_clips_do_not_depend_on_how_many_there_are(tmp_path):
    few, many = make(tmp_path).split("test"), make(tmp_path, test_clips=30).split("test")
    assert torch.equal(few.images, many.images[:24])
    assert torch.equal(few.attributes["digit"], many.attributes["digit"][:24])


def test_equal_options_give_equal_content_and_others_do_not(tmp_path):
    first, again = make(tmp_path / "a"), make(tmp_path / "b")
    assert first.fingerprint() == again.fingerprint()
    assert torch.equal(first.split("train").images, again.split("train").images)
    assert first.fingerprint() != make(tmp_path, seed=1).fingerprint()
    assert not torch.equal(first.split("train").images, make(tmp_path, seed=1).split("train").images)


def test_a_damaged_cache_is_made_again(tmp_path):
    expected = make(tmp_path).split("train").images
    (path,) = tmp_path.glob("*-train.clips")
    path.write_bytes(path.read_bytes()[:-7] + b"damaged")
    assert torch.equal(make(tmp_path).split("train").images, expected)


def test_the_digit_is_tied_to_the_motion_in_the_share_that_is_set(tmp_path):
    tied = make(tmp_path, train_clips=160, static_bias=1.0)
    train, test = tied.split("train"), tied.split("test")
    assert torch.equal(train.attributes["digit"], train.labels)
    assert not torch.equal(test.attributes["digit"], test.labels)
    half = make(tmp_path, train_clips=160, static_bias=0.5).split("train")
    assert 0.4 < (half.attributes["digit"] == half.labels).float().mean() < 0.7


def test_steps_without_a_direction_are_refused():
    with pytest.raises(ValidationError, match="left equals right"):
        MovingDigitsConfig(size=16, step=8.0)
