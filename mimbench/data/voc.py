"""PASCAL VOC scenes by path, as COCO-format scenes."""

from __future__ import annotations

import hashlib
import json
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from pydantic import Field

from mimbench.contract import DataConfig, Dataset, SceneSplit, SplitName, cosmetic
from mimbench.data.cache import writable
from mimbench.data.images import READER_VERSION
from mimbench.data.listing import ImageFile, examine, printable, subfolders
from mimbench.errors import InputError
from mimbench.files import write_atomic

CONVERTER_VERSION = "1"
"""Raised whenever the same files would give other annotations."""
ENDINGS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
DEFAULTS = {"train": (("trainval",), ("train",)), "test": (("test",), ("val",))}
"""Lists that make a split where none are named: the first ones that are there."""


class VocConfig(DataConfig):
    """A VOC folder (Annotations, ImageSets, JPEGImages), or one that holds several: VOC2007, VOC2012."""

    train: tuple[str, ...] = ()
    """Lists of ImageSets/Main that make the training split, such as "trainval", or of one folder alone, such as
    "VOC2007/trainval". Absent: every trainval, or every train."""
    test: tuple[str, ...] = ()
    """Absent: every test, or every val."""
    channels: Literal[1, 3] = Field(3)
    """3: RGB. 1: grey."""
    fingerprint: Literal["content", "names"] = cosmetic("content")
    """names: digest annotations, and of images names and sizes only."""


@dataclass(frozen=True)
class _Object:
    name: str
    box: tuple[float, float, float, float]
    """x, y, width, height, px."""
    difficult: bool


@dataclass(frozen=True)
class _Scene:
    image: str
    """Relative to the root."""
    width: int
    height: int
    objects: tuple[_Object, ...]


class Voc(Dataset):
    """PASCAL VOC's format: boxes of any classes. Objects that it marks as difficult are crowd regions here: no
    detector learns from them, and finding them is neither right nor wrong."""

    name = "voc"
    provides = frozenset({"boxes"})
    Config = VocConfig
    config: VocConfig

    def __init__(self, config: VocConfig, cache: Path) -> None:
        super().__init__(config, cache)
        self.channels = config.channels
        if config.root is None or not config.root.expanduser().is_dir():
            what = f"{config.root} is not a folder" if config.root else "is missing"
            raise InputError(f"voc: task.data.root {what}: pass --set task.data.root=PATH of a VOC folder")
        self.root = config.root.expanduser()
        self._folders = _voc_folders(self.root)
        self._scenes = {"train": self._read("train", config.train), "test": self._read("test", config.test)}
        shared = {scene.image for scene in self._scenes["train"]} & {scene.image for scene in self._scenes["test"]}
        if shared:
            raise InputError(f"voc: {len(shared)} images are in train and in test, such as {min(shared)}")
        names = {name: self._names(name) for name in ("train", "test")}
        unseen = sorted(names["test"] - names["train"])
        if unseen:
            raise InputError(f"voc: class {unseen[0]!r} is in the test scenes and in no training scene")
        self.classes = tuple(sorted(names["train"]))

    def split(self, name: SplitName) -> SceneSplit:
        folder = writable(self.cache) / f"voc-{self.fingerprint()[:16]}"
        path = folder / f"{name}.json"
        with FileLock(f"{folder}.lock"):
            if not path.is_file():
                write_atomic(path, json.dumps(_as_coco(self._scenes[name], self.classes)).encode())
        return SceneSplit(path, self.root, self.classes, len(self._scenes[name]))

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        content = {name: [repr(scene) for scene in scenes] for name, scenes in self._scenes.items()}
        settings = (CONVERTER_VERSION, READER_VERSION, self.channels, self.config.fingerprint)
        digest = hashlib.sha256(repr((settings, content)).encode())
        files = [self._file(scene.image) for scenes in self._scenes.values() for scene in scenes]
        if self.config.fingerprint == "names":
            lines = [(file.name, str(file.size)) for file in files]
        else:
            health = examine(files, self.root, self.cache, decode=False)
            lines = [(file.name, health[file.name].digest) for file in files]
        digest.update(repr(sorted(lines)).encode())
        return digest.hexdigest()

    def _file(self, image: str) -> ImageFile:
        stat = (self.root / image).stat()
        return ImageFile(image, stat.st_size, stat.st_mtime_ns)

    def _names(self, split: str) -> set[str]:
        return {found.name for scene in self._scenes[split] for found in scene.objects}

    def _read(self, split: str, asked: tuple[str, ...]) -> list[_Scene]:
        for lists in (asked,) if asked else DEFAULTS[split]:
            paths = [path for entry in lists for path in self._lists(entry)]
            if paths:
                listed = dict.fromkeys((path.parents[2], stem) for path in paths for stem in _stems(path))
                scenes = [_scene(self.root, folder, stem) for folder, stem in listed]
                if not any(scene.objects for scene in scenes):
                    raise InputError(f"voc: no object in any {split} scene of {printable(self.root)}")
                return scenes
        wanted = " or ".join(entry for lists in ((asked,) if asked else DEFAULTS[split]) for entry in lists)
        raise InputError(
            f"voc: {printable(self.root)} has no ImageSets/Main/*.txt called {wanted}; "
            f'pass --set task.data.{split}=["NAME"]'
        )

    def _lists(self, entry: str) -> list[Path]:
        """The files that "trainval" or "VOC2007/trainval" means."""
        folder, _, name = entry.rpartition("/")
        folders = [each for each in self._folders if not folder or each.name == folder]
        paths = [each / "ImageSets" / "Main" / f"{name}.txt" for each in folders]
        return [path for path in paths if path.is_file()]


def _voc_folders(root: Path) -> list[Path]:
    candidates = [root, *subfolders(root), *(subfolders(root / "VOCdevkit") if (root / "VOCdevkit").is_dir() else [])]
    found = [folder for folder in candidates if (folder / "Annotations").is_dir()]
    if not found:
        raise InputError(f"voc: {printable(root)} is no VOC folder: neither it nor a folder in it has Annotations/")
    return found


def _stems(path: Path) -> list[str]:
    """Image names of a list; lists of one class carry a second column, -1 where the class is absent."""
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [row[0] for row in rows]


def _scene(root: Path, folder: Path, stem: str) -> _Scene:
    path = folder / "Annotations" / f"{stem}.xml"
    try:
        tree = ElementTree.parse(path).getroot()
        width, height = (int(_text(tree, f"size/{side}")) for side in ("width", "height"))
        objects = tuple(_object(node) for node in tree.findall("object"))
    except OSError as error:
        raise InputError(f"voc: cannot read {printable(path)}: {error.strerror or error}") from error
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"voc: {printable(path)} is not a VOC annotation: {error}") from error
    images = [folder / "JPEGImages" / f"{stem}{ending}" for ending in ENDINGS]
    image = next((each for each in images if each.is_file()), None)
    if image is None:
        raise InputError(f"voc: the image {printable(images[0])} of {path.name} does not exist")
    return _Scene(image.relative_to(root).as_posix(), width, height, objects)


def _object(node: ElementTree.Element) -> _Object:
    # VOC counts pixels from 1, and its last pixel belongs to the box.
    left, top, right, bottom = (float(_text(node, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax"))
    if right < left or bottom < top:
        raise ValueError(f"a box ends before it starts: {left:g}, {top:g} to {right:g}, {bottom:g}")
    box = (left - 1, top - 1, right - left + 1, bottom - top + 1)
    return _Object(_text(node, "name"), box, (node.findtext("difficult") or "0").strip() == "1")


def _text(node: ElementTree.Element, path: str) -> str:
    text = node.findtext(path)
    if text is None or not text.strip():
        raise ValueError(f"it has no {path}")
    return text.strip()


def _as_coco(scenes: list[_Scene], classes: tuple[str, ...]) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for number, scene in enumerate(scenes):
        for found in scene.objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": classes.index(found.name) + 1,
                    "bbox": list(found.box),
                    "area": found.box[2] * found.box[3],
                    "iscrowd": int(found.difficult),
                }
            )
    return {
        "images": [
            {"id": number, "file_name": scene.image, "width": scene.width, "height": scene.height}
            for number, scene in enumerate(scenes)
        ],
        "annotations": annotations,
        "categories": [{"id": number + 1, "name": name} for number, name in enumerate(classes)],
    }
