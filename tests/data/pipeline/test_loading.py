"""Loaders give the same batches whatever the workers, and ranks share an epoch out."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.hooks import DistSamplerSeedHook
from PIL import Image

from mimbench.contract import ArraySplit, ImageSplit, InputConfig, View
from mimbench.data.pipeline.loading import evaluation_loader, training_loader
from mimbench.data.pipeline.transforms import DeviceTransform
from mimbench.data.sources.folder import Folder
from mimbench.data.sources.folder_config import FolderConfig
from mimbench.errors import InputError

WORKER = """
import os, signal, time
from mimbench.data.pipeline.loading import ignore_stop_signals
ignore_stop_signals(0)
print("ready", flush=True)
input()
"""

LOADS = """
import os, sys, time, torch
from mimbench.data.pipeline.loading import ignore_stop_signals

class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        while True:
            yield os.getpid()

loader = torch.utils.data.DataLoader(Endless(), batch_size=None, num_workers=2, worker_init_fn=ignore_stop_signals)
batches = iter(loader)
print(*{int(next(batches)) for _ in range(4)}, flush=True)
input()
"""

CPU = torch.device("cpu")
INPUT = InputConfig(image_size=16, crop_scale=(0.3, 1.0), flip=0.5, color_jitter=0.3)


def numbered(size=50):
    """Images that say their own index."""
    labels = torch.arange(size)
    return ArraySplit(labels.to(torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4), labels, ("a",))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for index in range(13):
        folder = root / "train" / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.linear_gradient("L").rotate(20 * index).resize((30 + index, 40)).save(folder / f"{index}.png")
    return Folder(FolderConfig(root=root, val_fraction=0.1), tmp_path_factory.mktemp("cache")).split("train")


def epoch_of(loader, epoch=0):
    loader.sampler.set_epoch(epoch)
    return [(images.clone(), labels.clone()) for images, labels in loader]


def same(a, b):
    return len(a) == len(b) and all(
        torch.equal(x, y) for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True)
    )


def training(split, **options):
    return training_loader(split, INPUT, **{"batch_size": 4, "seed": 0, "device": CPU, **options})


def indices(batches):
    return torch.cat([labels for _, labels in batches]).tolist()


def test_arrays_come_as_whole_shuffled_batches():
    loader = training(numbered(), batch_size=8)
    batches = epoch_of(loader)
    assert len(batches) == len(loader) == 6
    assert all(images.shape == (8, 1, 4, 4) and images.dtype == torch.uint8 for images, _ in batches)
    assert all((images[:, 0, 0, 0] == labels).all() for images, labels in batches)
    seen = indices(batches)
    assert len(set(seen)) == 48
    assert seen != sorted(seen)


def test_order_depends_on_seed_and_epoch_only():
    first = epoch_of(training(numbered()), 3)
    assert same(first, epoch_of(training(numbered(), workers=2), 3))
    loader = training(numbered())
    epoch_of(loader, 2)
    assert same(first, epoch_of(loader, 3))
    assert not same(first, epoch_of(loader, 4))
    assert not same(first, epoch_of(training(numbered(), seed=1), 3))


def test_ranks_share_each_global_batch():
    whole = epoch_of(training(numbered(), batch_size=12))
    ranks = [epoch_of(training(numbered(), batch_size=4, rank=rank, world_size=3)) for rank in range(3)]
    for step, (_, labels) in enumerate(whole):
        assert torch.equal(torch.cat([batches[step][1] for batches in ranks]), labels)
    assert len({index for batches in ranks for index in indices(batches)}) == 48


def test_repeated_augmentation_draws_images_several_times_in_an_epoch_of_the_same_length():
    """timm's RepeatAugSampler: the first images of the shuffled epoch, three times each; no copy beside another."""
    once, loader = epoch_of(training(numbered(), batch_size=12)), training(numbered(), batch_size=12, repeats=3)
    batches = epoch_of(loader)
    assert len(batches) == len(loader) == 4
    assert [sorted(labels.tolist()) for _, labels in batches] == [
        sorted(indices(once)[4 * step : 4 * step + 4] * 3) for step in range(4)
    ]
    for _, labels in batches:
        assert torch.equal(labels, labels[:4].repeat(3))
    ranks = [epoch_of(training(numbered(), batch_size=4, rank=rank, world_size=3, repeats=3)) for rank in range(3)]
    for step, (_, labels) in enumerate(batches):
        assert torch.equal(torch.cat([rank[step][1] for rank in ranks]), labels)
        assert all(len(set(rank[step][1].tolist())) == 4 for rank in ranks)  # no process has two copies of an image
    assert indices(epoch_of(loader, 1)) != indices(batches)
    uneven = epoch_of(training(numbered(), batch_size=10, repeats=4))
    assert indices(uneven).count(indices(once)[2]) == 4  # over two steps
    loader.sampler.skip_next(2)
    assert same(epoch_of(loader), batches[2:])


@pytest.mark.parametrize("workers", [0, 2])
def test_copies_of_an_image_differ(pictures, workers):
    once = {image.numpy().tobytes() for images, _ in epoch_of(training(pictures)) for image in images}
    options = {"batch_size": 12, "repeats": 3, "workers": workers}
    for decoding in ("full", "scaled"):
        ((images, _),) = epoch_of(training(pictures, **options, decoding=decoding))
        copies = [{image.numpy().tobytes() for image in part} for part in images.split(4)]
        assert len(set.union(*copies)) == 12
        assert [len(copy & once) for copy in copies] == [4, 0, 0]


def test_mmengines_hook_sets_the_epoch():
    class Runner:
        epoch = 5

        class train_loop:
            dataloader = training(numbered())

    DistSamplerSeedHook().before_train_epoch(Runner)
    assert Runner.train_loop.dataloader.sampler.epoch == 5


def test_a_batch_larger_than_the_set_is_refused():
    with pytest.raises(InputError, match="a batch of 60 images is more than the 50 training images: lower"):
        training(numbered(), batch_size=30, world_size=2)


def test_crops_are_the_same_with_any_number_of_workers(pictures):
    alone = training(pictures)
    state = torch.get_rng_state()
    expected = [epoch_of(alone, epoch) for epoch in range(2)]
    assert torch.equal(torch.get_rng_state(), state)
    assert expected[0][0][0].shape == (4, 3, 16, 16)
    assert expected[0][0][0].dtype == torch.uint8
    assert not same(expected[0], expected[1])
    shared = training(pictures, workers=2)
    assert all(same(epoch_of(shared, epoch), expected[epoch]) for epoch in range(2))
    assert torch.equal(torch.get_rng_state(), state)


def test_crops_differ_between_epochs_and_images(pictures):
    loader = training(pictures, batch_size=12)
    (images, labels), (again, _) = epoch_of(loader, 0)[0], epoch_of(loader, 1)[0]
    assert len({image.numpy().tobytes() for image in torch.cat([images, again])}) == 24
    assert set(labels.tolist()) == {0, 1}


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_is_in_order_and_complete(pictures, workers):
    loader = evaluation_loader(pictures, INPUT, batch_size=5, workers=workers, device=CPU)
    batches = list(loader)
    assert [len(labels) for _, labels in batches] == [5, 5, 2]
    assert torch.equal(torch.cat([labels for _, labels in batches]), pictures.labels)
    assert same(batches, list(loader))
    assert all(images.shape[1:] == (3, 16, 16) for images, _ in batches)


def test_evaluation_of_arrays_leaves_them_as_they_are():
    batches = list(evaluation_loader(numbered(), INPUT, batch_size=20, device=CPU))
    assert indices(batches) == list(range(50))
    assert batches[0][0].shape == (20, 1, 4, 4)


def test_views_of_files_are_drawn_each_and_the_first_as_if_it_were_alone(pictures):
    small = INPUT.model_copy(update={"image_size": 8})
    alone = epoch_of(training(pictures))
    for workers in (0, 2):
        loader = training_loader(pictures, [INPUT, INPUT, small], batch_size=4, seed=0, device=CPU, workers=workers)
        batches = epoch_of_views(loader)
        for (first, second, third), (images, _) in zip(batches, alone, strict=True):
            assert torch.equal(first, images)
            assert not torch.equal(second, images)
            assert third.shape[-2:] == (8, 8)
    again = epoch_of_views(training_loader(pictures, [INPUT] * 3, batch_size=4, seed=0, device=CPU))
    assert all(torch.equal(a[1], b[1]) for a, b in zip(batches, again, strict=True))


def epoch_of_views(loader):
    loader.sampler.set_epoch(0)
    return [views for views, _ in loader]


class Files(ImageSplit):
    """The images of an ArraySplit, as if each were read from a file."""

    def __init__(self, split):
        self.split = split
        self.labels, self.classes, self.pixel_range = split.labels, split.classes, split.pixel_range

    def __len__(self):
        return len(self.split)

    def __getitem__(self, index):
        return self.split[index]


@pytest.mark.parametrize("wrap", [lambda split: split, Files])
@pytest.mark.parametrize(
    ("change", "pixel_range"),
    [
        (lambda images: images.float() / 255, (0.0, 1.0)),
        (lambda images: images.float() * 4 - 1000, (-1000.0, 20.0)),
        (lambda images: images.to(torch.int32).mul(257).to(torch.uint16), (0.0, 65535.0)),
    ],
)
def test_pixels_of_other_types_reach_the_encoder_as_bytes_do(wrap, change, pixel_range):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (12, 3, 20, 20), dtype=torch.uint8, generator=generator)
    labels = torch.arange(12) % 2
    view = View.from_input(INPUT, jitter=(0.4, 0.4, 0.2, 0.1), grayscale=0.3, blur=0.5, solarize=0.5)
    bytes_split = wrap(ArraySplit(images, labels, ("a", "b")))
    other = wrap(ArraySplit(change(images), labels, ("a", "b"), pixel_range=pixel_range))
    for make, train in (
        (lambda split: training_loader(split, view, batch_size=6, seed=0, device=CPU), True),
        (lambda split: evaluation_loader(split, INPUT, batch_size=6, device=CPU), False),
    ):
        transform = DeviceTransform(view if train else INPUT, 3, train=train, batched=bytes_split.is_in_memory)
        results = [
            torch.cat([transform(batch, torch.Generator().manual_seed(1)) for batch, _ in make(split)])
            for split in (bytes_split, other)
        ]
        # torchvision truncates bytes after each step of the augmentation. A byte is 0.017 after normalisation.
        difference = (results[0] - results[1]).abs()
        assert difference.median() < (0.1 if train else 0.02)
        assert difference.mean() < (0.1 if train else 0.02)


def test_signals_to_all_processes_of_a_job_do_not_end_its_loaders():
    worker = subprocess.Popen([sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert worker.stdout.readline() == "ready\n"
    sender = f"import os; [os.kill({worker.pid}, number) for number in (1, 2, {signal.SIGUSR1:d}, 15)]"
    subprocess.run([sys.executable, "-c", sender], check=True)  # SIGTERM of the parent would end it
    worker.communicate("\n", timeout=60)
    assert worker.returncode == 0


def test_workers_of_a_killed_training_end():
    training = subprocess.Popen([sys.executable, "-c", LOADS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    workers = [int(number) for number in training.stdout.readline().split()]
    assert len(workers) == 2
    training.kill()
    training.wait()
    end = time.monotonic() + 60
    while any(is_running(worker) for worker in workers):  # torch's workers look for their parent every 5 s
        assert time.monotonic() < end
        time.sleep(0.2)


def is_running(number):
    """Whether the process exists and is no zombie, which nobody may have waited for."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
