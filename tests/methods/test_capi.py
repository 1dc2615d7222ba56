"""CAPI against a second computation by numpy and plain loops, and what it promises besides. No golden vectors exist."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from helpers.presets import resolved
from helpers.random_inputs import losses_on_one_batch, seeded
from mimbench.contract import InputError, TrainConfig
from mimbench.convert import read_weights, recognise
from mimbench.encoders.vit import ViT
from mimbench.harness.exchange import export_checkpoint, import_checkpoint
from mimbench.optim import Schedule, build_optimizer, decay_rules, param_groups
from mimbench_methods._online_clusters import entropy
from mimbench_methods.capi import CAPI, PredictedCells

OFFICIAL_FORM = {"position": "edge-rope", "registers": 8, "class_token": False, "norm": "rms", "bias": False}
PLAIN_FORM = {"position": "sincos"}


def build(form=OFFICIAL_FORM, image_size=24, **options) -> CAPI:
    torch.manual_seed(0)
    encoder = ViT.Config(patch_size=4, embed_dim=16, depth=2, num_heads=2, **form)
    sizes = {"clusters": 10, "predictor_dim": 24, "predictor_depth": 2, "predictor_heads": 3, "predicted_share": 0.25}
    method = CAPI(
        CAPI.Config(**sizes | {"predictor_drop_path": 0.0} | options),
        ViT(encoder, image_size=image_size, in_channels=3),
    )
    for name, parameter in method.named_parameters():  # norms that are 1, and small weights, would prove little
        if parameter.requires_grad and not name.startswith("clusters"):
            with torch.no_grad():
                parameter += 0.2 * torch.randn(parameter.shape)
    method.teacher = type(method.teacher)(method.encoder)
    return method


def batch(method: CAPI, count: int = 3) -> tuple[torch.Tensor, PredictedCells]:
    return torch.randn(count, 3, 24, 24, generator=seeded()), method.sample_mask(count, seeded())


# --- The whole step a second time: one image, one token, one head at a time, in float64.


def rms(x, weight=1.0):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * weight


def gelu(x):
    return np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x.flatten()]).reshape(x.shape)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def rotated(vector, place):
    """The official formula: x * cos + rotate_half(x) * sin, with angles from a matrix [2, channels]."""
    size = len(vector)
    steps = size // 4
    frequencies = [7 * (7 / 7e-4) ** -(i / (steps - 1) if steps > 1 else 0.0) for i in range(steps)]
    angles = np.zeros(size)
    for channel in range(size):
        axis = 0 if channel < size // 2 else 1
        angles[channel] = 2 * math.pi * place[axis] * frequencies[channel % steps]
    half = np.concatenate((-vector[size // 2 :], vector[: size // 2]))
    return vector * np.cos(angles) + half * np.sin(angles)


def attended(queries, places, context, context_places, weights, heads):
    q, k, v, out = weights
    size = q.shape[0] // heads
    rows = []
    for query, place in zip(queries @ q.T, places, strict=True):
        outputs = []
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            mine = rotated(query[part], place)
            keys = [rotated(key[part], there) for key, there in zip(context @ k.T, context_places, strict=True)]
            shares = softmax(np.array([mine @ key for key in keys]) / math.sqrt(size))
            outputs.append(shares @ (context @ v.T)[:, part])
        rows.append(out @ np.concatenate(outputs))
    return np.array(rows)


def edge_places(visible_places, count):
    low, high = np.min(visible_places, 0), np.max(visible_places, 0)
    side = count // 4
    unit = [(i / side, 0.0) for i in range(side)]
    unit += [(1.0, i / side) for i in range(side)]
    unit += [(1 - i / side, 1.0) for i in range(side)]
    unit += [(0.0, 1 - i / side) for i in range(side)]
    return [low + np.array(place) * (high - low) for place in unit]


def numbers(module):
    return {name: value.detach().double().numpy() for name, value in module.state_dict().items()}


def encoded(state, image, cells, grid=6, patch=4, registers=8, heads=2):
    """Register and patch tokens of one image, from its visible cells, after the final norm; and their places."""
    kernel = state["body.patch_embed.proj.weight"]
    tokens, places = [], []
    for cell in cells:
        row, column = divmod(int(cell), grid)
        pixels = image[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
        tokens.append((kernel * pixels).sum((1, 2, 3)) + state["body.patch_embed.proj.bias"])
        places.append(np.array([row / (grid - 1), column / (grid - 1)]))
    places = edge_places(places, registers) + places
    x = np.concatenate((state["body.reg_token"][0], np.array(tokens)))
    for block in range(2):
        here = {k.removeprefix(f"body.blocks.{block}."): v for k, v in state.items() if f"blocks.{block}." in k}
        y = rms(x, here["norm1.weight"])
        weights = (*np.split(here["attn.qkv.weight"], 3), here["attn.proj.weight"])
        x = x + attended(y, places, y, places, weights, heads)
        x = x + gelu(rms(x, here["norm2.weight"]) @ here["mlp.fc1.weight"].T) @ here["mlp.fc2.weight"].T
    return rms(x), places


def predicted_logits(method, image, visible, predicted):
    context, places = encoded(numbers(method.encoder), image, visible)
    state, head = numbers(method.predictor), numbers(method.head)
    queries = [np.array(divmod(int(cell), 6)) / 5 for cell in predicted]
    x = np.repeat(state["mask_token"][0], len(predicted), 0)
    for block in range(2):
        here = {k.removeprefix(f"blocks.{block}."): v for k, v in state.items() if k.startswith(f"blocks.{block}.")}
        weights = [here[f"attn.{name}.weight"] for name in ("q_proj", "k_proj", "v_proj", "proj")]
        x = x + attended(rms(x, here["norm1.weight"]), queries, context, places, weights, 3)
        x = x + gelu(rms(x, here["norm2.weight"]) @ here["mlp.fc1.weight"].T) @ here["mlp.fc2.weight"].T
    x = rms(x)
    x = x / np.linalg.norm(x, axis=-1, keepdims=True)
    direction = head["weight"] / np.linalg.norm(head["weight"], axis=1, keepdims=True)
    return x @ (head["gain"] * direction).T


def balanced(scores, steps):
    """Sinkhorn-Knopp of [samples, clusters] without the official shift and epsilon."""
    weights = np.exp(scores - scores.max())
    for _ in range(steps):
        for cluster in range(weights.shape[1]):
            weights[:, cluster] /= weights[:, cluster].sum()
        for sample in range(len(weights)):
            weights[sample] /= weights[sample].sum()
    return weights


def test_the_step_is_that_of_a_second_computation():
    method = build().double().train()
    images, mask = batch(method)
    images = images.double()
    clusters = numbers(method.clusters)
    logits = []
    for image in images.numpy():
        tokens, _ = encoded(numbers(method.teacher.module), image, range(36))
        patches = tokens[8:]
        normed = patches / np.linalg.norm(patches, axis=-1, keepdims=True)
        logits.append(normed @ clusters["weight"].T + clusters["bias"])
    logits = np.array(logits)  # [B, N, clusters]
    target = np.stack([balanced(logits[:, cell] / 0.06, 3) for cell in range(36)], 1)
    clustering = -(target * np.log(softmax(logits / 0.12))).sum(-1).mean()
    errors = []
    for image, shown, chosen, assigned in zip(images.numpy(), mask.visible, mask.predicted, target, strict=True):
        prediction = np.log(softmax(predicted_logits(method, image, shown, chosen) / 0.12))
        errors += [-(assigned[int(cell)] * row).sum() for cell, row in zip(chosen, prediction, strict=True)]
    output = method(images, mask)
    assert torch.allclose(method.target(images), torch.from_numpy(target).float(), atol=1e-5)
    assert output.logs["cluster_loss"].item() == pytest.approx(clustering, rel=1e-5)
    assert output.logs["prediction_loss"].item() == pytest.approx(np.mean(errors), rel=1e-5)
    assert output.loss.item() == pytest.approx(clustering + np.mean(errors), rel=1e-5)
    entropy = -(target * np.log(target.clip(1e-300))).sum(-1).mean()
    assert output.logs["target_entropy"].item() == pytest.approx(entropy, rel=1e-4)


@pytest.mark.parametrize("images", [1, 8, 19])
def test_entropies_of_parts_of_a_batch_are_those_of_the_batch(images):
    assignments = torch.rand(images, 4, 6, generator=seeded()).softmax(-1)
    assignments[0, 0] = torch.eye(6)[0]  # has entropy 0
    whole = torch.distributions.Categorical(assignments).entropy().mean()
    assert entropy(assignments).item() == pytest.approx(whole.item(), rel=1e-5)
    assert torch.equal(entropy(assignments), entropy(assignments, chunk=images))


@pytest.mark.parametrize("form", [OFFICIAL_FORM, PLAIN_FORM, {"position": "relative"}])
def test_a_prediction_depends_on_the_visible_patches_alone(form, sees_only_the_visible, reaches_every_parameter):
    method = build(form)
    images, mask = batch(method)
    method.eval()
    assert method.predict(images, mask).shape == (3, 5, 10)
    sees_only_the_visible(lambda shown: method.predict(shown, mask), images, mask.mask)
    reaches_every_parameter(method, images, mask)


def test_predicted_cells_do_not_see_each_other():
    method = build().eval()
    images, mask = batch(method)
    less = PredictedCells(mask.mask, mask.visible, mask.predicted[:, 2:])
    assert torch.allclose(method.predict(images, mask)[:, 2:], method.predict(images, less), atol=1e-6)


def test_the_two_losses_share_no_parameters():
    method = build()
    images, mask = batch(method)
    method(images, mask).loss.backward()
    together = {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}
    method.zero_grad()
    target = method.target(images)
    method.loss(method.predict(images, mask), target, mask).backward()
    alone = {name for name, p in method.named_parameters() if p.grad is not None}
    assert {name for name in together if name not in alone} == {"clusters.weight", "clusters.bias"}
    assert all(
        torch.allclose(p.grad, together[name], atol=1e-6) for name, p in method.named_parameters() if name in alone
    )
    assert all(p.grad is None for p in method.teacher.parameters())


@pytest.mark.parametrize("per_position", [True, False])
def test_assignments_are_balanced_over_images_or_over_all_patches(per_position):
    method = build(per_position=per_position, sinkhorn_steps=200)
    logits = torch.randn(30, 36, 10, generator=seeded()) / 10
    assignments = method.clusters.assign(logits)
    assert torch.allclose(assignments.sum(-1), torch.ones(30, 36))
    load = assignments.sum(0) if per_position else assignments.sum((0, 1))
    assert torch.allclose(load, torch.full_like(load, load.sum(-1).mean() / 10), rtol=1e-3)
    other = method.clusters.assign(logits + torch.randn(1, 36, 10, generator=seeded(1)))
    assert torch.allclose(assignments, other, atol=1e-3) == per_position


def test_a_batch_of_one_image_is_assigned_uniformly():
    assignments = build().clusters.assign(torch.randn(1, 36, 10, generator=seeded()))
    assert torch.allclose(assignments, torch.full((1, 36, 10), 0.1))


def test_masks_leave_one_block_and_a_share_of_the_others_is_predicted():
    method = build()
    mask = method.sample_mask(50, seeded())
    assert mask.mask.shape == (50, 6, 6)
    assert set(mask.mask.flatten(1).sum(1).tolist()) == {23}  # int(36 * 0.65)
    assert mask.predicted.shape == (50, 5)  # int(23 * 0.25)
    cells = mask.mask.flatten(1)
    for row, shown, chosen in zip(cells, mask.visible, mask.predicted, strict=True):
        assert shown.tolist() == (~row).nonzero().flatten().tolist()
        assert row[chosen].all()
        assert len(set(chosen.tolist())) == 5
    counts = torch.bincount(mask.predicted.flatten(), minlength=36)
    assert (counts > 0).all()
    assert torch.equal(method.masked_cells(mask), mask.mask)


def test_the_teacher_moves_by_the_momentum_before_the_step_and_is_exported():
    method = build(momentum=0.5, momentum_warmup=0.0)
    before = {name: value.clone() for name, value in method.teacher.module.state_dict().items()}
    with torch.no_grad():
        for parameter in method.encoder.parameters():
            parameter += 1
    method.progress = 0.0
    method.after_step(0.5)
    exported = method.exported_encoder()
    assert exported is method.teacher.module
    assert all(torch.allclose(value, before[name] + 0.5, atol=1e-6) for name, value in exported.state_dict().items())
    assert not any(parameter.requires_grad for parameter in exported.parameters())
    student = build(export="student")
    assert student.exported_encoder() is student.encoder


def test_the_momentum_falls_in_the_warmup_and_rises_on_a_part_of_a_cosine():
    config = CAPI.Config()
    steps, warmup = 5000, 500
    official = np.concatenate(
        (
            np.linspace(1.0, 0.999, warmup),
            1 - 0.0005 * (1 + np.cos(np.pi * 0.8 * np.arange(steps - warmup) / (steps - warmup))),
        )
    )
    # There the warmup reaches 0.999 one step earlier.
    assert [config.momentum_at(step / steps) for step in range(steps)] == pytest.approx(official, abs=1e-3 / warmup)
    assert [config.momentum_at(s / steps) for s in range(warmup, steps)] == pytest.approx(official[warmup:], abs=1e-12)


def test_rates_are_the_official_ones():
    train = resolved("imagenet-vit-large", "capi").pretrain
    schedule = Schedule(train, 78)
    rise, length = 50_000, 500_000
    for step in (0, 1, 49_999, 50_000, 200_000, 499_999):
        expected = 1e-3 * step / (rise - 1)
        if step >= rise:
            expected = 5e-4 * (1 + math.cos(math.pi * 0.8 * (step - rise) / (length - rise)))
        assert schedule.lr(step) == pytest.approx(expected, rel=1e-12), step
        assert schedule.weight_decay(step) == 0.1
    assert schedule.lr(499_999) > 9e-5


def test_groups_are_those_of_the_two_official_optimizers():
    method = build()
    train = TrainConfig(epochs=1, batch_size=1, base_lr=1.0, weight_decay=0.1)
    rules = decay_rules(method)
    groups = {name: g for g in param_groups(method, train, **rules) for name in g["names"]}
    for name, group in groups.items():
        scale, decay = 1.0, 0.1
        if name.endswith(".bias"):
            decay = 0.0
        if "norm" in name:
            decay = 0.01
        if "patch_embed" in name:
            scale = 0.2
        if name.startswith("clusters."):
            scale, decay = 0.5, 0.01
        assert (group["lr_scale"], group["weight_decay"]) == (scale, decay), name
    assert {"encoder.body.reg_token", "predictor.mask_token", "head.gain", "clusters.bias"} <= set(groups)
    assert set(groups) == {name for name, p in method.named_parameters() if p.requires_grad}


def test_an_update_of_the_clusters_is_that_of_a_second_optimizer():
    method = build()
    images, mask = batch(method)
    together = build_optimizer(
        method,
        TrainConfig(epochs=1, batch_size=1, base_lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1),
        **decay_rules(method),
    )
    for group in together.param_groups:
        group["lr"] = 1e-3 * group["lr_scale"]
    copies = [p.detach().clone().requires_grad_() for p in method.clusters.parameters()]
    alone = torch.optim.AdamW(copies, lr=5e-4, betas=(0.9, 0.95))
    for _ in range(3):
        together.zero_grad()
        method(images, mask).loss.backward()
        for copy, parameter in zip(copies, method.clusters.parameters(), strict=True):
            copy.grad = parameter.grad.clone()
        together.step()
        alone.step()
    for copy, parameter in zip(copies, method.clusters.parameters(), strict=True):
        assert torch.allclose(copy, parameter, atol=1e-6)


def test_initial_weights_are_those_of_separate_layers():
    encoder = ViT.Config(patch_size=16, embed_dim=192, depth=1, num_heads=3, **OFFICIAL_FORM)
    torch.manual_seed(0)
    method = CAPI(
        CAPI.Config(clusters=300, predictor_dim=96, predictor_depth=1, predictor_heads=3),
        ViT(encoder, image_size=224, in_channels=3),
    )
    for name, value in method.named_parameters():
        if not value.requires_grad:
            continue
        if "norm" in name or name == "head.gain":
            assert (value == 1).all(), name
        elif name.endswith("bias"):
            assert (value == 0).all(), name
        else:
            std = {"clusters.weight": 1.0, "head.weight": 0.02}.get(name, 0.02 if "token" in name else None)
            shape = value.flatten(1).shape
            rows = shape[0] // 3 if "qkv" in name else shape[0]
            expected = math.sqrt(2 / (rows + shape[1])) if std is None else std
            assert value.std().item() == pytest.approx(expected, rel=0.2 if value.numel() < 1000 else 0.03), name
    assert all(map(torch.equal, method.teacher.module.parameters(), method.encoder.parameters()))


def test_it_learns_one_batch():
    losses = losses_on_one_batch(build(), 24)
    assert losses[-1] < 0.9 * losses[0]


def test_images_of_another_size_are_taken():
    method = build()
    method.set_image_size(32)
    mask = method.sample_mask(2, seeded())
    assert mask.mask.shape == (2, 8, 8)
    assert torch.isfinite(method(torch.randn(2, 3, 32, 32), mask).loss)
    with pytest.raises(InputError, match=r"predicted_share 0\.25 of 2 masked patches is none"):
        method.set_image_size(8)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (
            {"predicted_share": 0.01},
            InputError,
            r"predicted_share 0\.01 of 23 masked patches is none; raise it to 0\.043",
        ),
        ({"aspect": (5.0, 6.0)}, InputError, r"no block of 13 cells with an aspect of 5 to 6 fits a 6 x 6 grid"),
        ({"aspect": (2.0, 1.0)}, InputError, r"aspect \(2, 1\) is impossible"),
        ({"mask_ratio": 0.01}, InputError, "mask ratio 0.01 masks nothing of 36 cells"),
        ({"predictor_heads": 5}, InputError, "24 channels and 5 heads: rotary positions need heads"),
        ({"predictor_heads": 12}, InputError, "choose a multiple of 48 channels"),
        ({"target_temp": 0.0}, ValidationError, "target_temp"),
        ({"clusters": 1}, ValidationError, "clusters"),
    ],
)
def test_impossible_options_are_refused(options, error, words):
    with pytest.raises(error, match=words):
        build(**options)


def official_state(method: CAPI) -> dict[str, torch.Tensor]:
    """The weights under the official names (facebookresearch/capi@0145b88f model.py, __model_loader__)."""
    state = {}

    def put_block(block: str, values: dict[str, torch.Tensor], attention: dict[str, torch.Tensor]) -> None:
        for number in "12":
            state[f"{block}.residual{number}.norm.weight"] = values[f"norm{number}.weight"]
        for name, value in attention.items():
            state[f"{block}.residual1.fn.{name}.weight"] = value
        state[f"{block}.residual1.fn.rope.freqs"] = torch.zeros(2, 8)
        for layer in ("fc1", "fc2"):
            state[f"{block}.residual2.fn.{layer}.weight"] = values[f"mlp.{layer}.weight"]

    for index, block in enumerate(method.encoder.body.blocks):
        values = block.state_dict()
        parts = dict(zip(("q_proj", "k_proj", "v_proj"), values["attn.qkv.weight"].chunk(3), strict=True))
        put_block(f"backbone.encoder.blocks.{index}", values, parts | {"proj": values["attn.proj.weight"]})
    for index, block in enumerate(method.predictor.blocks):
        values = block.state_dict()
        parts = {name: values[f"attn.{name}.weight"] for name in ("q_proj", "k_proj", "v_proj", "proj")}
        put_block(f"backbone.decoder.blocks.{index}", values, parts)
    body = method.encoder.body
    state |= {f"backbone.patch_embed.{name}": value for name, value in body.patch_embed.proj.state_dict().items()}
    state |= {"backbone.registers": body.reg_token, "backbone.mask_token": method.predictor.mask_token[0]}
    state |= {"head.last_layer.weight_g": method.head.gain, "head.last_layer.weight_v": method.head.weight}
    return {name: value.detach().clone() for name, value in state.items()}


@pytest.mark.parametrize("prefix", ["backbone.", ""])
def test_an_official_checkpoint_is_imported(prefix, tmp_path):
    method = build()
    state = official_state(method)
    if not prefix:
        state = {name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")}
    torch.save(state, tmp_path / "official.pth")
    weights = read_weights(tmp_path / "official.pth")
    assert recognise(weights.state).name == "capi"
    settings = {"encoder.embed_dim": 16, "encoder.depth": 2, "encoder.num_heads": 2, "input.image_size": 24}
    settings |= {"method.predictor_dim": 24, "method.predictor_heads": 3, "method.predictor_depth": 2}
    settings |= {"method.clusters": 10, "method.predicted_share": 0.5}
    imported, folder = import_checkpoint(
        tmp_path / "official.pth", method="capi", encoder="vit-large", recipe=None, settings=settings, results=tmp_path
    )
    config = imported.method.encoder.config
    assert {name: getattr(config, name) for name in OFFICIAL_FORM} == OFFICIAL_FORM
    images, mask = batch(method)
    here, there = imported.method.eval(), method.eval()
    assert torch.allclose(here.encoder.features(images).sequence, there.encoder.features(images).sequence, atol=1e-6)
    cells = (mask.visible, mask.predicted, (6, 6))
    context = torch.randn(3, 8 + mask.visible.shape[1], 16, generator=seeded())
    assert torch.allclose(here.predictor(context, *cells), there.predictor(context, *cells), atol=1e-6)
    left = {name.rsplit(".", 2)[-2] + "." + name.rsplit(".", 1)[-1] for name in imported.converted.left_out}
    assert left == {"rope.freqs"} | ({"last_layer.weight_g", "last_layer.weight_v"} if prefix else set())
    with pytest.raises(InputError, match=r'encoder\.position "edge-rope": timm\'s ViT has no such positions'):
        export_checkpoint(folder.name, tmp_path / "out.safetensors", results=tmp_path)


def test_show_recipe_counts_the_masks(quick):
    done = quick("show", "recipe", "smoke", "--method", "capi")
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("# mask:"))
    assert "31 of 7 x 7 = 49 patches masked" in line
