"""Frames of video files and of folders of frames, by number."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mimbench.data.files.image_reading import read_pixels
from mimbench.data.files.listing import EXTENSIONS

READER_VERSION = "1"
"""Raised whenever the same file would give other pixels."""
VIDEO_EXTENSIONS = frozenset({".mp4", ".webm", ".avi", ".mkv", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv"})


class UnreadableVideo(Exception):
    """A file is no video, or ends too early; the message says why, without the file's name."""


def count_frames(path: Path) -> int:
    """Number of frames of a video file, or of a folder of frames. The first frame is decoded.

    Raises:
        UnreadableVideo: it is damaged, empty or no video.
    """
    if path.is_dir():
        return len(frame_files(path))
    with _OpenVideo(path) as video:
        times = video.times()
        if times is None:
            return sum(1 for _ in video.decoded())
        video.rewind()
        if next(video.decoded(), None) is None:
            raise UnreadableVideo("its first frame cannot be decoded")
        return len(times)


def read_frames(path: Path, numbers: Sequence[int], channels: int) -> Tensor:
    """Frames of a video file, or of a folder of frames: uint8 [channels, T, H, W].

    Only the frames from the last key frame before the first one on are decoded.

    Args:
        numbers: of the frames, from 0. They may repeat, and must not fall.
        channels: 3 for RGB, 1 for grey.

    Raises:
        UnreadableVideo: a frame cannot be decoded.
    """
    if path.is_dir():
        files = frame_files(path)
        try:
            frames = {number: read_pixels(files[number], channels) for number in set(numbers)}
        except Exception as error:  # Pillow raises whatever it likes on damaged files
            raise UnreadableVideo(str(error) or type(error).__name__) from error
    else:
        with _OpenVideo(path) as video:
            frames = video.frames(sorted(set(numbers)), channels)
    if len({frame.shape for frame in frames.values()}) > 1:
        raise UnreadableVideo("its frames have different sizes")
    return torch.from_numpy(np.stack([frames[number] for number in numbers])).permute(3, 0, 1, 2).contiguous()


def frame_files(folder: Path) -> list[Path]:
    """The frames in a folder, in the order of the numbers in their names.

    Raises:
        UnreadableVideo: it has no images.
    """
    files = [path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS and path.is_file()]
    if not files:
        raise UnreadableVideo("the folder has no images")
    return sorted(files, key=lambda path: ([int(digits) for digits in re.findall(r"\d+", path.stem)], path.name))


class _OpenVideo:
    """A video file while it is open, in a `with` statement. PyAV brings FFmpeg with it."""

    def __init__(self, path: Path) -> None:
        import av  # an optional package

        self.path, self.av = path, av

    def __enter__(self) -> _OpenVideo:
        with self._errors():
            # Titles and the like may be in any encoding.
            self.container = self.av.open(str(self.path), metadata_errors="ignore")
        if not self.container.streams.video:
            self.container.close()
            raise UnreadableVideo("it has no video stream")
        self.stream = self.container.streams.video[0]
        self.stream.thread_count = 1  # the loader has workers, one per core
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turns what PyAV raises on damaged files into UnreadableVideo."""
        try:
            yield
        except (self.av.FFmpegError, OSError, ValueError) as error:
            raise UnreadableVideo(getattr(error, "strerror", None) or str(error)) from error

    def times(self) -> list[int] | None:
        """Time stamps of all frames in the order of display. None: the file has none that identify its frames."""
        stamps: list[int | None] = []
        self.keys: list[int] = []
        with self._errors():
            for packet in self.container.demux(self.stream):
                if not packet.size:
                    continue
                if packet.is_keyframe and packet.pts is not None:
                    self.keys.append(packet.pts)
                if not packet.is_discard:  # an edit list leaves it out of the video
                    stamps.append(packet.pts)
        if not stamps:
            raise UnreadableVideo("it has no frames")
        known = [stamp for stamp in stamps if stamp is not None]
        return sorted(known) if len(set(known)) == len(stamps) else None

    def rewind(self, time: int | None = None) -> None:
        """Go on from the key frame at `time`, or from the start."""
        with self._errors():
            self.container.seek(0 if time is None else time, stream=self.stream, backward=True)

    def decoded(self) -> Iterator[Any]:
        """The frames from here on, in the order of display."""
        with self._errors():
            yield from self.container.decode(self.stream)

    def frames(self, numbers: list[int], channels: int) -> dict[int, np.ndarray]:
        """[H, W, channels] by number. numbers: rising."""
        times = self.times()
        if times is not None and numbers[-1] >= len(times):
            raise UnreadableVideo(f"it has {len(times)} frames, and frame {numbers[-1]} is asked for")
        number_at = None if times is None else {time: number for number, time in enumerate(times)}
        first = None
        if times is not None:
            first = max((key for key in self.keys if key <= times[numbers[0]]), default=None)
        self.rewind(first)
        missing: set[int] = set(numbers)
        frames: dict[int, np.ndarray] = {}
        for count, frame in enumerate(self.decoded()):
            number = count if number_at is None else number_at.get(frame.pts)
            if number in missing:
                with self._errors():
                    pixels = frame.to_ndarray(format="gray" if channels == 1 else "rgb24")
                frames[number] = pixels[..., None] if channels == 1 else pixels
                missing.remove(number)
                if not missing:
                    return frames
        raise UnreadableVideo(f"frame {min(missing)} cannot be decoded")
