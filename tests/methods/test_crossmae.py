"""CrossMAE: a second computation of its loss in numpy, and what holds by construction. No golden vectors exist."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from helpers.random_inputs import images, seeded, shake
from mimbench.contract import Batch, InputError
from mimbench.convert import recognise, to_encoder, to_method
from mimbench.encoders.timm_model import TimmModel
from mimbench.encoders.vit import ViT
from mimbench.harness.exchange import import_checkpoint
from mimbench_methods.crossmae import CrossMAE

SMALL = {"decoder_dim": 8, "decoder_depth": 3, "decoder_heads": 2}


def build(grid=4, depth=2, position="sincos", **options) -> CrossMAE:
    torch.manual_seed(0)
    config = ViT.Config(patch_size=4, embed_dim=16, depth=depth, num_heads=2, position=position)
    return CrossMAE(CrossMAE.Config(**SMALL | options), ViT(config, image_size=4 * grid, in_channels=3))


def normed(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-6) * weight + bias


def read_context(block: dict[str, np.ndarray], x: np.ndarray, context: np.ndarray, heads: int) -> np.ndarray:
    """One block for one query x [D], head by head: it attends to the rows of `context`, and to nothing else."""
    width = len(x) // heads
    query = block["attn.q.weight"] @ normed(x, block["norm1.weight"], block["norm1.bias"]) + block["attn.q.bias"]
    both = context @ block["attn.kv.weight"].T + block["attn.kv.bias"]
    keys, values = both[:, : len(x)], both[:, len(x) :]
    read = np.zeros_like(x)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = keys[:, part] @ query[part] / math.sqrt(width)
        weights = np.exp(scores - scores.max())
        read[part] = weights @ values[:, part] / weights.sum()
    x = x + block["attn.proj.weight"] @ read + block["attn.proj.bias"]
    middle = block["mlp.fc1.weight"] @ normed(x, block["norm2.weight"], block["norm2.bias"]) + block["mlp.fc1.bias"]
    middle = middle * 0.5 * (1 + np.vectorize(math.erf)(middle / math.sqrt(2)))
    return x + block["mlp.fc2.weight"] @ middle + block["mlp.fc2.bias"]


def maps_of(method: CrossMAE, image: torch.Tensor, keep: list[int]) -> list[np.ndarray]:
    """Class token and visible patches before the first block and after each, by the modules of timm."""
    body = method.encoder.body
    with torch.no_grad():
        tokens = body.patch_embed.proj(image[None])[0].flatten(1).T + body.pos_embed[0, 1:]
        x = torch.cat((body.cls_token[0] + body.pos_embed[0, :1], tokens[keep]))[None]
        maps = [x]
        for block in body.blocks:
            maps.append(x := block(x))
    return [one[0].double().numpy() for one in maps]


def loss_by_loops(method: CrossMAE, batch: torch.Tensor, mask: torch.Tensor, predicted: torch.Tensor) -> float:
    state = {name: value.double().numpy() for name, value in method.state_dict().items()}
    config, errors = method.config, []
    layers = range(method.encoder.num_layers) if config.layers is None else config.layers
    for image, masked, chosen in zip(batch, mask, predicted, strict=True):
        keep = [cell for cell, is_masked in enumerate(masked.flatten().tolist()) if not is_masked]
        maps = maps_of(method, image, keep)
        read = ([maps[0]] if config.use_input else []) + [maps[1:][layer] for layer in layers]
        for cell in np.flatnonzero(chosen.numpy()):
            row, column = divmod(int(cell), masked.shape[1])
            x = state["decoder.mask_token"][0, 0] + position(row, column, config.decoder_dim)
            for number in range(config.decoder_depth):
                context = sum(weight * one for weight, one in zip(state["mix.weight"][number], read, strict=True))
                context = normed(context, state[f"norms.{number}.weight"], state[f"norms.{number}.bias"])
                start = f"decoder.blocks.{number}."
                block = {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
                x = read_context(block, x, context, config.decoder_heads)
            x = normed(x, state["decoder.norm.weight"], state["decoder.norm.bias"])
            pixels = state["decoder.head.weight"] @ x + state["decoder.head.bias"]
            patch = image[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].permute(1, 2, 0).flatten()
            patch = patch.double().numpy()
            if config.norm_pixels:
                patch = (patch - patch.mean()) / math.sqrt(patch.var(ddof=1) + 1e-6)
            errors.append(np.mean((pixels - patch) ** 2))
    return float(np.mean(errors))


def position(row: int, column: int, dim: int) -> np.ndarray:
    """MAE's sine and cosine of the column, then of the row."""
    rates = [1 / 10000 ** (i / (dim // 4)) for i in range(dim // 4)]
    parts = [function(place * rate) for place in (column, row) for function in (math.sin, math.cos) for rate in rates]
    return np.array(parts)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_input": False, "layers": (0, -1), "norm_pixels": False},
        {"layers": (-1,), "predicted_ratio": 0.75, "decoder_depth": 1},
    ],
)
def test_the_loss_is_that_of_plain_loops(options):
    method = build(**options).eval()
    shake(method)
    mask = method.sample_mask(3, seeded())
    predicted = method.sample_predicted(mask, seeded(1))
    loss = method(images(), mask, predicted).loss.item()
    assert loss == pytest.approx(loss_by_loops(method, images(), mask, predicted), rel=1e-5)


def test_a_prediction_does_not_depend_on_which_others_are_predicted():
    method = build().eval()
    shake(method)
    mask = method.sample_mask(3, seeded())
    whole = method.predict(images(), mask)
    some = method.sample_predicted(mask, seeded(2))
    part = method._predict(images(), mask, some)
    assert torch.allclose(part[some], whole[some], atol=1e-6)
    assert not part[~some].any()
    assert not whole[~mask].any()


def test_the_losses_of_disjoint_parts_average_to_the_loss_of_all():
    method = build().eval()
    shake(method)
    mask = method.sample_mask(3, seeded())
    order = mask.flatten(1).nonzero()[:, 1].view(3, 12).gather(1, torch.rand(3, 12, generator=seeded(4)).argsort(1))
    parts = [torch.zeros(3, 16, dtype=torch.bool).scatter(1, cells, True).view(3, 4, 4) for cells in order.split(4, 1)]
    losses = [method(images(), mask, part).loss.item() for part in parts]
    assert len(set(losses)) == 3
    assert np.mean(losses) == pytest.approx(method(images(), mask).loss.item(), rel=1e-5)


def test_a_step_predicts_a_random_third_of_the_masked_patches(monkeypatch):
    method = build(grid=8)
    assert (method.visible, method.masked, method.predicted) == (16, 48, 16)
    mask = method.sample_mask(400, seeded())
    predicted = method.sample_predicted(mask, seeded(1))
    assert not (predicted & ~mask).any()
    assert (predicted.flatten(1).sum(1) == 16).all()
    assert (predicted.float().mean(0) - 0.25).abs().max() < 0.1
    seen = []
    monkeypatch.setattr(method, "forward", lambda *args: seen.append(args))
    method.step(Batch((images(5, 32),)), seeded(3))
    _, used, chosen = seen[0]
    assert chosen.sum() == 5 * 16
    assert not (chosen & ~used).any()


@pytest.mark.parametrize(
    ("cells", "ratio", "share", "expected"), [(196, 0.75, 0.25, 49), (196, 0.75, 0.75, 147), (4, 0.75, 0.01, 1)]
)
def test_as_many_patches_as_officially_are_predicted(cells, ratio, share, expected):
    method = build(grid=math.isqrt(cells), mask_ratio=ratio, predicted_ratio=share)
    assert method.predicted == expected


def test_all_is_trained_but_the_final_norm(reaches_every_parameter, sees_only_the_visible):
    method = build()
    mask = method.sample_mask(3, seeded())
    reaches_every_parameter(method, images(), mask)
    sees_only_the_visible(lambda shown: method.predict(shown, mask), images(), mask)
    idle = {name for name, p in method.encoder.named_parameters() if not p.requires_grad}
    assert idle == {"body.pos_embed", "body.norm.weight", "body.norm.bias"}
    assert method.no_weight_decay() == set()


def test_the_weights_of_the_mix_are_of_xavier():
    """As officially: the normal ones of the paper are overwritten, since all linear layers are initialised last."""
    method = build(depth=40, decoder_depth=60)
    bound = math.sqrt(6 / (41 + 60))
    assert method.mix.weight.shape == (60, 41)
    assert method.mix.weight.abs().max() <= bound
    assert method.mix.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize("position", ["sincos", "learned", "relative", "rope"])
def test_the_blocks_go_on_from_the_block_input(position):
    encoder = build(position=position).encoder.eval()
    tokens = encoder.embed(images())
    keep = torch.tensor([[3, 0, 9]]).expand(3, -1)
    whole = encoder.block_input(tokens)
    bias = encoder._bias((4, 4), None)
    expected = encoder._run_block(encoder.body.blocks[0], whole.sequence, bias)
    assert torch.equal(encoder.forward_layers(tokens, (0,))[0].sequence, expected)
    visible = encoder.block_input(tokens, keep=keep)
    assert torch.equal(visible.patches, whole.patches[:, keep[0]])
    assert torch.equal(visible.prefix, whole.prefix)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"predicted_ratio": 0.8}, "predicted_ratio 0.8 is above mask_ratio 0.75"),
        ({"layers": (0, 1)}, "the last of layers must be -1"),
        ({"layers": ()}, "the last of layers must be -1"),
        ({"decoder_depth": 0}, "greater than or equal to 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        CrossMAE.Config(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": (1, -1)}, r"method.layers \(1, -1\) of 2 layers must rise"),
        ({"layers": (5, -1)}, "layer 5 is outside"),
        ({"mask_ratio": 0.99, "grid": 2}, "masks everything of 4 cells"),
        ({"position": "relative-per-block"}, "cannot"),
    ],
)
def test_options_that_do_not_suit_the_encoder_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        build(**options)


def test_an_encoder_without_block_input_serves_without_use_input():
    arguments = {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
    config = TimmModel.Config(model="vit_tiny_patch16_224", arguments=arguments)
    encoder = TimmModel(config, image_size=16, in_channels=3)
    with pytest.raises(InputError, match=r'set method\.use_input to false or encoder\.name to "vit"'):
        CrossMAE(CrossMAE.Config(**SMALL), encoder)
    method = CrossMAE(CrossMAE.Config(**SMALL, use_input=False), encoder)
    assert method(images(), method.sample_mask(3, seeded())).loss.isfinite()


def official_state(method: CrossMAE) -> dict[str, torch.Tensor]:
    """The method's weights under the names of models_cross.py and transformer_utils.py."""
    state = {}
    for name, value in method.state_dict().items():
        if name.startswith("encoder.body.norm."):
            continue  # the official model has no such norm
        for ours, official in (
            ("encoder.body.", ""),
            ("mix.", "wfm.linear."),
            ("norms.", "dec_norms."),
            ("decoder.mask_token", "mask_token"),
            ("decoder.blocks.", "decoder_blocks."),
            ("decoder.norm.", "decoder_norm."),
            ("decoder.head.", "decoder_pred."),
        ):
            if name.startswith(ours):
                name = official + name.removeprefix(ours)
                break
        state[name.replace(".attn.", ".cross_attn.") if name.startswith("decoder_blocks") else name] = value.clone()
    return state | {"decoder_pos_embed": torch.zeros(1, 17, 8)}


def test_an_official_checkpoint_is_read_whole(tmp_path):
    method = build()
    shake(method)
    state = official_state(method)
    assert "decoder_blocks.2.cross_attn.kv.weight" in state
    assert recognise(state).name == recognise(f"module.{name}" for name in state).name == "crossmae"
    other = build()
    converted = to_method(state, recognise(state), other)
    assert set(converted.left_out) == {"decoder_pos_embed"}
    assert set(converted.missing) == {"encoder.body.norm.weight", "encoder.body.norm.bias"}
    other.load_state_dict(converted.state, strict=False)
    mask = method.sample_mask(3, seeded())
    assert torch.equal(other(images(), mask).loss, method(images(), mask).loss)
    alone = to_encoder(state, recognise(state), other.encoder)
    assert not any(name.startswith(("wfm", "dec_norms")) for name in alone.state)
    torch.save({"model": state, "epoch": 799}, tmp_path / "official.pth")
    settings = {"encoder.embed_dim": 16, "encoder.depth": 2, "encoder.num_heads": 2}
    settings |= {f"method.{name}": value for name, value in SMALL.items()}
    imported, _ = import_checkpoint(
        tmp_path / "official.pth", method="crossmae", encoder="vit-tiny", recipe=None, settings=settings,
        results=tmp_path / "results",
    )  # fmt: skip
    assert torch.equal(imported.method.mix.weight, method.mix.weight)
    assert imported.method.encoder.config.position == "sincos"


def test_it_runs_without_values_and_in_bf16(trains_without_values):
    trains_without_values(build, (3, 3, 16, 16), (3, 4, 4))
    method = build()
    mask = method.sample_mask(3, seeded())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method(images(), mask).loss
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(method(images(), mask).loss.item(), rel=0.02)
    assert method.mix.weight.grad.abs().sum() > 0


def test_pictures_show_the_visible_patches_as_they_are():
    method = build().eval()
    mask = method.sample_mask(3, seeded())
    shown = method.reconstruct(images(), mask)
    visible = ~mask.repeat_interleave(4, 1).repeat_interleave(4, 2).unsqueeze(1).expand(-1, 3, -1, -1)
    assert torch.equal(shown[visible], images()[visible])
    assert not torch.equal(shown, images())
