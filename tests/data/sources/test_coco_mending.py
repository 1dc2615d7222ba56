"""COCO files that pycocotools or mmdet would misread: what they are mended to, and what is refused."""

from __future__ import annotations

import codecs
import gzip
import json
import os
import unicodedata
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.small_sets import TRAIN, VAL, edit, open_coco, write_coco
from mimbench.contract import InputError
from mimbench.data.sources import coco as module

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def root(tmp_path):
    return write_coco(tmp_path / "coco")


def content(root: Path, name: str = "test") -> dict[str, Any]:
    return json.loads(open_coco(root).split(name).annotations.read_text())


def first(**changes: Any) -> Change:
    return lambda document: document["annotations"][0].update(changes)


def without(table: str, key: str) -> Change:
    return lambda document: [entry.pop(key) for entry in document[table]]


def image(**changes: Any) -> Change:
    return lambda document: document["images"][0].update(changes)


@pytest.mark.parametrize("ids", [["0", "1"], [0, 1], [5, 5], [None, None], [1.5, "a"], [[1], {}], [True, 2**80]])
def test_odd_annotation_ids_become_numbers_from_1(root, ids):
    edit(
        root / VAL,
        lambda d: [record.update(id=identity) for record, identity in zip(d["annotations"], ids, strict=True)],
    )
    assert [record["id"] for record in content(root)["annotations"]] == [1, 2]


def test_absent_annotation_ids_become_numbers_from_1(root):
    edit(root / VAL, without("annotations", "id"))
    assert [record["id"] for record in content(root)["annotations"]] == [1, 2]


@pytest.mark.parametrize(("ids", "expected"), [([7.0, 8.0], [7, 8]), (["a", 3], [1, 2]), (["a", "b"], ["a", "b"])])
def test_odd_image_ids_keep_their_objects(root, ids, expected):
    def change(document):
        new = dict(zip([7, 8], ids, strict=True))
        for entry in document["images"]:
            entry["id"] = new[entry["id"]]
        for record in document["annotations"]:
            record["image_id"] = new[record["image_id"]]

    edit(root / VAL, change)
    mended = content(root)
    assert [entry["id"] for entry in mended["images"]] == expected
    assert [record["image_id"] for record in mended["annotations"]] == expected


MENDED = {
    "area null": (first(area=None, segmentation=None), "area", 80),
    "area absent, of the mask": (lambda d: d["annotations"][0].pop("area"), "area", 80),
    "area of a polygon": (first(area=None, segmentation=[[2, 3, 7, 3, 7, 11, 2, 11]]), "area", 40),
    "area of an RLE": (first(area=None, segmentation={"size": [30, 40], "counts": [100, 7, 1093]}), "area", 7),
    "area as text": (first(area="80.5"), "area", 80.5),
    "crowd null": (first(iscrowd=None), "iscrowd", 0),
    "crowd absent": (lambda d: d["annotations"][0].pop("iscrowd"), "iscrowd", 0),
    "crowd as text": (first(iscrowd="0"), "iscrowd", 0),
    "crowd as a boolean": (first(iscrowd=False), "iscrowd", 0),
    "a short polygon among others": (
        first(segmentation=[[1, 1, 5, 5], [2, 3, 12, 3, 12, 11, 2, 11]]),
        "segmentation",
        [[2, 3, 12, 3, 12, 11, 2, 11]],
    ),
}


@pytest.mark.parametrize("case", sorted(MENDED))
def test_a_field_that_can_be_read_is_mended(case, root):
    change, key, expected = MENDED[case]
    edit(root / VAL, change)
    value = content(root)["annotations"][0][key]
    assert value == expected
    assert type(value) is not bool


@pytest.mark.parametrize(("name", "expected"), [(5, "5"), (1.5, "1.5")])
def test_names_that_are_numbers_become_text(root, name, expected):
    for path in (TRAIN, VAL):
        edit(root / path, lambda d: d["categories"][0].update(name=name))
    assert open_coco(root).split("train").classes == (expected, "dog")
    assert [category["name"] for category in content(root)["categories"]] == [expected, "dog"]


def reorder(document):
    document["categories"].reverse()


def renumber(document):
    for category in document["categories"]:
        category["id"] = {3: 90, 90: 3}[category["id"]]
    for record in document["annotations"]:
        record["category_id"] = {3: 90, 90: 3}[record["category_id"]]


def mix(document):
    for category in document["categories"]:
        category["id"] = {3: "3", 90: 3}[category["id"]]
    for record in document["annotations"]:
        record["category_id"] = {3: "3", 90: 3}[record["category_id"]]


@pytest.mark.parametrize("changes", [[reorder], [renumber], [renumber, reorder], [mix]])
@pytest.mark.parametrize("path", [TRAIN, VAL])
def test_categories_are_matched_by_name(root, changes, path):
    for change in changes:
        edit(root / path, change)
    dataset = open_coco(root)
    train, test = dataset.split("train"), dataset.split("test")
    documents = [json.loads(split.annotations.read_text()) for split in (train, test)]
    assert documents[0]["categories"] == documents[1]["categories"]
    for document in documents:
        names = {category["id"]: category["name"] for category in document["categories"]}
        assert list(names) == sorted(names), "pycocotools sorts by id, mmdet keeps the order of the file"
        assert tuple(names.values()) == train.classes == test.classes
        assert [names[record["category_id"]] for record in document["annotations"]] == ["cat", "dog"]


def test_files_that_need_no_mending_are_used_as_they_are(root):
    dataset = open_coco(root)
    assert [dataset.split(name).annotations for name in ("train", "test")] == [root / TRAIN, root / VAL]


def test_the_fingerprint_changes_with_the_meaning_of_the_data(root, monkeypatch):
    def both():
        fingerprints = [open_coco(root).fingerprint()]
        monkeypatch.setattr(module, "MENDER_VERSION", "other")
        fingerprints.append(open_coco(root).fingerprint())
        monkeypatch.undo()
        return fingerprints

    plain, other = both()
    assert plain == other
    edit(root / VAL, lambda d: [record.pop("iscrowd") for record in d["annotations"]])
    plain, other = both()
    assert plain == other, "an absent crowd mark always meant 0"
    edit(root / VAL, reorder)
    mended, other = both()
    assert mended != other


def test_a_damaged_copy_is_written_again(root):
    edit(root / VAL, reorder)
    copy = open_coco(root).split("test").annotations
    sound = copy.read_bytes()
    copy.write_bytes(b"{}")
    assert open_coco(root).split("test").annotations.read_bytes() == sound


def test_a_byte_order_mark_is_read_over(root):
    plain = content(root)
    (root / VAL).write_bytes(codecs.BOM_UTF8 + (root / VAL).read_bytes())
    assert content(root) == plain


def test_backslashes_and_composed_accents_are_found(root):
    (root / "val2017" / "sub").mkdir()
    (root / "val2017" / "bild 0 ä.png").rename(root / "val2017" / "sub" / "bild 0 ä.png")
    edit(root / VAL, image(file_name="sub\\bild 0 a\u0308.png"))
    assert content(root)["images"][0]["file_name"] == "sub/bild 0 ä.png"
    assert open_coco(root).fingerprint()


@pytest.mark.parametrize("sizes", [{"width": None, "height": None}, {"width": None}, {"height": None}])
def test_null_sizes_are_those_of_the_image(root, sizes):
    edit(root / VAL, image(**sizes))
    assert (content(root)["images"][0]["width"], content(root)["images"][0]["height"]) == (40, 30)


def test_absent_sizes_are_those_of_the_image(root):
    edit(root / VAL, without("images", "width"))
    edit(root / VAL, without("images", "height"))
    assert [(entry["width"], entry["height"]) for entry in content(root)["images"]] == [(40, 30)] * 2


def turn(path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.open(path).save(path, exif=exif)


@pytest.mark.parametrize(("orientation", "size"), [(1, (40, 30)), (3, (40, 30)), (6, (40, 30)), (6, (30, 40))])
def test_images_that_exif_turns_fit_stored_or_turned(root, orientation, size):
    turn(root / "val2017" / "bild 0 ä.png", orientation)
    before = open_coco(root).fingerprint() if orientation == 1 else ""
    edit(root / VAL, image(width=size[0], height=size[1]))
    dataset = open_coco(root)
    as_stored = orientation != 1 and size == (40, 30)
    assert (len(dataset.notes) == 1 and "read as stored" in dataset.notes[0]) is as_stored
    assert not before or dataset.fingerprint() == before


REFUSED = {
    "another size": (image(width=41), r"1 of 2 images .* image 'bild 0 ä\.png' is 40 x 30 px, .* says 41 x 30"),
    "a turned size": (image(width=30, height=40), r"is 40 x 30 px, .* says 30 x 40"),
    "a size as text": (image(width="40"), r"image 'bild 0 ä\.png' \(entry 0 of images\) has the width '40'"),
    "a size of zero": (image(height=0), "has the height 0; it should be a whole number of px"),
    "a broken size": (image(height=30.5), r"has the height 30\.5"),
    "a path above": (image(file_name="../train2017/bild 0 ä.png"), r"of image 7 \(entry 0 of images\) is absolute or"),
    "a path from the root": (image(file_name="/etc/passwd"), "'/etc/passwd' of image 7 .* is absolute or"),
    "a Windows path": (image(file_name="C:\\a.png"), "is absolute or"),
    "a path above in a path": (image(file_name="a\\..\\..\\b.png"), "is absolute or"),
    "a file name null": (image(file_name=None), "the file_name None of image 7 .* is no file name"),
    "a file name as a number": (image(file_name=4), "the file_name 4 of image 7 .* is no file name"),
    "no file name": (without("images", "file_name"), "entry 0 of images has no 'file_name'"),
    "a missing backslash": (image(file_name="a\\b.png"), "a slash for each backslash too"),
    "half a character": (image(file_name="\ud800.png"), r"such as '\\ud800\.png'"),
    "an image id null": (image(id=None), "entry 0 of images has the id None"),
    "an image id twice": (image(id=8), "image id 8 occurs 2 times"),
    "an image of another type": (
        first(image_id="7"),
        r"belongs to image '7', .*\(it lists 7; number and text differ\)",
    ),
    "an image that is true": (first(image_id=True), "belongs to image True"),
    "a category null": (first(category_id=None), "is of category None"),
    "a category name null": (
        lambda d: d["categories"][0].update(name=None),
        r"entry 0 of categories \(id 3\) has the na",
    ),
    "a category name twice": (lambda d: d["categories"][0].update(name="dog"), "category 'dog' occurs 2 times"),
    "a category that is no object": (lambda d: d["categories"].append(1), "entry 2 of categories is 1, not an object"),
    "an infinite box": (first(bbox=[1, 2, float("inf"), 4]), r"annotation 1 has the bbox \[1, 2, inf, 4\]; .*entry 0"),
    "a box that is not a number": (first(bbox=[1, 2, float("nan"), 4]), r"has the bbox \[1, 2, nan, 4\]"),
    "a huge box": (first(bbox=[1, 2, 1e300, 4]), r"far outside of its image of 40 x 30 px"),
    "a number beyond floats": (first(bbox=[1, 2, 10**400, 4]), r"has the bbox \[1, 2, 1000"),
    "a short box": (first(bbox=[1, 2, 3]), r"has the bbox \[1, 2, 3\]"),
    "a box of texts": (first(bbox=["1", "2", "3", "4"]), "it should be x, y, width and height, px"),
    "a negative box": (first(bbox=[1, 2, -3, 4]), "whose size is negative"),
    "no box": (first(bbox=None), "has the bbox None"),
    "an area as a word": (first(area="big"), "annotation 1 has the area 'big'"),
    "an infinite area": (first(area=float("inf")), "annotation 1 has the area inf"),
    "a huge area": (first(area=1e12), "more than its image"),
    "a negative area": (first(area=-1), "has the area -1"),
    "a crowd of 2": (first(iscrowd=2), "annotation 1 has the iscrowd 2; it should be 0 or 1"),
    "a crowd as a word": (first(iscrowd="maybe"), "has the iscrowd 'maybe'"),
    "an odd polygon": (first(segmentation=[[1, 1, 9, 1, 9, 9, 1]]), "has a polygon of 7 numbers"),
    "a flat polygon": (first(segmentation=[1, 1, 9, 1, 9, 9]), "it should be a polygon"),
    "a polygon of texts": (first(segmentation=[["1"] * 6]), "it should hold finite numbers"),
    "an infinite polygon": (first(segmentation=[[1, 1, 9, 1, 9, float("inf")]]), "it should hold finite numbers"),
    "a huge polygon": (first(segmentation=[[1, 1, 9, 1, 9, 1e9]]), "has a polygon far outside"),
    "an RLE of another size": (
        first(segmentation={"size": [40, 30], "counts": [1200]}),
        r"has an RLE mask of the size \[40, 30\]; it should be \[30, 40\]",
    ),
    "an RLE that is too short": (first(segmentation={"size": [30, 40], "counts": [5]}), "counts do not cover"),
    "a damaged RLE": (first(segmentation={"size": [30, 40], "counts": "~~~"}), "counts do not cover"),
    "fractions": (
        lambda d: [record.update(bbox=[0.1, 0.2, 0.5, 0.5]) for record in d["annotations"]],
        "all boxes lie between 0 and 1, like fractions of the image; they must be in px",
    ),
    "crowds only": (
        lambda d: [record.update(iscrowd=1) for record in d["annotations"]],
        "none of its 2 objects can be trained on: 2 with a crowd mark",
    ),
    "areas of 0 only": (
        lambda d: [record.update(area=0) for record in d["annotations"]],
        "none of its 2 objects can be trained on: 2 with an area of 0",
    ),
    "a file under two ids": (
        lambda d: d["images"].append({**d["images"][0], "id": 99, "file_name": "./" + d["images"][0]["file_name"]}),
        r"images 7 and 99 \(entry 2 of images\) are the same file '\./bild 0 ä\.png'; list each file once",
    ),
    "boxes as corners": (
        lambda d: d.update(
            annotations=[{**d["annotations"][0], "id": n, "bbox": [20, 9, 38, 28]} for n in range(1, 11)]
        ),
        r"val2017\.json: its boxes seem to be x1, y1, x2, y2: .* all of its 10 .*, height, 10 reach beyond them",
    ),
    "no images but a word": (lambda d: d.update(images="all"), "its images are 'all', not a list"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_cannot_be_read_is_one_line(case, root):
    change, message = REFUSED[case]
    edit(root / VAL, change)
    with pytest.raises(InputError, match=message) as caught:
        open_coco(root)
    assert "\n" not in str(caught.value)
    assert "val2017" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        ('{"images": []}'.encode("utf-16"), "UTF-16 or UTF-32 text; save it as UTF-8"),
        ('{"images": []}'.encode("utf-16-le"), "UTF-16 or UTF-32 text; save it as UTF-8"),
        (b'{"\xe4": 1}', r"not UTF-8 text \(byte 2 is 0xe4\)"),
        (b"[1]", "holds no images"),
        (b"7" * 5000, "not a COCO annotation file"),
        (b"", "not a COCO annotation file"),
    ],
)
def test_files_that_are_no_such_json_are_one_line(root, text, message):
    (root / VAL).write_bytes(text)
    with pytest.raises(InputError, match=message) as caught:
        open_coco(root)
    assert "\n" not in str(caught.value)


def test_an_exif_turned_image_without_a_size_is_refused(root):
    turn(root / "val2017" / "bild 0 ä.png", 6)
    edit(root / VAL, image(width=None))
    with pytest.raises(
        InputError, match=r"has no width and height, and EXIF data that turn its 40 x 30 px \(EXIF turns"
    ):
        open_coco(root)


def test_an_image_that_was_shrunk_since_is_refused(root):
    assert open_coco(root)
    Image.new("RGB", (20, 15)).save(root / "val2017" / "bild 1 ä.png")
    with pytest.raises(InputError, match=r"'bild 1 ä\.png' is 20 x 15 px, and its entry \(1 of images\) says 40 x 30"):
        open_coco(root)


def test_an_unreadable_image_is_named(root):
    (root / "val2017" / "bild 1 ä.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"1 of 2 images .* cannot be read, such as 'bild 1 ä\.png'"):
        open_coco(root)


def test_objects_that_are_not_trained_on_are_counted(root):
    assert open_coco(root).notes == ()
    edit(root / TRAIN, lambda d: d["annotations"].append({**d["annotations"][0], "id": 9, "area": 0}))
    edit(root / TRAIN, lambda d: d["annotations"].append({**d["annotations"][0], "id": 10, "bbox": [2, 3, 0.5, 9]}))
    edit(root / TRAIN, lambda d: d["annotations"].append({**d["annotations"][0], "id": 11, "bbox": [50, 3, 5, 9]}))
    edit(root / TRAIN, lambda d: d["annotations"].append({**d["annotations"][0], "id": 12, "bbox": [35, 3, 15, 9]}))
    dropped, over = open_coco(root).notes
    for part in ("3 of 6 objects", "1 with an area of 0", "1 with a side below 1 px", "1 with a box outside of the"):
        assert part in dropped
    assert "1 of 6 boxes reach beyond their image; they are kept" in over


@pytest.mark.parametrize("mask", [None, [], [[]], [[1, 1, 5, 5]], {}])
def test_one_object_without_a_mask_is_named(root, mask):
    edit(root / VAL, first(segmentation=mask))
    dataset = open_coco(root)
    assert dataset.provides == {"boxes"}
    assert "1 of 2 objects have no mask" in dataset.notes[0]
    assert "annotation 1 (entry 0 of annotations)" in dataset.notes[0]


def test_no_object_with_a_mask_needs_no_note(root):
    for path in (TRAIN, VAL):
        edit(root / path, without("annotations", "segmentation"))
    dataset = open_coco(root)
    assert (dataset.provides, dataset.notes) == ({"boxes"}, ())


def test_coco_split_mends_too(root, tmp_path):
    edit(root / VAL, reorder)
    split = module.coco_split(root / VAL, root / "val2017", tmp_path / "cache")
    assert [c["name"] for c in json.loads(split.annotations.read_text())["categories"]] == list(split.classes)


def test_a_link_inside_the_folder_may_lead_outside(root, tmp_path):
    outside = tmp_path / "elsewhere.png"
    (root / "val2017" / "bild 0 ä.png").rename(outside)
    (root / "val2017" / "bild 0 ä.png").symlink_to(outside)
    assert np.asarray(Image.open(open_coco(root).split("test").images / "bild 0 ä.png")).shape == (30, 40, 3)


def test_images_that_would_be_nearly_black_are_noted(root):
    for number in range(3):
        Image.fromarray(np.full((30, 40), 4000 * number, np.uint16)).save(root / "train2017" / f"bild {number} ä.png")
    (note,) = open_coco(root).notes
    assert note.startswith("coco: 3 16-bit images under ")
    assert "small part of the range" in note


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_match_whichever_way_accents_are_written(root, form):
    for path, other in ((TRAIN, "NFC"), (VAL, form)):
        edit(root / path, lambda d, form=other: d["categories"][0].update(name=unicodedata.normalize(form, "bär")))
    dataset = open_coco(root)
    assert dataset.split("train").classes == dataset.split("test").classes == ("bär", "dog")


def test_names_that_differ_only_in_case_are_noted(root):
    for path in (TRAIN, VAL):
        edit(root / path, lambda d: d["categories"][0].update(name="Dog"))
    (note,) = open_coco(root).notes
    assert note.startswith("coco: classes 'Dog', 'dog' differ only in case, blanks")
    assert note.endswith("; each counts as a separate class")


def test_an_image_of_both_splits_is_refused(root):
    with pytest.raises(InputError, match=r"3 images of .*train2017\.json are in .*train2017\.json too, such as"):
        open_coco(root, test_annotations=root / TRAIN, test_images=root / "train2017")


def test_compressed_annotations_are_named(root):
    (root / VAL).write_bytes(gzip.compress((root / VAL).read_bytes()))
    with pytest.raises(InputError, match=r"val2017\.json is compressed \(gzip\); unpack it"):
        open_coco(root)


def truncate(path):
    Image.effect_noise((40, 30), 90).save(path)
    path.write_bytes(path.read_bytes()[:-300])


def rename_postscript(path):
    content = BytesIO()
    Image.new("RGB", (40, 30)).save(content, "EPS")
    path.write_bytes(content.getvalue())


UNREADABLE = {
    "truncated": (truncate, "cannot be read, such as 'bild 0 ä.png': image file is truncated"),
    "postscript": (rename_postscript, "cannot be read, such as 'bild 0 ä.png': it is not an image that can be read"),
    "float": (
        lambda path: Image.new("F", (40, 30)).save(path, "TIFF"),
        "'bild 0 ä.png': it is a float image, and the range of its values is not known",
    ),
}


@pytest.mark.parametrize("case", sorted(UNREADABLE))
def test_images_that_cannot_be_decoded_are_named_when_the_set_is_opened(root, case):
    spoil, message = UNREADABLE[case]
    spoil(root / "val2017" / "bild 0 ä.png")
    with pytest.raises(InputError, match=message):
        open_coco(root)


def test_the_limit_of_pixels_can_be_chosen_and_is_no_part_of_the_fingerprint(root):
    before = open_coco(root).fingerprint()
    with pytest.raises(InputError, match=r"40 x 30 px, more than the 0\.0011 million .* option max_pixels allows"):
        open_coco(root, max_pixels=1100)
    assert open_coco(root, max_pixels=1200).fingerprint() == open_coco(root, verify=False).fingerprint() == before


def test_turned_images_of_one_size_must_not_contradict_others(root):
    """EXIF turns both: the size of the one shows that annotations are for turned pixels, the other fits either way."""
    exif = Image.Exif()
    for name, orientation, size in (("bild 0 ä.png", 6, (30, 40)), ("bild 1 ä.png", 3, (40, 30))):
        exif[0x0112] = orientation
        Image.new("RGB", size).save(root / "val2017" / name, exif=exif)
    with pytest.raises(InputError, match=r"EXIF data turn image 'bild 1 ä\.png' .*'bild 0 ä\.png', are for the turned"):
        open_coco(root)


def test_annotations_that_are_no_file_are_refused(root, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(InputError, match=f"{path} is a folder, pipe or device, not a text file"):
            open_coco(root, train_annotations=path, train_images=root / "train2017")
