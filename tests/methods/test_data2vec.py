"""data2vec: against the official code; teacher, targets and schedule, and what it promises besides."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from helpers.official_values import (
    build_official,
    check_block_masks,
    check_decay,
    check_gradients,
    check_initial_weights,
    check_rates,
    read_arrays,
    read_json,
    set_parameters,
    state_of,
)
from helpers.presets import resolved
from helpers.random_inputs import seeded, shake
from mimbench.contract import InputError, NotSupported, TrainConfig
from mimbench.encoders.vit import ViT
from mimbench.optim import build_optimizer
from mimbench_methods.data2vec import Data2Vec
from mimbench_tasks.finetune.task import Finetune

PARTS = {"mask_token": "mask_token", "lm_head": "head"}
"""Official names outside of the encoder -> here."""


def build(position="relative", drop_path=0.0, **options) -> Data2Vec:
    torch.manual_seed(0)
    config = ViT.Config(
        patch_size=4, embed_dim=16, depth=3, num_heads=2, position=position, layer_scale=0.1, drop_path=drop_path
    )
    encoder = ViT(config, image_size=16, in_channels=3)
    return Data2Vec(Data2Vec.Config(**{"hidden_patches": 9, "min_block": 4, "target_layers": 2} | options), encoder)


def batch(method: Data2Vec, count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(count, 3, 16, 16, generator=seeded()), method.sample_mask(count, seeded())


def by_hand(patches: torch.Tensor) -> torch.Tensor:
    """Zero mean, unit variance over the channels, in double precision."""
    patches = patches.double()
    variance = patches.var(-1, keepdim=True, correction=0)
    return (patches - patches.mean(-1, keepdim=True)) / (variance + 1e-5).sqrt()


def official_method(**options) -> tuple[Data2Vec, dict[str, torch.Tensor]]:
    """The method with official weights of student and teacher, and the arrays of their file."""
    arrays, meta = read_arrays("data2vec_vit_tiny")
    meta["setup"]["method_options"] |= options
    method = build_official(meta)
    set_encoder(method.teacher.module, arrays, "teacher")
    state = state_of(arrays, "param", PARTS)
    set_encoder(method.encoder, arrays, "param")
    for name in ("mask_token", "head.weight", "head.bias"):
        parameter = method.get_parameter(name)
        parameter.data = state[name].reshape(parameter.shape)
    return method, arrays


def set_encoder(encoder: torch.nn.Module, arrays: dict[str, torch.Tensor], group: str) -> None:
    set_parameters(
        encoder, {name.removeprefix("encoder."): value for name, value in state_of(arrays, group, PARTS).items()}
    )


def test_official_weights_give_the_official_step():
    method, arrays = official_method()
    images, mask = arrays["input/image"], arrays["input/mask"].bool()
    target, prediction = method.target(images), method.predict(images, mask)
    assert torch.allclose(target.flatten(1, 2), arrays["aux/target_all"], rtol=0, atol=5e-6)
    assert torch.allclose(prediction.flatten(1, 2), arrays["out/prediction"], rtol=0, atol=1e-5)
    loss = method(images, mask).loss
    assert loss.item() == pytest.approx(arrays["out/loss_f64"].item(), rel=5e-7)
    loss.backward()
    check_gradients(method, arrays, PARTS)


def test_the_teacher_moves_as_officially_while_tau_rises():
    """Step 3 of 20; tau rises over 10 steps."""
    method, arrays = official_method(tau_start=0.9, tau_end=0.95, tau_share=0.5)
    set_encoder(method.encoder, arrays, "after/student")
    method.progress = 3 / 20
    method.after_step(4 / 20)
    expected = state_of(arrays, "after/teacher", PARTS)
    for name, value in method.teacher.module.named_parameters():
        assert torch.allclose(value, expected[f"encoder.{name}"].reshape(value.shape), rtol=1e-6, atol=1e-7), name


@pytest.mark.parametrize("case", [name for name in read_json("lr_schedule_b") if name.startswith("data2vec_ema/")])
def test_tau_at_each_step_is_the_official_one(monkeypatch, case):
    """Except between the end of the rise and the end of its epoch: there the official loop holds the last value."""
    official = read_json("lr_schedule_b")[case]
    per_epoch, rising = official["n_iter_per_epoch"], official["ema_start_at"]
    steps = official["epochs"] * per_epoch
    start = official["ema_decay_init"] if rising else official["ema_decay"]
    method, used = build(tau_start=start, tau_end=official["ema_decay"], tau_share=rising / steps), []
    monkeypatch.setattr(method.teacher, "follow", lambda student, momentum: used.append(momentum))
    for step in range(steps):
        method.progress = step / steps
        method.after_step((step + 1) / steps)
    expected = list(official["decay_after_optimizer_step"])
    expected[rising : -(-rising // per_epoch) * per_epoch] = [official["ema_decay"]] * (-rising % per_epoch)
    assert used == pytest.approx(expected, rel=1e-12)


def test_the_teacher_runs_in_float32_under_autocast():
    method, arrays = official_method()
    images, mask = arrays["input/image"], arrays["input/mask"].bool()
    exact = method.target(images)
    plain = method.predict(images, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(method.target(images), exact)
        assert torch.equal(method.target(images.bfloat16()), method.target(images.bfloat16().float()))
        assert not torch.allclose(method.predict(images, mask).float(), plain, atol=1e-4)  # the student is rounded


def test_initial_weights_are_distributed_as_the_official_ones():
    torch.manual_seed(0)
    config = ViT.Config(patch_size=16, embed_dim=192, depth=2, num_heads=3, layer_scale=1e-4)
    method = Data2Vec(Data2Vec.Config(target_layers=2), ViT(config, image_size=224, in_channels=3))
    check_initial_weights(method, read_json("init_stats_b")["data2vec"], PARTS)


@pytest.mark.parametrize(
    ("grid", "options", "name"),
    [
        (14, {}, "data2vec_14x14_120_16_196"),
        (8, {"hidden_patches": 38, "min_block": 4}, "data2vec_8x8_38_4_64"),
    ],
)
def test_masks_are_the_official_ones_from_the_official_stream(monkeypatch, grid, options, name):
    config = ViT.Config(patch_size=16, embed_dim=8, depth=6, num_heads=2)
    method = Data2Vec(Data2Vec.Config(**options), ViT(config, image_size=16 * grid, in_channels=3))
    check_block_masks(monkeypatch, method, name)


@pytest.mark.parametrize("case", ["A", "B"])
def test_pretraining_and_fine_tuning_have_the_official_rates(case):
    official = read_json("lr_schedule_b")
    check_rates(resolved("imagenet-vit-base", "data2vec").pretrain, official[f"data2vec_pretrain/{case}"])
    tuned = Finetune.Config(**Finetune.protocols["data2vec-vit-base"].options)
    check_rates(tuned.train, official[f"data2vec_finetune/{case}"])


def test_pretraining_decays_the_official_parameters():
    meta = read_arrays("data2vec_vit_tiny")[1]
    meta["setup"]["encoder_options"]["depth"] = 2
    check_decay(build_official(meta), read_json("decay_groups_b")["data2vec_pretrain"], PARTS)


def test_attention_dropout_reaches_the_student_and_not_the_teacher():
    encoder = resolved("imagenet-vit-base", "data2vec").encoder_config
    assert encoder.attention_dropout == 0.05
    config = ViT.Config(patch_size=4, embed_dim=16, depth=3, num_heads=2, attention_dropout=0.5)
    method = Data2Vec(
        Data2Vec.Config(hidden_patches=9, min_block=4, target_layers=2), ViT(config, image_size=16, in_channels=3)
    ).train()
    images, mask = batch(method)
    assert torch.equal(method.target(images), method.target(images))
    assert not torch.equal(method.predict(images, mask), method.predict(images, mask))


@pytest.mark.parametrize(("norm_layers", "norm_target"), [(True, True), (False, True), (True, False), (False, False)])
def test_the_target_is_the_mean_of_the_teachers_last_blocks(norm_layers, norm_target):
    method = build(norm_layers=norm_layers, norm_target=norm_target)
    shake(method.encoder)
    for _ in range(3):
        method.after_step(1.0)
    images, _ = batch(method)
    outputs = []
    for block in method.teacher.module.body.blocks:
        block.register_forward_hook(lambda *call: outputs.append(call[2][:, 1:].double()))
    target = method.target(images)
    assert len(outputs) == 3  # one run
    expected = [by_hand(output) if norm_layers else output for output in outputs[-2:]]
    mean = (expected[0] + expected[1]) / 2
    expected = by_hand(mean) if norm_target else mean
    assert torch.allclose(target.double(), expected.view(3, 4, 4, 16), atol=1e-5)


def test_the_teacher_sees_the_whole_image_and_drops_nothing():
    method = build(drop_path=0.9).train()
    images, mask = batch(method)
    first = method.target(images)
    assert torch.equal(method.target(images), first)
    assert not torch.equal(method.predict(images, mask), method.predict(images, mask))
    changed = images.clone()
    changed[:, :, :4, :4] = 3.0
    assert not torch.equal(method.target(changed)[:, 3, 3], first[:, 3, 3])
    assert not first.requires_grad


def test_the_teacher_starts_as_the_student_and_follows_it():
    method = build(tau_start=0.9, tau_end=0.9, tau_share=0.0)
    start = [p.detach().clone() for p in method.encoder.parameters()]
    assert all(map(torch.equal, method.teacher.parameters(), start))
    shake(method.encoder)
    student = {name: value.clone() for name, value in method.state_dict().items() if not name.startswith("teacher.")}
    for step in range(4):
        method.after_step(step / 4)
    for twin, old, new in zip(method.teacher.parameters(), start, method.encoder.parameters(), strict=True):
        assert torch.allclose(twin, 0.9**4 * old + (1 - 0.9**4) * new, atol=1e-6)
        assert not twin.requires_grad
    assert any(not torch.equal(twin, old) for twin, old in zip(method.teacher.parameters(), start, strict=True))
    assert all(torch.equal(method.state_dict()[name], value) for name, value in student.items())


def test_tau_at_its_ends():
    method = build(tau_start=1.0, tau_end=1.0)
    before = [p.clone() for p in method.teacher.parameters()]
    shake(method.encoder)
    method.after_step(0.5)
    assert all(map(torch.equal, method.teacher.parameters(), before))
    method = build(tau_start=0.0, tau_end=0.0)
    shake(method.encoder)
    method.after_step(0.5)
    assert all(map(torch.equal, method.teacher.parameters(), method.encoder.parameters()))


def test_tau_rises_over_its_share_of_the_training():
    method = build(tau_start=0.9, tau_end=0.99, tau_share=0.5)
    assert [method.tau(p) for p in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([0.9, 0.945, 0.99, 0.99])
    assert [build().tau(p) for p in (0.0, 1.0)] == [0.9998, 0.9998]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau_start": 0.9999, "tau_end": 0.99, "tau_share": 0.5}, r"tau_start 0.9999 is above tau_end 0.99"),
        ({"tau_start": 0.9}, "does nothing while tau_share is 0"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        Data2Vec.Config(**options)


def test_the_teacher_is_part_of_the_state_and_is_not_trained():
    method = build()
    shake(method.encoder)
    method.after_step(0.0)
    images, mask = batch(method)
    other = build()
    assert not torch.equal(other.target(images), method.target(images))
    other.load_state_dict(method.state_dict(), strict=True)
    assert torch.equal(other.target(images), method.target(images))
    assert torch.equal(other.predict(images, mask), method.predict(images, mask))
    groups = build_optimizer(
        method, TrainConfig(epochs=1, batch_size=1, base_lr=1e-3), no_decay=method.no_weight_decay()
    ).param_groups
    names = {name for group in groups for name in group["names"]}
    assert {"mask_token", "head.weight", "encoder.body.cls_token"} <= names
    assert not any(name.startswith("teacher.") for name in names)


@pytest.mark.parametrize("position", ["relative", "sincos", "learned"])
def test_everything_but_the_teacher_trains(position, reaches_every_parameter, trains_in_bf16):
    method = build(position)
    reaches_every_parameter(method, *batch(method))
    assert all(p.grad is None for p in method.teacher.parameters())
    trains_in_bf16(method, *batch(method))


def test_masked_pixels_do_not_reach_the_prediction(sees_only_the_visible):
    method = build().eval()
    images, mask = batch(method)
    assert method.predict(images, mask).shape == method.target(images).shape
    sees_only_the_visible(lambda shown: method.predict(shown, mask), images, mask)


def test_the_loss_is_smooth_l1_over_masked_patches():
    target, mask = torch.zeros(1, 4, 4, 16), torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 0, :2] = True
    prediction = torch.full_like(target, 9.0)
    prediction[0, 0, 0], prediction[0, 0, 1] = 1.0, -4.0
    assert build(beta=2.0).loss(prediction, target, mask).item() == pytest.approx((0.5 / 2 + 4 - 1) / 2)
    assert build(beta=0.0).loss(prediction, target, mask).item() == pytest.approx((1 + 4) / 2)
    assert build().loss(prediction, target, torch.zeros_like(mask)).item() == 0


def test_a_collapse_shows_in_the_logs(monkeypatch):
    method = build()
    images, mask = batch(method)
    spread = torch.randn(3, 4, 4, 16, generator=seeded())
    monkeypatch.setattr(method, "target", lambda images: spread)
    monkeypatch.setattr(method, "predict", lambda images, mask: torch.ones(16).expand(3, 4, 4, 16))
    logs = method(images, mask).logs
    assert logs["target_variance"].item() == pytest.approx(1, abs=0.2)
    assert logs["prediction_variance"].item() == 0
    assert not any("loss" in name for name in logs)


def test_the_tasks_get_the_student_or_the_teacher():
    student, teacher = build(), build("sincos", export="teacher")
    assert student.exported_encoder() is student.encoder
    shake(teacher.encoder)
    exported = teacher.exported_encoder()
    assert exported is teacher.teacher.module
    assert not any(parameter.requires_grad for parameter in exported.parameters())


def test_only_the_mask_token_is_decayed_of_the_tokens():
    assert build().no_weight_decay() == {"encoder.body.cls_token"}


def test_it_predicts_no_pixels():
    method = build()
    with pytest.raises(NotSupported, match="does not predict pixels"):
        method.reconstruct(*batch(method))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_patches": 16}, "masks everything of 16 cells"),
        ({"target_layers": 4}, "target_layers 4 is more than the encoder's 3 layers"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        build(**options)


def test_it_keeps_to_one_device(on_fake_cuda, trains_without_values):
    method = build()
    images, mask = batch(method)
    assert on_fake_cuda(method, images, mask).loss.device.type == "cuda"
    trains_without_values(build, images.shape, mask.shape)
