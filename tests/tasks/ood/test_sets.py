"""Test sets of ImageNet: class lists, folders that are complete or not, ReaL's labels, ImageNet-C's layout."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mimbench.data.sources.class_folders import digest_class_folders
from mimbench.data.sources.folder import FolderSplit
from mimbench.errors import InputError
from mimbench_tasks.ood.config import OodConfig
from mimbench_tasks.ood.corruption_errors import ALEXNET_ERRORS, EXTRA_ERRORS
from mimbench_tasks.ood.sets import (
    class_list,
    corrupted_sets,
    corruption_folders,
    identify_sets,
    open_set,
    real_labels,
    restricted,
)

WNIDS = tuple((files("timm.data") / "_info" / "imagenet_synsets.txt").read_text().split())
"""The 1,000 classes of ImageNet in their order."""
STINGRAY, GOLDFISH, TENCH = "n01498041", "n01443537", "n01440764"


def write_folders(root: Path, names) -> Path:
    image = Image.new("RGB", (8, 8), (9, 9, 9))
    for name in names:
        (root / name).mkdir(parents=True)
        image.save(root / name / "1.png")
    return root


def index_in(wnid: str) -> int:
    return WNIDS.index(wnid)


@pytest.mark.parametrize("name", ["imagenet-a", "imagenet-r"])
def test_class_lists_have_200_of_the_1000_classes_and_are_timms(name):
    classes = class_list(name)
    assert len(classes) == len(set(classes)) == 200
    assert list(classes) == sorted(classes)
    assert set(classes) <= set(WNIDS)
    in_timm = files("timm.data") / "_info" / f"{name.replace('-', '_')}_synsets.txt"
    assert classes == tuple(in_timm.read_text().split())


def test_class_lists_have_known_members():
    in_a, in_r = set(class_list("imagenet-a")), set(class_list("imagenet-r"))
    assert (STINGRAY in in_a, STINGRAY in in_r) == (True, True)
    assert (GOLDFISH in in_a, GOLDFISH in in_r) == (False, True)
    assert TENCH not in in_a | in_r
    assert (index_in(TENCH), index_in(GOLDFISH), index_in(STINGRAY)) == (0, 1, 6)


def test_only_the_classes_of_imagenet_a_are_answered(tmp_path):
    config = OodConfig(imagenet_a=write_folders(tmp_path / "a", class_list("imagenet-a")))
    opened = open_set(config, "a", WNIDS)
    assert len(opened.split) == 200
    assert opened.split.labels.tolist() == sorted(opened.answers.tolist())
    assert opened.split.labels[0] == index_in(STINGRAY)
    scores = np.zeros((2, 1000))
    scores[0, [index_in(GOLDFISH), index_in(STINGRAY)]] = 3, 2  # the goldfish is no class of this set
    scores[1, opened.answers[7]] = 1
    assert restricted(opened, scores).tolist() == [index_in(STINGRAY), opened.answers[7]]


def test_folders_of_imagenet_v2_are_numbers_in_the_order_of_the_classes(tmp_path):
    config = OodConfig(imagenet_v2=write_folders(tmp_path / "v2", map(str, range(1000))))
    opened = open_set(config, "v2", WNIDS)
    names = [opened.split.path(place).parent.name for place in range(1000)]
    assert dict(zip(names, opened.split.labels.tolist(), strict=True))["6"] == index_in(STINGRAY)
    assert opened.answers is None
    shuffled = (*WNIDS[1:], WNIDS[0])  # labels follow the training images, whose order may be another
    again = open_set(config, "v2", shuffled)
    assert dict(zip(names, again.split.labels.tolist(), strict=True))["0"] == 999


def test_a_set_is_known_by_its_content_and_not_by_its_place(tmp_path):
    names = class_list("imagenet-r")
    first = identify_sets(OodConfig(imagenet_r=write_folders(tmp_path / "one", names)))
    assert first == identify_sets(OodConfig(imagenet_r=write_folders(tmp_path / "two", names)))
    changed = write_folders(tmp_path / "three", names)
    Image.new("RGB", (64, 64), (1, 2, 3)).save(changed / names[0] / "2.png")
    assert first != identify_sets(OodConfig(imagenet_r=changed))


def test_files_of_equal_names_and_sizes_differ_by_content(tmp_path):
    for name, grey in (("one", b"\x07"), ("two", b"\x08")):
        for wnid in class_list("imagenet-r"):
            (tmp_path / name / wnid).mkdir(parents=True)
            Image.frombytes("L", (4, 4), grey * 16).save(tmp_path / name / wnid / "1.bmp")
    one, two = (identify_sets(OodConfig(imagenet_r=tmp_path / name)) for name in ("one", "two"))
    assert one != two


def test_another_image_of_imagenet_c_is_another_setting(tmp_path):
    for root in ("one", "two", "three"):
        for name in ALEXNET_ERRORS:
            for severity in range(1, 6):
                write_folders(tmp_path / root / name / str(severity), [TENCH])
    changed = tmp_path / "three" / "fog" / "4" / TENCH / "1.png"
    Image.new("RGB", (8, 8), (1, 2, 3)).save(changed)
    one, two, three = (identify_sets(OodConfig(imagenet_c=tmp_path / root)) for root in ("one", "two", "three"))
    assert one == two
    assert {name for name, digest in one["imagenet_c"].items() if three["imagenet_c"][name] != digest} == {"fog"}
    changed.unlink()
    changed.symlink_to(tmp_path / "gone")
    digest_class_folders.cache_clear()
    with pytest.raises(InputError, match=r"task\.imagenet_c: "):
        identify_sets(OodConfig(imagenet_c=tmp_path / "three"))


def test_wrong_folders_are_one_line(tmp_path):
    names = class_list("imagenet-a")
    short = write_folders(tmp_path / "short", names[:-1])
    other = write_folders(tmp_path / "other", [*names[:-1], TENCH])
    (tmp_path / "empty").mkdir()
    refused = {
        "none": (WNIDS, r"task\.imagenet_a: .*/none is no folder; name the folder that holds the class folders"),
        "empty": (WNIDS, r"task\.imagenet_a: .*/empty has no class folders"),
        "short": (WNIDS, rf"lacks images of 1 of 200 classes \({names[-1]}\); fetch the whole set"),
        "other": (WNIDS, rf"has 1 folders that are no class of this set \({TENCH}\)"),
        "short ": (tuple("0123456789"), r"the training images lack 200 of the 200 classes .* task\.dataset=imagenet"),
    }
    assert {short.name, other.name} <= set(refused)
    for name, (classes, message) in refused.items():
        with pytest.raises(InputError, match=message) as caught:
            open_set(OodConfig(imagenet_a=tmp_path / name.strip()), "a", classes)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"task\.imagenet_sketch: this set has the 1,000 classes .* have 2 \(such as"):
        open_set(OodConfig(imagenet_sketch=short), "sketch", WNIDS[:2])


def images_named(names) -> FolderSplit:
    return FolderSplit(Path("val"), [name.encode() for name in names], np.zeros(len(names)), WNIDS, 3)


def test_real_labels_are_found_by_the_number_of_the_image(tmp_path):
    entries = [[] for _ in range(50_000)]
    entries[0], entries[41] = [6], [1, 0]
    path = tmp_path / "real.json"
    path.write_text(json.dumps(entries))
    names = [f"{STINGRAY}/ILSVRC2012_val_000000{number:02}.JPEG" for number in (42, 2, 1)]
    assert real_labels(path, images_named(names), WNIDS) == [[1, 0], [], [6]]
    shuffled = (*WNIDS[1:], WNIDS[0])
    assert real_labels(path, images_named(names), shuffled) == [[0, 999], [], [5]]
    for content, message in (
        (json.dumps(entries[:9]), "has 9 entries, and ReaL's real.json has 50,000"),
        ("[[1000]]", "holds no lists of class numbers"),
        ("{", "is not readable as JSON"),
    ):
        bad = tmp_path / f"{len(content)}.json"
        bad.write_text(content)
        with pytest.raises(InputError, match=message):
            real_labels(bad, images_named(names), WNIDS)
    with pytest.raises(InputError, match=r"task\.imagenet_real: 7\.JPEG is not named as an image of ImageNet's val"):
        real_labels(path, images_named(["n01498041/7.JPEG"]), WNIDS)


def test_corruptions_are_found_beneath_their_kinds_and_none_may_be_missing(tmp_path):
    classes = (STINGRAY, GOLDFISH)
    for name in ALEXNET_ERRORS:
        kind = "noise" if name.endswith("noise") else ""
        for severity in "12345":
            write_folders(tmp_path / kind / name / severity, classes)
    assert list(corruption_folders(tmp_path)) == list(ALEXNET_ERRORS)
    read = list(corrupted_sets(tmp_path, classes))
    assert [(name, severity) for name, severity, _ in read[:6]] == [
        *(("gaussian_noise", severity) for severity in (1, 2, 3, 4, 5)),
        ("shot_noise", 1),
    ]
    assert len(read) == 75
    assert read[0][2].split.labels.tolist() == [1, 0]  # in the order of the folders' names
    assert not read[0][2].resizes
    for severity in "1234":
        write_folders(tmp_path / "extra" / "saturate" / severity, classes)
    with pytest.raises(InputError, match=r"extra/saturate lacks severity 5; unpack all archives"):
        corruption_folders(tmp_path)
    write_folders(tmp_path / "extra" / "saturate" / "5", classes)
    assert list(corruption_folders(tmp_path))[15:] == ["saturate"]
    assert set(EXTRA_ERRORS) == {"speckle_noise", "gaussian_blur", "spatter", "saturate"}
    (tmp_path / "noise" / "shot_noise").rename(tmp_path / "noise" / "other")
    with pytest.raises(InputError, match="lacks the corruption shot_noise; unpack all archives of the set"):
        corruption_folders(tmp_path)
