"""Videos on disk: class folders, lists, or one of the public sets by its path."""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from mimbench.contract import DataConfig, Dataset, ImageSplit, InputError, SplitName, cosmetic
from mimbench.data.files.cache import READERS, folder_entries, is_current, write_derived
from mimbench.data.files.video_reading import READER_VERSION, UnreadableVideo, count_frames, frame_files, read_frames
from mimbench.data.pipeline import frame_sampling as sampling
from mimbench.data.sources.optional import require_package
from mimbench.data.sources.root import require_root
from mimbench.data.sources.video_lists import LAYOUTS
from mimbench.errors import RunError
from mimbench.files import FileState
from mimbench.text import list_first, printable

Video = tuple[Path, str]
"""Path, and class name."""
CHUNK = 2000
"""Videos that are examined before what is known is written."""


class VideosConfig(DataConfig):
    """Where the videos are, and which frames make a clip."""

    layout: Literal["folders", "list", "kinetics", "ssv2", "ucf101", "hmdb51"] = "folders"
    """folders: train/<class>/ and val/<class>/; list: train.csv and val.csv with a path and a class per line; the
    others are the public sets with the lists that they ship."""
    split_number: Literal[1, 2, 3] = 1
    """UCF101 and HMDB51: which of the three official splits."""
    frames: int = Field(16, ge=2)
    """Of each clip; input.frames must agree."""
    sampling: Literal["dense", "spread", "segments"] = "dense"
    """dense: every `stride`-th frame from a random start; spread: the same time at equal distances, as VideoMAE
    fine-tunes on Kinetics; segments: a random frame of each of `frames` parts of the video, as it trains on SSv2."""
    stride: int = Field(4, ge=1)
    channels: Literal[1, 3] = 3
    """3: RGB. 1: grey."""
    on_bad_video: Literal["error", "skip"] = cosmetic("error")
    """What to do with files that are missing or cannot be decoded; those skipped are not part of the fingerprint."""
    fingerprint: Literal["content", "names"] = cosmetic("names")
    """names: digest names, numbers of frames and sizes. content: digest all bytes, which are read once."""


class VideoSplit(ImageSplit):
    """Clips of any size, uint8 [channels, frames, H, W], cut out of videos."""

    has_test_clips = True

    def __init__(
        self, videos: list[Video], counts: list[int], labels: Tensor, classes: tuple[str, ...], config: VideosConfig
    ) -> None:
        """counts: frames of each video."""
        self.labels, self.classes, self.config = labels, classes, config
        # One array, not a list: forked workers then never copy a million strings.
        self._paths, self._counts = np.array([str(path) for path, _ in videos]), np.array(counts)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The clip in the middle of the video."""
        return self.test_clip(index, 0, 1)

    def test_clip(self, index: int, clip: int, clips: int) -> tuple[Tensor, int]:
        """Clips at equal distances from the video's start to its end, or other frames of the same segments."""
        config, length = self.config, int(self._counts[index])
        if config.sampling == "segments":
            return self._read(index, sampling.segment_view(length, config.frames, clip, clips))
        return self._read(index, sampling.dense_view(length, config.frames, config.stride, clip, clips))

    def draw(self, index: int, generator: torch.Generator) -> tuple[Tensor, int]:
        config, length = self.config, int(self._counts[index])
        if config.sampling == "segments":
            part = max(1, sampling.segment_length(length, config.frames))
            offsets = torch.randint(part, (config.frames,), generator=generator).numpy()
            return self._read(index, sampling.segment_frames(length, config.frames, offsets))
        is_dense = config.sampling == "dense"
        starts = (sampling.dense_starts if is_dense else sampling.spread_starts)(length, config.frames, config.stride)
        start = int(torch.randint(starts, (), generator=generator))
        choose = sampling.dense_frames if is_dense else sampling.spread_frames
        return self._read(index, choose(length, config.frames, config.stride, start))

    def _read(self, index: int, numbers: list[int]) -> tuple[Tensor, int]:
        path = Path(self._paths[index])
        try:
            return read_frames(path, numbers, self.config.channels), int(self.labels[index])
        except UnreadableVideo as error:
            raise RunError(
                f"the video {printable(path)} cannot be read: {error}; repair it, or remove it and pass "
                "--set data.on_bad_video=skip"
            ) from error


class Videos(Dataset):
    """Videos in class folders, in lists, or as Kinetics, Something-Something V2, UCF101 and HMDB51 ship them.

    Files are decoded by PyAV (pip install 'mimbench[video]'), which brings FFmpeg. A video may also be a folder of
    frames. Each file is opened once, and its number of frames is kept in the cache.
    """

    name = "videos"
    Config = VideosConfig
    config: VideosConfig

    def __init__(self, config: VideosConfig, cache: Path) -> None:
        super().__init__(config, cache)
        self.channels, self.frames = config.channels, config.frames
        require_package("av", "video", self.name)
        self.root = require_root(config.root, self.name, "of a folder of videos")
        listed = LAYOUTS[config.layout](self.root, config.split_number)
        for part, videos in listed.parts.items():
            if not videos:
                raise InputError(f"{printable(self.root)} lists no videos of the {part} split")
        counts = self._count([video for videos in listed.parts.values() for video, _ in videos])
        parts = {name: self._readable(name, videos, counts) for name, videos in listed.parts.items()}
        names = {name for videos in parts.values() for _, name in videos}
        unknown = sorted({name for _, name in parts["test"]} - {name for _, name in parts["train"]})
        if unknown and not listed.classes:
            raise InputError(f"no training video has the class {list_first(unknown)}, which test videos have")
        unlisted = sorted(names - set(listed.classes or names))
        if unlisted:
            raise InputError(f"the class {list_first(unlisted)} of a video is not in the list of classes")
        self.classes = listed.classes or tuple(sorted(names))
        numbers = {name: number for number, name in enumerate(self.classes)}
        self._splits = {
            name: VideoSplit(
                videos,
                [counts[path].frames for path, _ in videos],
                torch.tensor([numbers[label] for _, label in videos]),
                self.classes,
                config,
            )
            for name, videos in parts.items()
        }
        self.facts = {
            "layout": config.layout,
            **{f"{name}_videos": len(videos) for name, videos in parts.items()},
            **{f"{name}_listed": len(videos) for name, videos in listed.parts.items()},
        }
        self._fingerprint = self._digest(parts, counts)

    def split(self, name: SplitName) -> VideoSplit:
        return self._splits[name]

    def fingerprint(self) -> str:
        return self._fingerprint

    def _count(self, paths: list[Path]) -> dict[Path, _Examined]:
        """Frames of each video, from the cache if the file has not changed since."""
        with_digest = self.config.fingerprint == "content"
        with folder_entries(self.cache, f"videos-v{READER_VERSION}", self.root) as (store, entries):
            known = {name: _Examined.from_json(entry) for name, entry in entries.items()}
            stale = [
                path
                for path in dict.fromkeys(paths)
                if str(path) not in known or not known[str(path)].is_current(path, with_digest)
            ]
            for start in range(0, len(stale), CHUNK):  # so that a kill loses little
                chunk = stale[start : start + CHUNK]
                with ThreadPoolExecutor(READERS) as pool:
                    examined = pool.map(lambda path: _examine(path, with_digest), chunk)
                    known |= zip(map(str, chunk), examined, strict=True)
                write_derived(store, {name: astuple(one) for name, one in known.items()})
        return {path: known[str(path)] for path in paths}

    def _readable(self, split: SplitName, videos: list[Video], counts: dict[Path, _Examined]) -> list[Video]:
        bad = [path for path, _ in videos if counts[path].problem]
        if not bad:
            return videos
        listed = list_first([f"{printable(path)} ({counts[path].problem})" for path in bad])
        what = f"{len(bad)} of {len(videos)} videos of the {split} split"
        if self.config.on_bad_video == "error":
            raise InputError(
                f"{what} cannot be read: {listed}; repair or remove them, or pass --set data.on_bad_video=skip to go "
                "on without them"
            )
        self.notes = (*self.notes, f"skipped {what}, which cannot be read: {listed}")
        good = [video for video in videos if not counts[video[0]].problem]
        if not good:
            raise InputError(f"none of the {len(videos)} videos of the {split} split can be read: {listed}")
        return good

    def _digest(self, parts: dict[str, list[Video]], counts: dict[Path, _Examined]) -> str:
        config = self.config
        digest = hashlib.sha256(repr((READER_VERSION, self.classes, config.shaping())).encode())
        for name, videos in sorted(parts.items()):
            lines = []
            for path, label in videos:
                content = counts[path].digest if config.fingerprint == "content" else counts[path].size
                place = path.relative_to(self.root) if path.is_relative_to(self.root) else path
                lines.append((place.as_posix(), label, counts[path].frames, content))
            digest.update(repr((name, sorted(lines))).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class _Examined:
    """What is known of a video: a file, or a folder of frames."""

    state: FileState | None
    """When it was examined; None: it was not there."""
    examined: int
    """When that was, ns."""
    frames: int
    problem: str
    """Why it cannot be read; "" if it can."""
    digest: str
    """Of all bytes; "" if they were not read."""

    @property
    def size(self) -> int:
        """Bytes."""
        return self.state.size if self.state else 0

    @classmethod
    def from_json(cls, data: list) -> _Examined:
        state, *others = data
        return cls(FileState(*state) if state else None, *others)

    def is_current(self, path: Path, with_digest: bool) -> bool:
        is_complete = bool(self.digest or self.problem) or not with_digest
        return self.state is not None and is_complete and is_current(self.state, self.examined, _state_of(path))


def _examine(path: Path, with_digest: bool) -> _Examined:
    # The clock and the state are read first: a change that comes later makes the entry stale.
    examined, state = time.time_ns(), _state_of(path)
    if state is None:
        return _Examined(None, examined, 0, "it is missing", "")
    try:
        return _Examined(state, examined, count_frames(path), "", _digest_of(path) if with_digest else "")
    except (UnreadableVideo, OSError) as error:
        return _Examined(state, examined, 0, str(error) or "it cannot be decoded", "")


def _state_of(path: Path) -> FileState | None:
    """That of a file; of a folder of frames the sum of their sizes and their latest dates."""
    state = FileState.if_there(path)
    if state is None or not path.is_dir():
        return state
    try:
        frames = [FileState.read(file) for file in frame_files(path)]
    except (UnreadableVideo, OSError):
        return state
    return state._replace(
        size=sum(one.size for one in frames),
        modified=max(one.modified for one in frames),
        changed=max(one.changed for one in frames),
    )


def _digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    for file in frame_files(path) if path.is_dir() else [path]:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
