"""The engine: rates as scheduled, decay where due, resume as if unbroken, a stop where a loss is not finite."""

from __future__ import annotations

import io
import re

import pytest
import torch
from rich.console import Console

from helpers.noting import CPU, INPUT, SPLIT, Probe, train
from mimbench.contract import ScheduleConfig, StepOutput, TrainConfig
from mimbench.data import training_loader
from mimbench.engine.device import pick_device, pick_precision
from mimbench.engine.fit import fit
from mimbench.engine.state_files import amount_done
from mimbench.errors import InputError, RunError
from mimbench.optim import Schedule


def test_a_training_is_reported(tmp_path):
    model = Probe()
    report, said = train(model, tmp_path)
    assert (report.steps, report.images_seen, report.precision) == (15, 120, "fp32")
    assert len(report.loss) == 3
    assert report.loss[-1] < report.loss[0]
    assert report.seconds > 0
    assert report.peak_memory > 1e6
    assert model.progress == pytest.approx([(i + 1) / 15 for i in range(15)])
    assert re.search(r"probe: epoch 3/3  .* images/s  loss 0\.\d+  lr ", said)


def test_a_training_may_stop_early_on_the_way_of_the_whole_schedule(tmp_path):
    whole, part = Probe(), Probe()
    reports, seen = [], []
    train(whole, tmp_path / "whole", epochs=4, after={2: lambda report: seen.append(whole.linear.weight.clone())})
    report, _ = train(part, tmp_path / "part", epochs=4, until=2, after=dict.fromkeys((1, 3), reports.append))
    assert part.progress == whole.progress[:10]
    assert whole.progress[-1] == 1.0
    torch.testing.assert_close(part.linear.weight, seen[0], rtol=0, atol=0)
    assert [(report.steps, len(report.loss)) for report in (*reports, report)] == [(5, 1), (10, 2)]
    assert amount_done(tmp_path / "part") == 2
    assert amount_done(tmp_path / "none") == 0


def test_every_step_uses_the_scheduled_rate(tmp_path, monkeypatch):
    used = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW,
        "step",
        lambda self, *a, **k: (used.append(self.param_groups[0]["lr"]), step(self, *a, **k))[1],
    )
    options = {"base_lr": 0.2, "lr_divisor": 16, "schedule": ScheduleConfig(warmup_epochs=1, min_lr=1e-4)}
    train(Probe(), tmp_path, **options)
    schedule = Schedule(TrainConfig(epochs=3, batch_size=8, **options), steps_per_epoch=5)
    assert used == pytest.approx([schedule.lr(i) for i in range(15)])
    assert max(used) == pytest.approx(0.1)


def test_equal_seeds_give_equal_weights_and_others_do_not(tmp_path):
    first, same, other = Probe(), Probe(), Probe()
    train(first, tmp_path / "1")
    train(same, tmp_path / "2")
    train(other, tmp_path / "3", seed=6)
    assert first.seen == same.seen != other.seen
    assert torch.equal(first.linear.weight, same.linear.weight)


def test_a_resumed_training_ends_as_an_unbroken_one(tmp_path):
    unbroken, broken, resumed = Probe(), Probe(), Probe()
    whole, _ = train(unbroken, tmp_path / "whole")
    broken.fail_at, broken.loss_at_fail = 8, torch.nan
    with pytest.raises(RunError):
        train(broken, tmp_path / "broken")
    report, _ = train(resumed, tmp_path / "broken")
    assert resumed.seen == unbroken.seen[5:]
    assert torch.equal(resumed.linear.weight, unbroken.linear.weight)
    assert report.loss == whole.loss


def test_the_state_to_resume_from_is_found_after_a_move(tmp_path):
    broken, resumed = Probe(), Probe()
    broken.fail_at = 8
    with pytest.raises(RunError):
        train(broken, tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    train(resumed, tmp_path / "there")
    assert len(resumed.seen) == 10


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path, bad):
    model = Probe()
    model.fail_at, model.loss_at_fail = 12, bad
    with pytest.raises(RunError, match=r"probe: the loss is (nan|inf) at step 2 of epoch 3; stopped.*step_10\.pth"):
        train(model, tmp_path)
    saved = torch.load(tmp_path / "step_10.pth", weights_only=True)["model"]
    assert all(torch.isfinite(value).all() for value in saved.values())
    assert amount_done(tmp_path) == 2


def test_a_loss_that_is_not_finite_before_any_update_does_not_blame_the_rate(tmp_path):
    for accumulate, fail_at, to_blame in ((1, 1, False), (2, 2, False), (1, 2, True), (2, 3, True)):
        model = Probe()
        model.fail_at = fail_at
        with pytest.raises(RunError) as stopped:
            train(model, tmp_path / f"{accumulate}-{fail_at}", accumulate=accumulate)
        assert ("Lower task.train.base_lr" in str(stopped.value)) == to_blame
        assert ("No update had been made yet" in str(stopped.value)) != to_blame


@pytest.mark.parametrize(
    ("table", "precision", "advice"),
    [
        ("pretrain", "fp32", "Lower pretrain.base_lr (it is 0.01) or raise pretrain.schedule.warmup_epochs ("),
        (
            "task.train",
            "bf16",
            "Lower task.train.base_lr (it is 0.01), raise task.train.schedule.warmup_epochs or set "
            "task.train.precision=fp32 (",
        ),
        ("task.judge", "fp32", "Lower task.judge.base_lr (it is 0.01) ("),
    ],
)
def test_a_stop_names_the_options_that_were_trained_with(tmp_path, table, precision, advice):
    model = Probe()
    model.fail_at, model.loss_at_fail = 3, torch.nan
    with pytest.raises(RunError) as stopped:
        train(model, tmp_path, table=table, precision=precision)
    assert f"; stopped. {advice}" in str(stopped.value)


def test_weights_that_are_not_finite_are_never_checkpointed(tmp_path, monkeypatch):
    step = torch.optim.AdamW.step

    def poisoned(self, *arguments, **named):
        result = step(self, *arguments, **named)
        poisoned.count += 1
        if poisoned.count == 10:
            self.param_groups[0]["params"][0].data.fill_(torch.inf)
        return result

    poisoned.count = 0
    monkeypatch.setattr(torch.optim.AdamW, "step", poisoned)
    with pytest.raises(RunError, match=r"a weight is not finite after epoch 2.*step_5\.pth"):
        train(Probe(), tmp_path)
    assert not (tmp_path / "step_10.pth").exists()


def test_accumulated_micro_batches_are_one_step(tmp_path, monkeypatch):
    steps = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *a, **k: (steps.append(1), step(self, *a, **k))[1])
    model = Probe()
    report, _ = train(model, tmp_path, accumulate=2)
    assert (len(steps), len(model.seen), report.steps, report.images_seen) == (15, 30, 15, 120)
    assert len(model.progress) == 15


def test_the_gradient_is_clipped(tmp_path, monkeypatch):
    norms = []
    step = torch.optim.AdamW.step

    def noting(self, *arguments, **named):
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(float(torch.cat([grad.flatten() for grad in grads]).norm()))
        return step(self, *arguments, **named)

    monkeypatch.setattr(torch.optim.AdamW, "step", noting)
    train(Probe(), tmp_path, clip_grad=1e-3)
    assert norms == pytest.approx([1e-3] * 15, rel=1e-2)


def test_bf16_autocasts_on_the_cpu_too(tmp_path):
    class Casting(Probe):
        def training_step(self, batch, generator):
            self.dtype = self.linear(batch[0].flatten(1) / 255).dtype
            return super().training_step(batch, generator)

    model = Casting()
    report, _ = train(model, tmp_path, precision="bf16")
    assert report.precision == "bf16"
    assert model.dtype == torch.bfloat16
    assert model.linear.weight.dtype == torch.float32


def test_a_batch_larger_than_the_set_is_refused(tmp_path):
    config = TrainConfig(epochs=1, batch_size=8, base_lr=1.0)
    empty = torch.utils.data.DataLoader(SPLIT, batch_size=64, drop_last=True)
    with pytest.raises(InputError, match=r"lower task\.train\.batch_size"):
        fit(
            Probe(),
            empty,
            config,
            label="x",
            images_per_epoch=40,
            seed=0,
            device=CPU,
            workdir=tmp_path,
            console=Console(),
        )


def test_devices_and_precisions(monkeypatch):
    config = TrainConfig(epochs=1, batch_size=1, base_lr=1.0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == CPU
    with pytest.raises(InputError, match=r"--device cuda: .*--device cpu"):
        pick_device("cuda")
    with pytest.raises(InputError, match="unknown device 'tpu'"):
        pick_device("tpu")
    assert pick_precision(config, CPU) == "fp32"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert pick_device("auto").type == "cuda"
    assert pick_device("cpu") == CPU
    assert pick_precision(config, torch.device("cuda")) == "bf16"


@pytest.mark.cuda
def test_training_on_cuda(tmp_path):
    loader = training_loader(SPLIT, INPUT, batch_size=8, seed=0, device=torch.device("cuda"))
    from mimbench.engine.pretrain import TrainableMethod
    from mimbench.registry import encoders, methods

    vit, simmim = encoders.load("vit"), methods.load("simmim")
    encoder = vit(vit.Config(patch_size=2, embed_dim=32, depth=2, num_heads=2), image_size=8, in_channels=1)
    trainer = TrainableMethod(simmim(simmim.Config(mask_patch_size=2), encoder), INPUT, channels=1, batched=True)
    config = TrainConfig(epochs=2, batch_size=8, base_lr=1e-3)
    report = fit(
        trainer,
        loader,
        config,
        label="cuda",
        images_per_epoch=40,
        seed=0,
        device=torch.device("cuda"),
        workdir=tmp_path,
        console=Console(file=io.StringIO()),
    )
    assert report.steps == 10
    assert report.peak_memory > 0


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        (lambda loss: loss, r"must return StepOutput\(loss, logs\), not Tensor"),
        (lambda loss: None, r"must return StepOutput\(loss, logs\), not NoneType"),
        (lambda loss: StepOutput(loss.expand(4)), r"must return a scalar tensor as loss, not a tensor of shape \[4\]"),
        (lambda loss: StepOutput(float(loss)), "must return a scalar tensor as loss, not float"),
        (lambda loss: StepOutput(loss.detach()), "returns a loss without gradient"),
        (lambda loss: StepOutput(loss, {"note": "hello"}), "must return scalar tensors as logs, not note = 'hello'"),
    ],
)
def test_a_step_that_returns_something_else_is_named(tmp_path, returned, problem):
    class Wrong(Probe):
        def training_step(self, batch, generator):
            return returned(super().training_step(batch, generator).loss)

    with pytest.raises(RunError, match=rf"the training step of .*Wrong {problem}.* \(.*test_fit\.py:\d+\)"):
        train(Wrong(), tmp_path)
