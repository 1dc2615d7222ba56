"""timm's augmentation is drawn from seeds alone: not from workers, ranks, the order of images, or shared generators."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode, TrivialAugmentWide
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from mimbench.contract import ArraySplit, ImageSplit, InputConfig
from mimbench.data import training_loader
from mimbench.data.pipeline.augment import Erasing, ImageAugment, Mixing
from mimbench.errors import InputError
from mimbench.seeds import fork_rng

CPU = torch.device("cpu")
INPUT = InputConfig(image_size=16, crop_scale=(0.3, 1.0), flip=0.5, mean=(0.5,), std=(0.5,))
POLICY = "rand-m9-mstd0.5-inc1"
NOISE = torch.randint(0, 256, (24, 3, 20, 18), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


class Read(ImageSplit):
    """Images as if read from files."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images, self.labels, self.classes = images, torch.arange(len(images)) % 2, ("even", "odd")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index], int(self.labels[index])


def epoch(split, augment, number=0, **options):
    loader = training_loader(split, INPUT, batch_size=8, seed=3, device=CPU, augment=augment, **options)
    loader.sampler.set_epoch(number)
    return [images for images, _ in loader]


def test_float_pixels_are_augmented_as_bytes():
    augment = ImageAugment(INPUT, 3, None)
    for image in NOISE[:4]:
        with fork_rng(1):
            as_bytes = augment(image)
        with fork_rng(1):
            as_floats = augment(image.float())
        assert torch.equal(as_bytes, as_floats)


@pytest.mark.parametrize("kind", [Read, lambda images: ArraySplit(images, torch.arange(24) % 2, ("even", "odd"))])
def test_a_batch_depends_on_seed_epoch_and_index_only(kind):
    split, augment = kind(NOISE), ImageAugment(INPUT, 3, POLICY)
    whole = torch.cat(epoch(split, augment))
    assert whole.shape == (24, 3, 16, 16)
    assert whole.dtype == torch.uint8
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    torch.testing.assert_close(torch.cat(epoch(split, augment, workers=2)), whole, rtol=0, atol=0)
    assert not torch.equal(torch.cat(epoch(split, augment, 1)), whole)


def test_ranks_share_out_what_one_process_would_see():
    split, augment = Read(NOISE), ImageAugment(INPUT, 3, POLICY)
    ranks = [
        [images for images, _ in training_loader(
            split, INPUT, batch_size=4, seed=3, device=CPU, augment=augment, rank=rank, world_size=2
        )]
        for rank in range(2)
    ]  # fmt: skip
    steps = [torch.cat(parts) for parts in zip(*ranks, strict=True)]
    assert all(torch.equal(ours, one) for ours, one in zip(steps, epoch(split, augment), strict=True))


@pytest.mark.parametrize("channels", [1, 3])
def test_every_operation_of_the_policy_takes_grey_and_colour(channels):
    augment = pickle.loads(pickle.dumps(ImageAugment(INPUT, channels, "rand-m9-mstd0.5-inc1-n12")))
    for seed in range(20):
        with fork_rng(seed):
            image = augment(NOISE[0, :channels])
        assert image.shape == (channels, 16, 16)


def test_without_a_policy_there_is_colour_jitter():
    plain = INPUT.model_copy(update={"crop_scale": (1.0, 1.0), "flip": 0.0})
    with fork_rng(0):
        same = ImageAugment(plain, 3, None)(NOISE[0, :, :16, :16])
    with fork_rng(0):
        jittered = ImageAugment(plain.model_copy(update={"color_jitter": 0.4}), 3, None)(NOISE[0, :, :16, :16])
    assert torch.equal(same, NOISE[0, :, :16, :16])
    assert not torch.equal(jittered, same)


@pytest.mark.parametrize("channels", [1, 3])
def test_trivial_augment_is_torchvisions(channels):
    plain = INPUT.model_copy(update={"crop_scale": (1.0, 1.0), "flip": 0.0})
    augment = pickle.loads(pickle.dumps(ImageAugment(plain, channels, "trivial")))
    changed, image = 0, NOISE[0, :channels, :16, :16]
    for seed in range(20):
        with fork_rng(seed):
            ours = augment(image)
        with fork_rng(seed):
            official = pil_to_tensor(TrivialAugmentWide(interpolation=InterpolationMode.BICUBIC)(to_pil_image(image)))
        assert torch.equal(ours, official)
        changed += not torch.equal(ours, image)
    assert changed > 10


@pytest.mark.parametrize("policy", ["foo", "rand-q9", "m9-mstd0.5"])
def test_an_unknown_policy_is_refused(policy):
    with pytest.raises(InputError, match=f"rand_augment '{policy}' is no policy that timm knows"):
        ImageAugment(INPUT, 3, policy)


def test_erasing_follows_its_seed_and_erases_as_often_as_asked():
    images = torch.full((400, 3, 16, 16), 9.0)
    first, again = (Erasing(0.25)(images.clone(), 5) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, Erasing(0.25)(images.clone(), 6))
    erased = (first != 9.0).flatten(1).any(1)
    assert 0.18 < erased.float().mean() < 0.32
    share = (first[erased] != 9.0).float().mean((1, 2, 3))
    assert share.min() > 0.005
    assert share.max() < 0.45
    noise = first[first != 9.0]
    assert abs(float(noise.mean())) < 0.05
    assert float(noise.std()) == pytest.approx(1, abs=0.05)


def mixing(**options):
    return Mixing(
        **{"mixup": 0.8, "cutmix": 1.0, "probability": 1.0, "switch": 0.5, "smoothing": 0.1, "classes": 4, "group": 128}
        | options
    )


def weights_of_own_label(targets):
    """Of [B, 2] targets of alternating classes, mixed with the reversed group: how much of its own each image keeps."""
    return targets[torch.arange(len(targets)), torch.arange(len(targets)) % 2]


def test_each_group_draws_its_own_share():
    images, labels = torch.rand(2048, 1, 2, 2), torch.arange(2048) % 2
    options = {"cutmix": 0.0, "smoothing": 0.0, "classes": 2}
    mixed, targets = mixing(**options)(images.clone(), labels, 3)
    shares = weights_of_own_label(targets).unflatten(0, (16, 128))
    assert all(len(group.unique()) == 1 for group in shares)
    assert len(shares[:, 0].unique()) == 16
    for start in range(0, 2048, 128):
        group_images, group = images[start : start + 128], shares[start // 128, 0]
        torch.testing.assert_close(
            mixed[start : start + 128], group_images * group + group_images.flip(0) * (1 - group)
        )
    # A micro-batch that one group holds is mixed as a whole, and as the first group is.
    small, few = mixing(**options)(images[:128].clone(), labels[:128], 3)
    assert torch.equal(small, mixed[:128])
    assert torch.equal(few, targets[:128])
    _, odd_rest = mixing(**options, group=20)(images[:32].clone(), labels[:32], 3)
    assert len(weights_of_own_label(odd_rest).unique()) == 2


def test_mixed_images_and_labels_have_the_same_shares():
    images = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)])
    labels = torch.tensor([0, 1])
    for seed in range(12):
        mixed, targets = mixing(smoothing=0.0)(images.clone(), labels, seed)
        torch.testing.assert_close(targets.sum(1), torch.ones(2))
        # How much of the second image is in each is how much of its label is.
        torch.testing.assert_close(mixed.mean((1, 2, 3)), targets[:, 1], rtol=0, atol=1e-5)


def test_mixing_follows_its_seed_and_smooths():
    images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    first, targets = mixing()(images.clone(), labels, 1)
    again, same = mixing()(images.clone(), labels, 1)
    assert torch.equal(first, again)
    assert torch.equal(targets, same)
    assert float(targets.min()) == pytest.approx(0.1 / 4)
    unmixed = [
        seed for seed in range(40) if torch.equal(mixing(probability=0.5)(images.clone(), labels, seed)[0], images)
    ]
    assert 10 < len(unmixed) < 30


@pytest.mark.cuda
def test_erasing_and_mixing_on_cuda():
    images, labels = torch.zeros(8, 3, 16, 16, device="cuda"), torch.arange(8, device="cuda") % 4
    state = torch.cuda.get_rng_state()
    erased = [Erasing(1.0)(images.clone(), 3) for _ in range(2)]
    mixed = [mixing()(images.clone(), labels, 3) for _ in range(2)]
    assert torch.equal(*erased)
    assert torch.equal(mixed[0][1], mixed[1][1])
    assert mixed[0][1].device.type == "cuda"
    assert torch.equal(torch.cuda.get_rng_state(), state)
