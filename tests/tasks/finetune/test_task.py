"""Fine-tuning runs: it learns, is reproducible and resumes bit for bit, and scores what it should."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers.tiny_finetune import EVERYTHING, INPUT, SMALL, Greys, context, encoder, task
from mimbench.contract import ArraySplit, InputError
from mimbench.toolkit.accuracy import classification_scores
from mimbench.toolkit.trained_probe import ProbeAugmentation
from mimbench_tasks.finetune.model import FinetuneTraining
from mimbench_tasks.finetune.scoring import compute_logits, scores
from mimbench_tasks.finetune.task import Finetune


@pytest.mark.parametrize("kind", ["vit", "swin", "convnext", "resnet"])
def test_it_learns_with_every_kind_of_encoder(kind, tmp_path):
    options = {"train": {"epochs": 12, "batch_size": 8, "base_lr": 5e-3, "layer_decay": 0.9}}
    tuned, dataset = task(options, {"crop_scale": (1.0, 1.0), "drop_path": 0.05}), Greys()
    pretrained = encoder(kind)
    before = {name: value.clone() for name, value in pretrained.state_dict().items()}
    tuned.check(pretrained, dataset)
    result = tuned.run(pretrained, dataset, context(tmp_path))
    assert {metric.name for metric in Finetune.metrics} == set(result.metrics)
    assert result.metrics["top1"].value > 60
    assert result.metrics["top5"].value == 100
    assert result.metrics["top1"].n == 32
    assert 0 <= result.metrics["ece"].value <= 100
    assert result.cost.steps == 48
    assert tuned.chance(dataset) == 25
    assert all(torch.equal(value, pretrained.state_dict()[name]) for name, value in before.items())


def test_shuffled_labels_score_chance(tmp_path):
    dataset = Greys(n=64)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(3))
    tests = ArraySplit(dataset.images, dataset.labels[order], dataset.classes)
    train = dataset.split("train")
    dataset.split = lambda name: train if name == "train" else tests
    top1 = task(SMALL).run(encoder(), dataset, context(tmp_path)).metrics["top1"].value
    assert abs(top1 - 25) < 16


def weights(result_folder: Path) -> dict[str, torch.Tensor]:
    path = max((result_folder / "training").glob("step_*.pth"), key=lambda path: int(path.stem.removeprefix("step_")))
    return torch.load(path, weights_only=True)["model"]


def test_equal_seeds_tune_equally_with_any_number_of_workers(tmp_path):
    runs = {}
    for name, seed, workers in (("one", 0, 0), ("same", 0, 2), ("other", 1, 0)):
        tuned = task(EVERYTHING, {"train": {"workers": workers}})
        result = tuned.run(encoder(layer_scale=0.1), Greys(), context(tmp_path / name, seed))
        runs[name] = result.metrics, weights(tmp_path / name)
    assert runs["one"][0] == runs["same"][0]
    assert all(torch.equal(value, runs["same"][1][name]) for name, value in runs["one"][1].items())
    key = "trainable.classifier.head.weight"
    assert not torch.equal(runs["one"][1][key], runs["other"][1][key])


KILLED = """
import os, signal, sys
sys.path.insert(0, {folder!r})
from pathlib import Path
from mimbench_tasks.finetune.model import FinetuneTraining
from helpers.tiny_finetune import EVERYTHING, Greys, context, encoder, task
step, steps = FinetuneTraining.training_step, []

def killed(self, batch, generator):
    steps.append(1)
    if len(steps) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, generator)

FinetuneTraining.training_step = killed
task(EVERYTHING).run(encoder(), Greys(), context(Path({workdir!r})))
"""


def test_killed_in_the_middle_it_goes_on_bit_for_bit(tmp_path):
    """SIGKILL in the second epoch, with everything on that draws random numbers, and the moving average."""
    script = KILLED.format(folder=str(Path(__file__).parents[2]), workdir=str(tmp_path / "killed"))
    done = subprocess.run([sys.executable, "-c", script], timeout=240, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list((tmp_path / "killed" / "training").glob("step_*.json"))
    results = {name: task(EVERYTHING).run(encoder(), Greys(), context(tmp_path / name)) for name in ("killed", "whole")}
    assert results["killed"].metrics == results["whole"].metrics
    assert results["killed"].curves == results["whole"].curves
    whole = weights(tmp_path / "whole")
    assert all(torch.equal(value, whole[name]) for name, value in weights(tmp_path / "killed").items())


def test_repeated_augmentation_trains_on_a_part_of_the_images_per_epoch(tmp_path, monkeypatch):
    seen = []
    step = FinetuneTraining.training_step
    monkeypatch.setattr(
        FinetuneTraining,
        "training_step",
        lambda self, batch, generator: (seen.extend(map(bytes, batch[0].numpy())), step(self, batch, generator))[1],
    )
    result = task(SMALL, {"repeats": 4}).run(encoder(), Greys(), context(tmp_path))
    assert result.cost.steps == 8
    assert [len(set(seen[:32])), len(set(seen[32:]))] == [8, 8]


def test_crops_are_those_of_the_task_whatever_the_pretraining_has():
    simple = INPUT.model_copy(update={"crop": "simple", "crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0)})
    shown = task({"crop_scale": [0.5, 1.0], "crop_ratio": [0.75, 4 / 3]}).config.input(simple)
    assert (shown.crop, shown.crop_scale) == ("resized", (0.5, 1.0))
    assert task({"flip": 0.5}).config.input(simple).crop == "simple"
    probe = ProbeAugmentation().applied(simple)
    assert (probe.crop, probe.crop_scale) == ("resized", (0.08, 1.0))


def test_the_test_images_are_resized_as_the_options_say():
    config = task({"eval_resize": 10}).config
    assert config.input(INPUT).eval_resize == 10
    assert config.input(INPUT.model_copy(update={"eval_resize": 12})).eval_resize == 10
    assert task().config.input(INPUT.model_copy(update={"eval_resize": 12})).eval_resize == 12


def test_the_moving_average_is_what_is_scored(tmp_path):
    near, far = (
        task(SMALL, {"ema_decay": decay}).run(encoder(), Greys(), context(tmp_path / str(decay)))
        for decay in (1e-6, 0.999999)
    )
    assert near.metrics["ece"].value == pytest.approx(near.details["without_ema"]["ece"], abs=1e-3)
    assert far.metrics["ece"].value != pytest.approx(far.details["without_ema"]["ece"], abs=1e-3)
    state = weights(tmp_path / "1e-06")
    assert torch.allclose(
        state["trainable.ema.module.head.weight"], state["trainable.classifier.head.weight"], atol=1e-5
    )


def test_scores_of_a_hand_example():
    """Of four at 0.55, two are right; of four at 0.95, all are: |0.5 - 0.55| / 2 + |1 - 0.95| / 2."""
    sure, unsure = [0.95, 0.01, 0.01, 0.01, 0.01, 0.01], [0.55, 0.25, 0.06, 0.05, 0.05, 0.04]
    probabilities = torch.tensor([unsure] * 4 + [sure] * 4)
    labels = torch.tensor([0, 0, 1, 5, 0, 0, 0, 0])
    measured = scores(probabilities, labels, 15)
    assert measured["top1"].value == pytest.approx(75)
    assert measured["top5"].value == pytest.approx(100 * 7 / 8)
    assert measured["ece"].value == pytest.approx(5, abs=1e-4)
    certain = scores(torch.tensor([[1.0, 0.0], [0.97, 0.03]]), torch.tensor([0, 1]), 15)
    assert certain["ece"].value == pytest.approx(100 * abs(0.5 - 0.985), abs=1e-3)
    assert certain["top5"].value == 100


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"train": {"batch_size": 64}}, "batch_size 64 is more than the 32 training images"),
        ({"mixup": 0.8, "train": {"batch_size": 9}}, "pair the images of a batch, and 9 is odd"),
        ({"cutmix": 1.0, "train": {"batch_size": 6, "accumulate": 2}}, "and 3 is odd"),
        ({"window": 2}, "task.window 2 is not for this vit encoder"),
        (
            {"position": "learned"},
            "starts from absolute positions, and the encoder has relative ones.*use .relative-per-block",
        ),
        ({"rand_augment": "rand-q9"}, "no policy that timm knows"),
        ({"eval_resize": 6}, "eval_resize = 6 is below input.image_size = 8"),
        ({"no_decay": ["tabel"]}, "no-decay name 'tabel' matches no parameter"),
        ({"image_size": 10}, "not a multiple of the patch size"),
        ({"train": {"schedule": {"min_lr": 1.0}}}, "min_lr 1 is above the peak rate"),
    ],
)
def test_what_cannot_work_is_refused_while_planning(options, words):
    with pytest.raises(InputError, match=words) as error:
        task(SMALL, options).check(encoder(), Greys())
    assert "\n" not in str(error.value)


def test_what_the_encoder_cannot_do_is_refused_while_planning():
    with pytest.raises(InputError, match="'token' needs a class token, which this swin encoder does not have"):
        task(SMALL, {"pooling": "token"}).check(encoder("swin"), Greys())
    with pytest.raises(InputError, match=r"drop_path 0\.1 reaches no block of ViT"):
        task(SMALL, {"drop_path": 0.1}).check(encoder(depth=1), Greys())
    with pytest.raises(
        InputError, match=r"starts from relative positions, and the encoder has absolute ones.*use .learned."
    ):
        task(SMALL, {"position": "relative-per-block"}).check(encoder(position="sincos"), Greys())
    with pytest.raises(InputError, match="two or more labelled classes; the train split"):
        task(SMALL).check(encoder(), Greys(classes=1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pooling": "token", "norm": "fresh"}, 'norm "fresh" goes with pooling "mean"'),
        ({"rand_augment": "rand-m9", "color_jitter": 0.4}, "color_jitter is not used with rand_augment"),
        ({"crop_scale": (0.9, 0.1)}, "crop_scale must be two increasing numbers"),
        ({"erase_prob": 1.5}, "erase_prob = 1.5"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        task(options)


@pytest.mark.parametrize("gap", [20.0, 25.0, 40.0, -20.0, -120.0])
def test_losses_of_certain_predictions_keep_their_digits(gap):
    """`gap` is the logit of the label less that of the other class: the loss is log(1 + exp(-gap))."""
    test = Greys(n=8, classes=2).split("test")

    class Certain(torch.nn.Module):
        def forward(self, images):
            right = torch.nn.functional.one_hot(test.labels, 2).float()
            return gap * right

    loader = [(torch.zeros(len(test), 1, 8, 8), test.labels)]
    logits, labels = compute_logits(Certain(), loader, torch.nn.Identity(), torch.device("cpu"))
    assert torch.equal(labels, test.labels)
    losses = classification_scores(test, logits.double().softmax(1).numpy()).arrays()["loss"]
    expected = math.log1p(math.exp(-gap))
    assert losses == pytest.approx([expected] * len(test), rel=1e-6)
