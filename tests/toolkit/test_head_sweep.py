"""Heads that are trained together are those that are trained alone, and no test image has a say in the choice."""

from __future__ import annotations

import functools

import pytest
import torch
from rich.console import Console

from helpers.hand_made import context
from helpers.planned_tasks import encoder_and_step, traced_peak
from mimbench.contract import InputConfig, RunError
from mimbench.data.pipeline.normalised import normalised_batches
from mimbench.encoders.vit import ViT, ViTConfig
from mimbench.engine.fit import fit
from mimbench.testing.colours import Colours
from mimbench.toolkit.head_candidates import (
    Candidate,
    choose,
    count_fitted,
    hold_out_images,
    make_candidates,
    needs_choice,
)
from mimbench.toolkit.head_sweep import HeadSweep
from mimbench.toolkit.trained_probe import ProbeTraining
from mimbench_tasks.attentive_probe.heads import build_head

CPU = torch.device("cpu")
KINDS = {"ep": "tokens", "vjepa": "tokens", "mean": "mean"}
OPTIMIZERS = {
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1},
    "sgd": {"optimizer": "sgd", "momentum": 0.9, "nesterov": True},
    "lars": {"optimizer": "lars", "lr_divisor": 4},
    "clipped": {"optimizer": "sgd", "clip_grad": 0.05, "accumulate": 2},
}


def vit():
    torch.manual_seed(0)
    config = ViTConfig(patch_size=4, embed_dim=16, depth=1, num_heads=2)
    return ViT(config, image_size=8, in_channels=3)


def read(encoder, images):
    features = encoder.features(images)
    return {"tokens": features.patches, "mean": features.pool("mean")}


def build(kind, dim, classes):
    return build_head(kind, dim, classes, queries=4, batch_norm=None)


def swept(folder, candidates, **options):
    ready = context(None, folder)
    trainer = functools.partial(fit, seed=0, device=CPU, workdir=folder / "training", console=Console(quiet=True))
    ready = context(None, folder, fit=trainer)
    split = Colours("faint", folder).split("train")
    sweep = HeadSweep(vit(), ready, read, candidates, build, len(split.classes))
    config = ProbeTraining(**{"epochs": 2, "batch_size": 24, "schedule": {"warmup_epochs": 1}, **options})
    report = sweep.train(split, config, InputConfig(image_size=8, crop_scale=(0.5, 1.0)), label="heads")
    return sweep, report


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_head_of_a_sweep_is_the_head_that_is_trained_alone(name, tmp_path):
    together, _ = swept(tmp_path / "all", make_candidates(KINDS, (0.02, 0.1, 0.3), (0.0, 0.1)), **OPTIMIZERS[name])
    for candidate in (Candidate("ep", "tokens", 0.02, 0.1), Candidate("vjepa", "tokens", 0.3, 0.0)):
        alone, _ = swept(tmp_path / candidate.kind, [candidate], **OPTIMIZERS[name])
        one = together.heads[together.candidates.index(candidate)].state_dict()
        for key, value in alone.heads[0].state_dict().items():
            torch.testing.assert_close(one[key], value, rtol=1e-6, atol=1e-7, msg=f"{name}: {candidate.label}: {key}")


def test_the_encoder_sees_every_image_once_for_all_heads(tmp_path):
    passes, encoder = [], vit()
    encoder.body.norm.register_forward_hook(lambda m, i, o: passes.append((len(o), m.training, o.requires_grad)))
    ready = context(None, tmp_path)
    trainer = functools.partial(fit, seed=0, device=CPU, workdir=tmp_path / "training", console=Console(quiet=True))
    ready = context(None, tmp_path, fit=trainer)
    split = Colours("plain", tmp_path).split("train")
    sweep = HeadSweep(encoder, ready, read, make_candidates(KINDS, (0.1, 0.2)), build, 6)
    del passes[:]
    sweep.train(split, ProbeTraining(epochs=2, batch_size=48), ready.input, label="heads")
    assert passes == [(48, False, False)] * 2 * (len(split) // 48)
    del passes[:]
    sweep.accuracies(split, 0)
    assert sum(images for images, *_ in passes) == len(split)


def test_accuracies_are_those_of_each_head_without_augmentation(tmp_path):
    sweep, _ = swept(tmp_path, make_candidates(KINDS, (0.1, 0.3)))
    split = Colours("faint", tmp_path).split("train")
    accuracies = sweep.accuracies(split, 0)
    ready, channels = sweep.context, sweep.encoder.in_channels
    batches = normalised_batches(split, ready.input, channels, batch_size=len(split), device=ready.device)
    inputs = sweep.read(sweep.encoder, next(batches)[0])
    for candidate, head in zip(sweep.candidates, sweep.heads, strict=True):
        hits = head(inputs[candidate.reads]).argmax(1) == split.labels
        assert accuracies[candidate] == pytest.approx(100 * hits.float().mean().item())
    choice = choose(sweep.candidates, accuracies, len(split), ["ep", "vjepa"])
    scores = sweep.score(split, choice, 0)
    assert scores.top1 == {kind: accuracies[one] for kind, one in choice.by_kind.items()}
    assert scores.logits.shape == (len(split), 6)
    assert scores.observed == {}


def test_held_out_images_are_a_share_of_each_class_and_are_not_trained_on(tmp_path):
    split = Colours("plain", tmp_path).split("train")
    fitted, held_out = hold_out_images(split, 0.1, 3, holds_out=True)
    assert (len(fitted), len(held_out)) == (count_fitted(len(split), 0.1, holds_out=True), 24)
    assert held_out.labels.bincount().tolist() == [4] * 6
    images = {tuple(image.flatten().tolist()) for image in fitted.images}
    assert not any(tuple(image.flatten().tolist()) in images for image in held_out.images)
    assert hold_out_images(split, 0.1, 3, holds_out=False) == (split, None)
    assert count_fitted(len(split), 0.1, holds_out=False) == len(split)


def test_the_choice_is_the_best_on_held_out_images_and_the_first_of_equal_ones():
    one, two, three, other = (
        Candidate("ep", "tokens", rate) if rate < 1 else Candidate("mean", "mean", rate)
        for rate in (0.1, 0.2, 0.3, 1.0)
    )
    candidates = (one, two, three, other)
    choice = choose(candidates, {one: 40.0, two: 60.0, three: 60.0, other: 90.0}, 10, ["ep"])
    assert (choice.by_kind, choice.best, choice.diverged) == ({"ep": two, "mean": other}, "ep", ())
    choice = choose(candidates, {one: 40.0, other: 90.0}, 10, ["ep", "mean"])
    assert (choice.by_kind["ep"], choice.best, choice.diverged) == (one, "mean", (two, three))
    assert choice.details()["diverged"] == ["ep, rate 0.2", "ep, rate 0.3"]
    with pytest.raises(RunError, match=r"ep: diverged with every learning rate; lower task\.rates"):
        choose(candidates, {other: 90.0}, 10, ["ep"])
    assert choose((one, other), {}, 0, ["ep"]).by_kind == {"ep": one, "mean": other}
    assert needs_choice((one, two), ["ep"])
    assert not needs_choice((one, other), ["ep"])
    assert needs_choice((one, other), ["ep", "mean"])


@pytest.mark.parametrize("task", ["attentive-probe", "linear-probe"])
def test_the_step_is_planned_with_all_heads(task):
    settings = ["task.probe=sweep", "task.blocks=[1, 2]"] if task == "linear-probe" else []
    step = encoder_and_step(task, settings)[3]
    heads = {"attentive-probe": 6 * 4, "linear-probe": 2 * 2 * 13}[task]
    assert len(step.build().model.heads) == heads
    assert traced_peak(step, 8) > 0
