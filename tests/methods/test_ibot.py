"""iBOT: against the official code; views, losses, schedules and the head, and what it promises besides."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from helpers.official_values import GOLDEN, read_json
from helpers.presets import resolved
from helpers.random_inputs import seeded
from helpers.self_made import write_self_made
from mimbench.contract import Batch, InputConfig, InputError, TrainConfig
from mimbench.convert import read_weights
from mimbench.encoders.vit import ViT
from mimbench.engine.update import UpdateWrapper
from mimbench.harness.exchange import export_checkpoint, import_checkpoint
from mimbench.harness.planning.build import build as build_setup
from mimbench.masks import mixed_ratio_mask
from mimbench.optim import Schedule, param_groups
from mimbench.parity.comparison import compare
from mimbench.parity.golden import read_golden, setup_of
from mimbench.parity.replay import run_step
from mimbench.parity.weights import load_weights
from mimbench_methods._centred_targets import loss_between_views, sharpened
from mimbench_methods.ibot import IBOT

FILE = GOLDEN / "ibot_vit_tiny.npz"
SCHEDULES = {name: case for name, case in read_json("schedules_a").items() if name.startswith("ibot")}


def build(drop_path=0.0, **options) -> IBOT:
    torch.manual_seed(0)
    encoder = ViT.Config(patch_size=4, embed_dim=16, depth=2, num_heads=2, position="learned", drop_path=drop_path)
    sizes = {"out_dim": 16, "hidden_dim": 16, "bottleneck_dim": 8, "local_crops": 1, "local_size": 16}
    return IBOT(IBOT.Config(**sizes | options), ViT(encoder, image_size=32, in_channels=3))


def batch(method: IBOT, count: int = 3, epoch: int = 0) -> Batch:
    """A batch as the engine makes it."""
    sizes = (32, 32, *[method.config.local_size] * method.config.local_crops)
    views = tuple(torch.randn(count, 3, size, size, generator=seeded(view)) for view, size in enumerate(sizes))
    return Batch(views, epoch=epoch)


def official_method() -> tuple[IBOT, dict]:
    golden = read_golden(FILE)
    setup, code = setup_of(golden)
    method = build_setup(setup)
    load_weights(golden, code, method)
    return method, golden


@pytest.mark.parametrize(
    "changes",
    [
        {"img_size": 24, "patch_size": 6, "embed_dim": 24, "depth": 1, "num_heads": 3, "local_size": 12, "n_local": 1},
        {"out_dim": 20, "head_layers": 2, "head_hidden": 12, "head_bottleneck": 8, "norm_last_layer": True},
        {"n_local": 0, "lambda1": 0.5, "lambda2": 2.0, "pred_shape": "rand", "pred_ratio": 0.4, "pred_ratio_var": 0.1},
        {"teacher_temp": 0.06, "teacher_patch_temp": 0.09, "student_temp": 0.2, "center_momentum": 0.5, "epoch": 7},
    ],
)
def test_nothing_depends_on_the_sizes_of_the_official_file(changes, tmp_path):
    meta = dict(read_golden(FILE).meta)
    config = meta["config"] = meta["config"] | changes

    def inputs(method, generator):
        side, small, out = config["img_size"], config["local_size"], config["out_dim"]
        arrays = {
            "input/global_crops": torch.randn(2, 2, 3, side, side, generator=generator),
            "input/masks": method.sample_mask(4, generator).unflatten(0, (2, 2)),
            "input/center": torch.randn(1, out, generator=generator),
            "input/center2": torch.randn(1, 1, out, generator=generator),
            "input/epoch": torch.tensor(config["epoch"]),
            "ema/momentum": torch.tensor(0.9),
        }
        if config["n_local"]:
            arrays["input/local_crops"] = torch.randn(config["n_local"], 2, 3, small, small, generator=generator)
        return arrays

    path = write_self_made(tmp_path / "other.npz", meta, inputs)
    names = {name for name in np.load(path).files if name.startswith("param/student")}
    assert {name for name in np.load(FILE).files if name.startswith("param/student.head.last_layer.")} <= names
    assert "param/student.backbone.masked_embed" in names
    result = compare(read_golden(path))
    assert [row.quantity for row in result.rows if not row.passed] == []
    assert {"output loss_patch", "output teacher_cls", "output center2_after"} <= {row.quantity for row in result.rows}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shared_head": False}, "no shared_head = False"),
        ({"n_global": 3}, "two global views"),
        ({"head_act": "relu"}, "GELU"),
    ],
)
def test_parts_that_are_not_here_are_refused(change, message, tmp_path):
    arrays = dict(np.load(FILE))
    meta = json.loads(str(arrays["meta"]))
    meta["config"] |= change
    np.savez(tmp_path / "other.npz", **arrays | {"meta": json.dumps(meta)})
    with pytest.raises(InputError, match=message):
        setup_of(read_golden(tmp_path / "other.npz"))


@pytest.mark.parametrize("name", ["traj/center2_after", "traj/loss_f64", "traj/teacher_after.head.last_layer.weight_v"])
def test_what_the_steps_leave_counts_in_parity(name, tmp_path):
    arrays = dict(np.load(FILE))
    arrays[name] = arrays[name] * arrays[name].dtype.type(1.001)
    np.savez(tmp_path / "off.npz", **arrays)
    assert any(not row.passed for row in compare(read_golden(tmp_path / "off.npz")).rows)


def test_gradients_are_clipped_one_by_one_as_officially():
    method, golden = official_method()
    _, code = setup_of(golden)
    step = run_step(golden, code, method, torch.float32)
    for name, parameter in method.named_parameters():
        parameter.grad = step.gradients.get(name)
    trained = [parameter for parameter in method.parameters() if parameter.grad is not None]
    wrapper = UpdateWrapper(
        torch.optim.SGD(trained, lr=0.0),
        before_update=lambda: None,
        bf16_on=None,
        clip_each=True,
        clip_grad={"max_norm": 0.3},
    )
    wrapper.step()
    ours = sorted(float(parameter.grad.norm()) for parameter in trained)
    assert ours == pytest.approx(sorted(golden.tensor("clip/grad_norm_each_after_0.3").tolist()), rel=2e-5)
    assert sum(norm**2 for norm in ours) ** 0.5 > 1.5  # all together would have 0.3


@pytest.mark.parametrize("case", SCHEDULES)
def test_each_step_has_the_official_rate_decay_momentum_and_temperature(monkeypatch, case):
    official = SCHEDULES[case]
    epochs, per_epoch = official["epochs"], official["n_iter_per_epoch"]
    steps = epochs * per_epoch
    train = resolved("imagenet-vit-small", "ibot").pretrain
    schedule = train.schedule.model_copy(update={"warmup_epochs": official["warmup_epochs"]})
    changed = {"epochs": epochs, "schedule": schedule, "base_lr": official["base_lr"], "batch_size": official["batch"]}
    plan = Schedule(train.model_copy(update=changed), per_epoch)
    rates, decays = ([one(step) for step in range(steps)] for one in (plan.lr, plan.weight_decay))
    assert rates == pytest.approx(official["lr_at_optimizer_step"], rel=1e-12)
    assert decays == pytest.approx(official["wd_at_optimizer_step"], rel=1e-12)
    method, used, temperatures = build(temperature_epochs=official["warmup_teacher_temp_epochs"]), [], []
    for teacher in (method.teacher, method.teacher_head):
        monkeypatch.setattr(teacher, "follow", lambda student, momentum: used.append(momentum))
    for step in range(steps):
        with torch.no_grad():
            method.step(batch(method, 1, step // per_epoch), seeded())
        temperatures.append(method.config.temperature_at(step // per_epoch, method.config.temperature))
        method.progress = step / steps
        method.after_step((step + 1) / steps)
    assert used[::2] == used[1::2] == pytest.approx(official["ema_momentum_at_step"], rel=1e-12)
    assert temperatures == pytest.approx(official["teacher_temp_at_step"], rel=1e-12)
    assert temperatures == pytest.approx(official["teacher_patch_temp_at_step"], rel=1e-12)


@pytest.mark.parametrize("fixed", [False, True])
def test_pretraining_decays_the_official_parameters(fixed):
    official = read_json("param_groups_a")[f"ibot_pretrain_norm_last_layer_{str(fixed).lower()}"]
    method = build(fixed_gain=fixed)
    train = TrainConfig(epochs=1, batch_size=1, base_lr=1.0)
    names = {
        "mask_token": "backbone.masked_embed",
        "last.weight": "last_layer.weight_v",
        "last.gain": "last_layer.weight_g",
    }
    decayed = {}
    for group in param_groups(method, train, no_decay=method.no_weight_decay()):
        for name in group["names"]:
            there = name.replace("encoder.body.", "backbone.")
            for ours, theirs in names.items():
                there = there.replace(ours, theirs)
            decayed[there] = group["weight_decay"] > 0
    assert decayed == dict.fromkeys(official["decay"], True) | dict.fromkeys(official["no_decay"], False)


def test_masks_are_those_of_mixed_ratios_for_each_view():
    method = build(mask_ratios=(0.0, 0.4), ratio_spread=(0.0, 0.1))
    expected = mixed_ratio_mask(20, (8, 8), (0.0, 0.4), (0.0, 0.1), seeded(3))
    assert torch.equal(method.sample_mask(20, seeded(3)), expected)
    scattered = build(mask="random", mask_ratios=(0.5,), ratio_spread=(0.0,))
    assert (scattered.sample_mask(20, seeded(3)).sum((1, 2)) == 32).all()
    with pytest.raises(InputError, match=r"leaves \[0, 1\)"):
        build(mask_ratios=(0.1,), ratio_spread=(0.3,))


def test_views_are_augmented_as_officially():
    options = IBOT.Config(local_crops=3)
    first, second, *local = IBOT.views(options, InputConfig(image_size=224, flip=0.5))
    assert [view.image_size for view in (first, second, *local)] == [224, 224, 96, 96, 96]
    assert [view.blur for view in (first, second, *local)] == [1.0, 0.1, 0.5, 0.5, 0.5]
    assert [view.solarize for view in (first, second, *local)] == [0.0, 0.2, 0.0, 0.0, 0.0]
    assert {view.crop_scale for view in (first, second)} == {(0.25, 1.0)}
    assert {view.crop_scale for view in local} == {(0.05, 0.25)}
    for view in (first, second, *local):
        assert (view.flip, view.grayscale, view.jitter_probability) == (0.5, 0.2, 0.8)
        assert view.jitter == (0.4, 0.4, 0.2, 0.1)


def test_the_class_loss_pairs_different_views_only():
    logits = [torch.randn(4, 16, generator=seeded(view)) for view in range(3)]
    targets = [torch.randn(4, 16, generator=seeded(10 + view)) for view in range(2)]
    expected = [F.cross_entropy(logits[p], targets[q].softmax(-1)) for q in range(2) for p in range(3) if p != q]
    sharp = [sharpened(target, torch.zeros(16), 1.0) for target in targets]
    loss = loss_between_views(logits, sharp, 1.0)
    assert loss.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)


def test_an_empty_mask_counts_as_no_error():
    method = build()
    prediction, target = (torch.randn(2, 65, 16, generator=seeded(kind)) for kind in range(2))
    mask = torch.zeros(2, 8, 8, dtype=torch.bool)
    assert method.loss(prediction, target, mask).item() == 0
    mask[0, 0, :4] = True
    whole = method.loss(prediction, target, mask).item()
    assert method.loss(prediction[:1], target[:1], mask[:1]).item() == pytest.approx(2 * whole, rel=1e-5)


def test_local_crops_are_never_masked_and_train_the_student(monkeypatch):
    method = build(local_crops=2, patch_weight=0.0).train()
    seen = []
    original = method.encoder.embed
    monkeypatch.setattr(method.encoder, "embed", lambda images: seen.append(images.shape) or original(images))
    method.step(batch(method), seeded())
    assert seen == [(6, 3, 32, 32), (6, 3, 16, 16)]


@pytest.mark.parametrize(("fixed_gain", "epoch"), [(False, 0), (False, 1), (True, 0)])
def test_the_last_layer_is_frozen_in_the_first_epochs(fixed_gain, epoch):
    method = build(fixed_gain=fixed_gain).train()
    method.step(batch(method, epoch=epoch), seeded()).loss.backward()
    method.before_update(0.05)
    idle = {name for name, p in method.named_parameters() if p.requires_grad and p.grad is None}
    frozen = {"head.last.weight"} if fixed_gain else {"head.last.weight", "head.last.gain"}
    assert idle == (frozen if epoch == 0 else set())


def test_a_fixed_gain_of_the_teacher_still_follows():
    method = build(fixed_gain=True, momentum_start=0.5)
    with torch.no_grad():
        method.teacher_head.module.last.gain.fill_(3.0)
    method.progress = 0.0
    method.after_step(0.1)
    assert torch.allclose(method.teacher_head.module.last.gain, torch.full((16, 1), 2.0))
    assert torch.equal(method.head.last.gain, torch.ones(16, 1))


def test_it_learns_one_batch_from_a_fixed_teacher():
    method = build(momentum_start=1.0, centre_momentum=1.0, freeze_epochs=0).train()
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        output = method.step(batch(method), seeded())
        output.loss.backward()
        method.before_update(0.0)
        optimizer.step()
        method.after_step(0.0)
        losses.append(output.loss.item())
    assert set(output.logs) == {"class", "patches"}
    assert losses[-1] < 0.95 * losses[0]
    trained = {name: p for name, p in method.named_parameters() if p.requires_grad}
    assert [name for name, p in trained.items() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_masked_pixels_do_not_reach_the_prediction(sees_only_the_visible):
    method = build(mask_ratios=(0.4,), ratio_spread=(0.0,)).eval()
    with torch.no_grad():
        method.mask_token.normal_(generator=seeded())
    images, mask = torch.randn(3, 3, 32, 32, generator=seeded()), method.sample_mask(3, seeded())
    sees_only_the_visible(lambda shown: method.predict(shown, mask), images, mask)


def test_only_the_student_drops_paths():
    method = build(drop_path=0.5).train()
    images = torch.randn(16, 3, 32, 32, generator=seeded())
    mask = torch.zeros(16, 8, 8, dtype=torch.bool)
    assert torch.equal(method.target(images), method.target(images))
    assert not torch.equal(method.predict(images, mask), method.predict(images, mask))


def test_centres_follow_the_means_of_all_tokens_after_the_loss():
    method = build()
    views = batch(method).views
    target = method.target(torch.cat(views[:2]))
    mask = method.sample_mask(6, seeded())
    before = method.compare(views[:2], views[2:], mask).loss
    assert torch.allclose(method.centre, 0.1 * target[:, 0].mean(0), atol=1e-6)
    assert torch.allclose(method.patch_centre, 0.1 * target[:, 1:].mean((0, 1)), atol=1e-6)
    assert method.compare(views[:2], views[2:], mask).loss.item() != before.item()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": (0.0, 0.07)}, "temperature must be above 0"),
        ({"class_weight": 0.0, "patch_weight": 0.0}, "nothing is learned"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        IBOT.Config(**options)


def test_tokens_start_as_officially():
    """bytedance/ibot@da316d82, models/vision_transformer.py: a mask token of zeros, all else normal."""
    config = ViT.Config(patch_size=16, embed_dim=384, depth=1, num_heads=6, position="learned")
    torch.manual_seed(0)
    method = IBOT(IBOT.Config(out_dim=64), ViT(config, image_size=224, in_channels=3))
    assert not method.mask_token.any()
    body = method.encoder.body
    for parameter in (body.cls_token, body.pos_embed, body.blocks[0].mlp.fc1.weight, method.head.mlp[0].weight):
        assert parameter.std().item() == pytest.approx(0.02, rel=0.12)
    assert torch.equal(method.teacher.module.body.cls_token, body.cls_token)


def test_local_crops_that_are_cut_by_a_patch_are_refused():
    with pytest.raises(InputError, match=r"method\.local_size 18 px is not a multiple of the patch, 4 px"):
        build(local_size=18)
    assert build(local_size=18, local_crops=0).config.local_crops == 0


def test_the_tasks_get_the_teacher_or_the_student():
    method, student = build(), build(export="student")
    assert method.exported_encoder() is method.teacher.module
    assert student.exported_encoder() is student.encoder


def test_an_official_checkpoint_is_imported_and_exported_under_timms_names(tmp_path):
    import timm
    from safetensors.torch import load_file

    golden = read_golden(FILE)
    student = {f"module.{name}": value for name, value in golden.group("param/student.").items()}
    content = {"student": student, "teacher": golden.group("param/teacher."), "epoch": 800, "optimizer": {"state": {}}}
    torch.save(content, tmp_path / "checkpoint.pth")
    assert read_weights(tmp_path / "checkpoint.pth").key == "teacher"
    results = tmp_path / "results"
    settings = {f"encoder.{name}": golden.config[name] for name in ("embed_dim", "depth", "num_heads")}
    settings |= {"method.out_dim": 64, "method.hidden_dim": 48, "method.bottleneck_dim": 16, "method.local_size": 16}
    imported, folder = import_checkpoint(
        tmp_path / "checkpoint.pth", method="ibot", encoder="vit-tiny", recipe=None, settings=settings, results=results
    )
    assert imported.method.encoder.config.position == "learned"
    left_out = imported.converted.left_out
    assert left_out["head.mlp.0.weight"] == "a projection head, which only pretraining uses"
    export_checkpoint(folder.name, tmp_path / "out.safetensors", results=results)
    shape = {"img_size": 32, "patch_size": 4, "num_classes": 0, "global_pool": ""}
    shape |= {name: golden.config[name] for name in ("embed_dim", "depth", "num_heads")}
    model = timm.models.vision_transformer.VisionTransformer(**shape).eval()
    model.load_state_dict(load_file(tmp_path / "out.safetensors"))
    with torch.no_grad():
        features = model(golden.tensor("input/global_crops").flatten(0, 1))
    assert torch.allclose(features, golden.tensor("out/teacher_tokens"), atol=1e-5)
