"""MAE against the official implementation, and what it promises besides."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mimbench.contract import InputError
from mimbench.encoders.vit import ViT
from mimbench.masks import random_mask
from mimbench_methods.mae import MAE

GOLDEN = Path(__file__).parents[1] / "golden"
OFFICIAL = {
    "decoder_embed.": "project.",
    "decoder_blocks.": "blocks.",
    "decoder_norm.": "norm.",
    "decoder_pred.": "head.",
    "mask_token": "mask_token",
}


def ours(name: str) -> str:
    for theirs, prefix in OFFICIAL.items():
        if name.startswith(theirs):
            return prefix + name.removeprefix(theirs)
    return f"encoder.body.{name}"


def build(image_size=16, channels=3, dim=32, position="sincos", **options) -> MAE:
    torch.manual_seed(0)
    encoder = ViT(
        ViT.Config(patch_size=4, embed_dim=dim, depth=2, num_heads=4, position=position),
        image_size=image_size,
        in_channels=channels,
    )
    options = {"decoder_dim": 24, "decoder_depth": 2, "decoder_heads": 3, "min_block": 4, **options}
    return MAE(MAE.Config(**options), encoder)


def seeded(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module", params=["normpix", "rawpix"])
def official(request):
    """(golden vectors, MAE with the official weights)."""
    vectors = np.load(GOLDEN / f"mae_vit_tiny_{request.param}.npz")
    config = json.loads(str(vectors["meta"]))["config"]
    method = build(config["img_size"], config["in_chans"], config["embed_dim"], norm_pixels=config["norm_pix_loss"])
    state = {ours(k[6:]): torch.from_numpy(vectors[k]) for k in vectors.files if k.startswith("param/")}
    positions = state.pop("encoder.body.decoder_pos_embed")
    assert torch.allclose(method.positions, positions[:, 1:], atol=1e-6)
    assert torch.allclose(method.encoder.body.pos_embed, state["encoder.body.pos_embed"], atol=1e-6)
    method.load_state_dict(state, strict=True)
    mask = torch.from_numpy(vectors["input/mask"]).bool().view(-1, 8, 8)
    return vectors, method, torch.from_numpy(vectors["input/image"]), mask


def test_loss_and_gradients_are_the_official_ones(official):
    vectors, method, images, mask = official
    method.zero_grad()
    loss = method(images, mask).loss
    loss.backward()
    assert abs(loss.item() / float(vectors["out/loss_f64"]) - 1) < 5e-7
    gradients = {name: p.grad for name, p in method.named_parameters() if p.requires_grad}
    norm = torch.stack([g.double().norm() for g in gradients.values()]).norm()
    assert abs(norm.item() / float(vectors["grad_norm_f64"]) - 1) < 1e-5
    stored = [k for k in vectors.files if k.startswith("grad/")]
    assert stored
    for key in stored:
        assert np.allclose(gradients[ours(key[5:])].numpy(), vectors[key], rtol=1e-5, atol=1e-6), key


def test_prediction_target_and_latent_are_the_official_ones(official):
    vectors, method, images, mask = official
    with torch.no_grad():
        prediction, target = method.predict(images, mask), method.target(images)
        latent = method.encoder.forward_tokens(
            method.encoder.embed(images), torch.from_numpy(vectors["input/ids_keep"])
        ).sequence
    assert np.allclose(prediction.flatten(1, 2), vectors["out/pred"], atol=5e-6)
    assert np.allclose(target.flatten(1, 2), vectors["aux/target"], atol=5e-5)
    assert np.allclose(latent, vectors["out/latent"], atol=5e-6)


def test_everything_of_two_dimensions_is_decayed_as_in_the_official_script(official):
    assert official[1].no_weight_decay() == set()


def test_initial_weights_follow_the_official_ones():
    method = build(dim=64)
    weight = method.encoder.body.blocks[0].mlp.fc1.weight.detach()
    assert weight.abs().max() == pytest.approx((6 / sum(weight.shape)) ** 0.5, rel=0.01)
    patch = method.encoder.body.patch_embed.proj.weight.detach()
    assert patch.abs().max() == pytest.approx((6 / (64 + 48)) ** 0.5, rel=0.01)
    assert method.encoder.body.cls_token.detach().std() == pytest.approx(0.02, rel=0.4)
    assert not method.encoder.body.pos_embed.requires_grad


def test_the_encoder_costs_less_the_more_is_masked():
    def cost(ratio: float) -> int:
        method = build(32, dim=64, mask_ratio=ratio)
        images = torch.zeros(2, 3, 32, 32)
        mask = method.sample_mask(2, seeded())
        keep = (~mask.flatten(1)).nonzero()[:, 1].view(2, -1)
        tokens = method.encoder.embed(images)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            encoded = method.encoder.forward_tokens(tokens, keep).sequence
        assert encoded.shape[1] == 1 + method.visible
        return counter.get_total_flops()

    # 1 class token + 48, 32, 16 patches; attention is quadratic, the rest linear.
    quarter, half, most = cost(0.25), cost(0.5), cost(0.75)
    assert most / quarter <= 17 / 49
    assert half / quarter <= 33 / 49


@pytest.mark.parametrize("kind", ["random", "block", "grid"])
def test_every_mask_covers_as_many_patches_in_each_image_and_trains(kind):
    method = build(mask=kind)
    mask = method.sample_mask(8, seeded())
    assert mask.flatten(1).sum(1).tolist() == [12] * 8
    output = method.step(type("Batch", (), {"images": torch.randn(8, 3, 16, 16, generator=seeded())}), seeded())
    output.loss.backward()
    assert torch.isfinite(output.loss)
    assert method.encoder.body.patch_embed.proj.weight.grad.abs().sum() > 0


def test_an_impossible_grid_is_refused_before_training():
    with pytest.raises(InputError, match=r"0\.75, 0\.889"):
        build(mask="grid", mask_ratio=0.6)
    with pytest.raises(InputError, match="does not tile a 7 x 7 grid"):
        build(28, mask="grid")


@pytest.mark.parametrize("position", ["sincos", "relative"])
def test_masked_pixels_do_not_reach_the_prediction(position, sees_only_the_visible):
    method = build(position=position).eval()
    images, mask = torch.randn(2, 3, 16, 16, generator=seeded()), method.sample_mask(2, seeded())
    sees_only_the_visible(lambda shown: method.predict(shown, mask), images, mask)


def test_any_equal_number_can_be_masked_at_prediction_but_not_unequal_ones():
    method = build().eval()
    images = torch.zeros(2, 3, 16, 16)
    assert method.predict(images, random_mask(2, (4, 4), 0.3, seeded())).shape == (2, 4, 4, 48)
    unequal = torch.zeros(2, 4, 4, dtype=torch.bool)
    unequal[0, 0] = True
    with pytest.raises(InputError, match="different numbers"):
        method.predict(images, unequal)


def test_a_perfect_prediction_reconstructs_the_image(monkeypatch):
    for norm_pixels in (True, False):
        method = build(norm_pixels=norm_pixels)
        images, mask = torch.randn(2, 3, 16, 16, generator=seeded()), method.sample_mask(2, seeded())
        monkeypatch.setattr(method, "predict", lambda images, mask, m=method: m.target(images))
        assert torch.allclose(method.reconstruct(images, mask), images, atol=1e-5)
        monkeypatch.setattr(method, "predict", lambda images, mask, m=method: 0 * m.target(images))
        assert not torch.allclose(method.reconstruct(images, mask), images, atol=1e-2)


def test_bf16_autocast_trains(trains_in_bf16):
    method = build()
    trains_in_bf16(method, torch.randn(4, 3, 16, 16, generator=seeded()), method.sample_mask(4, seeded()))


def test_forward_keeps_to_one_device(on_fake_cuda):
    assert on_fake_cuda(build(), torch.zeros(2, 3, 16, 16), torch.zeros(2, 4, 4).bool()).loss.device.type == "cuda"
