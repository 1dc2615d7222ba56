"""PASCAL VOC scenes by path, as COCO-format scenes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mimbench.contract import Dataset, SceneSplit, SplitName
from mimbench.data.files.cache import ensure_writable, write_if_changed
from mimbench.data.files.image_reading import READER_VERSION
from mimbench.data.files.image_sizes import ExifTurns, ImageSize, find_inside, match_size, read_image_sizes
from mimbench.data.files.listing import check_files, subfolders
from mimbench.data.sources.boxes import FRACTIONS, BoxCount, are_fractions, box_problem
from mimbench.data.sources.class_matching import similar_classes
from mimbench.data.sources.root import require_root
from mimbench.data.sources.scene_options import SceneConfig, check_images, image_file
from mimbench.data.sources.voc_xml import Box, read_annotation
from mimbench.errors import InputError
from mimbench.leases import hold_lease
from mimbench.text import printable, quoted
from mimbench.text_files import read_text

CONVERTER_VERSION = "1"
"""Raised whenever the same files would give other annotations."""
ENDINGS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
DEFAULTS = {"train": (("trainval",), ("train",)), "test": (("test",), ("val",))}
"""Lists that make a split if the options name none. The first ones that exist are taken."""


class VocConfig(SceneConfig):
    """A VOC folder (Annotations, ImageSets, JPEGImages), or one that holds several: VOC2007, VOC2012."""

    train: tuple[str, ...] = ()
    """Lists of ImageSets/Main that make the training split, such as "trainval", or of one folder alone, such as
    "VOC2007/trainval". Absent: every trainval, or every train."""
    test: tuple[str, ...] = ()
    """Absent: every test, or every val."""


@dataclass(frozen=True)
class _Object:
    name: str
    box: Box
    difficult: bool


@dataclass(frozen=True)
class _Scene:
    image: str
    """Relative to the root."""
    width: int | None
    height: int | None
    """None if the annotation states no size. The image's size is filled in later."""
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
        self.root = require_root(config.root, self.name, "of a VOC folder", "task.data.root")
        self._folders = _voc_folders(self.root)
        self._turns = ExifTurns()
        self._scenes = {"train": self._read("train", config.train), "test": self._read("test", config.test)}
        shared = {scene.image for scene in self._scenes["train"]} & {scene.image for scene in self._scenes["test"]}
        if shared:
            raise InputError(f"voc: {len(shared)} images are in train and in test, such as {min(shared)}")
        names = {name: self._names(name) for name in ("train", "test")}
        unseen = sorted(names["test"] - names["train"])
        if unseen:
            raise InputError(f"voc: class {unseen[0]!r} is in the test scenes and in no training scene")
        self.classes = tuple(sorted(names["train"]))
        where = printable(self.root)
        self._turns.check(f"voc: {where}")
        images = sorted(scene.image for scenes in self._scenes.values() for scene in scenes)
        values = check_images(images, self.root, cache, config, "voc")
        notes = [*values, *_count(self._scenes["train"]).notes(f"{where} (train)"), *self._turns.note(where)]
        notes += [*self._zero_based(), *similar_classes(self.classes)]
        self.notes = tuple(f"voc: {note}" for note in notes)

    def split(self, name: SplitName) -> SceneSplit:
        folder = ensure_writable(self.cache) / f"voc-{self.fingerprint()[:16]}"
        path = folder / f"{name}.json"
        with hold_lease(folder, "listing the scenes of voc"):
            write_if_changed(path, json.dumps(_as_coco(self._scenes[name], self.classes)).encode())
        return SceneSplit(path, self.root, self.classes, len(self._scenes[name]))

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        content = {name: [repr(scene) for scene in scenes] for name, scenes in self._scenes.items()}
        settings = (CONVERTER_VERSION, READER_VERSION, self.channels, self.config.fingerprint)
        digest = hashlib.sha256(repr((settings, content)).encode())
        if self._turns.as_stored:
            digest.update(b"images as stored")
        files = [image_file(scene.image, self.root) for scenes in self._scenes.values() for scene in scenes]
        if self.config.fingerprint == "names":
            lines = [(file.name, str(file.size)) for file in files]
        else:
            health = check_files(files, self.root, self.cache, decode=False)
            lines = [(file.name, health[file.name].digest) for file in files]
        digest.update(repr(sorted(lines)).encode())
        return digest.hexdigest()

    def _names(self, split: str) -> set[str]:
        return {item.name for scene in self._scenes[split] for item in scene.objects}

    def _zero_based(self) -> list[str]:
        scenes = [scene for scenes in self._scenes.values() for scene in scenes]
        boxes = [(scene, box) for scene in scenes for box in _boxes(scene)]
        early = [scene.image for scene, box in boxes if -1 in box[:2]]
        if not early:
            return []
        return [
            f"{printable(self.root)}: {len(early)} of {len(boxes)} boxes start at pixel 0, such as one of "
            f"{quoted(early[0])}; VOC counts from 1, so if these files count from 0, all boxes lie 1 px off"
        ]

    def _read(self, split: str, names: tuple[str, ...]) -> list[_Scene]:
        for lists in (names,) if names else DEFAULTS[split]:
            paths = [path for entry in lists for path in self._lists(entry)]
            if paths:
                listed = dict.fromkeys((path.parents[2], stem) for path in paths for stem in _stems(path))
                scenes = self._sized([_scene(self.root, folder, stem) for folder, stem in listed])
                self._check_objects(split, scenes)
                return scenes
        choices = " or ".join(entry for lists in ((names,) if names else DEFAULTS[split]) for entry in lists)
        raise InputError(
            f"voc: {printable(self.root)} has no ImageSets/Main/*.txt called {choices}; "
            f'pass --set task.data.{split}=["NAME"]'
        )

    def _sized(self, scenes: list[_Scene]) -> list[_Scene]:
        """The scenes with sizes that are those of their images.

        Raises:
            InputError: an image cannot be read, or has another size.
        """
        headers = read_image_sizes([scene.image for scene in scenes], self.root, self.cache, self.config.max_pixels)
        sized = []
        for scene in scenes:
            raster = headers[scene.image]
            if isinstance(raster, str):
                raise InputError(f"voc: cannot read the image {quoted(scene.image)}: {raster}")
            width, height = scene.width, scene.height
            if width is None or height is None:
                if raster.orientation != 1:
                    raise InputError(
                        f"voc: the annotation of {quoted(scene.image)} has no size, and EXIF data turn the image's "
                        f"{raster}; declare the size that its boxes are for"
                    )
                width, height = raster.stored
            sized.append(replace(scene, width=width, height=height))
            self._compare(scene.image, raster, (width, height))
        return sized

    def _compare(self, image: str, raster: ImageSize, size: tuple[int, int]) -> None:
        how = match_size(raster, size, self.root / image)
        if how is None:
            raise InputError(
                f"voc: image {quoted(image)} is {raster}, and its annotation says {size[0]} x {size[1]}; boxes would "
                "not fit: correct size and boxes, or put the right image there"
            )
        self._turns.add(image, raster, how)

    def _check_objects(self, split: str, scenes: list[_Scene]) -> None:
        where = f"voc: {printable(self.root)} ({split})"
        for scene in scenes:
            for item in scene.objects:
                if problem := box_problem(item.box, (scene.width or 0, scene.height or 0)):
                    raise InputError(f"voc: {quoted(item.name)} in the annotation of {quoted(scene.image)} {problem}")
        if are_fractions((x + 1, y + 1, w - 1, h - 1) for scene in scenes for x, y, w, h in _boxes(scene)):
            raise InputError(f"{where}: {FRACTIONS}, counted from 1")
        if problem := _count(scenes).problem(where):
            raise InputError(problem)

    def _lists(self, entry: str) -> list[Path]:
        """The files that "trainval" or "VOC2007/trainval" means."""
        folder, _, name = entry.rpartition("/")
        folders = [each for each in self._folders if not folder or each.name == folder]
        paths = [each / "ImageSets" / "Main" / f"{name}.txt" for each in folders]
        return [path for path in paths if path.is_file()]


def _voc_folders(root: Path) -> list[Path]:
    candidates = [root, *subfolders(root)]
    if (root / "VOCdevkit").is_dir():
        candidates += subfolders(root / "VOCdevkit")
    folders = [folder for folder in candidates if (folder / "Annotations").is_dir()]
    if not folders:
        raise InputError(f"voc: {printable(root)} is no VOC folder: neither it nor a folder in it has Annotations/")
    return folders


def _stems(path: Path) -> list[str]:
    """Image names of a list; lists of one class carry a second column, -1 if the class is absent."""
    rows = [line.split() for line in read_text(path).splitlines() if line.strip()]
    return [row[0] for row in rows]


def _scene(root: Path, folder: Path, stem: str) -> _Scene:
    try:
        annotation = find_inside(f"{stem}.xml", folder / "Annotations")
    except ValueError as error:
        raise InputError(
            f"voc: the annotation {quoted(stem + '.xml')}, which ImageSets/Main lists, {error} "
            f"({printable(folder / 'Annotations')})"
        ) from error
    path, stem = folder / "Annotations" / annotation, annotation.removesuffix(".xml")
    width, height, objects = read_annotation(path)
    images = [folder / "JPEGImages" / f"{stem}{ending}" for ending in ENDINGS]
    image = next((each for each in images if each.is_file()), None)
    if image is None:
        raise InputError(
            f"voc: the image {printable(images[0])} of {path.name} does not exist, nor does one that ends in "
            f"{', '.join(ENDINGS[1:])}"
        )
    return _Scene(image.relative_to(root).as_posix(), width, height, tuple(_Object(*each) for each in objects))


def _boxes(scene: _Scene) -> list[Box]:
    return [item.box for item in scene.objects]


def _count(scenes: list[_Scene]) -> BoxCount:
    count = BoxCount()
    for scene in scenes:
        for item in scene.objects:
            area = item.box[2] * item.box[3]
            count.add(item.box, area, (scene.width or 0, scene.height or 0), is_crowd=item.difficult)
    return count


def _as_coco(scenes: list[_Scene], classes: tuple[str, ...]) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for number, scene in enumerate(scenes):
        for item in scene.objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": classes.index(item.name) + 1,
                    "bbox": list(item.box),
                    "area": item.box[2] * item.box[3],
                    "iscrowd": int(item.difficult),
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
