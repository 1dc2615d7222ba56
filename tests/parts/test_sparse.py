"""Sparse convolution by masking: no leak from masked pixels, and no hook left behind."""

from __future__ import annotations

import pytest
import torch
from timm.layers import SqueezeExcite
from timm.layers.grn import GlobalResponseNorm
from torch import nn

from mimbench.encoders.convnet import ConvNeXt, ResNet
from mimbench.encoders.swin import Swin
from mimbench.encoders.vit import ViT
from mimbench.errors import InputError
from mimbench.masks import random_mask, resize_mask
from mimbench.parts.sparse import visible_only


def resnet(block="basic"):
    torch.manual_seed(0)
    return ResNet(ResNet.Config(block=block, dims=(8, 16), depths=(1, 1), drop_path=0.0), image_size=32, in_channels=3)


def convnext():
    torch.manual_seed(0)
    return ConvNeXt(ConvNeXt.Config(dims=(8, 16), depths=(1, 2), layer_scale=1.0), image_size=32, in_channels=3)


class ConvNeXtV2(nn.Module):
    """Global response norms in both layouts."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 8, 8)
        self.last = GlobalResponseNorm(8, channels_last=True)
        self.first = GlobalResponseNorm(8, channels_last=False)
        for norm in (self.last, self.first):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)

    def pyramid(self, images):
        x = self.last(self.stem(images).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return [self.first(x)]


NETWORKS = {"resnet": resnet, "bottleneck": lambda: resnet("bottleneck"), "convnext": convnext, "v2": ConvNeXtV2}


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 3, 32, 32, generator=generator), random_mask(4, (4, 4), 0.5, generator)


def visible(maps, mask):
    """The maps, zero at masked cells."""
    return [x.masked_fill(resize_mask(mask, x.shape[-2:]).unsqueeze(1), 0) for x in maps]


def hooks(module):
    return sum(
        len(hooks)
        for part in module.modules()
        for hooks in (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks)
    )


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_visible_outputs_do_not_depend_on_masked_pixels(build, training):
    network = build().train(training)
    images, mask = batch()
    noise = torch.where(resize_mask(mask, (32, 32)).unsqueeze(1), 100 * torch.randn_like(images), images)
    with torch.no_grad():
        with visible_only(network, mask):
            first, second = visible(network.pyramid(images), mask), visible(network.pyramid(noise), mask)
        plain = visible(network.pyramid(images), mask)
    for one, two, dense in zip(first, second, plain, strict=True):
        assert (one - two).abs().max() == 0.0
        assert (one - dense).abs().max() > 1e-3
        assert one.abs().max() > 0
    assert hooks(network) == 0


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_an_empty_mask_changes_nothing(build):
    network = build()
    images, mask = batch()
    with torch.no_grad():
        dense = network.pyramid(images)
        with visible_only(network, torch.zeros_like(mask)):
            sparse = network.pyramid(images)
    for one, two in zip(sparse, dense, strict=True):
        assert torch.allclose(one, two, atol=1e-5)


def test_hooks_and_forward_are_as_before_after_an_error():
    network = resnet()
    images, mask = batch()
    with pytest.raises(InputError, match="image of 30 x 30 px"), visible_only(network, mask):
        network.pyramid(images[:, :, :30, :30])
    assert hooks(network) == 0
    assert not any("forward" in vars(module) for module in network.modules())
    fine = mask.repeat_interleave(2, 1).repeat_interleave(2, 2)
    coarser = "map of 4 x 4 cells, coarser than the mask, 8 x 8"
    with pytest.raises(InputError, match=coarser), visible_only(network, fine):
        network.pyramid(images)
    assert hooks(network) == 0
    with pytest.raises(InputError, match="3 x 3 cells does not fit"), visible_only(network, mask[:, :3, :3]):
        network.pyramid(images)
    assert hooks(network) == 0


def test_squeeze_and_excitation_is_refused():
    """A convolution on the mean over space would read and put out zeros only."""
    network = SqueezeExcite(8)
    with visible_only(network, batch()[1]), pytest.raises(InputError, match=r"map of 1 x 1 cells, .* squeeze-and-exc"):
        network(torch.randn(4, 8, 8, 8))


def test_pooled_features_pass_a_layer_norm():
    network = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(8))
    images, mask = batch()
    with visible_only(network, mask):
        assert network(images).shape == (4, 8)


def test_a_batch_norm_counts_visible_cells_only():
    norm = nn.BatchNorm2d(3).double()
    x, mask = torch.randn(2, 3, 4, 4).double() * 3 + 1, random_mask(2, (2, 2), 0.5, torch.Generator().manual_seed(1))
    with visible_only(norm, mask):
        out = norm(x)
    seen = ~resize_mask(mask, (4, 4))
    rows = x.permute(0, 2, 3, 1)[seen]
    expected = (rows - rows.mean(0)) / (rows.var(0, correction=0) + norm.eps).sqrt()
    assert torch.allclose(out.permute(0, 2, 3, 1)[seen], expected)
    assert (out.permute(0, 2, 3, 1)[~seen] == 0).all()
    assert torch.allclose(norm.running_mean, 0.1 * rows.mean(0))
    assert torch.allclose(norm.running_var, 0.9 + 0.1 * rows.var(0))


def test_a_response_norm_counts_visible_cells_only():
    norm = GlobalResponseNorm(3)
    nn.init.normal_(norm.weight)
    x, mask = torch.randn(2, 4, 4, 3), random_mask(2, (4, 4), 0.5, torch.Generator().manual_seed(1))
    with visible_only(norm, mask):
        out = norm(x)
    for sample, hidden, result in zip(x, mask, out, strict=True):
        rows = sample[~hidden]
        assert torch.allclose(result[~hidden], norm(rows[None, None])[0, 0], atol=1e-6)


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_response_norm_may_count_the_visible_cells_of_the_batch(channels_last):
    """As facebookresearch/ConvNeXt-V2@25538957 does in pretraining; here by hand, over the rows of visible cells."""
    norm = GlobalResponseNorm(3, channels_last=channels_last).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x, mask = torch.randn(2, 4, 4, 3).double(), random_mask(2, (4, 4), 0.5, torch.Generator().manual_seed(1))
    with visible_only(norm, mask, response_norm="batch"):
        out = norm(x if channels_last else x.permute(0, 3, 1, 2))
    out = out if channels_last else out.permute(0, 2, 3, 1)
    rows = x[~mask]
    size = rows.norm(dim=0)
    expected = norm.weight * rows * size / (size.mean() + 1e-6) + norm.bias + rows
    assert torch.allclose(out[~mask], expected)
    assert (out[mask] == 0).all()


def test_the_gradient_is_that_of_visible_cells():
    network = resnet().train()
    nn.init.ones_(network.body.layer1[0].bn2.weight)  # timm's initial 0 would keep gradients from the block
    nn.init.ones_(network.body.layer2[0].bn2.weight)
    images, mask = batch()
    images.requires_grad_(True)
    with visible_only(network, mask):
        maps = network.pyramid(images)
    sum(x.square().sum() for x in visible(maps, mask)).backward()
    masked = resize_mask(mask, (32, 32)).unsqueeze(1).expand_as(images)
    assert (images.grad[masked] == 0).all()
    assert (images.grad[~masked] != 0).any()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_it_runs_without_values_and_in_bf16(build):
    images, mask = batch()
    network = build()
    with torch.autocast("cpu", dtype=torch.bfloat16), visible_only(network, mask):
        sum(x.float().square().sum() for x in network.pyramid(images)).backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())
    with torch.device("meta"):
        network = build()
    with visible_only(network, mask.to("meta")):
        assert {x.device.type for x in network.pyramid(images.to("meta"))} == {"meta"}


MASK = torch.zeros(2, 2, 2, dtype=torch.bool)


def vit():
    return ViT(ViT.Config(patch_size=4, embed_dim=8, depth=1, num_heads=2), image_size=8, in_channels=3)


def swin():
    config = Swin.Config(embed_dim=8, depths=(1,), num_heads=(2,), patch_size=2, window=2)
    return Swin(config, image_size=8, in_channels=3)


def compiled():
    return torch.compile(nn.Conv2d(3, 3, 1), backend="eager")


def checkpointing():
    network = resnet()
    network.set_grad_checkpointing()
    return network


@pytest.mark.parametrize(
    ("build", "mask", "words"),
    [
        (vit, MASK, "takes convolutional networks; body.blocks.0.attn is a"),
        (swin, MASK, "is a BiasedWindowAttention"),
        (lambda: nn.Sequential(nn.GroupNorm(1, 4)), MASK, "0 is a GroupNorm"),
        (compiled, MASK, "compiled module"),
        (checkpointing, MASK, r"set pretrain.grad_checkpointing to false"),
        (resnet, torch.zeros(2, 4), r"needs a mask bool \[B, Gh, Gw\], not torch.float32 \[2, 4\]"),
    ],
    ids=["vit", "swin", "group norm", "compiled", "checkpointing", "mask"],
)
def test_what_cannot_be_sparse_is_refused(build, mask, words):
    network = build()
    with pytest.raises(InputError, match=words) as error, visible_only(network, mask):
        pass
    assert "\n" not in str(error.value)
    assert hooks(network) == 0
