"""The feature cache: extracted once, keyed by all that matters, checked, shared, and made again where damaged."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import threading

import numpy as np
import pytest
import torch

from helpers.two_processes import exit_codes_of_two, join
from mimbench.contract import ArraySplit, InputConfig, InputError, RunError
from mimbench.encoders.convnet import ConvNeXt, ConvNeXtConfig
from mimbench.encoders.swin import Swin, SwinConfig
from mimbench.encoders.vit import ViT, ViTConfig
from mimbench.harness.running import features as features_module
from mimbench.harness.running.features import FrozenFeatures
from mimbench.store.features import checksum
from mimbench.store.store import Store

INPUT = InputConfig(image_size=8, mean=(0.5,), std=(0.25,))


def an_encoder(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ViT(ViTConfig(patch_size=4, embed_dim=16, depth=3, num_heads=2), image_size=8, in_channels=1)


def a_split(n=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return ArraySplit(images, torch.arange(n) % 4, tuple("abcd"))


class Counting:
    """An encoder's `layers`, counted."""

    def __init__(self, encoder):
        self.calls, self._layers = [], encoder.layers
        encoder.layers = self

    def __call__(self, images, last=-1, **options):
        self.calls.append((len(images), last))
        return self._layers(images, last, **options)


@pytest.fixture
def encoder():
    return an_encoder()


@pytest.fixture
def counted(encoder):
    return Counting(encoder)


@pytest.fixture
def source(encoder, tmp_path):
    return made(encoder, tmp_path)


def made(encoder, folder, identity=None, **options):
    identity = identity or {"weights": "w"}
    return FrozenFeatures(encoder, INPUT, torch.device("cpu"), identity, Store(folder), say=print, **options)


def files(folder, kind="npy"):
    return sorted((folder / "features").glob(f"*.{kind}"))


def test_features_are_those_of_the_encoder_in_order(encoder, source):
    split = a_split()
    pixels = (split.images.float() / 255 - 0.5) / 0.25
    with torch.no_grad():
        expected = encoder.eval().layers(pixels)
    for layer, pooling in ((-1, "mean"), (0, "token"), (1, "mean+token")):
        features = source(split, "train", layer=layer, pooling=pooling)
        assert features.dtype == torch.float32
        torch.testing.assert_close(features, expected[layer].pool(pooling))


def test_all_layers_come_from_one_pass_and_are_kept(source, counted, tmp_path):
    split = a_split()
    first = source.each_layer(split, "train", layers=[0, 1, 2], pooling="mean")
    assert counted.calls == [(20, 2)]
    again = made(an_encoder(1), tmp_path).each_layer(split, "train", layers=[2, 0, -3], pooling="mean")
    assert counted.calls == [(20, 2)]
    assert torch.equal(again[0], first[2])
    assert torch.equal(again[1], first[0])
    assert torch.equal(again[2], first[0])
    assert len(files(tmp_path)) == 3


def test_only_what_is_missing_is_extracted_and_no_deeper_than_needed(source, counted):
    split = a_split()
    source(split, "train", layer=0)
    source.each_layer(split, "train", layers=[0, 1], pooling="mean")
    assert counted.calls == [(20, 0), (20, 1)]


@pytest.mark.parametrize(
    "other",
    [
        Swin(
            SwinConfig(patch_size=2, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window=2),
            image_size=8,
            in_channels=1,
        ),
        ConvNeXt(ConvNeXtConfig(patch_size=2, dims=(8, 16), depths=(1, 1)), image_size=8, in_channels=1),
    ],
    ids=["swin", "convnext"],
)
def test_layers_may_differ_in_width(other, tmp_path):
    features = made(other, tmp_path).each_layer(a_split(), "train", layers=range(other.num_layers), pooling="mean")
    assert [layer.shape for layer in features] == [(20, 8), (20, 16)]
    pixels = (a_split().images.float() / 255 - 0.5) / 0.25
    with torch.no_grad():
        torch.testing.assert_close(features, [layer.pooled for layer in other.eval().layers(pixels)])


def test_batches_do_not_matter(encoder, tmp_path):
    one, other = (made(encoder, tmp_path / str(batch), batch=batch)(a_split(), "test") for batch in (3, 64))
    torch.testing.assert_close(one, other)


def test_the_key_holds_weights_split_layer_and_pooling(encoder, counted, tmp_path):
    split = a_split()
    made(encoder, tmp_path)(split, "train")
    made(encoder, tmp_path)(split, "test")
    made(encoder, tmp_path)(split, "train", layer=0)
    made(encoder, tmp_path)(split, "train", pooling="token")
    made(encoder, tmp_path, {"weights": "other"})(split, "train")
    assert len(counted.calls) == len(files(tmp_path)) == 5


def test_another_order_of_the_same_images_is_another_key(source):
    split = a_split()
    order = torch.arange(20).flip(0)
    turned = ArraySplit(split.images[order], split.labels[order], split.classes)
    torch.testing.assert_close(source(split, "train")[order], source(turned, "train"))


@pytest.mark.parametrize("damage", ["cut", "bit", "no seal", "wrong seal", "empty"])
def test_a_damaged_file_is_made_again(damage, source, counted, tmp_path):
    split = a_split()
    expected = source(split, "train").clone()
    (path,), (seal,) = files(tmp_path), files(tmp_path, "seal")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    {
        "cut": lambda: path.write_bytes(content[:-8]),
        "bit": lambda: path.write_bytes(content),
        "no seal": seal.unlink,
        "wrong seal": lambda: seal.write_bytes(b"\xff" * 64),
        "empty": lambda: path.write_bytes(b""),
    }[damage]()
    assert torch.equal(source(split, "train"), expected)
    assert len(counted.calls) == 2
    assert torch.equal(source(split, "train"), expected)
    assert len(counted.calls) == 2


def test_what_is_kept_is_mapped_and_not_written_through(source, tmp_path):
    features = source(a_split(), "train")
    (path,) = files(tmp_path)
    before = path.read_bytes()
    features += 1
    assert path.read_bytes() == before
    assert not torch.equal(source(a_split(), "train"), features)


def test_a_checksum_sees_every_byte_and_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr("mimbench.store.features.BLOCK", 16)
    path, content = tmp_path / "file", bytes(range(50))
    variants = [content[:at] + b"\xff" + content[at + 1 :] for at in range(50)]
    variants += [content, content[:-1], content + b"\0", content[16:32] + content[:16] + content[32:], b""]
    seen = set()
    for variant in variants:
        path.write_bytes(variant)
        seen.add(checksum(path))
    assert len(seen) == len(variants)


def test_a_file_is_summed_once_while_it_stays_the_same(source, tmp_path, monkeypatch):
    hashed = []
    monkeypatch.setattr("mimbench.store.features.checksum", lambda path: hashed.append(path) or "0" * 64)
    split = a_split()
    for _ in range(3):
        source(split, "train")
    (path,) = files(tmp_path)
    assert hashed.count(path) == 1


def test_a_loader_that_gives_too_few_leaves_nothing_behind(source, monkeypatch, tmp_path):
    monkeypatch.setattr(ArraySplit, "__len__", lambda self: 25)
    monkeypatch.setattr(
        "mimbench.data.pipeline.normalised.evaluation_loader", lambda *a, **k: [(a_split().images, None)]
    )
    with pytest.raises(RunError, match="the split has 25 images and its loader gave 20"):
        source(a_split(), "train")
    assert list((tmp_path / "features").iterdir()) == []


def test_a_full_disk_leaves_nothing_behind_and_the_next_try_succeeds(source, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*features/.*\.npy'"):
            source.each_layer(a_split(), "train", layers=[0, 1], pooling="mean")
    assert list((tmp_path / "features").iterdir()) == []
    assert len(source.each_layer(a_split(), "train", layers=[0, 1], pooling="mean")) == 2


class Stops(Counting):
    """Interrupts the third batch."""

    def __init__(self, encoder, how):
        super().__init__(encoder)
        self.how = how

    def __call__(self, images, last=-1, **options):
        if len(self.calls) == 2:
            self.how()
        return super().__call__(images, last, **options)


def interrupt():
    raise KeyboardInterrupt


def test_an_interrupted_extraction_goes_on(tmp_path, capsys):
    split, whole = a_split(), made(an_encoder(), tmp_path / "whole", batch=4)
    source = made(encoder := an_encoder(), tmp_path / "stopped", batch=4)
    Stops(encoder, interrupt)
    with pytest.raises(KeyboardInterrupt):
        source.each_layer(split, "train", layers=[0, 2], pooling="mean")
    # Another run may ask for other layers too: those that are behind decide where it goes on.
    for layers, batches in (([2], 3), ([0, 1, 2], 5)):
        source = made(encoder := an_encoder(), tmp_path / "stopped", batch=4)
        counted = Counting(encoder)
        resumed = source.each_layer(split, "train", layers=layers, pooling="mean")
        assert len(counted.calls) == batches
        for one, other in zip(resumed, whole.each_layer(split, "train", layers=layers, pooling="mean"), strict=True):
            assert torch.equal(one, other)
    assert capsys.readouterr().out.count("features: going on after 8 of 20 images") == 1
    assert {path.suffix for path in (tmp_path / "stopped" / "features").iterdir()} == {".npy", ".seal"}


def _extract_in_two(rank, port, folder, failures):
    """Rank 1 fails in its third batch of seven, and both go on; then both are killed in their third batches."""
    join(rank, port)
    features_module.NOTE_SECONDS = 0.0
    source = made(an_encoder(), folder, batch=3)
    counted = Stops(source.encoder, fail_on_second_rank)
    with pytest.raises(RunError, match="unlucky"):
        source.each_layer(a_split(), "train", layers=[0, 2], pooling="mean")
    source = made(an_encoder(), folder, batch=3)
    counted = Counting(source.encoder)
    source.each_layer(a_split(), "train", layers=[0, 2], pooling="mean")
    assert len(counted.calls) == 2 - rank
    Stops(source.encoder, die)
    source(a_split(), "test")


def fail_on_second_rank():
    if torch.distributed.get_rank() == 1:
        raise RunError("unlucky")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def test_two_ranks_share_an_extraction_which_goes_on_and_another_number_of_ranks_ends_it(tmp_path, capsys):
    codes, _ = exit_codes_of_two(_extract_in_two, tmp_path / "two")
    assert codes == [-signal.SIGKILL] * 2
    alone, shared = (made(an_encoder(), tmp_path / name, batch=3) for name in ("one", "two"))
    counted = Counting(shared.encoder)
    for which, layer in (("train", 0), ("train", 2), ("test", -1)):
        assert torch.equal(alone(a_split(), which, layer=layer), shared(a_split(), which, layer=layer))
    # The ranks were killed in their third batches, and have noted the first four.
    assert [images for images, _ in counted.calls] == [3, 3, 2]
    assert "features: going on after 12 of 20 images" in capsys.readouterr().out


def test_unknown_layers_and_poolings_are_refused(source):
    with pytest.raises(InputError, match="layer 3 is outside this encoder's 3 layers"):
        source(a_split(), "train", layer=3)
    with pytest.raises(InputError, match="unknown pooling 'men'; did you mean 'mean'"):
        source(a_split(), "train", pooling="men")


def test_two_threads_extract_once(tmp_path):
    encoders = [an_encoder(), an_encoder()]
    counts, features = [Counting(encoder) for encoder in encoders], []
    threads = [
        threading.Thread(target=lambda e=encoder: features.append(made(e, tmp_path)(a_split(), "train")))
        for encoder in encoders
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(len(count.calls) for count in counts) == 1
    assert torch.equal(features[0], features[1])


def _ask(folder, there):
    count = Counting(encoder := an_encoder())
    source = made(encoder, folder)
    source.say = there.send
    features = source(a_split(), "train")
    there.send((len(count.calls), features.numpy()))


def test_another_process_waits_for_the_one_that_extracts(encoder, tmp_path):
    processes = multiprocessing.get_context("forkserver")
    here, there = processes.Pipe()
    first, process = made(encoder, tmp_path), processes.Process(target=_ask, args=(tmp_path, there))
    extract = first._extract

    def extract_while_the_other_asks(*arguments):
        process.start()
        assert here.poll(30)
        assert here.recv() == "waiting: another process extracts features of the train split"
        extract(*arguments)

    first._extract = extract_while_the_other_asks
    features = first(a_split(), "train")
    assert here.poll(30)
    calls, received = here.recv()
    process.join()
    assert calls == 0
    assert np.array_equal(received, features.numpy())
