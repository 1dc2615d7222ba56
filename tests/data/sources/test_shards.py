"""WebDataset shards: what is read, in which order, what resumes, and what is refused."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import os
import pickle
import re
import shutil
import signal
import sys
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from webdataset import ShardWriter, TarWriter

from helpers.noting import INPUT, Probe, train
from mimbench import registry
from mimbench.data.files import shard_reading
from mimbench.data.pipeline.loading import training_loader
from mimbench.data.pipeline.subsets import subset
from mimbench.data.sources.shards import ShardConfig, WebDataset
from mimbench.errors import InputError, Interrupted, RunError
from mimbench.testing import check_dataset

CPU = torch.device("cpu")
SIZE = 8


def pixels(number):
    return np.random.default_rng(number).integers(0, 256, (SIZE, SIZE), dtype=np.uint8)


def png(number):
    stream = io.BytesIO()
    Image.fromarray(pixels(number)).save(stream, "PNG")
    return stream.getvalue()


def sample(number, **files):
    """One sample; __ stands for . in the endings of its files."""
    content = files or {"png": png(number), "cls": str(number % 3)}
    return {"__key__": f"{number:05}", **{name.replace("__", "."): value for name, value in content.items()}}


def write(pattern, numbers, per_shard=5):
    pattern.parent.mkdir(parents=True, exist_ok=True)
    with ShardWriter(str(pattern), maxcount=per_shard, verbose=0) as writer:
        for number in numbers:
            writer.write(sample(number))


def write_one(path, *samples):
    path.parent.mkdir(parents=True, exist_ok=True)
    with TarWriter(str(path), encoder=lambda values: values) as writer:
        for values in samples:
            writer.write({key: value.encode() if isinstance(value, str) and key[0] != "_" else value
                          for key, value in values.items()})  # fmt: skip


def opened(root, cache, **options):
    return WebDataset(ShardConfig(root=root, channels=1, **options), cache)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def files_are_old(monkeypatch):
    monkeypatch.setattr("mimbench.data.files.cache.MIN_AGE", -1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """40 samples in 8 shards to train on, 12 in 3 to evaluate on."""
    root = tmp_path_factory.mktemp("shards")
    write(root / "train" / "%03d.tar", range(40))
    write(root / "val" / "%03d.tar", range(100, 112))
    return root


def numbers_of(split, indices=None):
    """Which samples these are."""
    known = {pixels(number).tobytes(): number for number in (*range(40), *range(100, 112))}
    return [known[split[index][0].numpy().tobytes()] for index in (range(len(split)) if indices is None else indices)]


def test_samples_are_read_where_they_lie(made, cache):
    dataset = opened(made, cache)
    train_split, test = dataset.split("train"), dataset.split("test")
    assert numbers_of(train_split) == list(range(40))
    assert numbers_of(test) == list(range(100, 112))
    assert train_split.labels.tolist() == [number % 3 for number in range(40)]
    assert dataset.classes == ("0", "1", "2")
    assert dataset.provides == {"images", "labels"}
    assert train_split.shards.tolist() == [number // 5 for number in range(40)]
    assert train_split[3][0].shape == (1, SIZE, SIZE)


@pytest.mark.parametrize(
    ("train_pattern", "test_pattern", "options"),
    [
        ("train/%03d.tar", "validation/%03d.tar", {}),
        ("set-train-%06d.tar", "set-val-%06d.tar", {}),
        ("a/%03d.tar", "b/%03d.tar", {"train": "a/{000..007}.tar", "test": "b/*.tar"}),
        ("x-%03d.tar", "y-%03d.tar", {"train": "x-*.tar", "test": "y-{000,001,002}.tar"}),
    ],
)
def test_layouts(tmp_path, cache, train_pattern, test_pattern, options):
    write(tmp_path / "set" / train_pattern, range(40))
    write(tmp_path / "set" / test_pattern, range(100, 112))
    dataset = opened(tmp_path / "set", cache, **options)
    assert numbers_of(dataset.split("train")) == list(range(40))
    assert numbers_of(dataset.split("test")) == list(range(100, 112))


def test_a_share_is_held_out_if_there_is_nothing_to_evaluate_on(tmp_path, cache):
    write(tmp_path / "set" / "%03d.tar", range(40))
    parts = [opened(tmp_path / "set", cache).split(name) for name in ("train", "test")]
    assert [len(part) for part in parts] == [32, 8]
    assert sorted(numbers_of(parts[0]) + numbers_of(parts[1])) == list(range(40))
    assert parts[0].shards.tolist() == [number // 5 for number in numbers_of(parts[0])]


@pytest.mark.parametrize(
    ("patterns", "options", "train_numbers", "test_numbers", "notes"),
    [
        (("x-train-%03d", "x-val-%03d"), {"train": "x-train-*.tar"}, range(10), range(10, 20), ()),
        (("shards/train/%03d", "shards/val/%03d"), {}, range(10), range(10, 20), ()),
        (("train/a/%03d", "validation/b/%03d"), {}, range(10), range(10, 20), ()),
        (("trainset-%03d", "a/testset%03d"), {}, range(10), range(10, 20), ()),
        (("x-%03d", "x_valid_%03d"), {}, range(10), range(10, 20),
         ("no shards are named train: trains on 2 shards: x-000.tar, x-001.tar",)),
        (("x-train-%03d", "x-val-%03d", "x-test-%03d"), {}, range(10), range(10, 20),
         ("left out 2 other shards: x-test-000.tar, x-test-001.tar",)),
        (("a-%03d", "b/train-%03d", "x-val-%03d"), {"train": "a-*.tar"}, range(10), range(20, 30),
         ("left out 2 other shards: b/train-000.tar, b/train-001.tar",)),
        (("x-train-%03d", "x-unlabelled-%03d"), {}, range(10), None,
         ("left out 2 other shards: x-unlabelled-000.tar, x-unlabelled-001.tar",)),
        (("a/%03d", "b/retrieval-%03d"), {}, range(20), None,
         ("no shards are named train: trains on 4 shards, and holds out a share of their samples: a/000.tar, "
          "a/001.tar, b/retrieval-000.tar and 1 more",)),
        (("test-%03d",), {}, range(10), None,
         ("no shards are named train: trains on 2 shards, and holds out a share of their samples: test-000.tar, "
          "test-001.tar",)),
    ],
)  # fmt: skip
def test_names_choose_train_and_test_shards(tmp_path, cache, patterns, options, train_numbers, test_numbers, notes):
    for place, pattern in enumerate(patterns):
        write(tmp_path / "set" / f"{pattern}.tar", range(10 * place, 10 * place + 10))
    dataset = opened(tmp_path / "set", cache, **options)
    parts = [numbers_of(dataset.split(name)) for name in ("train", "test")]
    if test_numbers is None:
        assert len(parts[1]) == len(train_numbers) // 5
        assert sorted(parts[0] + parts[1]) == list(train_numbers)
    else:
        assert parts == [list(train_numbers), list(test_numbers)]
    assert dataset.notes == notes


def flat_order_of(split, **options):
    return list(itertools.chain.from_iterable(order_of(split, **options)))


def order_of(split, epoch=0, **options):
    options = {"batch_size": 4, "seed": 0, "device": CPU, **options}
    loader = training_loader(split, INPUT, **options)
    loader.sampler.set_epoch(epoch)
    return [batch.indices.tolist() for batch in loader.sampler]


@pytest.mark.parametrize("open_shards", [1, 2, 3, 8, 100])
def test_an_epoch_reads_few_shards_at_a_time(made, cache, open_shards):
    split = opened(made, cache, open_shards=open_shards).split("train")
    order = flat_order_of(split)
    assert sorted(order) == list(range(40))
    shards = [index // 5 for index in order]
    window = 5 * min(open_shards, 8)
    for start in range(0, 40, window):
        assert len(set(shards[start : start + window])) == len(shards[start : start + window]) // 5
    assert flat_order_of(split, epoch=1) != order
    assert order == flat_order_of(split)
    if 1 < open_shards < 8:
        assert len(set(shards[:5])) > 1


def test_ranks_and_workers_share_the_order(made, cache):
    split = opened(made, cache, open_shards=2).split("train")
    whole = order_of(split, batch_size=8)
    ranks = [order_of(split, batch_size=4, rank=rank, world_size=2) for rank in range(2)]
    assert [a + b for a, b in zip(*ranks, strict=True)] == whole
    batches = [
        list(training_loader(split, INPUT, batch_size=8, seed=0, device=CPU, workers=workers)) for workers in (0, 2)
    ]
    for (images, labels), (others, other_labels) in zip(*batches, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, other_labels)


def test_a_training_resumes_within_an_epoch(made, cache, tmp_path):
    class Stopping(Probe):
        def training_step(self, batch, generator):
            if len(self.seen) + 1 == 7:  # of 5 per epoch
                os.kill(os.getpid(), signal.SIGTERM)
            return super().training_step(batch, generator)

    split = opened(made, cache, open_shards=2).split("train")
    unbroken, stopped, resumed = Probe(), Stopping(), Probe()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        whole, _ = train(unbroken, tmp_path / "whole", split=split)
        with pytest.raises(Interrupted):
            train(stopped, tmp_path / "stopped", split=split)
    finally:
        signal.signal(signal.SIGTERM, before)
    report, lines = train(resumed, tmp_path / "stopped", split=split)
    assert "probe: resumes after step 2 of 5 in epoch 2 of 3" in lines
    assert stopped.seen + resumed.seen == unbroken.seen
    assert torch.equal(resumed.linear.weight, unbroken.linear.weight)
    assert report.loss == whole.loss


def test_a_subset_keeps_its_shards(made, cache):
    split = subset(opened(made, cache, open_shards=2).split("train"), [30, 31, 7, 7, 8, 20])
    assert numbers_of(split) == [30, 31, 7, 7, 8, 20]
    assert split.shards.tolist() == [6, 6, 1, 1, 1, 4]
    assert sorted(flat_order_of(split, batch_size=2)) == list(range(6))
    assert split.open_shards == 2


def test_a_copy_in_another_process_reads_the_same(made, cache):
    split = opened(made, cache).split("train")
    first = split[9][0]
    assert torch.equal(pickle.loads(pickle.dumps(split))[9][0], first)


@pytest.mark.parametrize(
    ("files", "label", "classes"),
    [
        ({"cls": "{number}"}, "auto", ("0", "1")),
        ({"json": '{{"label": {number}, "caption": "x"}}'}, "auto", ("0", "1")),
        ({"json": '{{"species": "kind {number}"}}'}, "json:species", ("kind 0", "kind 1")),
        ({"txt": "name {number}\n"}, "txt", ("name 0", "name 1")),
        ({"txt": "a caption"}, "auto", ("unlabelled",)),
        ({"cls": "{number}"}, "none", ("unlabelled",)),
    ],
)
def test_labels(tmp_path, cache, files, label, classes):
    samples = [
        sample(number, png=png(number), **{name: text.format(number=number % 2) for name, text in files.items()})
        for number in range(6)
    ]
    write_one(tmp_path / "set" / "a.tar", *samples)
    dataset = opened(tmp_path / "set", cache, label=label)
    assert dataset.classes == classes
    assert dataset.provides == ({"images"} if classes == ("unlabelled",) else {"images", "labels"})
    labels = dataset.split("train").labels.tolist() + dataset.split("test").labels.tolist()
    assert sorted(labels) == ([0] * 6 if len(classes) == 1 else [0] * 3 + [1] * 3)


def test_the_image_is_named_if_there_are_several(tmp_path, cache):
    samples = [sample(n, left__png=png(n), right__png=png(n + 100), cls="0") for n in range(4)]
    write_one(tmp_path / "set" / "train.tar", *samples[:2])
    write_one(tmp_path / "set" / "test.tar", *samples[2:])
    message = (
        r"sample 00000 has several images \(it has cls, left\.png, right\.png\): name its ending with --set data\.image"
    )
    with pytest.raises(InputError, match=message):
        opened(tmp_path / "set", cache)
    assert numbers_of(opened(tmp_path / "set", cache, image="right.png").split("train")) == [100, 101]


def refusal(root, cache, **options):
    with pytest.raises(InputError) as refused:
        opened(root, cache, **options)
    message = str(refused.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[: len(data) // 2], "is no whole tar file"),
        (lambda data: data[:-10240], "is no whole tar file"),
        (lambda data: data[:700], "is no whole tar file"),
        (lambda data: b"", "is empty: make it again"),
        (lambda data: b"no tar at all" * 100, "is no whole tar file"),
        (gzip.compress, "is compressed, and images are read from their places: decompress it"),
    ],
)
def test_a_damaged_shard_is_named(made, tmp_path, cache, damage, words):
    root = tmp_path / "set"
    shutil.copytree(made, root)
    shard = root / "train" / "003.tar"
    shard.write_bytes(damage(shard.read_bytes()))
    message = refusal(root, cache)
    assert message.startswith(f"the shard {shard} {words}")


def test_a_damaged_image_is_named(made, tmp_path, cache):
    root = tmp_path / "set"
    shutil.copytree(made, root)
    split = opened(root, cache).split("train")
    shard = root / "train" / "003.tar"
    with tarfile.open(shard) as tar:
        place = tar.getmember("00017.png").offset_data
    data = bytearray(shard.read_bytes())
    data[place : place + 20] = bytes(20)
    shard.write_bytes(data)
    with pytest.raises(RunError, match=rf"cannot read the image 00017\.png in the shard {re.escape(str(shard))}: "):
        split[17]
    shard.write_bytes(data[:place])
    with pytest.raises(RunError, match="the shard is shorter than when it was first read"):
        split[18]


def test_samples_without_image_or_label_are_named(tmp_path, cache):
    root = tmp_path / "set"
    write_one(root / "a.tar", sample(0), sample(1, cls="0"))
    assert "sample 00001 has no image (it has cls)" in refusal(root, cache)
    write_one(root / "a.tar", sample(0), sample(1, png=png(1), cls="cat"))
    assert "have labels of several kinds (names, numbers): make them all numbers or all names" in refusal(root, cache)
    write_one(root / "a.tar", sample(0), sample(1, png=png(1)))
    assert "have labels of several kinds (none, numbers)" in refusal(root, cache)
    assert "sample 00001 has no label as data.label=cls says (it has no file .cls)" in refusal(root, cache, label="cls")
    write_one(root / "a.tar", sample(0), sample(1, png=png(1), json='{"other": 1}'))
    assert "sample 00000 has no label as data.label=json:label says" in refusal(root, cache, label="json:label")


@pytest.mark.parametrize("names", [("0.png", "0.png"), ("a/0.png", "a/0.PNG"), ("0.png", "1.png", "0.png")])
def test_two_files_of_one_name_are_refused(tmp_path, cache, names):
    shard = tmp_path / "set" / "a.tar"
    shard.parent.mkdir()
    with tarfile.open(shard, "w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(png(0))
            tar.addfile(info, io.BytesIO(png(0)))
    expected = f"the shard {shard}: it holds the file {names[0]} more than once: make it again"
    assert refusal(shard.parent, cache) == expected


def test_similar_label_fields_have_separate_caches(tmp_path, cache):
    fields = [json.dumps({"a/b": f"x{number % 2}", "a_b": f"y{number % 2}"}) for number in range(4)]
    write_one(tmp_path / "set" / "a.tar", *[sample(n, png=png(n), json=text) for n, text in enumerate(fields)])
    assert opened(tmp_path / "set", cache, label="json:a/b").classes == ("x0", "x1")
    assert opened(tmp_path / "set", cache, label="json:a_b").classes == ("y0", "y1")


def test_places_that_hold_nothing_are_refused(made, tmp_path, cache):
    (tmp_path / "empty").mkdir()
    assert "no tar files under" in refusal(tmp_path / "empty", cache)
    assert "does not exist" in refusal(tmp_path / "absent", cache)
    assert refusal(None, cache).startswith("webdataset needs data.root")
    assert "data.train=x{0..3}.tar: no file x0.tar under" in refusal(made, cache, train="x{0..3}.tar")
    assert "data.test needs data.train" in refusal(made, cache, test="val/*.tar")
    assert "name the same shards" in refusal(made, cache, train="*/*.tar", test="val/*.tar")


def test_a_missing_package_is_one_line(made, cache, monkeypatch):
    for module in [name for name in sys.modules if name.split(".")[0] == "webdataset"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "path", [])
    expected = (
        "data.name=webdataset needs the package webdataset, which is not installed: pip install 'mimbench[webdataset]'"
    )
    assert refusal(made, cache) == expected


def test_only_changed_shards_are_read_again(made, tmp_path, cache, monkeypatch):
    root = tmp_path / "set"
    shutil.copytree(made, root)
    names = []
    read = shard_reading._read_shard
    monkeypatch.setattr(
        shard_reading, "_read_shard", lambda shard, *rest: names.append(shard.name) or read(shard, *rest)
    )
    first = opened(root, cache)
    assert len(names) == 11
    names.clear()
    assert opened(root, cache).fingerprint() == first.fingerprint()
    assert names == []
    write(root / "train" / "%03d.tar", range(5))
    os.utime(root / "train" / "000.tar", (1, 1))
    opened(root, cache)
    assert names == ["000.tar"]
    names.clear()
    opened(root, cache, fingerprint="content")
    assert len(names) == 11  # now their bytes are hashed


def test_the_fingerprint_is_of_content_and_order(made, tmp_path, cache):
    root = tmp_path / "elsewhere"
    shutil.copytree(made, root)
    first = opened(made, cache).fingerprint()
    assert opened(root, cache).fingerprint() == first
    assert opened(root, cache, decode="scaled").fingerprint() == first
    assert opened(root, cache, open_shards=3).fingerprint() == first
    assert opened(root, cache, label="none").fingerprint() != first
    content = opened(made, cache, fingerprint="content").fingerprint()
    assert opened(root, cache, fingerprint="content").fingerprint() == content != first
    other = sample(4)
    other["png"] = png(5)[: len(png(4))].ljust(len(png(4)), b"\0")
    write_one(root / "train" / "000.tar", *[sample(number) for number in range(4)], other)
    assert opened(root, cache, fingerprint="content").fingerprint() != content
    (root / "train" / "000.tar").unlink()
    assert opened(root, cache).fingerprint() != first


def test_it_is_registered():
    assert registry.datasets.load("webdataset") is WebDataset


def test_the_checks_of_datasets_pass(tmp_path, cache):
    write(tmp_path / "set" / "train" / "%03d.tar", range(10))
    write(tmp_path / "set" / "val" / "%03d.tar", range(100, 104))
    results = check_dataset(WebDataset, {"root": tmp_path / "set", "channels": 1}, cache=cache)
    assert [result for result in results if result.status not in ("passed", "skipped")] == []
    assert len([result for result in results if result.status == "passed"]) > 8
