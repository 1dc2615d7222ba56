"""Which frames of a video make a clip. The rules are those of MCG-NJU/VideoMAE@14ef8d85 (kinetics.py, ssv2.py)."""

from __future__ import annotations

import numpy as np


def dense_frames(length: int, frames: int, stride: int, start: int) -> list[int]:
    """`frames` frames from `start` on, each `stride` after the one before; the last one that fits is repeated.

    Args:
        length: frames of the video.
        start: number of the first frame, below `length`.
    """
    steps = max(0, (length - 2 - start) // stride)
    return [start + stride * min(index, steps) for index in range(frames)]


def dense_starts(length: int, frames: int, stride: int) -> int:
    """How many frames `dense_frames` can start at, the first ones: at least 1."""
    return max(1, length - frames * stride + 1)


def spread_frames(length: int, frames: int, stride: int, start: int) -> list[int]:
    """`frames` frames at equal distances over frames * stride frames from `start` on, as VideoMAE fine-tunes.

    Their distance is a little more than `stride`. A video that is not longer than that is taken from its start, at
    equal distances as well, and its last frame is repeated.
    """
    span = frames * stride
    if length <= span:
        count = length // stride
        spread = np.concatenate((np.linspace(0, length, num=count), np.full(frames - count, length)))
        return spread.clip(0, length - 1).astype(int).tolist()
    return np.linspace(start, start + span, num=frames).clip(start, start + span - 1).astype(int).tolist()


def spread_starts(length: int, frames: int, stride: int) -> int:
    """How many frames `spread_frames` can start at, the first ones: at least 1."""
    return max(1, length - frames * stride)


def segment_frames(length: int, frames: int, offsets: np.ndarray) -> list[int]:
    """One frame from each of `frames` equal parts of the video (TSN), as VideoMAE trains on SSv2.

    A video with fewer frames than parts gives its first frame alone.

    Args:
        offsets: of the frame in each part, below `segment_length`, int [frames].
    """
    part = segment_length(length, frames)
    if part == 0:
        return [0] * frames
    return (np.arange(frames) * part + offsets).tolist()


def segment_length(length: int, frames: int) -> int:
    """Frames in each of `frames` equal parts; 0 if there are fewer frames than parts."""
    return length // frames


def dense_view(length: int, frames: int, stride: int, view: int, views: int) -> list[int]:
    """The frames of one of `views` test clips, which lie at equal distances from the video's start to its end.

    Args:
        view: from 0. If `views` is 1, the clip lies in the middle.
    """
    read = list(range(0, length, stride))
    read += read[-1:] * (frames - len(read))
    room = len(read) - frames
    start = room // 2 if views == 1 else int(view * room / (views - 1))
    return read[start : start + frames]


def segment_view(length: int, frames: int, view: int, views: int) -> list[int]:
    """One frame from each of `frames` equal parts, for one of `views` test clips, as VideoMAE tests on SSv2.

    Args:
        view: from 0. If `views` is 1, the frames are the middle ones of their parts.
    """
    share = 0.5 if views == 1 else view / views
    return [int(length / frames * (part + share)) for part in range(frames)]
