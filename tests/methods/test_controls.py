"""The controls: what is trained with labels, and what is trained with nothing masked."""

from __future__ import annotations

import pytest
import torch

from mimbench.contract import Batch, NotSupported
from mimbench.encoders.convnet import ConvNeXt
from mimbench.encoders.swin import Swin
from mimbench.encoders.vit import ViT
from mimbench_methods.autoencoder import Autoencoder
from mimbench_methods.supervised import Supervised

ENCODERS = {
    "vit": (ViT, {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}),
    "swin": (Swin, {"patch_size": 2, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window": 4}),
    "convnext": (ConvNeXt, {"patch_size": 2, "dims": [8, 16], "depths": [1, 1]}),
}


class FakeStage:
    """As much of a Stage as `prepare` asks of it."""

    seed = 3
    classes = ("a", "b", "c")


def encoder(name="vit"):
    torch.manual_seed(0)
    cls, options = ENCODERS[name]
    return cls(cls.Config(**options), image_size=16, in_channels=1)


def supervised(name="vit", **options) -> Supervised:
    method = Supervised(Supervised.Config(**options), encoder(name))
    method.prepare(FakeStage())
    return method


def autoencoder(name="vit", **options) -> Autoencoder:
    return Autoencoder(Autoencoder.Config(**options), encoder(name))


def batch(labels=True) -> Batch:
    images = torch.randn(12, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    return Batch((images,), torch.arange(12) % 3 if labels else None)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("name", ENCODERS)
def test_supervised_learns_the_labels(name):
    method = supervised(name)
    optimizer = torch.optim.Adam(method.parameters(), lr=3e-3)
    for _ in range(40):
        output = method.step(batch(), generator())
        optimizer.zero_grad()
        output.loss.backward()
        assert all(parameter.grad is not None for parameter in method.encoder.parameters())
        optimizer.step()
    assert method.step(batch(), generator()).logs["top1"] == 100


def test_equal_seeds_give_the_same_head():
    assert torch.equal(supervised().head.weight, supervised().head.weight)
    assert supervised().head.weight.std() > 0


def test_label_smoothing_is_in_the_loss():
    plain, smooth = supervised(), supervised(label_smoothing=0.2)
    scores = plain.head(plain.encoder.features(batch().images).pooled)
    logs = scores.log_softmax(1)
    expected = -(0.8 * logs.gather(1, batch().labels[:, None]).mean() + 0.2 * logs.mean())
    assert smooth.step(batch(), generator()).loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_supervised_without_labels_says_so():
    with pytest.raises(NotSupported, match="needs labels"):
        supervised().step(batch(labels=False), generator())


def test_a_stored_head_brings_its_number_of_classes():
    trained = supervised()
    fresh = Supervised(Supervised.Config(), encoder())
    fresh.load_state_dict(trained.state_dict(), strict=True)
    assert torch.equal(fresh.step(batch(), generator()).loss, trained.step(batch(), generator()).loss)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_an_autoencoder_learns_to_copy_the_whole_image(name, loss):
    method, images = autoencoder(name, loss=loss), batch().images
    assert not method.sample_mask(12, generator()).any()
    optimizer = torch.optim.Adam(method.parameters(), lr=5e-3)
    losses = []
    for _ in range(30):
        losses.append(method.step(batch(labels=False), generator()).loss)
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    copy = method.reconstruct(images, method.sample_mask(12, generator()))
    assert copy.shape == images.shape
    error = (copy - images).abs().mean() if loss == "l1" else (copy - images).square().mean()
    assert error.item() == pytest.approx(method.step(batch(), generator()).loss.item(), rel=1e-5)


def test_what_a_mask_covers_does_not_reach_the_copy():
    method, images = autoencoder().eval(), batch().images
    mask = torch.zeros(12, 4, 4, dtype=torch.bool)
    mask[:, :2] = True
    other = images.clone()
    other[:, :, :8] = 9.0
    assert torch.equal(method.predict(other, mask), method.predict(images, mask))
    assert not torch.equal(method.predict(other, ~mask), method.predict(images, ~mask))


def test_forward_keeps_to_one_device(on_fake_cuda):
    images, mask = torch.zeros(2, 1, 16, 16), torch.zeros(2, 4, 4).bool()
    assert on_fake_cuda(autoencoder(), images, mask).loss.device.type == "cuda"
