"""Small COCO and VOC folders for tests, and edits of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from mimbench.data.sources.coco import Coco, CocoConfig
from mimbench.data.sources.voc import Voc, VocConfig

TRAIN, VAL = "annotations/instances_train2017.json", "annotations/instances_val2017.json"


def write_coco(root: Path) -> Path:
    for file, folder, images in ((TRAIN, "train2017", 3), (VAL, "val2017", 2)):
        (root / folder).mkdir(parents=True)
        (root / "annotations").mkdir(exist_ok=True)
        for number in range(images):
            Image.new("RGB", (40, 30), (number, 9, 9)).save(root / folder / f"bild {number} ä.png")
        document = {
            "images": [
                {"id": 7 + number, "file_name": f"bild {number} ä.png", "width": 40, "height": 30}
                for number in range(images)
            ],
            "categories": [{"id": 3, "name": "cat"}, {"id": 90, "name": "dog"}],
            "annotations": [record(1, 7, 3), record(2, 8, 90, iscrowd=1)],
        }
        (root / file).write_text(json.dumps(document))
    return root


def record(identity: int, image: int, category: int, **more: Any) -> dict[str, Any]:
    box = [2, 3, 10, 8]
    polygon = [[2, 3, 12, 3, 12, 11, 2, 11]]
    annotation = {"id": identity, "image_id": image, "category_id": category, "bbox": box, "area": 80}
    return {**annotation, "segmentation": polygon, "iscrowd": 0, **more}


def edit(path: Path, change) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def open_coco(root: Path | None = None, **options: Any) -> Coco:
    return Coco(CocoConfig(root=root, **options), (root or Path.cwd()).parent / "cache")


def write_voc(root: Path) -> Path:
    for year, lists in (("VOC2007", {"trainval": ["000001", "000002"], "test": ["000003"]}), ("VOC2012", {})):
        folder = root / year
        for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
            (folder / name).mkdir(parents=True)
        for name, stems in (lists or {"trainval": ["2008_1"]}).items():
            (folder / "ImageSets" / "Main" / f"{name}.txt").write_text("\n".join(stems) + "\n")
            for stem in stems:
                Image.new("RGB", (40, 30)).save(folder / "JPEGImages" / f"{stem}.jpg")
                (folder / "Annotations" / f"{stem}.xml").write_text(XML)
    return root


XML = """<annotation><size><width>40</width><height>30</height><depth>3</depth></size>
<object><name>dog</name><difficult>0</difficult><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>12</xmax><ymax>13</ymax>
</bndbox></object><object><name>cat</name><difficult>1</difficult>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>40</xmax><ymax>30</ymax></bndbox></object></annotation>"""


def open_voc(root: Path, **options: Any) -> Voc:
    return Voc(VocConfig(root=root, **options), root.parent / "cache")
