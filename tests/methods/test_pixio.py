"""Pixio: a second computation of its loss in numpy, masks of blocks, several class tokens. No golden vectors exist."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from helpers.random_inputs import seeded
from mimbench.contract import InputError
from mimbench.convert import recognise, to_method, to_timm
from mimbench.encoders.vit import ViT
from mimbench.harness.exchange import import_checkpoint
from mimbench_methods.mae import MAE
from mimbench_methods.pixio import Pixio

SMALL = {"decoder_dim": 8, "decoder_depth": 2, "decoder_heads": 2}


def vit(side=32, **options) -> ViT:
    torch.manual_seed(0)
    sizes = {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "position": "learned", "class_tokens": 3}
    return ViT(ViT.Config(**sizes | options), image_size=side, in_channels=3)


def build(side=32, encoder=None, **options) -> Pixio:
    return Pixio(Pixio.Config(**{"mask_block": 2} | SMALL | options), vit(side, **encoder or {}))


def images(count=2, side=32) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=seeded())


def shake(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=seeded(1))


def normed(state, name, x):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-6) * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(state, name, x):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def block(state, name, x, heads):
    """A pre-norm transformer block on tokens [N, D], head by head."""
    joint = linear(state, f"{name}.attn.qkv", normed(state, f"{name}.norm1", x))
    read, width = np.zeros_like(x), x.shape[1] // heads
    for head in range(heads):
        part = [
            joint[:, start + head * width : start + (head + 1) * width]
            for start in range(0, 3 * x.shape[1], x.shape[1])
        ]
        scores = part[0] @ part[1].T / math.sqrt(width)
        weights = np.exp(scores - scores.max(1, keepdims=True))
        read[:, head * width : (head + 1) * width] = weights @ part[2] / weights.sum(1, keepdims=True)
    x = x + linear(state, f"{name}.attn.proj", read)
    middle = linear(state, f"{name}.mlp.fc1", normed(state, f"{name}.norm2", x))
    return x + linear(state, f"{name}.mlp.fc2", middle * 0.5 * (1 + np.vectorize(math.erf)(middle / math.sqrt(2))))


def loss_by_loops(method: Pixio, batch: torch.Tensor, mask: torch.Tensor) -> float:
    """The loss by the paper's words, image by image, of patches of 4 px, 3 class tokens and 2 heads."""
    state = {name: value.double().numpy() for name, value in method.state_dict().items()}
    errors = []
    for image, masked in zip(batch.double().numpy(), mask.numpy(), strict=True):
        rows, columns = masked.shape
        cells = [(row, column) for row in range(rows) for column in range(columns)]
        pixels = {cell: image[:, 4 * cell[0] : 4 * cell[0] + 4, 4 * cell[1] : 4 * cell[1] + 4] for cell in cells}
        kernel, bias = state["encoder.body.patch_embed.proj.weight"], state["encoder.body.patch_embed.proj.bias"]
        tokens = [
            state["encoder.body.cls_token"][0, number] + state["encoder.body.pos_embed"][0, number]
            for number in range(3)
        ]
        visible = [index for index, cell in enumerate(cells) if not masked[cell]]
        for index in visible:
            tokens.append(
                (kernel * pixels[cells[index]]).sum((1, 2, 3)) + bias + state["encoder.body.pos_embed"][0, 3 + index]
            )
        x = np.stack(tokens)
        for number in range(2):
            x = block(state, f"encoder.body.blocks.{number}", x, 2)
        x = linear(state, "project", normed(state, "encoder.body.norm", x))
        whole = np.repeat(state["mask_token"][0], 3 + len(cells), 0)
        whole[[0, 1, 2, *(3 + index for index in visible)]] = x
        whole = whole + state["positions"][0]
        for number in range(2):
            whole = block(state, f"blocks.{number}", whole, 2)
        predictions = linear(state, "head", normed(state, "norm", whole))[3:]
        for index, cell in enumerate(cells):
            if masked[cell]:
                patch = pixels[cell].transpose(1, 2, 0).flatten()
                target = (patch - patch.mean()) / math.sqrt(patch.var(ddof=1) + 1e-6)
                errors.append(((predictions[index] - target) ** 2).mean())
    return float(np.mean(errors))


def test_the_loss_is_that_of_plain_loops():
    method = build().eval()
    shake(method)
    mask = method.sample_mask(2, seeded())
    loss = method(images(), mask).loss.item()
    assert loss == pytest.approx(loss_by_loops(method, images(), mask), rel=1e-5)


@pytest.mark.parametrize(("side", "size", "visible"), [(64, 4, 4), (32, 2, 4), (24, 3, 1), (32, 1, 16)])
def test_blocks_are_masked_as_a_whole(side, size, visible):
    method = build(side, mask_block=size)
    mask = method.sample_mask(300, seeded())
    blocks = mask.unflatten(1, (-1, size)).unflatten(3, (-1, size)).permute(0, 1, 3, 2, 4).flatten(3)
    assert torch.equal(blocks.all(-1), blocks.any(-1))
    assert ((~blocks.all(-1)).flatten(1).sum(1) == visible).all()
    assert (mask.float().mean(0) - mask.float().mean()).abs().max() < 0.12
    assert method.visible == visible * size**2


def test_one_block_per_patch_and_fixed_positions_are_mae():
    method = build(mask_block=1, encoder={"class_tokens": 1}).eval()
    plain = MAE(MAE.Config(**SMALL), vit(class_tokens=1)).eval()
    plain.load_state_dict({name: value for name, value in method.state_dict().items() if name != "positions"})
    with torch.no_grad():
        method.positions.copy_(torch.cat((torch.zeros(1, 1, 8), plain.positions), 1))
    mask = method.sample_mask(2, seeded())
    assert torch.equal(mask, plain.sample_mask(2, seeded()))
    assert torch.allclose(method(images(), mask).loss, plain(images(), mask).loss, atol=1e-6)


def test_all_is_trained_and_decayed(reaches_every_parameter, sees_only_the_visible, trains_without_values):
    method = build()
    mask = method.sample_mask(2, seeded())
    reaches_every_parameter(method, images(), mask)
    assert all(parameter.requires_grad for parameter in method.parameters())
    sees_only_the_visible(lambda shown: method.predict(shown, mask), images(), mask)
    assert method.no_weight_decay() == set()
    trains_without_values(build, (2, 3, 32, 32), (2, 8, 8))


def test_initial_weights():
    torch.manual_seed(0)
    method = build(encoder={"embed_dim": 128, "class_tokens": 8}, decoder_dim=64)
    tokens, table = method.encoder.body.cls_token, method.encoder.body.pos_embed
    assert (tokens.shape, table.shape, method.positions.shape) == ((1, 8, 128), (1, 72, 128), (1, 72, 64))
    for value in (tokens, table, method.positions):
        assert value.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize(("side", "block_side", "shape"), [(28, 4, "7 x 7"), (32, 3, "8 x 8")])
def test_blocks_that_do_not_tile_the_grid_are_refused(side, block_side, shape):
    message = f"method.mask_block {block_side} does not tile the grid of {shape} patches"
    with pytest.raises(InputError, match=message):
        build(side, mask_block=block_side)


def test_other_image_sizes_are_refused():
    with pytest.raises(InputError, match="trains on images of one size"):
        build().set_image_size(48)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"position": "relative"}, r'encoder.class_tokens is not for encoder.position "relative"'),
        ({"class_token": False}, r"encoder.class_tokens 3 needs encoder.class_token = true"),
    ],
)
def test_class_tokens_that_cannot_be_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        vit(**options)


@pytest.mark.parametrize(("position", "registers"), [("learned", 0), ("sincos", 0), ("rope", 2), ("learned", 2)])
def test_tasks_get_the_mean_of_the_class_tokens(position, registers):
    encoder = vit(position=position, registers=registers).eval()
    shake(encoder)
    features = encoder.features(images())
    assert features.prefix.shape == (2, 3 + registers, 16)
    mean = features.prefix[:, :3].mean(1)
    assert torch.allclose(features.pool("token"), mean)
    assert torch.allclose(features.pool("mean+token"), torch.cat((features.pooled, mean), 1))
    other = encoder.features(images(2, 48))  # at another size
    assert other.prefix.shape == (2, 3 + registers, 16)
    one = vit(position=position, registers=registers, class_tokens=1).eval().features(images())
    assert torch.equal(one.pool("token"), one.prefix[:, 0])
    assert "class_tokens" in vit(class_tokens=1).config.left_out()


def test_fixed_positions_of_class_tokens_are_zeros():
    table = vit(position="sincos").body.pos_embed
    assert table.shape == (1, 67, 16)
    assert not table[:, :3].any()
    assert torch.equal(table[:, 3:], vit(position="sincos", class_tokens=1).body.pos_embed[:, 1:])


def official_state(method: Pixio) -> dict[str, torch.Tensor]:
    """The method's weights under the names of pretraining/models_pixio.py."""
    names = {"encoder.body.": "", "project.": "decoder_embed.", "positions": "decoder_pos_embed"}
    names |= {"blocks.": "decoder_blocks.", "norm.": "decoder_norm.", "head.": "decoder_pred."}
    state = {}
    for name, value in method.state_dict().items():
        ours = next((ours for ours in names if name.startswith(ours)), "")
        state[names.get(ours, "") + name.removeprefix(ours)] = value.clone()
    return state


@pytest.mark.parametrize("whole", [True, False])
def test_an_official_checkpoint_is_read(whole, tmp_path):
    """With the decoder, as pretraining saves it, and the encoder alone, as the released files have it."""
    method = build()
    shake(method)
    state = official_state(method)
    if not whole:
        state = {name: value for name, value in state.items() if not name.startswith(("decoder", "mask_token"))}
    other = build()
    converted = to_method(state, recognise(state), other)
    assert converted.left_out == {}
    missing = {name for name in method.state_dict() if not name.startswith("encoder.")}
    assert set(converted.missing) == (set() if whole else missing)
    torch.save({"model": state} if whole else state, tmp_path / "official.pth")
    settings = {"encoder.embed_dim": 16, "encoder.depth": 2, "encoder.num_heads": 2, "method.mask_block": 2}
    settings |= {f"method.{name}": value for name, value in SMALL.items()}
    imported, _ = import_checkpoint(
        tmp_path / "official.pth", method="pixio", encoder="vit-tiny", recipe=None, settings=settings,
        results=tmp_path / "results",
    )  # fmt: skip
    config = imported.method.encoder.config
    assert (config.position, config.class_tokens, imported.method.encoder.image_size) == ("learned", 3, 32)
    features = [one.encoder.eval().features(images()).sequence for one in (method, imported.method)]
    assert torch.equal(*features)


@pytest.mark.parametrize("position", ["learned", "sincos"])
def test_timm_runs_the_exported_encoder(position):
    from timm.models.vision_transformer import VisionTransformer

    encoder = vit(position=position).eval()
    shake(encoder)
    shape = {"img_size": 32, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
    model = VisionTransformer(**shape, num_classes=0, reg_tokens=2, no_embed_class=False).eval()
    options = encoder.config.model_dump()
    model.load_state_dict(to_timm(encoder.state_dict(), options))
    assert torch.allclose(model.forward_features(images()), encoder.features(images()).sequence, atol=1e-5)
