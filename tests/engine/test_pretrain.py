"""A method as the engine trains it: views, progress, labels."""

from __future__ import annotations

import pytest
import torch

from helpers.noting import CPU, INPUT, SPLIT, train
from mimbench.contract import Config, Method, StepOutput, View
from mimbench.encoders.vit import ViT
from mimbench.engine.pretrain import TrainableMethod
from mimbench.errors import RunError


class TwoViews(Method):
    """Pulls the features of a large and a small view together, and notes what it gets."""

    name, version = "two-views", "1"
    Config = Config

    def __init__(self, config, encoder):
        super().__init__(config, encoder)
        self.notes, self.updates = [], []

    @classmethod
    def views(cls, config, input):
        return input, View.from_input(input, image_size=4, crop_scale=(0.2, 0.5), blur=0.5)

    def step(self, batch, generator):
        large, small = batch.views
        self.notes.append((large.clone(), small.clone(), batch.labels, batch.progress, batch.epoch))
        loss = (self.encoder.embed(large).mean((1, 2)) - self.encoder.embed(small).mean((1, 2))).square().mean()
        return StepOutput(loss, {"distance": loss.detach().sqrt()})

    def before_update(self, progress):
        gradients = [p.grad for p in self.encoder.parameters() if p.grad is not None]
        self.updates.append((progress, float(sum(gradient.norm() for gradient in gradients))))
        for gradient in gradients:
            gradient.zero_()


def method(cls=TwoViews):
    torch.manual_seed(0)
    encoder = ViT(ViT.Config(patch_size=2, embed_dim=8, depth=1, num_heads=2), image_size=8, in_channels=1)
    return cls(cls.Config(), encoder)


def run(subject, folder, **options):
    views = subject.views(subject.config, INPUT)
    return train(TrainableMethod(subject, views, channels=1, batched=True), folder, **options)


def test_a_method_gets_its_views_and_its_progress(tmp_path):
    subject = method()
    run(subject, tmp_path, epochs=2, accumulate=2)
    large, small, labels, *_ = subject.notes[0]
    assert large.shape == (4, 1, 8, 8)
    assert small.shape == (4, 1, 4, 4)
    assert labels is None  # it does not declare them
    progress = [note[3] for note in subject.notes]
    assert [note[4] for note in subject.notes] == [0] * 10 + [1] * 10
    assert progress == pytest.approx([step / 10 for step in range(10) for _ in range(2)])
    assert [one for one, _ in subject.updates] == pytest.approx([step / 10 for step in range(10)])


def test_gradients_can_be_changed_before_the_update(tmp_path):
    subject = method()
    before = {name: value.clone() for name, value in subject.state_dict().items()}
    run(subject, tmp_path, epochs=1, weight_decay=0.0)
    assert all(norm > 0 for _, norm in subject.updates)
    assert all(torch.equal(value, before[name]) for name, value in subject.state_dict().items())


def test_equal_seeds_draw_equal_views_and_the_first_as_if_it_were_alone(tmp_path):
    class OneView(TwoViews):
        @classmethod
        def views(cls, config, input):
            return (input,)

        def step(self, batch, generator):
            self.notes.append(batch.images.clone())
            return StepOutput(self.encoder.embed(batch.images).square().mean())

    alone, one, other = method(OneView), method(), method()
    for subject, folder in ((alone, "alone"), (one, "one"), (other, "other")):
        run(subject, tmp_path / folder, epochs=1)
    for images, note, twin in zip(alone.notes, one.notes, other.notes, strict=True):
        assert torch.equal(note[0], images)
        assert torch.equal(note[1], twin[1])


def test_logs_are_averaged_per_epoch_and_survive_a_resume(tmp_path):
    whole, _ = run(method(), tmp_path / "whole", epochs=3)
    assert list(whole.logs) == ["distance"]
    assert len(whole.logs["distance"]) == 3
    run(method(), tmp_path / "parts", epochs=3, until=2)
    resumed, printed = run(method(), tmp_path / "parts", epochs=3)
    assert resumed.logs == whole.logs
    assert "distance 0." in printed


class Detached(TwoViews):
    def step(self, batch, generator):
        loss = self.scale * self.encoder.embed(batch.images).detach().square().mean()
        return StepOutput(loss)

    def __init__(self, config, encoder):
        super().__init__(config, encoder)
        self.scale = torch.nn.Parameter(torch.ones(()))


class Late(TwoViews):
    def step(self, batch, generator):
        if not hasattr(self, "head"):
            self.head = torch.nn.Linear(8, 1)
        return StepOutput(self.head(self.encoder.embed(batch.images)).square().mean())


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (Detached, r"the training step of Detached gives no gradient to the encoder.*\(.*test_pretrain\.py:\d+\)"),
        (Late, r"the training step of Late made parameters that the optimizer does not have: method\.head\.bias"),
    ],
)
def test_what_cannot_learn_is_refused_at_the_first_step(cls, words, tmp_path):
    with pytest.raises(RunError, match=words):
        run(method(cls), tmp_path)


def test_parameters_without_gradient_are_named_once(tmp_path):
    class Idle(TwoViews):
        def __init__(self, config, encoder):
            super().__init__(config, encoder)
            self.unused = torch.nn.Linear(2, 2)

    _, printed = run(method(Idle), tmp_path, epochs=2)
    assert printed.count("receive no gradient") == 1
    assert "parameters receive no gradient: " in printed


def test_the_device_of_the_views_is_that_of_the_step():
    subject = method()
    trainable = TrainableMethod(subject, subject.views(subject.config, INPUT), channels=1, batched=True)
    trainable.training_step((SPLIT.images[:4], SPLIT.labels[:4]), torch.Generator(CPU).manual_seed(0))
    assert {view.device for view in subject.notes[0][:2]} == {CPU}


class Logs(TwoViews):
    """Logs what its `logs` returns for the number of the step."""

    logs = staticmethod(lambda step: {})

    def step(self, batch, generator):
        output = super().step(batch, generator)
        return StepOutput(output.loss, type(self).logs(len(self.notes)))


@pytest.mark.parametrize(
    ("logs", "words"),
    [
        (lambda step: {"a": 1.0} if step < 3 else {"a": 1.0, "b": 2.0}, "log the same names in every step"),
        (lambda step: {"a": float("nan")}, "the log 'a' is never finite in epoch 1; leave it out"),
        (lambda step: {"a": torch.ones(3)}, r"must return scalar tensors as logs, not a of shape \[3\]"),
        (lambda step: None, "must return a table of logs by name, not None"),
    ],
)
def test_logs_that_cannot_be_kept_are_refused(logs, words, tmp_path):
    with pytest.raises(RunError, match=words):
        run(method(type("Odd", (Logs,), {"logs": staticmethod(logs)})), tmp_path)


def test_steps_without_a_finite_log_are_left_out_of_its_mean(tmp_path):
    logs = staticmethod(lambda step: {"a": torch.ones(1) if step % 2 else float("nan")})
    report, _ = run(method(type("Odd", (Logs,), {"logs": logs})), tmp_path, epochs=1)
    assert report.logs == {"a": [1.0]}


def test_a_module_with_a_step_and_no_hooks_is_trained(tmp_path):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def step(self, batch, generator):
            return StepOutput((self.scale * batch.images).square().mean())

    model = Model()
    train(TrainableMethod(model, [INPUT], channels=1, batched=True), tmp_path, epochs=1)
    assert float(model.scale) < 1
