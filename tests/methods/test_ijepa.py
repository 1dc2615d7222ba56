"""I-JEPA: against the official code; masks, teacher and schedules, and what it promises besides."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from helpers.official_values import GOLDEN, read_arrays, read_json
from helpers.presets import resolved
from helpers.random_inputs import losses_on_one_batch, seeded
from helpers.self_made import write_self_made
from mimbench.contract import InputError, TrainConfig
from mimbench.convert import read_weights
from mimbench.encoders.vit import ViT
from mimbench.harness.exchange import export_checkpoint, import_checkpoint
from mimbench.harness.planning.build import build as build_setup
from mimbench.masks import multi_block_mask
from mimbench.masks.multi_block import MultiBlockMask, draw_sizes
from mimbench.masks.official import torch_multi_blocks
from mimbench.optim import Schedule, decay_rules, param_groups
from mimbench.parity.comparison import compare
from mimbench.parity.golden import read_golden, setup_of
from mimbench_methods.ijepa import IJEPA

FILE = GOLDEN / "ijepa_vit_tiny.npz"
SCHEDULES = {name: case for name, case in read_json("schedules_a").items() if name.startswith("ijepa")}


def build(image_size=32, **options) -> IJEPA:
    torch.manual_seed(0)
    encoder = ViT.Config(
        patch_size=4,
        embed_dim=16,
        depth=2,
        num_heads=2,
        position="sincos",
        class_token=options.pop("class_token", False),
    )
    sizes = {"predictor_dim": 8, "predictor_depth": 1, "predictor_heads": 2, "min_context": 4}
    return IJEPA(IJEPA.Config(**sizes | options), ViT(encoder, image_size=image_size, in_channels=3))


def batch(method: IJEPA, count: int = 3) -> tuple[torch.Tensor, MultiBlockMask]:
    return torch.randn(count, 3, 32, 32, generator=seeded()), method.sample_mask(count, seeded())


@pytest.mark.parametrize(
    "changes",
    [
        {"img_size": 30, "patch_size": 5, "in_chans": 1, "embed_dim": 24, "depth": 3, "num_heads": 3, "mlp_ratio": 2},
        {"npred": 2, "pred_emb_dim": 16, "pred_depth": 1, "pred_num_heads": 2, "allow_overlap": True, "min_keep": 3},
        {"aspect_ratio": [1.0, 1.0], "pred_mask_scale": [0.1, 0.1], "enc_mask_scale": [0.5, 0.6]},
    ],
)
def test_nothing_depends_on_the_sizes_of_the_official_file(changes, tmp_path):
    meta = dict(read_golden(FILE).meta)
    meta["config"] = meta["config"] | changes

    def inputs(method, generator):
        side, mask = method.encoder.image_size, method.sample_mask(2, generator)
        images = torch.randn(2, method.encoder.in_channels, side, side, generator=generator)
        return {"input/image": images, "input/masks_enc": mask.context[None], "input/masks_pred": mask.targets}

    result = compare(read_golden(write_self_made(tmp_path / "other.npz", meta, inputs)))
    assert [row.quantity for row in result.rows if not row.passed] == []
    assert {"output pred", "output target", "output context"} <= {row.quantity for row in result.rows}


def test_several_contexts_per_image_are_refused(tmp_path):
    arrays = dict(np.load(FILE))
    meta = json.loads(str(arrays["meta"]))
    meta["config"]["nenc"] = 2
    np.savez(tmp_path / "two.npz", **arrays | {"meta": json.dumps(meta)})
    with pytest.raises(InputError, match="one context block per image, not nenc = 2"):
        setup_of(read_golden(tmp_path / "two.npz"))


@pytest.mark.parametrize(("change", "row"), [("traj/loss_f64", "step 4: loss (float64)"), ("ema/", "ema/target.")])
def test_the_steps_and_the_teacher_count_in_parity(change, row, tmp_path):
    arrays = dict(np.load(FILE))
    name = next(name for name in arrays if name.startswith(change) and "momentum" not in name and arrays[name].any())
    arrays[name] = arrays[name] * arrays[name].dtype.type(1.001)
    np.savez(tmp_path / "off.npz", **arrays)
    failed = [one.quantity for one in compare(read_golden(tmp_path / "off.npz")).rows if not one.passed]
    assert any(quantity.startswith(row) for quantity in failed)


@pytest.mark.parametrize(("name", "image_size", "patch"), [("ijepa_224_p16", 224, 16), ("ijepa_96_p8", 96, 8)])
def test_the_methods_masks_are_the_official_ones_from_the_official_streams(monkeypatch, name, image_size, patch):
    """Sizes come from a generator that the batch's number seeds, places from one of their own."""
    arrays = read_arrays("mask_exact_a")[0]
    config = ViT.Config(patch_size=patch, embed_dim=8, depth=1, num_heads=2, position="sincos", class_token=False)
    sizes = {"predictor_dim": 8, "predictor_depth": 1, "predictor_heads": 2}
    method = IJEPA(IJEPA.Config(**sizes), ViT(config, image_size=image_size, in_channels=3))
    streams = {}

    def official(batch, grid, generator, **options):
        scales = [options[name] for name in ("target_scale", "target_aspect", "context_scale")]
        target, context = draw_sizes(grid, streams["sizes"], *scales)
        targets, contexts = torch_multi_blocks(
            batch, grid, options["targets"], target, context, options["min_context"], False, streams["places"]
        )
        fewest = int(contexts.sum((1, 2)).min())
        cells = [c.flatten().nonzero().squeeze(1) for c in contexts]
        blocks = [torch.stack([b.flatten().nonzero().squeeze(1) for b in block]) for block in targets]
        return MultiBlockMask(torch.stack([c[:fewest] for c in cells]), torch.stack(blocks), grid)

    monkeypatch.setattr("mimbench_methods.ijepa.multi_block_mask", official)
    for seed in range(10):
        streams["places"] = seeded(seed)
        for call in range(3):
            streams["sizes"] = seeded(3 * seed + call)
            masked = method.masked_cells(method.sample_mask(2, seeded()))
            assert torch.equal(~masked, arrays[f"{name}/context"][seed, call, :, 0].bool())


def test_masks_have_the_methods_options():
    method = build(targets=3, target_scale=(0.1, 0.1), target_aspect=(1.0, 1.0), context_scale=(0.5, 0.5))
    mask = method.sample_mask(5, seeded())
    assert mask.targets.shape == (3, 5, 4)  # int(6.4) = 6 cells: sides of round(sqrt(6)) = 2
    expected = multi_block_mask(
        5, (8, 8), seeded(), targets=3, target_scale=(0.1, 0.1), target_aspect=(1.0, 1.0), context_scale=(0.5, 0.5),
        min_context=4,
    )  # fmt: skip
    assert torch.equal(mask.context, expected.context)
    assert torch.equal(mask.targets, expected.targets)
    with pytest.raises(InputError, match="raise target_scale"):
        build(target_scale=(0.001, 0.001))


@pytest.mark.parametrize("case", SCHEDULES)
def test_each_step_has_the_official_rate_weight_decay_and_momentum(monkeypatch, case):
    """The official ipe_scale stretches all schedules; here momentum_end stands for it, and rates have no stretch."""
    official = SCHEDULES[case]
    steps, stretch = official["epochs"] * official["n_iter_per_epoch"], official["ipe_scale"]
    if stretch == 1:
        train = resolved("imagenet-vit-huge", "ijepa").pretrain
        schedule = train.schedule.model_copy(update={"warmup_epochs": official["warmup"]})
        plan = Schedule(
            train.model_copy(update={"epochs": official["epochs"], "schedule": schedule}), official["n_iter_per_epoch"]
        )
        rates, decays = ([one(step) for step in range(steps)] for one in (plan.lr, plan.weight_decay))
        assert rates == pytest.approx(official["lr_at_optimizer_step"], rel=1e-12)
        assert decays == pytest.approx(official["wd_at_optimizer_step"], rel=1e-12)
    method, used = build(momentum_start=0.996, momentum_end=0.996 + 0.004 / stretch), []
    monkeypatch.setattr(method.teacher, "follow", lambda student, momentum: used.append(momentum))
    for step in range(steps):
        method.progress = step / steps
        method.after_step((step + 1) / steps)
    assert used == pytest.approx(official["ema_momentum_at_step"], rel=1e-12)


def test_pretraining_decays_the_official_parameters():
    official = json.loads((GOLDEN / "param_groups_a.json").read_text())["ijepa_pretrain"]
    setup, code = setup_of(read_golden(FILE))
    method = build_setup(setup)
    train = TrainConfig(epochs=1, batch_size=1, base_lr=1.0)
    groups = param_groups(method, train, no_decay=decay_rules(method)["no_decay"])
    back = {here: there for there, here in code.names.items() if here}
    decayed = {}
    for group in groups:
        for name in group["names"]:
            part, _, rest = name.removeprefix("encoder.body.").partition(".")
            inner = name.removeprefix("predictor.")
            start = next((here for here in back if inner.startswith(here)), "")
            there = back.get(start, "") + inner.removeprefix(start)
            official_name = f"predictor.{there}" if name.startswith("predictor.") else f"encoder.{part}.{rest}"
            decayed[official_name] = group["weight_decay"] > 0
    frozen = set(official["frozen"])
    expected = {name: True for name in official["decay"] if name not in frozen}
    assert decayed == expected | dict.fromkeys(official["no_decay"], False)


def test_initial_weights_are_normal_everywhere():
    """std 0.02 and zero biases, also where other codes shrink the last layers of each block."""
    encoder = ViT.Config(patch_size=16, embed_dim=192, depth=2, num_heads=3, position="sincos", class_token=False)
    torch.manual_seed(0)
    method = IJEPA(IJEPA.Config(predictor_depth=1), ViT(encoder, image_size=224, in_channels=3))
    for name, value in method.named_parameters():
        if value.ndim > 1 and value.requires_grad:
            assert value.std().item() == pytest.approx(0.02, rel=0.2 if value.numel() < 1000 else 0.03), name
        elif value.requires_grad:
            assert torch.equal(value, torch.full_like(value, float("norm" in name and name.endswith("weight")))), name
    assert all(map(torch.equal, method.teacher.module.parameters(), method.encoder.parameters()))


def test_the_teacher_sees_the_whole_image_and_is_not_trained():
    method = build().train()
    images, mask = batch(method)
    target = method.target(images)
    assert target.shape == (3, 64, 16)
    patches = method.teacher.module.features(images).patches
    mean, variance = patches.mean(-1, keepdim=True), patches.var(-1, keepdim=True, correction=0)
    assert torch.allclose(target, (patches - mean) / (variance + 1e-5).sqrt(), atol=1e-5)
    changed = images.clone()
    changed[:, :, :4, :4] = 3.0
    assert not torch.equal(method.target(changed)[:, -1], target[:, -1])
    method(images, mask).loss.backward()
    assert all(p.grad is None for p in method.teacher.parameters())


@pytest.mark.parametrize("class_token", [False, True])
def test_a_prediction_depends_on_the_context_alone(class_token, sees_only_the_visible, reaches_every_parameter):
    method = build(class_token=class_token)
    images, mask = batch(method)
    method.eval()
    assert method.predict(images, mask).shape == (3, *mask.targets.shape[::2], 16)
    sees_only_the_visible(lambda shown: method.predict(shown, mask), images, method.masked_cells(mask))
    reaches_every_parameter(method, images, mask)


def test_blocks_do_not_see_each_other():
    method = build().eval()
    images, mask = batch(method)
    less = MultiBlockMask(mask.context, mask.targets[1:], mask.grid)
    assert torch.allclose(method.predict(images, mask)[:, 1:], method.predict(images, less), atol=1e-6)


def test_the_loss_is_smooth_l1_at_the_target_blocks():
    method = build()
    _, mask = batch(method)
    target = torch.randn(3, 64, 16, generator=seeded(2))
    blocks = torch.stack([torch.stack([target[b, block[b]] for block in mask.targets]) for b in range(3)])
    assert torch.equal(method.target_blocks(target, mask), blocks)
    assert method.loss(blocks, target, mask).item() == 0
    off = blocks + 0.5
    assert method.loss(off, target, mask).item() == pytest.approx(0.125)
    assert method.loss(blocks - 3.0, target, mask).item() == pytest.approx(2.5)


def test_it_learns_one_batch():
    losses = losses_on_one_batch(build(), 32)
    assert losses[-1] < 0.9 * losses[0]


def test_the_tasks_get_the_teacher_or_the_student():
    method = build(momentum_start=0.5)
    with torch.no_grad():
        for parameter in method.encoder.parameters():
            parameter += 1
    method.progress = 0.0
    method.after_step(0.5)
    exported = method.exported_encoder()
    assert exported is method.teacher.module
    bias = exported.body.norm.bias
    assert torch.allclose(bias, torch.full_like(bias, 0.5))
    assert not any(parameter.requires_grad for parameter in exported.parameters())
    student = build(export="student")
    assert student.exported_encoder() is student.encoder


def test_a_falling_momentum_is_refused():
    with pytest.raises(ValidationError, match=r"momentum_start 0.99 is above momentum_end 0.9"):
        IJEPA.Config(momentum_start=0.99, momentum_end=0.9)


def test_an_official_checkpoint_is_imported_and_exported_under_timms_names(tmp_path):
    import timm
    from safetensors.torch import load_file

    golden = read_golden(FILE)
    networks = {"encoder": "param/encoder.", "predictor": "param/predictor.", "target_encoder": "param/target."}
    content = {
        key: {f"module.{name}": value for name, value in golden.group(start).items()} for key, start in networks.items()
    }
    torch.save({**content, "opt": {"state": {}}, "epoch": 300, "loss": 0.1}, tmp_path / "official.pth")
    assert read_weights(tmp_path / "official.pth").key == "target_encoder"
    results = tmp_path / "results"
    settings = {f"encoder.{name}": golden.config[name] for name in ("embed_dim", "depth", "num_heads")}
    settings |= {"method.predictor_heads": 4, "method.predictor_depth": 1}
    imported, folder = import_checkpoint(
        tmp_path / "official.pth", method="ijepa", encoder="vit-tiny", recipe=None, settings=settings, results=results
    )
    assert (imported.method.encoder.config.position, imported.method.encoder.config.class_token) == ("sincos", False)
    assert imported.method.encoder.image_size == 48
    export_checkpoint(folder.name, tmp_path / "out.safetensors", results=results)
    shape = {"img_size": 48, "patch_size": 4, "num_classes": 0, "class_token": False, "global_pool": ""}
    shape |= {name: golden.config[name] for name in ("embed_dim", "depth", "num_heads")}
    model = timm.models.vision_transformer.VisionTransformer(**shape)
    model.load_state_dict(load_file(tmp_path / "out.safetensors"))
    images = golden.images()
    features = F.layer_norm(model.eval()(images), (32,))
    assert torch.allclose(features, golden.tensor("out/target_full"), atol=1e-5)


def test_show_recipe_counts_the_masks_of_blocks(quick):
    done = quick("show", "recipe", "smoke", "--method", "ijepa")
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("# mask:"))
    assert "of 7 x 7 = 49 patches masked" in line
