"""data2vec 2.0: its targets and loss computed a second time, masks that share a teacher, and official files."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from helpers.presets import resolved
from helpers.random_inputs import seeded
from mimbench.contract import Batch, InputError, TrainConfig
from mimbench.convert import read_weights
from mimbench.encoders.swin import Swin
from mimbench.encoders.vit import ViT
from mimbench.harness.exchange import export_checkpoint, import_checkpoint
from mimbench.optim import decay_rules, param_groups
from mimbench_methods.data2vec2 import Data2Vec2

SMALL = {"masks": 3, "mask_ratio": 0.6, "mask_block": 2, "target_layers": 2, "decoder_depth": 2, "decoder_groups": 2}


def build(encoder=None, **options) -> Data2Vec2:
    torch.manual_seed(0)
    sizes = {"patch_size": 4, "embed_dim": 8, "depth": 3, "num_heads": 2, "position": "sincos", "post_norm": True}
    vit = ViT(ViT.Config(**sizes | (encoder or {})), image_size=16, in_channels=3)
    return Data2Vec2(Data2Vec2.Config(**SMALL | {"decoder_dim": 8} | options), vit)


def shaken(method: Data2Vec2) -> Data2Vec2:
    """Every weight moved, so that biases and norms count, and the teacher's differ from the student's."""
    generator = seeded(1)
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if not name.endswith("pos_embed"):
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return method


def images(count=2) -> torch.Tensor:
    return torch.randn(count, 3, 16, 16, generator=seeded())


def masks(method: Data2Vec2, count=2) -> torch.Tensor:
    return method.sample_mask(count * method.config.masks, seeded())


class Reference:
    """The forward pass, targets and loss in numpy, with loops over images, masks, layers and cells."""

    def __init__(self, method: Data2Vec2) -> None:
        self.state = {name: value.detach().double().numpy() for name, value in method.state_dict().items()}
        self.config = method.config

    def loss(self, pictures: np.ndarray, mask: np.ndarray) -> float:
        per_image = len(mask) // len(pictures)
        patch_errors, class_errors = [], []
        for row, masked in enumerate(mask):
            picture = pictures[row // per_image]
            target = self.target(picture)
            class_output, prediction = self.prediction(picture, masked)
            for cell in np.flatnonzero(masked):
                patch_errors.append(((prediction[cell] - target[cell]) ** 2).sum() / math.sqrt(target.shape[1]))
            class_errors.append(((class_output - target.mean(0)) ** 2).sum() / math.sqrt(target.shape[1]))
        return float(np.mean(patch_errors) + self.config.class_weight * np.mean(class_errors))

    def target(self, picture: np.ndarray) -> np.ndarray:
        total = np.zeros((16, 8))
        for output in self.encode("teacher.module.body.", picture, np.zeros(16, bool))[1][-self.config.target_layers :]:
            patches = output[1:]
            for channel in range(8):
                values = patches[:, channel]
                total[:, channel] += (values - values.mean()) / math.sqrt(values.var() + 1e-5)
        mean = total / self.config.target_layers
        return np.stack([(row - row.mean()) / math.sqrt(row.var() + 1e-5) for row in mean])

    def prediction(self, picture: np.ndarray, masked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x = self.encode("encoder.body.", picture, masked)[0]
        grid = np.zeros((16, 8))
        grid[np.flatnonzero(~masked)] = x[1:]
        grid = grid.reshape(4, 4, 8)
        for layer in range(self.config.decoder_depth):
            grid = grid + self.convolve(f"decoder.convs.{layer}.", grid)
        return x[0], self.linear("decoder.proj.", grid.reshape(16, 8))

    def convolve(self, name: str, grid: np.ndarray) -> np.ndarray:
        weight, bias = self.state[f"{name}weight"], self.state[f"{name}bias"]
        outputs = np.zeros((4, 4, 8))
        for row in range(4):
            for column in range(4):
                for channel in range(8):
                    group = channel // 4  # two groups of four channels
                    value = bias[channel]
                    for down in (-1, 0, 1):
                        for right in (-1, 0, 1):
                            if 0 <= row + down < 4 and 0 <= column + right < 4:
                                cell = grid[row + down, column + right, 4 * group : 4 * group + 4]
                                value += weight[channel, :, down + 1, right + 1] @ cell
                    outputs[row, column, channel] = value
                values = outputs[row, column]
                outputs[row, column] = gelu((values - values.mean()) / math.sqrt(values.var() + 1e-5))
        return outputs

    def encode(self, start: str, picture: np.ndarray, masked: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """The sequence [1 + visible, D], and what the MLP of each layer gives."""
        weight, bias = self.state[f"{start}patch_embed.proj.weight"], self.state[f"{start}patch_embed.proj.bias"]
        rows = [self.state[f"{start}cls_token"][0, 0]]
        for cell in np.flatnonzero(~masked):
            top, left = 4 * (cell // 4), 4 * (cell % 4)
            pixels = picture[:, top : top + 4, left : left + 4]
            rows.append((weight * pixels).sum((1, 2, 3)) + bias + position(cell // 4, cell % 4))
        x, outputs = self.norm(f"{start}norm_pre.", np.stack(rows)), []
        for block in (f"{start}blocks.{index}." for index in range(3)):
            joint = self.linear(f"{block}attn.qkv.", x)
            heads = []
            for head in range(2):
                query, key, value = (joint[:, 8 * part + 4 * head :][:, :4] for part in range(3))
                scores = np.exp(query @ key.T / 2)
                heads.append(scores / scores.sum(1, keepdims=True) @ value)
            x = self.norm(f"{block}norm1.", x + self.linear(f"{block}attn.proj.", np.concatenate(heads, 1)))
            output = self.linear(f"{block}mlp.fc2.", gelu(self.linear(f"{block}mlp.fc1.", x)))
            outputs.append(output)
            x = self.norm(f"{block}norm2.", x + output)
        return x, outputs

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.state[f"{name}weight"].T + self.state[f"{name}bias"]

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        normed = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)
        return normed * self.state[f"{name}weight"] + self.state[f"{name}bias"]


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def position(row: int, column: int) -> np.ndarray:
    """8 channels: sine and cosine of the column at two wavelengths, then of the row."""
    rates = (1.0, 0.01)
    return np.array([wave(place * rate) for place in (column, row) for wave in (math.sin, math.cos) for rate in rates])


@pytest.mark.parametrize("options", [{}, {"class_weight": 0.5, "target_layers": 3}])
def test_the_loss_is_that_of_a_second_computation(options):
    method = shaken(build(noise_std=0.0, **options))
    mask = masks(method)
    expected = Reference(method).loss(images().double().numpy(), mask.flatten(1).numpy())
    assert method(images(), mask).loss.item() == pytest.approx(expected, rel=1e-5)
    target = method.target(images())
    for row, picture in enumerate(images().double().numpy()):
        np.testing.assert_allclose(target[row, 1:].numpy(), Reference(method).target(picture), atol=1e-5)


def test_the_gradient_of_many_masks_is_the_mean_of_those_of_single_masks():
    method = shaken(build(noise_std=0.0))
    mask = masks(method).unflatten(0, (2, 3))

    def gradients(chosen):
        method.zero_grad(set_to_none=True)
        method(images(), chosen).loss.backward()
        return [p.grad.clone() for p in method.parameters() if p.requires_grad]

    together = gradients(mask.flatten(0, 1))
    singly = [gradients(mask[:, index]) for index in range(3)]
    for got, *each in zip(together, *singly, strict=True):
        torch.testing.assert_close(got, torch.stack(each).mean(0), rtol=1e-4, atol=1e-6)


def test_all_masks_of_a_batch_share_one_pass_of_the_teacher(monkeypatch):
    method, passes = build(masks=16).train(), []
    teacher, seen = method.teacher.module, method.encoder.forward_tokens
    original = teacher.mlp_outputs
    monkeypatch.setattr(teacher, "mlp_outputs", lambda tokens: passes.append(len(tokens)) or original(tokens))
    counts = []
    monkeypatch.setattr(
        method.encoder, "forward_tokens", lambda tokens, keep: counts.append(keep.shape) or seen(tokens, keep)
    )
    output = method.step(Batch((images(),)), seeded())
    assert passes == [2]
    assert counts == [(32, 6)]
    assert output.loss.isfinite()
    assert method.sample_mask(32, seeded()).flatten(1).unique(dim=0).shape[0] > 16


def test_blocks_can_be_the_target():
    method = shaken(build(target_output="block", class_weight=0.0))
    layers = method.teacher.module.layers(images(), final_norm=False)[-2:]
    normed = [(x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt() for x in
              (layer.patches for layer in layers)]  # fmt: skip
    mean = sum(normed) / 2
    expected = (mean - mean.mean(-1, keepdim=True)) / (mean.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(method.target(images()), expected)
    assert method.predict(images(), masks(method)).shape == (6, 16, 8)


def test_the_decoder_gets_noise_for_masked_patches_alone(monkeypatch):
    method, inputs = build(noise_std=0.3, decoder_dim=4), []
    decode = method.decoder.forward
    monkeypatch.setattr(method.decoder, "forward", lambda grid: inputs.append(grid) or decode(grid))
    mask = masks(method, 200)
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        method.predict(images(200), mask)
    first, again, other = inputs
    assert torch.equal(first, again)
    assert torch.equal(first[~mask], other[~mask])
    assert not (first == other).all(-1)[mask].any()
    assert first[mask].std().item() == pytest.approx(0.3, rel=0.02)
    assert abs(first[mask].mean().item()) < 0.01


def test_tau_is_the_official_one_after_each_step(monkeypatch):
    method, used = build(), []
    monkeypatch.setattr(method.teacher, "follow", lambda student, tau: used.append(tau))
    for step in range(1, 3754):
        method.after_step(step / 3753)
    for done, tau in enumerate(used, 1):
        share = done / 1000
        expected = 0.99999 if share >= 1 else 0.99999 - (0.99999 - 0.9998) * (1 - share)
        assert tau == pytest.approx(expected, abs=1e-12)
    assert resolved("imagenet-vit-base", "data2vec2").method_config.tau_share * 375_300 == pytest.approx(1e5, rel=1e-8)


def test_the_teacher_follows_by_hand():
    method = shaken(build(tau_start=0.5, tau_end=0.5))
    before = {name: value.clone() for name, value in method.teacher.module.state_dict().items()}
    method.after_step(0.1)
    student = method.encoder.state_dict()
    for name, value in method.teacher.module.state_dict().items():
        torch.testing.assert_close(value, (before[name] + student[name]) / 2)
    assert not any(p.requires_grad for p in method.teacher.parameters())


def test_initial_weights_are_the_official_ones():
    method = build({"embed_dim": 96, "num_heads": 2, "patch_size": 4}, decoder_dim=96)
    for name, value in method.encoder.named_parameters():
        if "cls_token" in name:
            assert value.std().item() == pytest.approx(1, rel=0.3)
        elif "patch_embed" in name and value.ndim > 1:
            bound = (6 / (96 + 48)) ** 0.5
            assert value.abs().max().item() == pytest.approx(bound, rel=0.01)
            assert value.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
        elif value.ndim == 2:
            assert value.std().item() == pytest.approx(0.02, rel=0.05), name
            assert value.abs().max() > 0.06  # not cut at two standard deviations
    assert all(map(torch.equal, method.teacher.module.parameters(), method.encoder.parameters()))


def test_everything_of_two_dimensions_is_decayed():
    method = build()
    train = TrainConfig(epochs=1, batch_size=1, base_lr=1.0)
    groups = param_groups(method, train, no_decay=decay_rules(method)["no_decay"])
    decayed = {name for group in groups if group["weight_decay"] for name in group["names"]}
    trained = {name: p for name, p in method.named_parameters() if p.requires_grad}
    assert decayed == {name for name, p in trained.items() if p.ndim > 1}
    assert "encoder.body.cls_token" in decayed


def test_it_sees_visible_patches_alone_and_trains_all(sees_only_the_visible, reaches_every_parameter):
    method = shaken(build(noise_std=0.0)).eval()
    mask = method.sample_mask(2, seeded())
    sees_only_the_visible(lambda shown: method.predict(shown, mask), images(), mask)
    reaches_every_parameter(method, images(), masks(method))


@pytest.mark.parametrize("ratios", [{}, {"initial_mask_ratio": 0.3}])
def test_forward_reads_nothing_from_the_device(ratios, on_fake_cuda):
    method = build(**ratios)
    method.progress = 0.5
    assert on_fake_cuda(method, images(), masks(method)).loss.device.type == "cuda"


def test_the_tasks_get_the_student_or_the_teacher():
    assert build().exported_encoder() is not None
    method = build(export="teacher")
    exported = method.exported_encoder()
    assert exported is method.teacher.module
    assert not any(parameter.requires_grad for parameter in exported.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_layers": 4}, "method.target_layers 4 is more than the encoder's 3 layers"),
        ({"decoder_groups": 3}, "method.decoder_groups 3 does not divide the 8 channels of the encoder and the 8"),
        ({"decoder_kernel": 2}, "method.decoder_kernel 2 is even; choose an odd number"),
        ({"mask_ratio": 0.99}, "masks everything of 16 cells"),
        ({"mask_block": 4}, "16 cells at mask ratio 0.6 have no room for a block of side 4"),
        ({"encoder": {"class_tokens": 2}}, "method.class_weight is for one class token, and the encoder has 2; set"),
        ({"encoder": {"class_token": False}}, "method.class_weight needs a class token; set encoder.class_token"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        build(**options)


def test_several_class_tokens_without_a_loss_are_possible():
    method = build({"class_tokens": 2}, class_weight=0.0)
    assert method.predict(images(), masks(method)).shape == method.target(images()).repeat_interleave(3, 0).shape


def test_a_falling_tau_and_a_swin_are_refused():
    with pytest.raises(ValidationError, match=r"tau_start 0.99 is above tau_end 0.9"):
        Data2Vec2.Config(tau_start=0.99, tau_end=0.9)
    swin = Swin.Config(patch_size=4, embed_dim=8, depths=(1,), num_heads=(2,), window=4)
    with pytest.raises(InputError, match="return the outputs of the MLPs in its blocks"):
        Data2Vec2(Data2Vec2.Config(), Swin(swin, image_size=16, in_channels=3))


def official_state(method: Data2Vec2, first: int) -> dict[str, torch.Tensor]:
    """The student under the official names, `first` of its blocks in the official stem."""
    state = {}
    for name, value in method.state_dict().items():
        if name.startswith("teacher."):
            continue
        name = name.removeprefix("encoder.body.")
        part, _, rest = name.partition(".")
        if part == "blocks":
            index, _, leaf = rest.partition(".")
            stem = f"modality_encoders.IMAGE.context_encoder.blocks.{index}.{leaf}"
            state[stem if int(index) < first else f"blocks.{int(index) - first}.{leaf}"] = value
        elif part == "decoder":
            leaf = rest.replace("convs.", "blocks.") if rest.startswith("convs") else rest
            pieces = leaf.split(".")
            leaf = ".".join([*pieces[:-1], "0", pieces[-1]]) if pieces[0] == "blocks" else leaf
            state[f"modality_encoders.IMAGE.decoder.{leaf}"] = value
        elif name == "pos_embed":
            state["modality_encoders.IMAGE.fixed_positional_encoder.positions"] = value[:, 1:]
        else:
            official = {"cls_token": "extra_tokens", "patch_embed": "local_encoder", "norm_pre": "context_encoder.norm"}
            state[f"modality_encoders.IMAGE.{official[part]}{'.' if rest else ''}{rest}"] = value
    return state


@pytest.mark.parametrize("first", [0, 1])
def test_an_official_checkpoint_is_imported(first, tmp_path):
    method = shaken(build())
    state = official_state(method, first)
    average = {name: value + 1 for name, value in state.items() if "decoder" not in name}
    torch.save({"model": {**state, "_ema": average}, "cfg": {"model": {"depth": 3}}}, tmp_path / "official.pt")
    assert read_weights(tmp_path / "official.pt").key == "model"
    settings = {"encoder.embed_dim": 8, "encoder.depth": 3, "encoder.num_heads": 2}
    settings |= {f"method.{name}": value for name, value in (SMALL | {"decoder_dim": 8}).items()}
    imported, folder = import_checkpoint(
        tmp_path / "official.pt",
        method="data2vec2",
        encoder="vit-tiny",
        recipe=None,
        settings=settings,
        results=tmp_path / "results",
    )
    encoder = imported.method.encoder
    assert (encoder.config.post_norm, encoder.config.position, encoder.image_size) == (True, "sincos", 16)
    assert torch.equal(encoder.features(images()).sequence, method.encoder.features(images()).sequence)
    assert torch.equal(imported.method.decoder.convs[1].weight, method.decoder.convs[1].weight)
    assert [name for name in imported.converted.missing if not name.startswith("teacher.")] == []
    assert imported.converted.left_out == {}
    with pytest.raises(InputError, match=r"encoder.post_norm: timm\'s ViT has no such blocks"):
        export_checkpoint(folder.name, tmp_path / "out.safetensors", results=tmp_path / "results")
    assert isinstance(encoder.body.norm, nn.Identity)
