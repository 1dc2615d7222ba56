"""Targets without high frequencies, of every method that has the option."""

from __future__ import annotations

import pytest
import torch

from mimbench.contract import InputError
from mimbench.encoders.swin import Swin
from mimbench.encoders.vit import ViT
from mimbench.masks import patchify
from mimbench_methods._low_pass import low_pass
from mimbench_methods.greenmim import GreenMIM
from mimbench_methods.hpm import HPM
from mimbench_methods.mae import MAE
from mimbench_methods.mixmim import MixMIM

DECODER = {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2}


def build(kind, **options):
    if kind in (MAE, HPM):
        vit = ViT.Config(patch_size=8, embed_dim=16, depth=1, num_heads=2, position="sincos")
        encoder = ViT(vit, image_size=32, in_channels=3)
    else:
        swin = Swin.Config(patch_size=4, embed_dim=16, depths=(1, 1), num_heads=(2, 4), window=4)
        encoder = Swin(swin, image_size=32, in_channels=3)
    return kind(kind.Config(**DECODER, **options), encoder)


@pytest.mark.parametrize("kind", [MAE, HPM, GreenMIM, MixMIM])
def test_the_target_is_that_of_the_filtered_image(kind):
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    target = build(kind, low_pass=6.5, norm_pixels=False).target(images)
    assert torch.equal(target, patchify(low_pass(images, 6.5), 8))
    assert not torch.allclose(target, build(kind, norm_pixels=False).target(images), atol=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(build(kind, low_pass=6.5, norm_pixels=False).target(images), target)


def test_a_filter_that_removes_nothing_from_smaller_images_is_refused():
    method = build(MAE, low_pass=15)
    method.set_image_size(24)
    with pytest.raises(InputError, match=r"method\.low_pass 15 keeps all frequencies of an image of 16 px"):
        method.set_image_size(16)


@pytest.mark.parametrize("kind", [MAE, HPM, GreenMIM, MixMIM])
def test_a_filter_that_removes_nothing_is_refused(kind):
    with pytest.raises(InputError, match=r"method\.low_pass 40 keeps all frequencies of an image of 32 px"):
        build(kind, low_pass=40)
