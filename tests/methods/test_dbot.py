"""dBOT: its loss computed a second time, stages that replace the teacher, resumed trainings, and official files."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from helpers.noting import INPUT, train
from helpers.presets import resolved
from helpers.random_inputs import seeded
from helpers.small_encoders import encoder_for
from mimbench.contract import InputError, TrainConfig
from mimbench.encoders.vit import ViT
from mimbench.engine.pretrain import TrainableMethod
from mimbench.harness.exchange import export_checkpoint, import_checkpoint
from mimbench.optim import Schedule, decay_rules, param_groups
from mimbench_methods.dbot import DBOT

SMALL = {"decoder_dim": 8, "decoder_depth": 2, "decoder_heads": 2}


def build(encoder=None, **options) -> DBOT:
    torch.manual_seed(0)
    sizes = {"patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2, "position": "sincos"}
    vit = ViT(ViT.Config(**sizes | (encoder or {})), image_size=16, in_channels=3)
    return DBOT(DBOT.Config(**SMALL | options), vit)


def tiny(**options) -> DBOT:
    """For grey images of 8 px, with drop path, whose random numbers count in a resumed training."""
    torch.manual_seed(0)
    return DBOT(DBOT.Config(**SMALL | options), encoder_for(DBOT))


def shaken(method: DBOT) -> DBOT:
    generator = seeded(1)
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if not name.endswith("pos_embed"):
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return method


def images(count=3) -> torch.Tensor:
    return torch.randn(count, 3, 16, 16, generator=seeded())


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("options", [{}, {"norm_target": False, "final_norm": True, "beta": 0.5}])
def test_the_loss_is_that_of_a_second_computation(options):
    """A decoder over the whole sequence with mask tokens at their places, as MAE has it, and a loss by loops."""
    method = shaken(build(**options)).eval()
    mask = method.sample_mask(3, seeded())
    decoder, positions = method.decoder, method.decoder.positions[0]
    with torch.no_grad():
        teacher = method.teacher.module.layers(images(), final_norm=method.config.final_norm)[-1].sequence.numpy()
        errors = []
        for row, masked in enumerate(mask.flatten(1)):
            keep = (~masked).nonzero().T
            picture = images()[row : row + 1]
            seen = decoder.project(method.encoder.forward_tokens(method.encoder.embed(picture), keep).sequence)[0]
            sequence, visible = [seen[0]], list(seen[1:])
            for cell in range(16):
                token = decoder.mask_token[0, 0] if masked[cell] else visible.pop(0)
                sequence.append(token + positions[cell])
            outputs = decoder.head(decoder.norm(decoder.blocks(torch.stack(sequence)[None])))[0].numpy()
            for index in (0, *(1 + masked.nonzero().flatten()).tolist()):
                target = teacher[row, index].astype(np.float64)
                if method.config.norm_target:
                    target = (target - target.mean()) / math.sqrt(target.var(ddof=1) + 1e-6)
                gap, beta = np.abs(outputs[index] - target), method.config.beta
                errors.append(np.where(gap < beta, gap**2 / (2 * beta), gap - beta / 2).mean())
    assert method(images(), mask).loss.item() == pytest.approx(np.mean(errors), rel=1e-5)


def test_a_new_stage_makes_the_student_the_teacher_and_starts_a_fresh_one():
    method = shaken(build(stages=3))
    student, first = state_of(method.encoder), state_of(method.teacher.module)
    for progress in (0.0, 0.2, 0.33):
        method.before_step(progress)
    assert int(method.stage) == 0
    assert all(torch.equal(value, first[name]) for name, value in method.teacher.module.state_dict().items())
    before = torch.get_rng_state()
    method.before_step(100 / 300)
    assert torch.equal(torch.get_rng_state(), before)
    assert int(method.stage) == 1
    assert all(torch.equal(value, student[name]) for name, value in method.teacher.module.state_dict().items())
    for name, value in [*method.encoder.named_parameters(), *method.decoder.named_parameters()]:
        if "norm" in name:
            assert torch.equal(value, torch.full_like(value, float(name.endswith("weight")))), name
        elif name == "body.patch_embed.proj.bias":
            assert torch.equal(value, student[name])
        elif name.endswith("bias"):
            assert not value.any(), name
        elif name != "body.pos_embed":
            assert name not in student or not torch.equal(value, student[name])
            bound = (6 / sum(value.flatten(1).shape)) ** 0.5
            assert "token" in name or value.abs().max() <= bound, name
    once = state_of(method)
    method.before_step(0.5)
    assert all(torch.equal(value, once[name]) for name, value in method.state_dict().items())
    method.before_step(2 / 3)
    again = state_of(method)
    assert not torch.equal(
        again["encoder.body.blocks.0.attn.qkv.weight"], once["encoder.body.blocks.0.attn.qkv.weight"]
    )
    assert not any(p.requires_grad for p in method.teacher.parameters())


def test_the_stage_is_read_once_after_loading():
    method, first = build(), state_of(build())
    method.before_step(0.0)
    stored, method.stage = method.stage, method.stage.to("meta")  # has no value, so that reading it raises
    method.before_step(0.2)
    method.stage = stored
    method.before_step(0.5)
    assert int(method.stage) == 1
    method.load_state_dict(first)
    begun = []
    method.begin_stage = begun.append
    method.before_step(0.5)
    assert begun == [1]


@pytest.mark.parametrize("ratios", [{}, {"initial_mask_ratio": 0.3}])
def test_forward_reads_nothing_from_the_device(ratios, on_fake_cuda):
    method = build(**ratios)
    method.progress = 0.5
    assert on_fake_cuda(method, images(), method.sample_mask(3, seeded())).loss.device.type == "cuda"


def test_seeds_start_stages_with_different_weights():
    weights = []
    for seed in (0, 1, 0):
        torch.manual_seed(seed)
        method = DBOT(DBOT.Config(**SMALL), encoder_for(DBOT))
        method.before_step(0.5)
        weights.append(method.decoder.project.weight)
    assert torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[1])


def noted_training(folder, method, **options):
    """The stage and a sum of the student's weights before each step of a training."""
    notes, begin = [], method.before_step

    def noted(progress):
        begin(progress)
        notes.append((int(method.stage), method.decoder.head.weight.detach().double().sum().item()))

    method.before_step = noted
    trained = TrainableMethod(method, [INPUT], channels=1, batched=True)
    report, _ = train(trained, folder, base_lr=1e-2, checkpoint_every=None, checkpoint_steps=1, **options)
    return notes, report


@pytest.mark.parametrize("until", [3, 6, 8])
def test_a_training_that_is_killed_in_a_stage_goes_on_as_an_unbroken_one(tmp_path, until):
    whole, resumed = tiny(), tiny()
    notes, report = noted_training(tmp_path / "whole", whole, steps=12)
    assert [stage for stage, _ in notes] == [0] * 6 + [1] * 6
    noted_training(tmp_path / "part", tiny(), steps=12, until=until)
    rest, again = noted_training(tmp_path / "part", resumed, steps=12)
    assert rest == notes[until:]
    assert again.loss == report.loss
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_each_stage_has_the_official_rates():
    """util/lr_sched.py counts epochs from the beginning of the stage, and its cosine ends with the stage."""
    train_config = resolved("imagenet-vit-base", "dbot").pretrain
    per_epoch = 2
    plan = Schedule(train_config, per_epoch)
    for step in range(0, 1600 * per_epoch, 7):
        epoch, start = step / per_epoch, 0
        if epoch >= 800:
            epoch, start = epoch - 800, 800
        length = (1600 if start else 800) - start
        rate = 2.4e-3 * (epoch / 40 if epoch < 40 else 0.5 * (1 + math.cos(math.pi * (epoch - 40) / (length - 40))))
        assert plan.lr(step) == pytest.approx(rate, rel=1e-9, abs=1e-12)
    assert plan.lr(1600) == 0


def test_a_length_that_is_no_multiple_of_the_cycles_is_refused():
    config = TrainConfig(epochs=5, batch_size=1, base_lr=1.0, schedule={"cycles": 2})
    with pytest.raises(InputError, match=r"schedule.cycles 2 does not divide the training, which has 5 epochs"):
        Schedule(config, 3)
    short = TrainConfig(epochs=4, batch_size=1, base_lr=1.0, schedule={"cycles": 2, "warmup_epochs": 3})
    with pytest.raises(InputError, match=r"warmup_epochs 3 must be less than the training, which has 2 epochs"):
        Schedule(short, 3)
    steps = TrainConfig(steps=8, batch_size=1, base_lr=1.0, schedule={"cycles": 2, "kind": "linear", "warmup_steps": 1})
    assert [Schedule(steps, 3).lr(step) for step in range(8)] == pytest.approx([0, 1, 2 / 3, 1 / 3] * 2)


@pytest.mark.parametrize(
    ("settings", "numbers"),
    [(["method.stages=2"], (2, 1)), (["pretrain.schedule.cycles=2", "pretrain.epochs=4"], (1, 2))],
)
def test_a_plan_whose_stages_are_not_its_cycles_is_refused(quick, settings, numbers):
    options = [part for setting in settings for part in ("--set", setting)]
    run = ("run", "--recipe", "smoke", "--method", "dbot", "--task", "knn", "--dry-run")
    done = quick(*run, *options)
    assert done.returncode == 2
    expected = "method.stages {} and pretrain.schedule.cycles {} differ, and a stage is one cycle".format(*numbers)
    assert expected in " ".join(done.stderr.split())
    assert quick(*run).returncode == 0


@pytest.mark.parametrize("preset", ["smoke", "mnist5k-vit-tiny", "imagenet-vit-base"])
def test_stages_of_presets_are_their_cycles(preset):
    recipe = resolved(preset, "dbot")
    DBOT.check_training(recipe.method_config, recipe.pretrain)


def test_everything_of_two_dimensions_is_decayed():
    method = build()
    train_config = TrainConfig(epochs=1, batch_size=1, base_lr=1.0)
    groups = param_groups(method, train_config, no_decay=decay_rules(method)["no_decay"])
    decayed = {name for group in groups if group["weight_decay"] for name in group["names"]}
    trained = {name: p for name, p in method.named_parameters() if p.requires_grad}
    assert decayed == {name for name, p in trained.items() if p.ndim > 1}
    assert {"encoder.body.cls_token", "decoder.mask_token"} <= decayed


@pytest.mark.parametrize("class_token", [True, False])
def test_it_sees_visible_patches_alone_and_trains_all(class_token, sees_only_the_visible, reaches_every_parameter):
    method = shaken(build({"class_token": class_token})).eval()
    mask = method.sample_mask(3, seeded())
    assert method.predict(images(), mask).shape == (3, class_token + 12, 8)
    sees_only_the_visible(lambda shown: method.predict(shown, mask), images(), mask)
    reaches_every_parameter(method, images(), mask)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="8 channels cannot be shared by 3 heads"):
        build(decoder_heads=3)
    with pytest.raises(InputError, match="masks everything of 16 cells"):
        build(mask_ratio=0.99)


def test_an_official_checkpoint_is_imported_and_exported_under_timms_names(tmp_path):
    import timm
    from safetensors.torch import load_file

    method = shaken(build())
    names = {"project": "decoder_embed", "blocks": "decoder_blocks", "norm": "decoder_norm", "head": "decoder_predp"}
    state = {"decoder_pos_embed": torch.zeros(1, 17, 8)}
    for name, value in method.encoder.state_dict().items():
        state[name.removeprefix("body.")] = value
    for name, value in method.decoder.state_dict().items():
        first, dot, rest = name.partition(".")
        state[f"{names.get(first, first)}{dot}{rest}"] = value
    torch.save({"model": state, "epoch": 1599, "args": {}}, tmp_path / "checkpoint-1600.pth")
    settings = {"encoder.embed_dim": 8, "encoder.depth": 2, "encoder.num_heads": 2}
    settings |= {f"method.{name}": value for name, value in SMALL.items()}
    imported, folder = import_checkpoint(
        tmp_path / "checkpoint-1600.pth",
        method="dbot",
        encoder="vit-tiny",
        recipe=None,
        settings=settings,
        results=tmp_path / "results",
    )
    assert imported.layout.name == "dbot"
    assert torch.equal(imported.method.decoder.mask_token, method.decoder.mask_token)
    mask = method.sample_mask(3, seeded())
    torch.testing.assert_close(imported.method.eval().predict(images(), mask), method.eval().predict(images(), mask))
    export_checkpoint(folder.name, tmp_path / "out.safetensors", results=tmp_path / "results")
    shape = {"img_size": 16, "patch_size": 4, "num_classes": 0, "embed_dim": 8, "depth": 2, "num_heads": 2}
    model = timm.models.vision_transformer.VisionTransformer(**shape, global_pool="")
    model.load_state_dict(load_file(tmp_path / "out.safetensors"))
    torch.testing.assert_close(model.eval()(images()), method.encoder.features(images()).sequence)
