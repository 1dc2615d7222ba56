"""COCO-format and VOC datasets by path: layouts, classes, crowds, fingerprints, and what is wrong with them."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from helpers.small_sets import TRAIN, VAL, XML, edit, open_coco, open_voc, write_coco, write_voc
from mimbench.contract import InputError
from mimbench.data.sources.coco import Coco, CocoConfig


@pytest.fixture
def root(tmp_path):
    return write_coco(tmp_path / "coco")


def test_cocos_own_layout_is_found_under_its_root(root):
    dataset = open_coco(root)
    assert dataset.split("train").classes == dataset.split("test").classes == ("cat", "dog")
    assert dataset.split("test").annotations == root / VAL
    assert dataset.split("test").images == root / "val2017"
    assert dataset.provides == {"boxes", "masks"}
    assert dataset.channels == 3


def test_files_of_any_name_and_place(root, tmp_path):
    (root / VAL).rename(tmp_path / "held out.json")
    (root / "val2017").rename(root / "b")
    dataset = open_coco(root, test_annotations=tmp_path / "held out.json", test_images="b")
    assert dataset.split("test").images == root / "b"
    explicit = {"train_annotations": root / TRAIN, "train_images": root / "train2017"}
    explicit |= {"test_annotations": tmp_path / "held out.json", "test_images": root / "b"}
    assert Coco(CocoConfig(**explicit), tmp_path).split("train").annotations == root / TRAIN


def test_the_fingerprint_is_of_the_content(root, tmp_path):
    first = open_coco(root).fingerprint()
    moved = root.rename(tmp_path / "elsewhere")
    assert open_coco(moved).fingerprint() == first
    Image.new("RGB", (40, 30), (77, 9, 9)).save(moved / "val2017" / "bild 0 ä.png")
    second = open_coco(moved).fingerprint()
    edit(moved / TRAIN, lambda document: document["annotations"][0].update(bbox=[2, 3, 9, 8]))
    assert len({first, second, open_coco(moved).fingerprint(), open_coco(moved, channels=1).fingerprint()}) == 4
    names = open_coco(moved, fingerprint="names").fingerprint()
    assert open_coco(moved, fingerprint="names").fingerprint() == names


def test_without_a_mask_for_each_object_there_are_boxes_only(root):
    edit(root / VAL, lambda document: document["annotations"][0].pop("segmentation"))
    assert open_coco(root).provides == {"boxes"}


WRONG = {
    "an annotation of an unknown image": (
        lambda d: d["annotations"][0].update(image_id=99),
        r"annotation 1 belongs to image 99, which the file does not list",
    ),
    "an annotation of an unknown category": (
        lambda d: d["annotations"][0].update(category_id=4),
        r"annotation 1 is of category 4, which the file does not list",
    ),
    "a category that val lacks": (
        lambda d: (d["categories"].pop(1), d["annotations"].pop(1)),
        r"val2017\.json has no category 'dog', which .*train2017\.json has",
    ),
    "no box": (
        lambda d: d["annotations"][0].pop("bbox"),
        r"annotation 1 has no 'bbox' \(entry 0 of annotations, image 'bild 0 ä\.png'\)",
    ),
    "no box but a word": (lambda d: d["annotations"][0].update(bbox="all"), "annotation 1 has the bbox 'all'"),
    "an image that is a list": (lambda d: d["annotations"][0].update(image_id=[1]), r"belongs to image \[1\]"),
    "no image": (lambda d: d.update(images=[]), "is not a COCO annotation file: it holds no images"),
    "an image that is not there": (
        lambda d: d["images"][1].update(file_name="gone.png"),
        r"1 of 2 images that .*val2017\.json lists are not in .*val2017, such as 'gone\.png'",
    ),
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_a_wrong_file_is_refused_at_once(case, root):
    change, message = WRONG[case]
    edit(root / VAL, change)
    with pytest.raises(InputError, match=message):
        open_coco(root)


def test_missing_and_corrupt_files_are_named(root, tmp_path):
    with pytest.raises(InputError, match=r"coco needs task\.data\.root: pass --set"):
        Coco(CocoConfig(), tmp_path)
    with pytest.raises(InputError, match=r"data\.root .*nowhere does not exist"):
        open_coco(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"has none of annotations/instances_train2017\.json"):
        open_coco(tmp_path)
    (root / VAL).write_text('{"images": [')
    with pytest.raises(InputError, match=r"val2017\.json is not a COCO annotation file: Expecting"):
        open_coco(root)
    with pytest.raises(InputError, match=r"image folder .*nothing of .*val2017\.json does not exist"):
        open_coco(root, test_annotations=VAL, test_images="nothing")


def test_voc_becomes_coco_with_difficult_objects_as_crowds(tmp_path):
    dataset = open_voc(write_voc(tmp_path / "voc"))
    train, test = dataset.split("train"), dataset.split("test")
    assert train.classes == test.classes == ("cat", "dog")
    content = json.loads(train.annotations.read_text())
    assert [image["file_name"] for image in content["images"]] == [
        "VOC2007/JPEGImages/000001.jpg",
        "VOC2007/JPEGImages/000002.jpg",
        "VOC2012/JPEGImages/2008_1.jpg",
    ]
    dog, cat = content["annotations"][:2]
    assert dog["bbox"] == [2, 3, 10, 10]
    assert (dog["iscrowd"], cat["iscrowd"]) == (0, 1)
    assert cat["bbox"] == [0, 0, 40, 30]
    assert all((train.images / image["file_name"]).is_file() for image in content["images"])
    assert dataset.provides == {"boxes"}


def test_voc_lists_can_be_chosen_and_change_the_fingerprint(tmp_path):
    root = write_voc(tmp_path / "voc")
    one = open_voc(root, train=("VOC2007/trainval",))
    assert len(json.loads(one.split("train").annotations.read_text())["images"]) == 2
    assert one.fingerprint() != open_voc(root).fingerprint() == open_voc(root).fingerprint()
    alone = open_voc(root / "VOC2007")
    assert json.loads(alone.split("test").annotations.read_text())["images"][0]["file_name"] == "JPEGImages/000003.jpg"


def test_an_image_in_two_voc_lists_counts_once(tmp_path):
    root = write_voc(tmp_path)
    (root / "VOC2007" / "ImageSets" / "Main" / "again.txt").write_text("000001\n")
    count = len(json.loads(open_voc(root).split("train").annotations.read_text())["images"])
    twice = open_voc(root, train=("trainval", "again"))
    assert len(json.loads(twice.split("train").annotations.read_text())["images"]) == count


def test_what_is_wrong_with_a_voc_folder_is_named(tmp_path):
    root = write_voc(tmp_path / "voc")
    with pytest.raises(InputError, match=r"no ImageSets/Main/\*\.txt called nope"):
        open_voc(root, train=("nope",))
    with pytest.raises(InputError, match="is no VOC folder"):
        open_voc(tmp_path)
    with pytest.raises(InputError, match="1 images are in train and in test"):
        open_voc(root, train=("test", "trainval"))
    annotation = root / "VOC2007" / "Annotations" / "000003.xml"
    annotation.write_text(XML.replace("dog", "emu"))
    with pytest.raises(InputError, match="class 'emu' is in the test scenes and in no training scene"):
        open_voc(root)
    annotation.write_text(XML.replace("<xmax>12</xmax>", ""))
    with pytest.raises(InputError, match=r"000003\.xml is not a VOC annotation: it has no bndbox/xmax"):
        open_voc(root)
    annotation.write_text("<annotation>")
    with pytest.raises(InputError, match=r"000003\.xml is not a VOC annotation"):
        open_voc(root)
    annotation.write_text(XML)
    (root / "VOC2007" / "JPEGImages" / "000003.jpg").unlink()
    with pytest.raises(InputError, match=r"the image .*000003\.jpg of 000003\.xml does not exist"):
        open_voc(root)


def change_voc(root, old, new):
    """Edit the first annotation."""
    path = root / "VOC2007" / "Annotations" / "000001.xml"
    assert old in XML
    path.write_text(XML.replace(old, new))


BOMB = "<!DOCTYPE a [<!ENTITY x 'ha'>" + "".join(f"<!ENTITY x{n} '{'&x;' * 10}'>" for n in range(9)) + "]>"
WRONG_VOC = {
    "another size": ("<width>40<", "<width>41<", r"000001\.jpg' is 40 x 30 px, and its annotation says 41 x 30"),
    "a size of 0": ("<width>40<", "<width>0<", r"000001\.xml is not a VOC annotation: its size/width is '0'"),
    "a size as text": ("<height>30<", "<height>tall<", "its size/height is 'tall'; it should be a whole number of px"),
    "an infinite size": ("<height>30<", "<height>1e999<", "its size/height is '1e999'"),
    "no number": ("<xmax>12<", "<xmax>nan<", "its bndbox/xmax is 'nan'; it should be a number of px"),
    "an infinite box": ("<xmax>12<", "<xmax>inf<", "its bndbox/xmax is 'inf'"),
    "a huge box": (
        "<xmax>12<",
        "<xmax>1e300<",
        r"'dog' in .*000001\.jpg' has .* far outside of its image",
    ),
    "another root element": ("<annotation>", "<annotation xmlns='http://x'>", r"its outermost element is '\{http"),
    "a doubtful mark": ("<difficult>1<", "<difficult>2<", "its difficult is '2'; it should be 0 or 1"),
    "entities": ("<annotation>", BOMB + "<annotation>", "defines XML entities"),
    "an encoding that is none": ("<annotation>", "<?xml version='1.0' encoding='x'?><annotation>", "unknown encoding"),
    "too deep": ("</annotation>", "<a>" * 100_000, r"000001\.xml is not a VOC annotation"),
}


@pytest.mark.parametrize("case", sorted(WRONG_VOC))
def test_what_is_wrong_with_a_voc_annotation_is_one_line(case, tmp_path):
    old, new, message = WRONG_VOC[case]
    root = write_voc(tmp_path / "voc")
    change_voc(root, old, new)
    with pytest.raises(InputError, match=message) as caught:
        open_voc(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mark", ["1", "True", "yes", "1.0"])
def test_voc_marks_of_difficult_objects(tmp_path, mark):
    root = write_voc(tmp_path / "voc")
    plain = json.loads(open_voc(root).split("train").annotations.read_text())
    change_voc(root, "<difficult>1<", f"<difficult>{mark}<")
    assert json.loads(open_voc(root).split("train").annotations.read_text()) == plain
    change_voc(root, "<difficult>1<", "<difficult>Unspecified<")
    changed = json.loads(open_voc(root).split("train").annotations.read_text())
    assert sum(record["iscrowd"] for record in changed["annotations"]) == 2


def test_voc_boxes_from_pixel_0_are_noted(tmp_path):
    root = write_voc(tmp_path / "voc")
    assert open_voc(root).notes == ()
    change_voc(root, "<xmin>3<", "<xmin>0<")
    assert "1 of 8 boxes start at pixel 0, such as one of 'VOC2007/JPEGImages/000001.jpg'" in open_voc(root).notes[0]


def test_voc_images_are_decoded_and_limited_when_the_set_is_opened(tmp_path):
    root = write_voc(tmp_path / "voc")
    before = open_voc(root).fingerprint()
    assert open_voc(root, max_pixels=1200).fingerprint() == before
    with pytest.raises(InputError, match=r"40 x 30 px, more than the 0\.0011 million .* option max_pixels allows"):
        open_voc(root, max_pixels=1100)
    path = root / "VOC2007" / "JPEGImages" / "000003.jpg"
    Image.effect_noise((40, 30), 90).save(path)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(InputError, match=r"such as 'VOC2007/JPEGImages/000003\.jpg': .*truncated"):
        open_voc(root)


def test_altered_voc_annotations_in_the_cache_are_made_again(tmp_path):
    root = write_voc(tmp_path / "voc")
    path = open_voc(root).split("test").annotations
    content = path.read_bytes()
    path.write_bytes(content.replace(b"dog", b"cow"))
    assert open_voc(root).split("test").annotations.read_bytes() == content


def test_entities_in_utf_16_are_refused_by_the_parser(tmp_path):
    root = write_voc(tmp_path / "voc")
    levels = "".join(f"<!ENTITY x{n} '{f'&x{n - 1};' * 10}'>" for n in range(1, 11))
    text = f"<?xml version='1.0' encoding='utf-16'?><!DOCTYPE a [<!ENTITY x0 'ha'>{levels}]>" + XML.replace(
        "dog", "&x10;"
    )
    (root / "VOC2007" / "Annotations" / "000001.xml").write_bytes(text.encode("utf-16"))
    with pytest.raises(InputError, match="not a VOC annotation: limit on input amplification"):
        open_voc(root)


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (b"../Annotations/000001", r"'\.\./Annotations/000001\.xml', which ImageSets/Main lists, is absolute or holds"),
        (b"/etc/passwd", "is absolute or holds"),
        (b"000009", r"'000009\.xml', which ImageSets/Main lists, is not there"),
        ("000001".encode("utf-16"), r"trainval\.txt is UTF-16 or UTF-32 text"),
        (b"\xe4", r"trainval\.txt is not UTF-8 text"),
    ],
)
def test_what_is_wrong_with_a_voc_list_is_one_line(listed, message, tmp_path):
    root = write_voc(tmp_path / "voc")
    (root / "VOC2007" / "ImageSets" / "Main" / "trainval.txt").write_bytes(listed + b"\n")
    with pytest.raises(InputError, match=message):
        open_voc(root)


def test_voc_files_with_byte_order_marks_and_without_sizes(tmp_path):
    root = write_voc(tmp_path / "voc")
    first = open_voc(root).fingerprint()
    (root / "VOC2007" / "ImageSets" / "Main" / "trainval.txt").write_bytes(b"\xef\xbb\xbf000001\r\n000002\r\n")
    path = root / "VOC2007" / "Annotations" / "000001.xml"
    path.write_bytes(b"\xef\xbb\xbf" + XML.replace("<width>40</width><height>30</height>", "").encode())
    assert open_voc(root).fingerprint() == first


@pytest.mark.parametrize("size", [(40, 30), (30, 40)])
def test_voc_images_that_exif_turns_fit_stored_or_turned(tmp_path, size):
    root = write_voc(tmp_path / "voc")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", size).save(root / "VOC2007" / "JPEGImages" / "000001.jpg", exif=exif)
    dataset = open_voc(root)
    assert bool(dataset.notes) is (size == (40, 30))
    change_voc(root, "<width>40</width><height>30</height>", "")
    with pytest.raises(InputError, match=r"000001\.jpg' has no size, and EXIF data turn the image's"):
        open_voc(root)


def test_voc_boxes_in_fractions_or_all_difficult(tmp_path):
    root = write_voc(tmp_path / "voc")
    text = XML.replace("<difficult>0", "<difficult>1")
    for path in root.rglob("*.xml"):
        path.write_text(text)
    with pytest.raises(InputError, match=r"voc \(train\): none of its 6 objects .*: 6 with a crowd mark"):
        open_voc(root)
    for old, new in (("3", "0.1"), ("4", "0.2"), ("12", "0.4"), ("13", "0.5"), ("1", "0"), ("40", "1"), ("30", "0.9")):
        for side in ("xmin", "ymin", "xmax", "ymax"):
            text = text.replace(f"<{side}>{old}<", f"<{side}>{new}<")
    for path in root.rglob("*.xml"):
        path.write_text(text)
    with pytest.raises(InputError, match="all boxes lie between 0 and 1, like fractions of the image"):
        open_voc(root)
