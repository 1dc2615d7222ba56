"""Image sizes that change over the training, for every built-in method that follows them."""

from __future__ import annotations

import pytest
import torch

from helpers.noting import INPUT, train
from helpers.small_encoders import encoder_for
from mimbench import registry
from mimbench.contract import Method
from mimbench.data import ViewSchedule
from mimbench.encoders.swin import Swin
from mimbench.engine.pretrain import TrainableMethod
from mimbench.errors import InputError

OPTIONS = {
    "autoencoder": {},
    "beit": {"hidden_patches": 8, "min_block": 1, "kmeans": {"vocabulary": 4}},
    "capi": {"clusters": 4, "predictor_dim": 8, "predictor_depth": 1, "predictor_heads": 2, "predicted_share": 0.5},
    "data2vec": {"hidden_patches": 8, "min_block": 1, "target_layers": 1},
    "mae": {"decoder_dim": 8, "decoder_depth": 1, "decoder_heads": 2},
    "maskfeat": {"cell_size": 1, "mask": "random", "mask_ratio": 0.5},
    "simmim": {"mask_patch_size": 2, "mask_ratio": 0.5},
    "simmim-pixel": {"mask_ratio": 0.5},
    "spark": {"decoder_dim": 4, "mask_ratio": 0.5},
    "fcmae": {"decoder_dim": 4, "mask_ratio": 0.5, "init": "encoder"},
}
"""Options of the methods that follow. A supervised method, which has no mask, is tested by itself."""
SCHEDULE = ViewSchedule.from_sizes([INPUT], [(0, 4), (1, 8)])


def build(name, encoder=None, **options):
    torch.manual_seed(0)
    cls = registry.methods.load(name)
    return cls(cls.Config(**OPTIONS.get(name, {}) | options), encoder or encoder_for(cls))


def train_and_note(folder, method, **options):
    """Side of the images, grid and number of masked cells of the first image, in each step of a training."""
    notes = []
    sample, forward = method.sample_mask, method.forward

    def noted(images, mask):
        notes.append((images.shape[-1], tuple(mask.shape[1:]), int(mask[0].sum())))
        return forward(images, mask)

    method.forward = noted
    report, _ = train(TrainableMethod(method, SCHEDULE, channels=1, batched=True), folder, base_lr=1e-3, **options)
    assert method.sample_mask == sample
    return notes, report


def test_the_methods_that_follow_are_these():
    classes = {name: registry.methods.load(name) for name in registry.methods.names()}
    follow = {name for name, cls in classes.items() if cls.set_image_size is not Method.set_image_size}
    # hpm and pixio refuse, by a teacher and learned positions of one size; what they share with mae follows.
    assert follow == {*OPTIONS, "supervised", "hpm", "pixio"}


@pytest.mark.parametrize(
    ("name", "masked"),
    [
        ("mae", (3, 12)),
        ("simmim", (2, 8)),
        ("maskfeat", (2, 8)),
        ("simmim-pixel", (8, 32)),
        ("spark", (2, 8)),
        ("fcmae", (2, 8)),
        ("autoencoder", (0, 0)),
    ],
)
def test_masks_follow_the_size_of_the_images(tmp_path, name, masked):
    method = build(name)
    notes, report = train_and_note(tmp_path, method, epochs=2)
    cells = 1 if name == "simmim-pixel" else 2
    small, large = ((size, (size // cells,) * 2, count) for size, count in zip((4, 8), masked, strict=True))
    assert notes == [small] * 5 + [large] * 5
    assert len(report.loss) == 2
    assert torch.isfinite(torch.tensor(report.loss)).all()
    assert report.images_seen == 80
    assert method.image_size == 8


@pytest.mark.parametrize("name", ["beit", "data2vec"])
def test_a_number_of_masked_patches_keeps_its_share(tmp_path, name):
    notes, report = train_and_note(tmp_path, build(name), epochs=2)
    assert [note[:2] for note in notes] == [(4, (2, 2))] * 5 + [(8, (4, 4))] * 5
    assert max(count for _, grid, count in notes if grid == (2, 2)) <= 2  # of 4, as 8 of 16
    assert 2 < max(count for _, grid, count in notes if grid == (4, 4)) <= 8
    assert torch.isfinite(torch.tensor(report.loss)).all()


def test_a_hierarchical_encoder_follows_too(tmp_path):
    config = Swin.Config(patch_size=2, embed_dim=8, depths=(1, 1), num_heads=(1, 1), window=2)
    notes, report = train_and_note(tmp_path, build("simmim", Swin(config, image_size=8, in_channels=1)), epochs=2)
    assert notes == [(4, (2, 2), 2)] * 5 + [(8, (4, 4), 8)] * 5
    assert torch.isfinite(torch.tensor(report.loss)).all()


def test_the_decoder_of_mae_has_the_positions_of_the_grid():
    method = build("mae")
    whole = method.positions.clone()
    method.set_image_size(4)
    assert (method.positions.shape, method.visible, method.patch_grid) == ((1, 4, 8), 1, (2, 2))
    assert method.encoder.grid == (4, 4)
    method.set_image_size(8)
    assert torch.equal(method.positions, whole)
    assert not any("positions" in name for name in method.state_dict())


def test_a_mask_ratio_may_change_as_well(tmp_path):
    notes, _ = train_and_note(tmp_path, build("mae", mask_ratio=0.75, initial_mask_ratio=0.25), epochs=2)
    assert [count for _, _, count in notes] == [1, 2, 2, 2, 2, 8, 9, 10, 11, 12]


@pytest.mark.parametrize("steps", [3, 5, 7])
@pytest.mark.parametrize("name", ["mae", "simmim"])
def test_a_resumed_training_is_exact(tmp_path, name, steps):
    whole, resumed = build(name), build(name)
    notes, report = train_and_note(tmp_path / "whole", whole, steps=12)
    train_and_note(tmp_path / "part", build(name), steps=12, until=steps)
    rest, again = train_and_note(tmp_path / "part", resumed, steps=12)
    assert rest == notes[steps:]
    assert again.loss == report.loss
    assert all(torch.equal(resumed.state_dict()[key], value) for key, value in whole.state_dict().items())


def test_a_method_that_does_not_follow_says_so():
    class Fixed(Method):
        name = "fixed"

    encoder = build("mae").encoder
    method = Fixed(Fixed.Config(), encoder)
    method.set_image_size(8)
    with pytest.raises(InputError, match="method 'fixed' trains on images of one size"):
        method.set_image_size(4)
