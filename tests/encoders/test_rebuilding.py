"""Encoders made anew with other options: which weights they have, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mimbench.contract import Config
from mimbench.encoders.convnet import ConvNeXt
from mimbench.encoders.rebuilding import rebuild_encoder, require_drop_path
from mimbench.encoders.vit import ViT, ViTConfig
from mimbench.errors import InputError


@pytest.fixture
def vit() -> ViT:
    torch.manual_seed(0)
    config = ViTConfig(patch_size=4, embed_dim=16, depth=3, num_heads=2, drop_path=0.1)
    return ViT(config, image_size=16, in_channels=1)


def toy_encoder() -> ConvNeXt:
    class Bare(ConvNeXt):
        Config = Config

        def __init__(self, config, *, image_size, in_channels):
            nn.Module.__init__(self)
            self.config, self.image_size, self.in_channels = config, image_size, in_channels
            self.frames = 1
            self.stem = nn.Conv2d(in_channels, 2, 2)

    return Bare(Config(), image_size=16, in_channels=1)


def test_options_are_changed_and_the_rest_is_kept(vit):
    made = rebuild_encoder(vit, image_size=24, drop_path=0.2, window=None)
    assert (made.image_size, made.in_channels, made.config.depth, made.config.drop_path) == (24, 1, 3, 0.2)
    assert vit.config.drop_path == 0.1
    assert not torch.equal(made.body.patch_embed.proj.weight, vit.body.patch_embed.proj.weight)


def test_an_encoder_without_an_option_refuses_it_but_takes_its_absence():
    bare = toy_encoder()
    with pytest.raises(InputError, match=r"task\.window 7 is not for this convnet encoder, which has no such option"):
        rebuild_encoder(bare, window=7)
    assert rebuild_encoder(bare, window=0).config == bare.config


def test_a_drop_path_without_effect_is_refused(vit):
    path = nn.Identity()
    model = nn.Sequential(nn.Linear(2, 2), path)
    require_drop_path(model, 0.0)
    with pytest.raises(InputError, match=r"drop_path 0\.1 reaches no block of Sequential"):
        require_drop_path(model, 0.1)
    path.drop_prob = 0.1
    require_drop_path(model, 0.1)
    with pytest.raises(InputError, match=r"drop_path 0\.2 reaches no block of ViT"):
        rebuild_encoder(vit, depth=1, drop_path=0.2)
