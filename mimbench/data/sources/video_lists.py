"""Which videos a folder holds, with their classes and splits, as the public sets ship them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mimbench.data.files.listing import has_images, subfolders
from mimbench.data.files.video_reading import VIDEO_EXTENSIONS
from mimbench.data.sources.split_names import TEST, TRAIN, first_of
from mimbench.errors import InputError
from mimbench.text import printable, quoted
from mimbench.text_files import read_text


@dataclass
class VideoList:
    """Videos by split: (path, class name)."""

    parts: dict[str, list[tuple[Path, str]]] = field(default_factory=lambda: {"train": [], "test": []})
    classes: tuple[str, ...] | None = None
    """Class names in the order of their labels. None: sorted."""


Reader = Callable[[Path, int], VideoList]


def read_folders(root: Path, split: int) -> VideoList:
    """root/train/<class>/* and root/val (or test)/<class>/*: video files, or folders of frames."""
    folders = {folder.name.lower(): folder for folder in subfolders(root)}
    names = {"train": first_of(TRAIN, folders), "test": first_of(TEST, folders)}
    videos = VideoList()
    for part, name in names.items():
        if name is None:
            raise InputError(
                f"{printable(root)} has no folder {'train' if part == 'train' else 'val or test'}; sort the videos "
                "into train/<class>/ and val/<class>/, or set data.layout to that of a public set"
            )
        for folder in subfolders(folders[name]):
            videos.parts[part] += [(path, folder.name) for path in _videos_in(folder)]
    return videos


def read_list(root: Path, split: int) -> VideoList:
    """root/train.csv or .txt and root/val or test: a path and a class per line, as VideoMAE's lists have them.

    A path is relative to `root`. The separator is a comma, a tab or a space.
    """
    videos = VideoList()
    for part, words in (("train", TRAIN), ("test", TEST)):
        path = _first_file(root, [f"{word}{ending}" for word in words for ending in (".csv", ".txt")])
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            if not line.strip():
                continue
            name, separator, label = _split_line(line.strip())
            if not separator:
                raise InputError(f"{printable(path)}, line {number}: {quoted(line)} is no path and class")
            if label.isdecimal() and name.rpartition(separator)[2].strip().isdecimal():
                raise InputError(f"{printable(path)}, line {number} has three columns; leave a path and a class")
            videos.parts[part].append((root / name, label))
    labels = {label for part in videos.parts.values() for _, label in part}
    unknown = labels - {label for _, label in videos.parts["train"]}
    if labels and not unknown and all(label.isdecimal() for label in labels):
        videos.classes = tuple(sorted(labels, key=int))
    return videos


def read_kinetics(root: Path, split: int) -> VideoList:
    """Kinetics as cvdfoundation/kinetics-dataset has it: annotations/train.csv, val.csv, and train/, val/.

    A video is <youtube id>_<start>_<end>.mp4, with six digits for each time.
    """
    videos = VideoList()
    for part, name in (("train", "train"), ("test", "val")):
        path = _first_file(root, [f"annotations/{name}.csv", f"{name}.csv"])
        for row in _rows(path, ("label", "youtube_id", "time_start", "time_end")):
            try:
                times = "_".join(f"{int(float(row[key])):06d}" for key in ("time_start", "time_end"))
            except (TypeError, ValueError) as error:
                raise InputError(
                    f"{printable(path)}: a row of {quoted(str(row['youtube_id']))} has no times"
                ) from error
            videos.parts[part].append((root / name / f"{row['youtube_id']}_{times}.mp4", row["label"]))
    return videos


def read_ssv2(root: Path, split: int) -> VideoList:
    """Something-Something V2: labels/{train,validation,labels}.json, and <id>.webm in 20bn-something-something-v2/."""
    path = _first_file(root, ["labels/labels.json", "something-something-v2-labels.json"])
    numbers = _json(path)
    try:
        videos = VideoList(classes=tuple(sorted(numbers, key=lambda name: int(numbers[name]))))
    except (TypeError, ValueError, IndexError) as error:
        raise InputError(f"{printable(path)} should give a number for each class") from error
    for part, name in (("train", "train"), ("test", "validation")):
        path = _first_file(root, [f"labels/{name}.json", f"something-something-v2-{name}.json"])
        for entry in _json(path):
            if not isinstance(entry, dict) or not {"id", "template"} <= set(entry):
                raise InputError(f"{printable(path)}: an entry has no id or no template")
            label = entry["template"].replace("[", "").replace("]", "")
            if label not in numbers:
                raise InputError(f"{printable(path)}: {quoted(label)} is no class of the labels")
            videos.parts[part].append((root / "20bn-something-something-v2" / f"{entry['id']}.webm", label))
    return videos


def read_ucf101(root: Path, split: int) -> VideoList:
    """UCF101: UCF-101/<class>/*.avi, and ucfTrainTestlist/ with classInd.txt and the lists of three splits."""
    lists = root / "ucfTrainTestlist"
    path = _first_file(lists, ["classInd.txt"])
    try:
        numbered = sorted((int(number), name) for number, name in map(str.split, _lines(path)))
    except ValueError as error:
        raise InputError(f"{printable(path)}: each line should have a number and a class") from error
    videos = VideoList(classes=tuple(name for _, name in numbered))
    for part, name in (("train", "trainlist"), ("test", "testlist")):
        for line in _lines(_first_file(lists, [f"{name}{split:02d}.txt"])):
            video = line.split()[0]
            videos.parts[part].append((root / "UCF-101" / video, video.partition("/")[0]))
    return videos


def read_hmdb51(root: Path, split: int) -> VideoList:
    """HMDB51: <class>/*.avi, and testTrainMulti_7030_splits/<class>_test_split<N>.txt for three splits."""
    lists = root / "testTrainMulti_7030_splits"
    videos, ending = VideoList(), f"_test_split{split}.txt"
    paths = sorted(lists.glob(f"*{ending}"))
    if not paths:
        raise InputError(f"there are no lists *{ending} in {printable(lists)}; set data.root and data.split_number")
    for path in paths:
        name = path.name.removesuffix(ending)
        for line in _lines(path):
            video, _, use = line.rpartition(" ")
            part = {"1": "train", "2": "test"}.get(use.strip())
            if part:
                videos.parts[part].append((root / name / video.strip(), name))
    return videos


LAYOUTS: Mapping[str, Reader] = {
    "folders": read_folders,
    "list": read_list,
    "kinetics": read_kinetics,
    "ssv2": read_ssv2,
    "ucf101": read_ucf101,
    "hmdb51": read_hmdb51,
}


def _videos_in(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.suffix.lower() in VIDEO_EXTENSIONS or (path.is_dir() and has_images(path)):
            yield path


def _split_line(line: str) -> tuple[str, str, str]:
    """The last separator counts, since paths may hold spaces and commas."""
    for separator in ("\t", ",", " "):
        if separator in line:
            name, _, label = line.rpartition(separator)
            return name.strip(), separator, label.strip()
    return line, "", ""


def _first_file(root: Path, names: list[str]) -> Path:
    path = next((root / name for name in names if (root / name).is_file()), None)
    if path is None:
        raise InputError(f"{printable(root)} has no {' or '.join(names[:2])}; check data.root and data.layout")
    return path


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    rows = csv.DictReader(read_text(path).splitlines())
    missing = [column for column in columns if column not in (rows.fieldnames or [])]
    if missing:
        raise InputError(f"{printable(path)} has no column {quoted(missing[0])}")
    yield from rows


def _json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise InputError(f"{printable(path)} is no JSON: {error}") from error
