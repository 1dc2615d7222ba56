"""MAE against the official implementation, and what it promises besides."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from helpers.random_inputs import seeded
from mimbench.contract import InputError
from mimbench.encoders.vit import ViT
from mimbench.masks import noise_mask, patchify, random_mask, stored_noise_mask
from mimbench_methods._low_pass import low_pass
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


@pytest.mark.parametrize("kind", ["random", "block", "grid", "red-noise", "green-noise", "blue-noise", "purple-noise"])
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


def test_noise_masks_are_those_of_the_options():
    method = build(mask="red-noise", noise_sigma=(0.4, 1.5), mask_ratio=0.6)
    expected = noise_mask(3, (4, 4), 0.6, seeded(), colour="red", sigma=(0.4, 1.5), rounding="mae")
    assert torch.equal(method.sample_mask(3, seeded()), expected)
    assert expected.flatten(1).sum(1).tolist() == [10] * 3  # 6.4 visible ones are rounded down


def test_noise_masks_can_come_from_a_file(tmp_path):
    file = tmp_path / "green.npz"
    np.savez(file, torch.randn(5, 6, 6, generator=seeded(1)).numpy())
    method = build(mask="green-noise", noise_file=file)
    expected = stored_noise_mask(3, (4, 4), 0.75, seeded(), file, rounding="mae")
    assert torch.equal(method.sample_mask(3, seeded()), expected)
    with pytest.raises(InputError, match=r"patterns of noise in .*green.npz are 6 x 6, smaller than the 7 x 7 patches"):
        build(28, mask="green-noise", noise_file=file)
    with pytest.raises(InputError, match=r"missing.npz cannot be read as numpy's arrays .*: set noise_file to a .npz"):
        build(mask="green-noise", noise_file=tmp_path / "missing.npz")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise_file": "a.npz"}, 'noise_file is for masks of noise, such as "green-noise", not for "random"'),
        (
            {"mask": "red-noise", "noise_file": "a.npz", "noise_sigma": (0.5, 1.0)},
            "noise_file has noise that is filtered already; leave noise_sigma out",
        ),
        ({"noise_sigma": (0.5, 1.0)}, 'noise_sigma is for masks of noise, such as "green-noise", not for "random"'),
        ({"mask": "green-noise", "noise_sigma": (2.0, 0.5)}, r"two rising numbers above 0, not \(2, 0.5\)"),
        ({"low_pass": 0.0}, "greater than 0"),
    ],
)
def test_options_that_would_do_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def low_pass_by_sums(image: np.ndarray, radius: float) -> np.ndarray:
    """One channel as a sum of the waves of the official filter: complex."""
    size = len(image)
    waves = [np.exp(2j * np.pi * frequency * np.arange(size) / size) for frequency in range(-(size // 2), size // 2)]
    result = np.zeros((size, size), dtype=complex)
    for row in range(size):
        for column in range(size):
            if (row - (size - 1) / 2) ** 2 + (column - (size - 1) / 2) ** 2 > radius**2:
                continue
            wave = np.outer(waves[row], waves[column])
            result += (image * wave.conj()).sum() / size**2 * wave
    return result


@pytest.mark.parametrize("norm_pixels", [True, False])
def test_a_low_pass_target_has_the_frequencies_of_the_official_filter(norm_pixels):
    method = build(low_pass=5.0, norm_pixels=norm_pixels)
    images = torch.randn(2, 3, 16, 16, generator=seeded())
    expected = np.stack([[low_pass_by_sums(channel, 5.0).real for channel in image.numpy()] for image in images])
    assert np.abs(expected - images.numpy()).max() > 0.5
    patches = patchify(torch.tensor(expected), 4)
    if norm_pixels:
        std = (patches.var(-1, keepdim=True) + 1e-6).sqrt()
        patches = (patches - patches.mean(-1, keepdim=True)) / std
    assert torch.allclose(method.target(images).double(), patches, atol=1e-5)
    mask = method.sample_mask(2, seeded())
    error = (method.predict(images, mask).double() - patches).square().mean(-1)
    assert method(images, mask).loss.item() == pytest.approx(error[mask].mean().item(), rel=1e-5)


def test_the_official_absolute_value_is_the_real_part_of_smooth_images_nearly():
    mean, std = 0.45, 0.23
    rows = torch.arange(32).float()
    image = 0.5 + 0.2 * torch.cos(2 * np.pi * rows / 32)[:, None] * torch.sin(2 * np.pi * 3 * rows / 32)
    image = image + 0.02 * torch.randn(32, 32, generator=seeded())
    official = (np.abs(low_pass_by_sums(image.numpy(), 9.0)) - mean) / std
    ours = low_pass(((image - mean) / std)[None, None], 9.0)[0, 0]
    assert np.abs(official - ours.numpy()).max() < 2e-3


def test_a_low_pass_filter_keeps_the_mean_and_is_no_filter_twice():
    images = torch.randn(1, 1, 15, 15, generator=seeded())
    once = low_pass(images, 4.0)
    assert torch.allclose(once.mean(), images.mean(), atol=1e-6)
    assert torch.allclose(low_pass(once, 4.0), once, atol=1e-5)  # the circle is symmetric for an odd size
    assert torch.allclose(low_pass(3 * images + 2, 4.0), 3 * once + 2, atol=1e-5)


def test_a_filter_that_removes_nothing_is_refused():
    build(low_pass=10.6)
    with pytest.raises(
        InputError, match=r"method.low_pass 10.7 keeps all frequencies of an image of 16 px; choose less"
    ):
        build(low_pass=10.7)


def test_a_perfect_low_pass_prediction_reconstructs_the_filtered_image(monkeypatch):
    method = build(low_pass=5.0)
    images, mask = torch.randn(2, 3, 16, 16, generator=seeded()), torch.ones(2, 4, 4, dtype=torch.bool)
    monkeypatch.setattr(method, "predict", lambda images, mask: method.target(images))
    assert torch.allclose(method.reconstruct(images, mask), low_pass(images, 5.0), atol=1e-5)


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
