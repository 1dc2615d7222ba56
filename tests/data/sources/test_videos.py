"""Videos by path: every layout, clips for training and evaluation, bad files, and fingerprints."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from PIL import Image

from helpers.random_inputs import seeded
from helpers.video_files import brightness, write_video
from mimbench.contract import InputError
from mimbench.data.sources.videos import Videos, VideosConfig
from mimbench.errors import RunError

CLIPS = {"frames": 4, "stride": 2}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("source") / "video.mp4")


@pytest.fixture
def put(source, tmp_path):
    """Put the video at a path under the root."""

    def copy(name: str):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, path)
        return path

    return copy


def make(tmp_path, **options) -> Videos:
    return Videos(VideosConfig(root=tmp_path / "root", **CLIPS | options), tmp_path / "cache")


def counts(dataset: Videos) -> dict[str, list[int]]:
    return {name: dataset.split(name).labels.tolist() for name in ("train", "test")}


def put_folders(put) -> None:
    for name in ("train/jump/a.mp4", "train/walk/b.mp4", "train/walk/c.mp4", "val/jump/d.mp4", "val/walk/e.mp4"):
        put(name)


def test_class_folders(put, tmp_path):
    put_folders(put)
    dataset = make(tmp_path)
    assert dataset.classes == ("jump", "walk")
    assert counts(dataset) == {"train": [0, 1, 1], "test": [0, 1]}
    clip, label = dataset.split("test")[1]
    assert label == 1
    assert clip.dtype == torch.uint8
    assert clip.shape == (3, 4, 32, 32)
    assert brightness(clip) == [8, 10, 12, 14]  # 12 frames are read, the middle 4 of them taken


def test_clips_for_training_are_drawn(put, tmp_path):
    put_folders(put)
    split = make(tmp_path).split("train")
    drawn = [brightness(split.draw(0, seeded(seed))[0]) for seed in range(12)]
    assert all(clip == list(range(clip[0], clip[0] + 8, 2)) for clip in drawn)
    assert len({clip[0] for clip in drawn}) > 4
    assert brightness(split.draw(0, seeded(3))[0]) == drawn[3]
    segments = make(tmp_path, sampling="segments").split("train").draw(0, seeded())[0]
    assert [frame // 6 for frame in brightness(segments)] == [0, 1, 2, 3]
    spread = brightness(make(tmp_path, sampling="spread").split("train").draw(0, seeded())[0])
    assert spread[-1] - spread[0] == 7


@pytest.mark.parametrize("separator", [" ", ",", "\t"])
def test_lists_of_paths_and_labels(separator, put, tmp_path):
    put("clips/one video.mp4")
    put("clips/b.mp4")
    root = tmp_path / "root"
    (root / "train.csv").write_text(f"clips/one video.mp4{separator}10\nclips/b.mp4{separator}9\n")
    (root / "val.txt").write_text(f"clips/b.mp4{separator}9\n\n")
    dataset = make(tmp_path, layout="list")
    assert dataset.classes == ("9", "10")
    assert counts(dataset) == {"train": [1, 0], "test": [0]}


def test_kinetics(put, tmp_path):
    put("train/abc-_123_000004_000014.mp4")
    put("val/xyz_000100_000110.mp4")
    notes = tmp_path / "root" / "annotations"
    notes.mkdir()
    head = "label,youtube_id,time_start,time_end,split,is_cc\n"
    (notes / "train.csv").write_text(f"{head}riding a bike,abc-_123,4,14,train,0\nriding a bike,gone,0,10,train,0\n")
    (notes / "val.csv").write_text(f"{head}riding a bike,xyz,100,110,validate,0\n")
    with pytest.raises(InputError, match=r"1 of 2 videos of the train split cannot be read: .*gone.*it is missing"):
        make(tmp_path, layout="kinetics")
    dataset = make(tmp_path, layout="kinetics", on_bad_video="skip")
    assert dataset.classes == ("riding a bike",)
    assert dataset.facts["train_videos"] == 1
    assert dataset.facts["train_listed"] == 2
    assert "skipped 1 of 2 videos" in dataset.notes[0]


def test_something_something(put, tmp_path):
    for number in (7, 8):
        put(f"20bn-something-something-v2/{number}.mp4").rename(
            tmp_path / f"root/20bn-something-something-v2/{number}.webm"
        )
    labels = tmp_path / "root" / "labels"
    labels.mkdir()
    (labels / "labels.json").write_text(json.dumps({"Pushing something": "1", "Holding something": "0"}))
    entry = {"id": "7", "label": "pushing cup", "template": "Pushing [something]", "placeholders": ["cup"]}
    (labels / "train.json").write_text(json.dumps([entry]))
    (labels / "validation.json").write_text(json.dumps([{**entry, "id": "8"}]))
    dataset = make(tmp_path, layout="ssv2")
    assert dataset.classes == ("Holding something", "Pushing something")
    assert counts(dataset) == {"train": [1], "test": [1]}


def test_ucf101(put, tmp_path):
    put("UCF-101/Archery/v_Archery_g01_c01.avi")
    put("UCF-101/YoYo/v_YoYo_g02_c01.avi")
    lists = tmp_path / "root" / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 Archery\n2 YoYo\n")
    (lists / "trainlist02.txt").write_text("YoYo/v_YoYo_g02_c01.avi 2\n")
    (lists / "testlist02.txt").write_text("Archery/v_Archery_g01_c01.avi\n")
    dataset = make(tmp_path, layout="ucf101", split_number=2)
    assert counts(dataset) == {"train": [1], "test": [0]}
    with pytest.raises(InputError, match="no trainlist01"):
        make(tmp_path, layout="ucf101")


def test_hmdb51(put, tmp_path):
    for name in ("brush_hair/a b.avi", "brush_hair/c.avi", "wave/d.avi", "wave/e.avi"):
        put(name)
    lists = tmp_path / "root" / "testTrainMulti_7030_splits"
    lists.mkdir()
    (lists / "brush_hair_test_split1.txt").write_text("a b.avi 1 \nc.avi 2 \nunused.avi 0 \n")
    (lists / "wave_test_split1.txt").write_text("d.avi 1 \ne.avi 2 \n")
    dataset = make(tmp_path, layout="hmdb51")
    assert dataset.classes == ("brush_hair", "wave")
    assert counts(dataset) == {"train": [0, 1], "test": [0, 1]}


def test_files_are_opened_once_and_again_if_they_change(put, tmp_path, monkeypatch):
    put_folders(put)
    first = make(tmp_path).fingerprint()
    opened = []
    monkeypatch.setattr("mimbench.data.sources.videos.count_frames", lambda path: opened.append(path.name) or 24)
    monkeypatch.setattr("mimbench.data.sources.videos.is_current", lambda recorded, _, state: recorded == state)
    assert make(tmp_path).fingerprint() == first
    assert not opened
    (tmp_path / "root/train/jump/a.mp4").write_bytes(b"other")
    assert make(tmp_path).fingerprint() != first
    assert opened == ["a.mp4"]


def test_a_digest_of_the_content_sees_equal_sizes(put, tmp_path):
    put_folders(put)
    path = tmp_path / "root/train/jump/a.mp4"
    before = make(tmp_path, fingerprint="content").fingerprint()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    assert make(tmp_path, fingerprint="content").fingerprint() != before


def test_a_damaged_video_is_named(put, tmp_path):
    put_folders(put)
    (tmp_path / "root/val/walk/e.mp4").write_bytes(b"\0" * 100)
    with pytest.raises(InputError, match=r"1 of 2 videos of the test split cannot be read: .*e\.mp4 \(Invalid data"):
        make(tmp_path)
    assert counts(make(tmp_path, on_bad_video="skip")) == {"train": [0, 1, 1], "test": [0]}


def test_a_video_that_disappears_is_named(put, tmp_path):
    put_folders(put)
    split = make(tmp_path).split("train")
    (tmp_path / "root/train/walk/b.mp4").unlink()
    with pytest.raises(RunError, match=r"the video .*b\.mp4 cannot be read: No such file"):
        split[1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "has no folder val or test; sort the videos"),
        ({"layout": "kinetics"}, "has no annotations/train.csv or train.csv; check data.root and data.layout"),
        ({"layout": "ssv2"}, "has no labels/labels.json"),
        ({"layout": "hmdb51"}, "there are no lists"),
        ({"layout": "list"}, "has no train.csv or train.txt"),
    ],
)
def test_what_is_missing_is_named(options, words, put, tmp_path):
    put("train/jump/a.mp4")
    with pytest.raises(InputError, match=words):
        make(tmp_path, **options)


@pytest.mark.parametrize(
    ("layout", "files", "words"),
    [
        ("kinetics", {"train.csv": "label,youtube_id,time_start,time_end\nx,abc\n"}, "a row of 'abc' has no times"),
        ("ucf101", {"ucfTrainTestlist/classInd.txt": "Archery\n"}, "each line should have a number and a class"),
        ("ssv2", {"labels/labels.json": "[1, 2]"}, "should give a number for each class"),
        ("ssv2", {"labels/labels.json": "{}", "labels/train.json": '[{"id": 1}]'}, "has no id or no template"),
        ("list", {"train.csv": "a.mp4 7 16\n"}, "line 1 has three columns"),
        ("list", {"train.csv": "a.mp4\n"}, "'a.mp4' is no path and class"),
    ],
)
def test_damaged_lists_are_one_line(layout, files, words, tmp_path):
    for name, text in files.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with pytest.raises(InputError, match=words):
        make(tmp_path, layout=layout)


def test_a_frame_that_is_overwritten_changes_the_fingerprint(tmp_path):
    for name in ("train/a/x", "val/a/y"):
        folder = tmp_path / "root" / name
        folder.mkdir(parents=True)
        for number in range(5):
            Image.new("L", (8, 8), 30 * number).save(folder / f"{number}.png")
    before = make(tmp_path, fingerprint="content").fingerprint()
    Image.new("L", (8, 8), 255).save(tmp_path / "root/train/a/x/2.png")
    assert make(tmp_path, fingerprint="content").fingerprint() != before


def test_a_class_without_training_videos_is_refused(put, tmp_path):
    put("train/jump/a.mp4")
    put("val/fly/b.mp4")
    with pytest.raises(InputError, match="no training video has the class"):
        make(tmp_path)


def test_without_pyav_it_says_what_to_install(put, tmp_path, monkeypatch):
    put_folders(put)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(InputError, match=r"pip install 'mimbench\[video\]'"):
        make(tmp_path)
