"""The checks of methods: built-in methods pass them, and each check fails on a method that is wrong in its way."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from mimbench import registry
from mimbench.contract import Config, Method, StepOutput
from mimbench.distributed import get_rank, mean_over_ranks
from mimbench.masks import block_mask, mask_at_pixels, random_mask
from mimbench.recipe.document import read
from mimbench.recipe.resolve import resolve
from mimbench.testing.methods import METHOD_CHECKS, check_method

ENCODERS = ("vit", "swin", "convnext", "resnet")
NO_PARTS = {
    "mask_has_its_form",
    "mask_comes_from_the_generator",
    "target_has_no_gradient",
    "visible_pixels_reach_predict",
    "images_of_a_batch_are_independent",
}
"""Checks that do not apply to a method that defines its step only."""
NOT_TRAINED = {"nothing_is_stored_twice", "builds_on_the_meta_device", "builds_around_an_encoder"}
"""Checks that a method without training passes, besides those of its form and its export."""


def built_in() -> list[tuple[str, str]]:
    """Each method of this repository with each encoder that can do what it needs."""
    methods = [(name, registry.methods.load(name)) for name in registry.methods.names()]
    return [
        (name, encoder)
        for name, method in methods
        if method.__module__.startswith("mimbench_methods.")
        for encoder in ENCODERS
        if method.encoder_needs <= registry.encoders.load(encoder).can
    ]


@pytest.mark.parametrize(("name", "encoder"), built_in())
def test_built_in_methods_pass(name, encoder):
    recipe = resolve("smoke", read("smoke"), name, {"encoder.name": encoder}, None)
    results = check_method(
        recipe.method_class(),
        recipe.method_config,
        encoder=recipe.encoder_class(),
        encoder_options=recipe.encoder_config,
        input_config=recipe.input,
    )
    assert [result for result in results if result.status == "failed"] == []
    waived = {result.name for result in results if result.status == "waived"}
    assert waived == set(recipe.method_class().waivers)
    passed = {result.name for result in results if result.status == "passed"}
    if recipe.method_class().pretrains:
        assert {one.name for one in METHOD_CHECKS} - passed - waived <= {
            "mask_ratio_is_as_declared",
            "masks_differ",
            "masked_pixels_do_not_reach_predict",
        } | (NO_PARTS if name == "supervised" else set()) | ({"processes_share_a_step"} if name == "mixmim" else set())
    else:
        assert passed >= NOT_TRAINED


class RatioConfig(Config):
    mask_ratio: float = 0.5
    teacher: Path | None = None


class Plain(Method):
    """An honest method with an EMA teacher of its head, of which the others here are wrong versions."""

    name, version = "plain", "1"
    encoder_needs = frozenset({"mask-tokens"})
    Config = RatioConfig

    def __init__(self, config, encoder):
        super().__init__(config, encoder)
        self.head = nn.Conv2d(encoder.out_dim, encoder.stride**2 * encoder.in_channels, 1)
        self.average = copy.deepcopy(self.head).requires_grad_(False)
        self.token = nn.Parameter(torch.zeros(1, 1, 1, encoder.embed_dim))
        self.register_buffer("count", torch.zeros(()))

    def sample_mask(self, batch, generator):
        return random_mask(batch, self.encoder.grid, self.config.mask_ratio, generator)

    def target(self, images):
        return images

    def predict(self, images, mask):
        visible = images.masked_fill(mask_at_pixels(mask, images), 0)
        return nn.functional.pixel_shuffle(
            self.head(self.encoder.encode_masked(visible, mask, self.token)), self.encoder.stride
        )

    def loss(self, prediction, target, mask):
        return (prediction.float() - target).square().mean()

    @torch.no_grad()
    def after_step(self, progress):
        self.count += 1
        for slow, fast in zip(self.average.parameters(), self.head.parameters(), strict=True):
            slow.lerp_(fast, 0.1)


class Cooling(Plain):
    """An honest method that sets a temperature before each step, and masks less at first."""

    def before_step(self, progress):
        self.temperature = 0.1 + 0.9 * (1 - progress)

    def sample_mask(self, batch, generator):
        return random_mask(batch, self.encoder.grid, self.config.mask_ratio * (0.5 + 0.5 * self.progress), generator)

    def loss(self, prediction, target, mask):
        return super().loss(prediction, target, mask) / self.temperature


class Cropped(Plain):
    """An honest method of another shape: two views, a mask that is a mapping, and a temperature by progress."""

    @classmethod
    def views(cls, config, input):
        return (input, input.model_copy(update={"image_size": 16}))

    def sample_mask(self, batch, generator):
        return {"grid": super().sample_mask(batch, generator)}

    def masked_cells(self, mask):
        return mask["grid"]

    def predict(self, images, mask):
        return super().predict(images, mask["grid"])

    def step(self, batch, generator):
        large, small = batch.views
        assert small.shape[-1] == 16
        consistency = self.encoder.features(small).pooled.float().square().mean()
        output = self(large, self.sample_mask(len(large), generator))
        return StepOutput(output.loss + 0.1 * (1 + batch.progress) * consistency)

    def before_update(self, progress):
        if progress < 0.1:
            self.token.grad.mul_(0.5)


class StepOnly(Method):
    """An honest method without any of the four parts."""

    name, version = "step-only", "1"

    def __init__(self, config, encoder):
        super().__init__(config, encoder)
        self.head = nn.Linear(encoder.out_dim, encoder.in_channels)

    def step(self, batch, generator):
        colours = self.head(self.encoder.features(batch.images).pooled).float()
        return StepOutput((colours - batch.images.mean((2, 3))).square().mean())


class FrozenTeacher(Plain):
    """An honest method with a teacher that its config determines, and that no checkpoint holds."""

    not_stored = ("teacher.",)

    def __init__(self, config, encoder):
        super().__init__(config, encoder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            self.teacher = nn.Conv2d(encoder.in_channels, encoder.in_channels, 3, padding=1).requires_grad_(False)

    def target(self, images):
        return self.teacher(images)


class NoVersion(Plain):
    version = None


class ObjectsConfig(RatioConfig):
    def shaping(self):
        return {**super().shaping(), "scale": torch.zeros(2)}


class Objects(Plain):
    Config = ObjectsConfig


class ForgivingConfig(RatioConfig):
    model_config: ClassVar = {"extra": "ignore"}


class Forgiving(Plain):
    Config = ForgivingConfig


class ByNameConfig(RatioConfig):
    def shaping(self):
        return {**super().shaping(), "teacher": str(self.teacher)}


class ByName(Plain):
    Config = ByNameConfig


class OtherEncoder(Plain):
    def __init__(self, config, encoder):
        super().__init__(config, copy.deepcopy(encoder))


class FlatMask(Plain):
    def sample_mask(self, batch, generator):
        return super().sample_mask(batch, generator).flatten(1)


class FloatMask(Plain):
    def sample_mask(self, batch, generator):
        return super().sample_mask(batch, generator).float()


class ShortMask(Plain):
    def sample_mask(self, batch, generator):
        return super().sample_mask(1, generator)


class OddGrid(Plain):
    def sample_mask(self, batch, generator):
        return random_mask(batch, (5, 5), 0.5, generator)


class GlobalMask(Plain):
    def sample_mask(self, batch, generator):
        return torch.rand(batch, *self.encoder.grid) < 0.5


class EqualMasks(Plain):
    def sample_mask(self, batch, generator):
        return super().sample_mask(1, generator).expand(batch, -1, -1)


class FixedMask(Plain):
    def sample_mask(self, batch, generator):
        return super().sample_mask(batch, torch.Generator().manual_seed(0))


class LessMasked(Plain):
    def sample_mask(self, batch, generator):
        return random_mask(batch, self.encoder.grid, 0.25, generator)


class BareTensor(Plain):
    def step(self, batch, generator):
        return super().step(batch, generator).loss


class LossPerImage(Plain):
    def loss(self, prediction, target, mask):
        return (prediction - target).square().mean((1, 2, 3))


class NotANumber(Plain):
    def loss(self, prediction, target, mask):
        return super().loss(prediction, target, mask) * float("nan")


class NoGradient(Plain):
    def loss(self, prediction, target, mask):
        return super().loss(prediction.detach(), target, mask)


class AbsentPart(Plain):
    def step(self, batch, generator):
        return self.decoder(batch.images)


class LogsGradient(Plain):
    def step(self, batch, generator):
        loss = super().step(batch, generator).loss
        return StepOutput(loss, {"error": loss})


class LogsText(Plain):
    def step(self, batch, generator):
        return StepOutput(super().step(batch, generator).loss, {"note": "hello"})


class ForeignNoise(Plain):
    def loss(self, prediction, target, mask):
        return super().loss(prediction, target, mask) * float(np.random.default_rng().normal(1, 0.01))


class WritesInput(Plain):
    def step(self, batch, generator):
        batch.images.mul_(0.5)
        return super().step(batch, generator)


class MovingTarget(Plain):
    """Part of its target is what the encoder outputs."""

    def forward(self, images, mask):
        target = self.target(images) + 0.01 * self.encoder.encode(self.encoder.embed(images)).mean()
        return StepOutput(self.loss(self.predict(images, mask), target, mask))


class FrozenEncoder(Plain):
    def predict(self, images, mask):
        visible = images.masked_fill(mask_at_pixels(mask, images), 0)
        with torch.no_grad():
            x = self.encoder.encode_masked(visible, mask, self.token)
        return nn.functional.pixel_shuffle(self.head(x), self.encoder.stride)


class IdlePart(Plain):
    def __init__(self, config, encoder):
        super().__init__(config, encoder)
        self.idle = nn.Linear(4, 4)


class Peeking(Plain):
    def predict(self, images, mask):
        return super().predict(images, torch.zeros_like(mask)) + 0 * self.token.sum()


class Blind(Plain):
    """Encodes the mask, and no pixel."""

    def predict(self, images, mask):
        return super().predict(torch.zeros_like(images), mask)


class Centred(Plain):
    """Takes the mean over the batch off its predictions."""

    def predict(self, images, mask):
        prediction = super().predict(images, mask)
        return prediction - prediction.mean(0)


class TwoNames(Plain):
    def __init__(self, config, encoder):
        super().__init__(config, encoder)
        self.student = nn.Sequential(encoder)


class LatePart(Plain):
    def step(self, batch, generator):
        if not hasattr(self, "late"):
            self.late = nn.Linear(4, 4).requires_grad_(False)
        return super().step(batch, generator)


class Clipping(Plain):
    @torch.no_grad()
    def after_step(self, progress):
        super().after_step(progress)
        self.head.bias.mul_(0.9)


class Unstored(Plain):
    """Scales its loss by an attribute that no checkpoint holds."""

    def __init__(self, config, encoder):
        super().__init__(config, encoder)
        self.scale = 1.0

    def loss(self, prediction, target, mask):
        return self.scale * super().loss(prediction, target, mask)

    def after_step(self, progress):
        super().after_step(progress)
        self.scale *= 0.9


class Counting(Plain):
    """Counts its steps in an attribute, which sets the pace of the teacher."""

    def __init__(self, config, encoder):
        super().__init__(config, encoder)
        self.steps = 0

    @torch.no_grad()
    def after_step(self, progress):
        self.steps += 1
        for slow, fast in zip(self.average.parameters(), self.head.parameters(), strict=True):
            slow.lerp_(fast, 0.5**self.steps)


class OtherExport(Plain):
    def exported_encoder(self):
        return self.head


class Releasing(Plain):
    def exported_encoder(self):
        return self.encoder.requires_grad_(False)


class Zeroing(Plain):
    def exported_encoder(self):
        with torch.no_grad():
            self.head.weight.zero_()
        return self.encoder


class Hooked(Plain):
    def __init__(self, config, encoder):
        super().__init__(config, encoder)
        encoder.body.norm.register_forward_hook(lambda module, inputs, output: 2 * output)


class Renamed(Plain):
    def exported_encoder(self):
        exported = copy.deepcopy(self.encoder)
        exported.extra = nn.Linear(2, 2)
        return exported


class NeedsFloat(Plain):
    def loss(self, prediction, target, mask):
        prediction.detach().numpy()
        return super().loss(prediction, target, mask)


class BatchStatistics(Plain):
    def loss(self, prediction, target, mask):
        return super().loss(prediction, target, mask) / target.mean((1, 2, 3)).std()


class DrawsForItself(Plain):
    def sample_mask(self, batch, generator):
        return (
            torch.rand(batch, *self.encoder.grid, generator=generator)
            .flatten(1)
            .argsort(1)
            .view(batch, *self.encoder.grid)
            < 0.5 * self.encoder.grid[0] ** 2
        )


class OneMaskForAll(Plain):
    """Draws another mask on each process."""

    waivers: ClassVar = {"masks_differ": "one for all images of a batch"}

    def sample_mask(self, batch, generator):
        return super().sample_mask(1, generator).expand(batch, -1, -1)


class MeanPerProcess(Plain):
    """Divides by the masked cells of one process, which differ from those of another one."""

    def sample_mask(self, batch, generator):
        cells = self.encoder.grid
        return block_mask(batch, cells, cells[0] ** 2 // 2, generator, min_block=4)

    def loss(self, prediction, target, mask):
        masked = mask_at_pixels(mask, target)
        return ((prediction.float() - target).square() * masked).sum() / masked.sum()


class Lonely(Plain):
    """Only the first process asks for a mean over all."""

    def loss(self, prediction, target, mask):
        loss = super().loss(prediction, target, mask)
        return loss + mean_over_ranks(loss) if get_rank() == 0 else loss


class Overcautious(Plain):
    @classmethod
    def depends_on_processes(cls, config):
        return "each draws"


class ReadsValues(Plain):
    def __init__(self, config, encoder):
        super().__init__(config, encoder)
        self.spread = float(self.head.weight.std())


class Ascending(Plain):
    """The gradient of its loss has the wrong sign."""

    def loss(self, prediction, target, mask):
        loss = super().loss(prediction, target, mask)
        return 2 * loss.detach() - loss


WRONG: dict[str, list[tuple[type[Method], str]]] = {
    "metadata_is_complete": [(NoVersion, "no `version`")],
    "options_are_plain": [(Objects, "JSON cannot hold"), (Forgiving, "accepts unknown options")],
    "files_count_by_content": [(ByName, "'teacher' enters the fingerprint by the name of its file")],
    "builds_around_an_encoder": [(OtherEncoder, "self.encoder is not the encoder")],
    "mask_has_its_form": [
        (FlatMask, "is torch.bool [8, 64] for 8 images; return bool [8, rows, columns]"),
        (FloatMask, "is torch.float32 [8, 8, 8] for 8 images"),
        (ShortMask, "is torch.bool [1, 8, 8] for 8 images"),
        (OddGrid, "has 5 x 5 cells, and the encoder has 8 x 8"),
    ],
    "mask_comes_from_the_generator": [(GlobalMask, "draw from `generator`")],
    "masks_differ": [(EqualMasks, "the same mask"), (FixedMask, "different seeds give equal masks")],
    "mask_ratio_is_as_declared": [(LessMasked, "0.25 of the cells are masked, and mask_ratio is 0.5")],
    "step_returns_a_loss": [
        (BareTensor, "step returns a Tensor"),
        (LossPerImage, "has shape [8]"),
        (NotANumber, "the loss is nan"),
        (NoGradient, "no gradient"),
        (AbsentPart, "has no attribute 'decoder'"),
    ],
    "logs_are_detached_scalars": [(LogsGradient, "'error' has a gradient"), (LogsText, "'note' is a str")],
    "equal_seeds_give_equal_losses": [(ForeignNoise, "equal seeds give the losses")],
    "inputs_stay_unchanged": [(WritesInput, "changes the batch")],
    "target_has_no_gradient": [(MovingTarget, "the target has a gradient")],
    "encoder_gets_a_gradient": [(FrozenEncoder, "the encoder gets no gradient")],
    "trainable_parameters_get_gradients": [(IdlePart, "no gradient reaches idle.weight, idle.bias")],
    "masked_pixels_do_not_reach_predict": [(Peeking, "when only masked pixels change")],
    "visible_pixels_reach_predict": [(Blind, "when all visible pixels change")],
    "images_of_a_batch_are_independent": [(Centred, "when the others change")],
    "nothing_is_stored_twice": [(TwoNames, "one tensor under two names")],
    "a_step_adds_nothing_to_the_state": [(LatePart, "late.weight")],
    "after_step_leaves_trained_weights": [(Clipping, "head.bias")],
    "a_stored_state_gives_an_equal_loss": [(Unstored, "after storing and loading")],
    "resume_is_exact": [(Counting, "average.weight differs")],
    "exported_encoder_has_its_type": [(OtherExport, "returns a Conv2d, not a ViT")],
    "exporting_changes_nothing": [(Releasing, "whether 'encoder."), (Zeroing, "changes 'head.weight'")],
    "exported_encoder_loads_into_a_plain_one": [(Hooked, "other features"), (Renamed, "do not fit a plain ViT")],
    "steps_in_bf16": [(NeedsFloat, "BFloat16")],
    "takes_a_batch_of_one": [(BatchStatistics, "a batch of one image is nan")],
    "builds_on_the_meta_device": [(ReadsValues, "meta")],
    "one_batch_overfits": [(Ascending, "it should fall")],
    "processes_share_a_step": [
        (DrawsForItself, "the loss of two processes is not that of one with the whole batch"),
        (OneMaskForAll, "the loss of two processes is not that of one with the whole batch"),
        (MeanPerProcess, "the loss of two processes is not that of one with the whole batch"),
        (Lonely, "one exchanges fewer tensors than another one"),
        (Overcautious, "depends_on_processes says 'each draws', and yet two processes make the same step as one"),
    ],
}


def test_each_check_has_a_wrong_method():
    assert set(WRONG) == {one.name for one in METHOD_CHECKS}


@pytest.mark.parametrize("kind", ["vit", "swin", "convnet"])
def test_an_honest_method_passes(kind):
    assert {result.status for result in check_method(Plain, encoder=kind)} == {"passed"}


def test_honest_methods_of_other_shapes_pass():
    assert {result.status for result in check_method(Cropped)} == {"passed"}
    assert {result.status for result in check_method(FrozenTeacher)} == {"passed"}
    results = check_method(StepOnly)
    assert {result.status for result in results} == {"passed", "skipped"}
    assert {result.name for result in results if result.status == "skipped"} == {
        *NO_PARTS,
        "masks_differ",
        "mask_ratio_is_as_declared",
        "masked_pixels_do_not_reach_predict",
    }


@pytest.mark.parametrize(
    ("name", "method", "text"),
    [(name, method, text) for name, wrong in WRONG.items() for method, text in wrong],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_wrong_method_fails_its_check_and_no_other(name, method, text):
    failures = {result.name: result.message for result in check_method(method) if result.status == "failed"}
    assert set(failures) == {name}
    assert text in failures[name]
    assert "; " in failures[name]
    assert "test_methods.py:" in failures[name]


def test_before_step_is_called_before_each_step_and_masks_are_checked_at_the_first_one():
    assert {result.status for result in check_method(Cooling)} == {"passed"}

    class OddAtFirst(Plain):
        def sample_mask(self, batch, generator):
            grid = self.encoder.grid if self.progress else (5, 5)
            return random_mask(batch, grid, self.config.mask_ratio, generator)

    failures = [result for result in check_method(OddAtFirst) if result.status == "failed"]
    assert failures[0].name == "mask_has_its_form"
    assert "has 5 x 5 cells" in failures[0].message
