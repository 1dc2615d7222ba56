"""SimMIM against the official implementation, and every option of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from mimbench.contract import InputConfig, InputError, Stage
from mimbench.encoders.convnet import ConvNeXt, ConvNeXtConfig, ResNet, ResNetConfig
from mimbench.encoders.swin import Swin, SwinConfig
from mimbench.encoders.vit import ViT, ViTConfig
from mimbench.masks import noise_mask, resize_mask
from mimbench_methods.simmim import SimMIM, SimMIMConfig
from mimbench_methods.simmim_pixel import SimMIMPixel, SimMIMPixelConfig

GOLDEN = Path(__file__).parents[1] / "golden"
SIZE = 32


def encoder(kind: str, *, channels: int = 3):
    options = {"image_size": SIZE, "in_channels": channels}
    if kind == "vit":
        return ViT(ViTConfig(patch_size=4, embed_dim=16, depth=2, num_heads=2), **options)
    if kind == "swin":
        return Swin(SwinConfig(patch_size=2, embed_dim=8, depths=(2, 2), num_heads=(1, 2), window=4), **options)
    if kind == "convnext":
        return ConvNeXt(ConvNeXtConfig(patch_size=2, dims=(8, 16), depths=(1, 1), layer_scale=0.5), **options)
    return ResNet(ResNetConfig(block="basic", dims=(8,), depths=(2,)), **options)


KINDS = ["vit", "swin", "convnext", "resnet"]


def make(kind: str = "vit", *, channels: int = 3, **options) -> SimMIM:
    torch.manual_seed(0)
    return SimMIM(SimMIMConfig(**{"mask_patch_size": 8} | options), encoder(kind, channels=channels))


def batch(method, count: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, method.encoder.in_channels, SIZE, SIZE, generator=generator)
    return images, method.sample_mask(count, generator)


def official(name: str) -> tuple[SimMIM, dict[str, np.ndarray]]:
    """The method with the weights of a golden file."""
    data = np.load(GOLDEN / f"{name}.npz")
    meta = json.loads(str(data["meta"]))
    config, size = meta["config"], meta["config"]["img_size"]
    if "depths" in config:
        keys = ("patch_size", "embed_dim", "depths", "num_heads", "mlp_ratio")
        backbone = Swin(
            SwinConfig(window=config["window_size"], **{key: config[key] for key in keys}),
            image_size=size,
            in_channels=config["in_chans"],
        )
    else:
        keys = ("patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio")
        backbone = ViT(
            ViTConfig(layer_scale=config["init_values"], **{key: config[key] for key in keys}),
            image_size=size,
            in_channels=config["in_chans"],
        )
    method = SimMIM(SimMIMConfig(mask_patch_size=meta["mask_patch_size"]), backbone)
    state = {ours(key[6:]): torch.from_numpy(data[key]) for key in data.files if key.startswith("param/")}
    expected = method.state_dict()
    method.load_state_dict({key: state[key].view(value.shape) for key, value in expected.items()})
    buffers = {key for key in state if key.endswith(("relative_position_index", "attn_mask"))}
    assert set(state) - set(expected) == buffers
    return method, dict(data)


def ours(name: str) -> str:
    if name == "encoder.mask_token":
        return "mask_token"
    name = re.sub(r"layers\.(\d)\.downsample", lambda match: f"layers.{int(match[1]) + 1}.downsample", name)
    return re.sub(r"^encoder\.", "encoder.body.", name)


@pytest.mark.parametrize("name", ["simmim_vit_tiny", "simmim_swin_tiny"])
def test_it_is_the_official_implementation(name):
    method, data = official(name)
    images, mask = torch.from_numpy(data["input/image"]), torch.from_numpy(data["input/mask"]).bool()
    prediction = method.predict(images, mask)
    assert torch.allclose(prediction, torch.from_numpy(data["out/x_rec"]), rtol=1e-5, atol=1e-5)
    tokens = torch.where(mask.unsqueeze(-1), method.mask_token, method.encoder.embed(images))
    assert torch.allclose(method.encoder.encode(tokens), torch.from_numpy(data["out/z"]), rtol=1e-5, atol=1e-5)

    loss = method(images, mask).loss
    assert float(loss.detach()) == pytest.approx(float(data["out/loss"]), rel=5e-7)
    loss.backward()
    gradients = {key: parameter.grad for key, parameter in method.named_parameters()}
    norm = torch.stack([gradient.double().norm() for gradient in gradients.values()]).norm()
    assert float(norm) == pytest.approx(float(data["grad_norm"]), rel=1e-5)
    stored = [key[5:] for key in data if key.startswith("grad/")]
    assert stored
    for key in stored:
        theirs = torch.from_numpy(data[f"grad/{key}"])
        assert torch.allclose(gradients[ours(key)].view(theirs.shape), theirs, rtol=1e-5, atol=1e-6), key


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", ["simmim", "simmim-pixel"])
def test_masked_pixels_are_not_seen_and_visible_ones_are(kind, variant, sees_only_the_visible):
    method = make(kind) if variant == "simmim" else SimMIMPixel(SimMIMPixelConfig(), encoder(kind))
    method.eval()
    images, mask = batch(method)
    sees_only_the_visible(lambda shown: method.predict(shown, mask), images, mask)
    masked = resize_mask(mask, images.shape[-2:]).unsqueeze(1)
    before, shown = method.predict(images, mask), method.reconstruct(images, mask)
    assert before.shape == images.shape
    assert torch.equal(torch.where(masked, 0.0, shown), torch.where(masked, 0.0, images))
    assert torch.equal(torch.where(masked, shown, 0.0), torch.where(masked, before, 0.0))


OPTIONS = [
    {},
    {"masking": "square", "mask_ratio": 0.3},
    {"masking": "block"},
    {"masking": "green-noise", "noise_sigma": (0.5, 1.5)},
    {"head": "mlp"},
    {"head": "inverse-swin", "head_window": 4},
    {"target_size": 16, "loss": "l2"},
    {"target": "clusters", "clusters": 8},
    {"target": "bins", "target_size": 8, "loss_area": "all"},
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_trains_every_encoder(kind, options):
    method = make(kind, **options)
    images, mask = batch(method)
    output = method(images, mask)
    output.loss.backward()
    silent = [name for name, p in method.named_parameters() if p.grad is None]
    assert silent == []
    assert output.loss.isfinite()
    assert method.reconstruct(images, mask).shape == images.shape


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options", [{}, {"target": "clusters", "clusters": 8}, {"target": "bins"}, {"head": "inverse-swin"}], ids=str
)
def test_no_tensor_stays_behind_on_another_device(kind, options, on_fake_cuda):
    method = make(kind, **options).eval()
    assert on_fake_cuda(method, *batch(method)).loss.device.type == "cuda"


@pytest.mark.parametrize("kind", KINDS)
def test_the_pixel_variant_on_another_device(kind, on_fake_cuda):
    method = SimMIMPixel(SimMIMPixelConfig(), encoder(kind)).eval()
    assert on_fake_cuda(method, *batch(method)).loss.device.type == "cuda"


def test_masks_cover_what_they_should():
    generator = torch.Generator().manual_seed(0)
    random = make(mask_patch_size=4).sample_mask(50, generator)
    assert (random.shape, set(random.sum((1, 2)).tolist())) == ((50, 8, 8), {39})  # ceil(0.6 x 64)
    square = make(mask_patch_size=4, masking="square", mask_ratio=0.25).sample_mask(50, generator)
    assert set(square.sum((1, 2)).tolist()) == {16}
    assert all(len(one.any(0).nonzero()) * len(one.any(1).nonzero()) == 16 for one in square)
    assert not torch.equal(square[0], square[1])
    block = make(mask_patch_size=4, masking="block", mask_ratio=0.5).sample_mask(50, generator)
    assert int(block.sum((1, 2)).max()) <= 32
    assert float(block.sum((1, 2)).float().mean()) > 20
    assert make(mask_patch_size=16, masking="block").sample_mask(5, generator).shape == (5, 2, 2)
    noise = make(mask_patch_size=4, masking="blue-noise").sample_mask(50, torch.Generator().manual_seed(1))
    expected = noise_mask(50, (8, 8), 0.6, torch.Generator().manual_seed(1), colour="blue")
    assert torch.equal(noise, expected)
    assert set(noise.sum((1, 2)).tolist()) == {39}


def test_losses_are_over_the_masked_or_over_all_pixels():
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 0, 0] = True
    target = torch.zeros(1, 3, SIZE, SIZE)
    prediction = torch.full_like(target, 9.0)
    prediction[:, :, :8, :8] = 2.0
    over_masked = {loss: float(make(loss=loss).loss(prediction, target, mask)) for loss in ("l1", "smooth-l1", "l2")}
    assert over_masked == pytest.approx({"l1": 2.0, "smooth-l1": 1.5, "l2": 4.0}, rel=1e-6)
    assert float(make(loss_area="all").loss(prediction, target, mask)) == pytest.approx(2 / 16 + 9 * 15 / 16)


def test_a_smaller_target_is_the_image_averaged():
    method = make(target_size=8)
    images, mask = batch(method)
    assert torch.allclose(method.target(images), torch.nn.functional.avg_pool2d(images, 4), atol=1e-6)
    assert method.predict(images, mask).shape == (2, 3, 8, 8)
    shown = method.reconstruct(images, mask)
    masked = mask[0].nonzero()[0]
    corner = shown[0, :, masked[0] * 8 : masked[0] * 8 + 4, masked[1] * 8 : masked[1] * 8 + 4]
    assert torch.equal(corner, corner[:, :1, :1].expand_as(corner))


class Images(Stage):
    """Training images of two colours, as `prepare` would be given them."""

    seed = 0
    device = torch.device("cpu")
    input = InputConfig(image_size=SIZE, mean=(0.5,), std=(0.25,))

    def __init__(self) -> None:
        self.colours = torch.tensor([[-1.0, 0.5, 0.0], [1.0, 0.0, 0.25]])

    def images(self):
        for seed in range(3):
            chosen = torch.randint(0, 2, (2, SIZE, SIZE), generator=torch.Generator().manual_seed(seed))
            yield self.colours[chosen].permute(0, 3, 1, 2)

    def fit(self, model, config, *, label, options):
        raise AssertionError("nothing is trained")

    def compute_once(self, identity, make):
        return dict(make())

    def say(self, text):
        raise AssertionError(text)


def test_clusters_are_the_colours_of_the_training_images():
    method, stage = make(target="clusters", clusters=2), Images()
    method.prepare(stage)
    order = method.pixels.colours[:, 0].argsort()
    assert torch.allclose(method.pixels.colours[order], stage.colours, atol=1e-4)
    images = next(stage.images())
    target = method.target(images)
    perfect = torch.nn.functional.one_hot(target, 2).permute(0, 3, 1, 2) * 20.0
    assert torch.allclose(method.pixels.decode(perfect), images, atol=1e-4)
    mask = torch.ones(2, 4, 4, dtype=torch.bool)
    assert float(method.loss(perfect, target, mask)) < 1e-6
    assert float(method.loss(torch.zeros_like(perfect), target, mask)) == pytest.approx(np.log(2), rel=1e-5)
    assert "pixels.colours" in method.state_dict()


def test_more_clusters_than_pixels_are_refused():
    with pytest.raises(InputError, match="clusters 7000 is more than the 6144 pixels"):
        make(target="clusters", clusters=7000).prepare(Images())


def test_bins_divide_black_to_white_equally():
    method = make(target="bins", bins=4)
    method.prepare(Images())
    grey = torch.tensor([0.0, 0.2, 0.3, 0.6, 0.8, 1.0])
    images = ((grey - 0.5) / 0.25).view(1, 1, 1, 6).expand(1, 3, 1, 6)
    bins = method.pixels(images)
    assert bins[0, 0, 0].tolist() == [0, 0, 1, 2, 3, 3]
    perfect = torch.nn.functional.one_hot(bins, 4).permute(0, 1, 4, 2, 3).flatten(1, 2) * 20.0
    decoded = method.pixels.decode(perfect)[0, 2, 0] * 0.25 + 0.5
    assert decoded.tolist() == pytest.approx([0.125, 0.125, 0.375, 0.625, 0.875, 0.875])
    assert float(method.pixels.error(perfect, bins).max()) < 1e-6


def test_the_pixel_variant_is_the_textbook_form():
    torch.manual_seed(0)
    method = SimMIMPixel(SimMIMPixelConfig(mask_ratio=0.5), encoder("vit"))
    images, mask = batch(method)
    assert mask.shape == (2, SIZE, SIZE)
    assert set(mask.sum((1, 2)).tolist()) == {SIZE * SIZE // 2}
    blanked = torch.where(mask.unsqueeze(1), 0.0, images)
    prediction = method.decoder(method.encoder.encode(method.encoder.embed(blanked)))
    assert torch.equal(method.predict(images, mask), prediction)
    assert float(method(images, mask).loss) == pytest.approx(float((prediction - images).square().mean()), rel=1e-6)


def test_weights_start_and_decay_as_the_official_ones():
    vit = make("vit")
    assert float(vit.mask_token.abs().max()) <= 0.02
    assert float(vit.encoder.body.blocks[0].attn.qkv.weight.abs().max()) <= 0.02
    assert float(make("swin", mask_patch_size=4).mask_token.abs().max()) > 0.02
    assert vit.no_weight_decay() == {"encoder.body.cls_token"}
    assert make("swin").no_weight_decay() == {"mask_token"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_patch_size": 6}, "does not divide the image, 32 px"),
        ({"mask_patch_size": 2}, "not a multiple of the encoder's patch, 4 px"),
        ({"mask_ratio": 0.99}, "masks everything"),
        ({"target_size": 12}, "method.target_size 12 px must be a multiple of 8"),
        ({"target_size": 64}, "divide the image, 32 px"),
        ({"head": "inverse-swin", "head_depths": (1, 1, 1, 1)}, "takes 1 to 3 stages"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "bins", "loss": "l2"}, "takes the cross-entropy"),
        ({"head_depths": (1,)}, "head_depths is for the inverse-swin head"),
        ({"masking": "central"}, "Input should be 'random', 'square', 'block'"),
        ({"late_blocks": 2}, 'late_blocks is for encode "visible", not for "all"'),
        ({"encode": "visible", "masking": "block"}, 'which masking "block" lacks'),
        ({"noise_sigma": (1.0, 3.0)}, 'noise_sigma is for masks of noise, such as "green-noise", not for "random"'),
    ],
)
def test_options_that_would_do_nothing_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        SimMIMConfig(**options)


def late(position="relative", **options) -> SimMIM:
    torch.manual_seed(0)
    config = ViTConfig(patch_size=4, embed_dim=24, depth=3, num_heads=3, position=position)
    options = {"mask_patch_size": 8, "encode": "visible", **options}
    return SimMIM(SimMIMConfig(**options), ViT(config, image_size=SIZE, in_channels=3)).eval()


def with_all_patches(method: SimMIM) -> SimMIM:
    """The plain SimMIM with the same weights."""
    plain = SimMIM(method.config.model_copy(update={"encode": "all", "late_blocks": 1}), method.encoder)
    plain.load_state_dict(method.state_dict())
    return plain.eval()


@pytest.mark.parametrize("position", ["relative", "sincos", "learned", "rope"])
def test_visible_encoding_is_plain_simmim_if_nothing_is_masked_or_all_blocks_are_late(position):
    images, mask = batch(late(position))
    for blocks in (1, 2, 3):
        method = late(position, late_blocks=blocks)
        with torch.no_grad():
            method.mask_token.add_(1)
            plain = with_all_patches(method)
            nothing = torch.zeros_like(mask)
            assert torch.allclose(method.predict(images, nothing), plain.predict(images, nothing), atol=1e-6)
            equal = torch.allclose(method.predict(images, mask), plain.predict(images, mask), atol=1e-6)
        assert equal == (blocks == 3)
        assert method(images, mask).loss.item() == pytest.approx(
            method.loss(method.predict(images, mask), images, mask).item(), rel=1e-6
        )


@pytest.mark.parametrize("position", ["relative", "sincos"])
@pytest.mark.parametrize("blocks", [1, 2])
def test_visible_encoding_is_attention_without_masked_keys(position, blocks):
    """The same by all patches in each block: early ones are kept from masked keys, late ones get mask tokens."""
    method = late(position, late_blocks=blocks)
    images, mask = batch(method)
    encoder, body = method.encoder, method.encoder.body
    with torch.no_grad():
        method.mask_token.add_(1)
        tokens = encoder.embed(images).flatten(1, 2)
        positions = body.pos_embed if position == "sincos" else torch.zeros(1, 65, 24)
        token = method.mask_token.flatten(0, 2) + positions[:, 1:]
        x = torch.cat((body.cls_token + positions[:, :1].expand(len(images), -1, -1), tokens + positions[:, 1:]), 1)
        masked = torch.nn.functional.pad(resize_mask(mask, (8, 8)).flatten(1), (1, 0))
        shared = torch.zeros(1, 3, 65, 65) if position == "sincos" else body.rel_pos_bias().unsqueeze(0)
        for number, block in enumerate(body.blocks):
            is_late = number >= 3 - blocks
            if number == 3 - blocks:
                x = torch.where(masked.unsqueeze(-1), torch.nn.functional.pad(token, (0, 0, 1, 0)), x)
            hidden_keys = torch.where(masked, -torch.inf, 0.0)[:, None, None]
            x = block(x, shared if is_late else shared + hidden_keys)
        dense = body.norm(x)[:, 1:].transpose(1, 2).unflatten(2, (8, 8))
        assert torch.allclose(method.predict(images, mask), method.decoder(dense), atol=1e-5)


def test_visible_encoding_trains_and_hides_masked_pixels(
    sees_only_the_visible, reaches_every_parameter, trains_in_bf16, on_fake_cuda
):
    method = late(masking="square")
    images, mask = batch(method)
    sees_only_the_visible(lambda shown: method.predict(shown, mask), images, mask)
    reaches_every_parameter(method, images, mask)
    trains_in_bf16(method, images, mask)
    assert on_fake_cuda(late(), *batch(late())).loss.device.type == "cuda"


def test_visible_encoding_needs_an_encoder_that_can():
    with pytest.raises(InputError, match=r'method.encode "visible" needs an encoder that can let mask tokens join'):
        make("swin", encode="visible")
    with pytest.raises(InputError, match=r"method.late_blocks 4 is more than the encoder's 3 layers"):
        late(late_blocks=4)
    with pytest.raises(InputError, match="can let mask tokens join"):
        late("relative-per-block")
