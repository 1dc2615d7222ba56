"""Data sets of the library `datasets`: what save_to_disk wrote, and folders of parquet files."""

from __future__ import annotations

import io
import pickle
import shutil
import sys

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from helpers.noting import Probe, train
from mimbench import registry
from mimbench.contract import InputConfig
from mimbench.data.pipeline.loading import training_loader
from mimbench.data.sources.huggingface import HuggingFace, HuggingFaceConfig
from mimbench.errors import InputError, RunError
from mimbench.testing import check_dataset

NAMES = ("cat", "dog", "eel")
KINDS = {"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)}


def pixels(number):
    return np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)


def png(number):
    stream = io.BytesIO()
    Image.fromarray(pixels(number)).save(stream, "PNG")
    return stream.getvalue()


def table(numbers, kinds=KINDS, image="image", label="label", values=None, **columns):
    """Rows of one image each. Labels are `values`, or else the numbers modulo 3."""
    numbers = list(numbers)
    rows = {image: [{"bytes": png(number), "path": None} for number in numbers], **columns}
    if label:
        rows[label] = values or [number % 3 for number in numbers]
    return datasets.Dataset.from_dict(rows, features=datasets.Features(kinds) if kinds else None)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    root = tmp_path_factory.mktemp("saved") / "set"
    parts = {"train": table(range(20)), "validation": table(range(100, 106)), "test": table(range(200, 204))}
    datasets.DatasetDict(parts).save_to_disk(str(root))
    return root


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    root = tmp_path_factory.mktemp("parquet") / "set"
    (root / "data").mkdir(parents=True)
    for part, (first, last) in {"00000": (0, 12), "00001": (12, 20)}.items():
        table(range(first, last)).to_parquet(str(root / "data" / f"train-{part}-of-00002.parquet"))
    table(range(100, 106)).to_parquet(str(root / "data" / "validation-00000-of-00001.parquet"))
    return root


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def opened(root, cache, **options):
    return HuggingFace(HuggingFaceConfig(root=root, channels=1, **options), cache)


def numbers_of(split):
    known = {pixels(number).tobytes(): number for number in (*range(20), *range(100, 106), *range(200, 204))}
    return [known[split[index][0].numpy().tobytes()] for index in range(len(split))]


@pytest.mark.parametrize("kind", ["saved", "parquet"])
def test_rows_are_read_in_their_order(kind, cache, request):
    dataset = opened(request.getfixturevalue(kind), cache)
    train, test = dataset.split("train"), dataset.split("test")
    assert numbers_of(train) == list(range(20))
    assert numbers_of(test) == list(range(100, 106))
    assert train.labels.tolist() == [number % 3 for number in range(20)]
    assert dataset.classes == NAMES
    assert dataset.provides == {"images", "labels"}
    assert dataset.notes == (("left out the splits test of " + str(request.getfixturevalue(kind)),)
                             if kind == "saved" else ())  # fmt: skip


def test_splits_are_chosen_by_name(saved, cache):
    assert numbers_of(opened(saved, cache, test="test").split("test")) == list(range(200, 204))
    swapped = opened(saved, cache, train="validation", test="train")
    assert numbers_of(swapped.split("train")) == list(range(100, 106))


def test_one_table_is_split(tmp_path, cache):
    table(range(20)).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "parquet").mkdir()
    table(range(20)).to_parquet(str(tmp_path / "parquet" / "all.parquet"))
    for root in (tmp_path / "saved", tmp_path / "parquet"):
        parts = [opened(root, cache).split(name) for name in ("train", "test")]
        assert [len(part) for part in parts] == [16, 4]
        assert sorted(numbers_of(parts[0]) + numbers_of(parts[1])) == list(range(20))


def write_parquet(root, names):
    """One file per name, of 4 rows each, whose numbers begin with 0, 4, 8..."""
    for place, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        table(range(4 * place, 4 * place + 4)).to_parquet(str(root / f"{name}.parquet"))


@pytest.mark.parametrize(
    ("names", "options", "starts", "notes"),
    [
        (("imagenet-train-0", "imagenet-val-0"), {}, (0, 4), ()),
        (("x/training/0000", "x/testing/0000"), {}, (0, 4), ()),
        (("trainset_0", "a-0", "a-1", "my-valid-0"), {}, (0, 12),
         ("left out files of no known split: a-0.parquet, a-1.parquet",)),
        (("extra-0-of-1", "train-0", "validation-0"), {"train": "extra"}, (0, 8),
         ("left out the splits train of {root}",)),
        (("part-0", "rest-0", "more-0"), {"train": "rest", "test": "part"}, (4, 0),
         ("left out files of no known split: more-0.parquet",)),
    ],
)  # fmt: skip
def test_names_of_parquet_files_choose_the_splits(tmp_path, cache, names, options, starts, notes):
    root = tmp_path / "set"
    write_parquet(root, names)
    dataset = opened(root, cache, **options)
    for name, start in zip(("train", "test"), starts, strict=True):
        assert numbers_of(dataset.split(name)) == list(range(start, start + 4))
    assert dataset.notes == tuple(note.format(root=root) for note in notes)


@pytest.mark.parametrize("option", ["train", "test"])
def test_an_option_that_names_no_split_is_refused(tmp_path, cache, option):
    table(range(20)).save_to_disk(str(tmp_path / "one"))
    expected = f"{tmp_path / 'one'} is one table without splits: leave out data.{option}"
    assert refusal(tmp_path / "one", cache, **{option: "zzz"}) == expected
    write_parquet(tmp_path / "files", ("part-0", "rest-0"))
    expected = f"{tmp_path / 'files'} has no split 'zzz': set data.{option} to one of part, rest"
    assert refusal(tmp_path / "files", cache, **{option: "zzz"}) == expected


@pytest.mark.parametrize("kind", [datasets.Value("null"), datasets.Value("string"), KINDS["label"]])
def test_a_column_of_nulls_is_no_label(tmp_path, cache, kind):
    table(range(4), {**KINDS, "label": kind}, values=[None] * 4).save_to_disk(str(tmp_path / "set"))
    dataset = opened(tmp_path / "set", cache)
    assert dataset.provides == {"images"}
    assert dataset.classes == ("unlabelled",)
    assert dataset.split("train").labels.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("kind", "values", "types"),
    [
        (datasets.Value("float32"), [0.0, 1.0, 2.0, 3.0], "float"),
        (datasets.Value("bool"), [True, False, None, True], "bool"),
        (datasets.List(datasets.Value("int64")), [[0], [1, 2], [], [3]], "list"),
        (datasets.List(datasets.ClassLabel(names=NAMES)), [[0], [1, 2], [], [0]], "list"),
    ],
)
def test_labels_of_another_type_are_refused(tmp_path, cache, kind, values, types):
    table(range(4), {**KINDS, "label": kind}, values=values).save_to_disk(str(tmp_path / "set"))
    assert refusal(tmp_path / "set", cache) == (
        f"the samples under {tmp_path / 'set'} have labels of the type {types}, and labels are whole numbers or names: "
        "name another label with data.label, or pass --set data.label=none"
    )
    assert opened(tmp_path / "set", cache, label="none").provides == {"images"}


def test_columns(tmp_path, cache):
    kinds = {"left": datasets.Image(), "right": datasets.Image(), "name": datasets.Value("string")}
    right = [{"bytes": png(number + 100), "path": None} for number in range(6)]
    table(range(6), kinds, "left", None, right=right, name=["b", "a"] * 3).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(InputError, match=r"has the image columns left, right: set data\.image to one of them"):
        opened(tmp_path / "set", cache)
    dataset = opened(tmp_path / "set", cache, image="right", label="name")
    assert sorted(numbers_of(dataset.split("train")) + numbers_of(dataset.split("test"))) == list(range(100, 106))
    assert dataset.classes == ("a", "b")
    unlabelled = opened(tmp_path / "set", cache, image="left")
    assert unlabelled.provides == {"images"}
    assert unlabelled.classes == ("unlabelled",)


def test_images_may_lie_in_files(tmp_path, cache):
    paths = []
    for number in range(6):
        paths.append(str(tmp_path / f"{number}.png"))
        (tmp_path / f"{number}.png").write_bytes(png(number))
    rows = {"image": [{"bytes": None, "path": path} for path in paths], "label": [0] * 6}
    datasets.Dataset.from_dict(rows, features=datasets.Features(KINDS)).save_to_disk(str(tmp_path / "set"))
    assert len(numbers_of(opened(tmp_path / "set", cache).split("train"))) == 5


def test_workers_change_nothing_and_copies_read_the_same(saved, cache):
    split = opened(saved, cache).split("train")
    view = InputConfig(image_size=8, crop_scale=(0.5, 1.0))
    options = {"batch_size": 4, "seed": 0, "device": torch.device("cpu")}
    batches = [list(training_loader(split, view, workers=workers, **options)) for workers in (0, 2)]
    for (images, labels), (others, other_labels) in zip(*batches, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, other_labels)
    assert torch.equal(pickle.loads(pickle.dumps(split))[7][0], split[7][0])


def test_a_training_resumes_within_an_epoch(saved, cache, tmp_path):
    split = opened(saved, cache).split("train")
    unbroken, stopped, resumed = Probe(), Probe(), Probe()
    stopped.fail_at = 8
    train(unbroken, tmp_path / "whole", split=split, batch_size=4)
    with pytest.raises(RunError):
        train(stopped, tmp_path / "stopped", split=split, batch_size=4, checkpoint_every=None, checkpoint_steps=7)
    _, lines = train(resumed, tmp_path / "stopped", split=split, batch_size=4)
    assert "probe: resumes after step 2 of 5 in epoch 2 of 3" in lines
    assert resumed.seen == unbroken.seen[7:]
    assert torch.equal(resumed.linear.weight, unbroken.linear.weight)


def test_a_damaged_image_is_named(tmp_path, cache):
    rows = [
        {"bytes": png(0), "path": None},
        {"bytes": b"no image", "path": None},
        None,
        {"bytes": png(3), "path": None},
    ]
    whole = datasets.Dataset.from_dict({"image": rows, "label": [0] * 4}, features=datasets.Features(KINDS))
    datasets.DatasetDict({"train": whole, "test": whole}).save_to_disk(str(tmp_path / "set"))
    split = opened(tmp_path / "set", cache).split("train")
    with pytest.raises(RunError, match="cannot read the image of row 1 in the column 'image': "):
        split[1]
    with pytest.raises(RunError, match="cannot read the image of row 2 in the column 'image': the row has no image"):
        split[2]


def refusal(root, cache, **options):
    with pytest.raises(InputError) as refused:
        opened(root, cache, **options)
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_what_cannot_be_read_is_refused_in_one_line(saved, parquet, tmp_path, cache):
    assert refusal(None, cache).startswith("huggingface needs data.root")
    assert "does not exist" in refusal(tmp_path / "absent", cache)
    (tmp_path / "empty").mkdir()
    assert "is no folder of save_to_disk and has no parquet files" in refusal(tmp_path / "empty", cache)
    assert "has no split 'dev': set data.test to one of test, train, validation" in refusal(saved, cache, test="dev")
    assert "data.train and data.test are both 'train'" in refusal(saved, cache, test="train")
    assert "has no column 'species': set data.label to one of image, label" in refusal(saved, cache, label="species")
    assert "has no image column 'label': it has the image columns image" in refusal(saved, cache, image="label")
    table(range(4), {"label": KINDS["label"], "image": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}}).save_to_disk(str(tmp_path / "bytes"))  # fmt: skip  # noqa: E501
    assert "has no column of the kind Image; its columns are" in refusal(tmp_path / "bytes", cache)
    for source, name in ((saved, "train/data-00000-of-00001.arrow"), (parquet, "data/train-00000-of-00002.parquet")):
        copy = tmp_path / f"damaged-{source.parent.name}"
        shutil.copytree(source, copy)
        data = (copy / name).read_bytes()
        (copy / name).write_bytes(data[: len(data) // 2])
        assert refusal(copy, cache).startswith(f"huggingface cannot read {copy} (")
    unlabelled = datasets.DatasetDict({"train": table(range(4)), "test": table(range(4, 8))})
    rows = {"image": unlabelled["test"]["image"], "label": [-1] * 4}
    unlabelled["test"] = datasets.Dataset.from_dict(rows, features=datasets.Features(KINDS))
    unlabelled.save_to_disk(str(tmp_path / "unlabelled"))
    assert "the label -1 under" in refusal(tmp_path / "unlabelled", cache)


def test_a_missing_package_is_one_line(saved, cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert refusal(saved, cache) == (
        "data.name=huggingface needs the package datasets, which is not installed: pip install 'mimbench[huggingface]'"
    )


def test_the_fingerprint_is_of_content(saved, parquet, tmp_path, cache):
    shutil.copytree(saved, tmp_path / "copy")
    first = opened(saved, cache).fingerprint()
    assert opened(tmp_path / "copy", cache).fingerprint() == first
    assert opened(saved, cache, decode="scaled").fingerprint() == first
    assert opened(saved, cache, test="test").fingerprint() != first
    assert opened(saved, cache, label="none").fingerprint() != first
    sizes = opened(saved, cache, fingerprint="names").fingerprint()
    assert opened(tmp_path / "copy", cache, fingerprint="names").fingerprint() == sizes != first
    assert opened(parquet, cache).fingerprint() == opened(parquet, tmp_path / "other cache").fingerprint()


def test_it_is_registered_and_passes_the_checks(saved, cache):
    assert registry.datasets.load("huggingface") is HuggingFace
    results = check_dataset(HuggingFace, {"root": saved, "channels": 1}, cache=cache)
    assert [result for result in results if result.status not in ("passed", "skipped")] == []
    assert len([result for result in results if result.status == "passed"]) > 8
