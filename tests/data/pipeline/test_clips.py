"""Clips in the loaders and on the device: what is drawn for a clip is the same in all of its frames."""

from __future__ import annotations

import pytest
import torch

from mimbench.contract import ArraySplit, ImageSplit, InputConfig, View
from mimbench.data.pipeline.augment import Erasing, ImageAugment, Mixing
from mimbench.data.pipeline.loading import evaluation_loader, training_loader
from mimbench.data.pipeline.subsets import subset
from mimbench.data.pipeline.transforms import DeviceTransform, TrainingCrop, denormalise, evaluation_crop

CPU = torch.device("cpu")
FRAMES = 5
INPUT = InputConfig(image_size=16, frames=FRAMES, crop_scale=(0.2, 0.9), flip=0.5, color_jitter=0.4)
VIEW = View.from_input(
    INPUT, color_jitter=0.0, jitter=(0.4, 0.4, 0.2, 0.1), grayscale=0.5, blur=0.5, solarize=0.5, jitter_probability=0.8
)


def clips(count=6, channels=3):
    shape = (count, channels, FRAMES, 20, 24)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("options", [INPUT, VIEW, InputConfig(image_size=16, frames=FRAMES, eval_resize=20)])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_frames_of_a_clip_are_transformed_as_images_with_the_same_draws(options, train, channels):
    transform = DeviceTransform(options, 3, train=train, batched=True)
    batch = clips(channels=channels)
    whole = transform(batch, torch.Generator().manual_seed(3))
    assert whole.shape == (6, 3, FRAMES, 16, 16)
    for frame in range(FRAMES):
        alone = transform(batch[:, :, frame], torch.Generator().manual_seed(3))
        torch.testing.assert_close(whole[:, :, frame], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("crop", [TrainingCrop(INPUT), TrainingCrop(VIEW), lambda clip: evaluation_crop(clip, INPUT)])
@pytest.mark.parametrize("change", [lambda clip: clip, lambda clip: clip.float()])
def test_workers_crop_all_frames_of_a_clip_in_one_way(crop, change):
    for seed, clip in enumerate(map(change, clips())):
        torch.manual_seed(seed)
        whole = crop(clip)
        assert whole.shape == (3, FRAMES, 16, 16)
        for frame in range(FRAMES):
            torch.manual_seed(seed)
            torch.testing.assert_close(whole[:, frame], crop(clip[:, frame]), atol=1e-3, rtol=1e-5)


def test_normalisation_is_per_channel_and_can_be_undone():
    options = InputConfig(image_size=20, frames=FRAMES, mean=(0.1, 0.5, 0.9), std=(0.1, 0.2, 0.4))
    batch = clips()[..., :20]
    images = DeviceTransform(options, 3, train=False, batched=True)(batch)
    assert images[:, 2].mean() < images[:, 1].mean() < images[:, 0].mean()
    torch.testing.assert_close(denormalise(images, options), batch / 255)


class Videos(ImageSplit):
    """Videos of 20 frames whose pixels are their frame's number; a clip is 5 frames."""

    def __init__(self, count=8):
        self.labels, self.classes = torch.arange(count) % 2, ("a", "b")

    def __len__(self):
        return len(self.labels)

    def clip(self, index, start):
        frames = torch.arange(start, start + FRAMES, dtype=torch.uint8)
        return frames.view(1, -1, 1, 1).expand(1, FRAMES, 20, 20), int(self.labels[index])

    def __getitem__(self, index):
        return self.clip(index, 7)

    def draw(self, index, generator):
        return self.clip(index, int(torch.randint(16, (), generator=generator)))


def starts(loader, epoch=0):
    """First frame of each clip of an epoch, and its length in frames."""
    if hasattr(loader.sampler, "set_epoch"):
        loader.sampler.set_epoch(epoch)
    return torch.cat([images[:, 0, :, 0, 0] for images, _ in loader])


def test_the_loader_draws_clips_by_seed_epoch_and_index():
    plain = InputConfig(image_size=8, frames=FRAMES)
    loaders = [
        training_loader(Videos(), plain, batch_size=4, seed=seed, device=CPU, workers=workers)
        for seed, workers in ((0, 0), (0, 2), (1, 0))
    ]
    first, with_workers, other_seed = (starts(loader) for loader in loaders)
    assert first.shape == (8, FRAMES)
    assert torch.equal(first - first[:, :1], torch.arange(FRAMES, dtype=torch.uint8).expand(8, -1))
    assert len(first[:, 0].unique()) > 3
    assert torch.equal(first, with_workers)
    assert not torch.equal(first, other_seed)
    assert not torch.equal(first, starts(loaders[0], epoch=1))
    two = training_loader(Videos(), [plain, plain], batch_size=4, seed=0, device=CPU)
    two.sampler.set_epoch(0)
    assert all(torch.equal(one[:, :, :, 0, 0], other[:, :, :, 0, 0]) for (one, other), _ in two)
    part = starts(training_loader(subset(Videos(), range(8)), plain, batch_size=4, seed=0, device=CPU))
    assert torch.equal(first, part)


def test_evaluation_reads_the_clips_that_indexing_gives():
    options = InputConfig(image_size=8, frames=FRAMES)
    assert set(starts(evaluation_loader(Videos(), options, batch_size=3, device=CPU))[:, 0].tolist()) == {7}
    held = ArraySplit(clips(), torch.arange(6) % 2, ("a", "b"))
    ((images, labels),) = evaluation_loader(held, options, batch_size=6, device=CPU)
    assert torch.equal(images, held.images)
    assert torch.equal(subset(held, [3, 1]).images, held.images[[3, 1]])
    assert torch.equal(labels, held.labels)


def test_erasing_takes_the_same_place_in_every_frame():
    erased = Erasing(1.0)(torch.full((20, 3, FRAMES, 16, 16), 9.0), 0) != 9.0
    assert erased.flatten(1).any(1).all()
    assert torch.equal(erased, erased[:, :1, :1].expand_as(erased))


@pytest.mark.parametrize("alphas", [{"mixup": 0.8, "cutmix": 0.0}, {"mixup": 0.0, "cutmix": 1.0}])
def test_mixing_treats_frames_as_it_treats_an_image(alphas):
    mix = Mixing(**alphas, probability=1.0, switch=0.5, smoothing=0.1, classes=4, group=4)
    batch, labels = clips(8).float(), torch.arange(8) % 4
    mixed, targets = mix(batch.clone(), labels, 1)
    assert not torch.equal(mixed, batch)
    for frame in range(FRAMES):
        alone, same = mix(batch[:, :, frame].clone(), labels, 1)
        assert torch.equal(mixed[:, :, frame], alone)
        assert torch.equal(targets, same)


def test_timms_augmentation_changes_every_frame_equally():
    augment = ImageAugment(INPUT, 3, "rand-m9-mstd0.5-inc1")
    still = clips(1)[0, :, :1].expand(-1, FRAMES, -1, -1).contiguous()
    for _ in range(4):
        frames = augment(still)
        assert frames.shape == (3, FRAMES, 16, 16)
        assert torch.equal(frames, frames[:, :1].expand_as(frames))
