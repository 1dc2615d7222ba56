"""The attentive probe: accuracy of heads that attend over the tokens of a frozen encoder."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from mimbench.api import (
    Candidate,
    Dataset,
    DataSizes,
    Encoder,
    HeadSweep,
    ImageAugment,
    InputConfig,
    InputError,
    Measured,
    Metric,
    PlannedStep,
    Task,
    TaskConfig,
    TaskContext,
    TaskResult,
    check_probe_training,
    choose,
    classification_scores,
    count_fitted,
    hold_out_images,
    labelled_split,
    load_protocols,
    majority_accuracy,
    make_candidates,
    needs_choice,
    planned_heads,
    require_classes,
    top_k_accuracy,
    top_k_hits,
    without_weights,
)
from mimbench_tasks.attentive_probe.config import AttentiveProbeConfig
from mimbench_tasks.attentive_probe.heads import HEADS, Head, build_head
from mimbench_tasks.attentive_probe.poolers import entropy_and_overlap

READS = {"mean": "mean", "token": "token"}
"""What linear heads read; all others read "tokens"."""


class AttentiveProbe(Task):
    """Top-1 accuracy of the head that is best on held-out training images.

    `top1` and `top5` are of the best of the heads that attend; `top1_NAME` is of the head NAME with the learning rate
    and weight decay that were best for it. Choices are made on a part of the training images which no head is trained
    on, and never on test images. `details["attention"]` describes the attention maps of each head on the test images.

    The weights after the last step are scored. The official scripts print the best epoch by test accuracy.
    """

    name: ClassVar[str] = "attentive-probe"
    version: ClassVar[str] = "1"
    takes_clips: ClassVar[bool] = True
    metrics: ClassVar[tuple[Metric, ...]] = tuple(
        Metric(name, "percent", 0.0, 100.0) for name in ("top1", "top5", *(f"top1_{head}" for head in HEADS))
    )
    Config: ClassVar[type[TaskConfig]] = AttentiveProbeConfig
    config: AttentiveProbeConfig
    protocols = load_protocols("mimbench_tasks", "protocols/attentive_probe")
    default_protocol: ClassVar[str | None] = "default"

    def chance(self, dataset: Dataset) -> float:
        """Top-1 accuracy in percent if every test image gets the most frequent class of the training images."""
        return majority_accuracy(dataset)

    def depends_on_processes(self, encoder: Encoder, dataset: Dataset) -> str:
        """Processes share their batches, and the encoder draws nothing while it is frozen."""
        return ""

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        """Reads the channels of the tokens from a copy of the encoder without weights."""
        require_classes(dataset, self.name)
        config, images = self.config, len(labelled_split(dataset, "train"))
        fitted = count_fitted(images, config.held_out, holds_out=needs_choice(self.candidates, config.attentive))
        check_probe_training(config.train, fitted)
        if config.augmentation.auto_augment:
            shown = config.augmentation.applied(InputConfig(image_size=encoder.image_size, frames=encoder.frames))
            ImageAugment(shown, dataset.channels, config.augmentation.auto_augment)
        try:
            encoder.layer_index(config.layer)
            if "token" in (*config.heads, *config.tokens.split("+")):
                encoder.check_pooling("token")
        except InputError as error:  # the message begins with the option's name
            raise InputError(f"task.{error}") from error
        with torch.device("meta"):
            tokens = self._read(without_weights(encoder), torch.zeros(1, *encoder.input_shape))["tokens"]
        if "ep" in config.heads and tokens.shape[-1] % config.queries:
            fit = next(count for count in range(config.queries, 0, -1) if tokens.shape[-1] % count == 0)
            raise InputError(
                f"task.queries {config.queries} does not divide the {tokens.shape[-1]} channels of the tokens; "
                f"set task.queries={fit}"
            )

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Every head with every learning rate and weight decay."""
        config = self.config
        kinds: dict[str, str] = {name: READS.get(name, "tokens") for name in config.heads}
        return make_candidates(kinds, config.rates or (config.train.base_lr,), config.weight_decays)

    def planned_step(self, encoder: Encoder, data: DataSizes, images: InputConfig) -> PlannedStep:
        """The step of all heads together, on images that the loader has cropped."""
        config = self.config
        shown = config.augmentation.applied(images)
        return planned_heads(encoder, data, shown, config.train, self._read, self.candidates, self._build)

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        config, train, test = self.config, labelled_split(dataset, "train"), labelled_split(dataset, "test")
        candidates, workers = self.candidates, config.train.workers
        holds_out = needs_choice(candidates, config.attentive)
        fitted, held_out = hold_out_images(train, config.held_out, context.seed, holds_out=holds_out)
        context.say(f"attentive-probe: training {len(candidates)} heads on {len(fitted):,} images in one pass")
        sweep = HeadSweep(encoder, context, self._read, candidates, self._build, len(train.classes))
        report = sweep.train(
            fitted,
            config.train,
            config.augmentation.applied(context.input),
            label=self.name,
            auto_augment=config.augmentation.auto_augment,
            erase_prob=config.augmentation.erase_prob,
        )
        accuracies = {} if held_out is None else sweep.accuracies(held_out, workers)
        choice = choose(candidates, accuracies, 0 if held_out is None else len(held_out), config.attentive)
        scores = sweep.score(test, choice, workers, _observe)
        labels = test.labels.numpy()
        metrics = {f"top{k}": top_k_accuracy(labels, scores.logits, k) for k in (1, 5)}
        metrics |= {f"top1_{name}": Measured(value, len(test)) for name, value in scores.top1.items()}
        diverged = [name for name in config.heads if name not in scores.top1]
        absent = {f"top1_{name}": "the head is not among task.heads" for name in HEADS if name not in config.heads}
        absent |= {f"top1_{name}": "the head diverged with every learning rate" for name in diverged}
        return TaskResult(
            metrics,
            curves={"loss": [loss / len(candidates) for loss in report.loss]},
            details=choice.details()
            | {
                "attention": {name: dict(values) for name, values in scores.observed.items()},
                "parameters": sweep.parameters(),
                "absent": absent,
            },
            cost=report,
            scores=classification_scores(test, torch.from_numpy(scores.logits).double().softmax(1).numpy()),
            by_sample={f"top{k}": top_k_hits(labels, scores.logits, k) for k in (1, 5)},
        )

    def _read(self, encoder: Encoder, images: Tensor) -> dict[str, Tensor]:
        features = encoder.features(images, self.config.layer)
        tokens, read = features.patches, {}
        if self.config.tokens == "patches+token":
            tokens = torch.cat((features.prefix[:, : features.class_tokens], tokens), 1)
        if "mean" in self.config.heads:
            read["mean"] = features.pool("mean")
        if "token" in self.config.heads:
            read["token"] = features.pool("token")
        return {"tokens": tokens, **read}

    def _build(self, kind: str, dim: int, classes: int) -> Head:
        name = next(name for name in HEADS if name == kind)
        return build_head(name, dim, classes, queries=self.config.queries, batch_norm=self.config.batch_norm)


def _observe(head: nn.Module, tokens: Tensor) -> dict[str, Tensor]:
    assert isinstance(head, Head)
    weights = head.attention(tokens)
    return {} if weights is None else entropy_and_overlap(weights)
