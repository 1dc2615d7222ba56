"""Fine-tuning: top-1, top-5 and calibration error of a classifier trained from the encoder, end to end."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from mimbench.api import (
    Dataset,
    DataSizes,
    DeviceTransform,
    Encoder,
    ImageAugment,
    ImageSplit,
    InputConfig,
    InputError,
    Measured,
    Metric,
    PlannedStep,
    Schedule,
    Task,
    TaskConfig,
    TaskContext,
    TaskResult,
    build_optimizer,
    classification_scores,
    decay_rules,
    encoder_depends_on_processes,
    evaluation_loader,
    get_rank,
    get_world_size,
    labelled_split,
    load_protocols,
    majority_accuracy,
    require_classes,
    training_loader,
)
from mimbench_tasks.finetune.config import FinetuneConfig
from mimbench_tasks.finetune.model import Classifier, FinetuneTraining, adapt, build_classifier, freeze_unreached
from mimbench_tasks.finetune.scoring import compute_logits, hits, scores

EVALUATION_BATCH = 256
"""Images per batch when the classifier is scored, at most; as many on one process as on several."""


class Finetune(Task):
    """Classification by the whole network. n is the number of test images.

    The weights after the last epoch are scored. The official scripts print the best epoch by test accuracy.
    """

    name: ClassVar[str] = "finetune"
    version: ClassVar[str] = "2"
    takes_clips: ClassVar[bool] = True
    trains_encoder: ClassVar[bool] = True
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("top1", "percent", 0.0, 100.0),
        Metric("top5", "percent", 0.0, 100.0),
        Metric("ece", "percent", 0.0, 100.0, higher_is_better=False),
    )
    Config: ClassVar[type[TaskConfig]] = FinetuneConfig
    protocols = load_protocols("mimbench_tasks", "protocols/finetune")
    default_protocol = "default"
    config: FinetuneConfig

    def relevant_input(self, input_config: InputConfig) -> dict[str, Any]:
        """Its training augments as the recipe's [input] does, unless the task's options set it."""
        return self.config.input(input_config).shaping()

    def depends_on_processes(self, encoder: Encoder, dataset: Dataset) -> str:
        return encoder_depends_on_processes(encoder, self.config.attention_dropout)

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        return self.train_and_score(encoder, dataset, context)[0]

    def train_and_score(
        self, encoder: Encoder, dataset: Dataset, context: TaskContext
    ) -> tuple[TaskResult, torch.nn.Module, Tensor]:
        """What `run` returns, the classifier that was scored, and its logits of the test images, [N, classes]."""
        config, train, test = self.config, labelled_split(dataset, "train"), labelled_split(dataset, "test")
        input_config = config.input(context.input)
        classifier = build_classifier(encoder, config, input_config.image_size, len(train.classes), context.seed)
        if config.train.grad_checkpointing:
            classifier.encoder.set_grad_checkpointing()
        augment = _augment(config, input_config, dataset.channels)
        whole = train.is_in_memory and augment is None
        model = FinetuneTraining(classifier, config, input_config, batched=whole)
        rank, world = get_rank(), get_world_size()
        loader = training_loader(
            train,
            input_config,
            batch_size=config.train.micro_batch(world),
            seed=context.seed,
            device=context.device,
            workers=config.train.workers,
            rank=rank,
            world_size=world,
            augment=augment,
            repeats=config.repeats,
        )
        report = context.fit(model, loader, config.train, label="finetune", images_per_epoch=len(train))
        details: dict[str, Any] = {"parameters": sum(p.numel() for p in classifier.parameters() if p.requires_grad)}
        if model.ema is not None:
            last = self._logits(classifier, encoder.in_channels, test, context)
            details["without_ema"] = {name: measured.value for name, measured in self._scores(last, test).items()}
        logits = self._logits(model.scored, encoder.in_channels, test, context)
        result = TaskResult(
            self._scores(logits, test),
            curves={"loss": report.loss},
            details=details,
            cost=report,
            scores=classification_scores(test, logits.double().softmax(1).numpy()),
            by_sample=hits(logits.softmax(1), test.labels),
        )
        return result, model.scored, logits

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        """Builds the classifier on the meta device, so that every option is seen to reach it."""
        require_classes(dataset, self.name)
        config, train = self.config, labelled_split(dataset, "train")
        config.train.require_images(len(train), "task.train")
        if config.mixes and config.train.micro_batch(1) % 2:
            raise InputError(
                f"task.mixup and task.cutmix pair the images of a batch, and {config.train.micro_batch(1)} is odd "
                "(task.train.batch_size over accumulated steps)"
            )
        Schedule(config.train, steps_per_epoch=len(train) // config.train.batch_size)
        size = config.image_size or encoder.image_size
        input_config = config.input(InputConfig(image_size=size, frames=encoder.frames, mean=(0.5,), std=(0.5,)))
        _augment(config, input_config, dataset.channels)
        with torch.device("meta"):
            classifier = Classifier(adapt(encoder, config, size), config, len(train.classes))
        freeze_unreached(classifier)
        model = FinetuneTraining(classifier, config, input_config, batched=True)
        build_optimizer(model, config.train, **decay_rules(model))

    def planned_step(self, encoder: Encoder, data: DataSizes, images: InputConfig) -> PlannedStep:
        """The step on images that the loader has cropped and augmented."""
        config, input_config = self.config, self.config.input(images)
        classifier = Classifier(adapt(encoder, config, input_config.image_size), config, data.classes)
        freeze_unreached(classifier)
        if config.train.grad_checkpointing:
            classifier.encoder.set_grad_checkpointing()
        model = FinetuneTraining(classifier, config, input_config, batched=False)
        shape = (data.channels, *encoder.input_shape[1:-2], *(input_config.image_size,) * 2)

        def batch(images: int) -> Any:
            return torch.zeros(images, *shape, dtype=torch.uint8), torch.zeros(images, dtype=torch.long)

        return PlannedStep(model, batch, config.train)

    def chance(self, dataset: Dataset) -> float:
        """Always answering the most frequent class of the training set, percent of the test set."""
        return majority_accuracy(dataset)

    def _logits(self, classifier: torch.nn.Module, channels: int, test: ImageSplit, context: TaskContext) -> Tensor:
        """Logarithms of class probabilities up to a constant, [N, classes], of images with so many channels."""
        input_config, device = self.config.input(context.input), context.device
        transform = DeviceTransform(input_config, channels, train=False, batched=test.is_in_memory)
        loader = evaluation_loader(
            test,
            input_config,
            batch_size=min(self.config.train.micro_batch(1), EVALUATION_BATCH),
            device=device,
            workers=self.config.train.workers,
            rank=get_rank(),
            world_size=get_world_size(),
        )
        return compute_logits(classifier, loader, transform, device)[0]

    def _scores(self, logits: Tensor, test: ImageSplit) -> dict[str, Measured]:
        return scores(logits.softmax(1), test.labels, self.config.calibration_bins)


def _augment(config: FinetuneConfig, input_config: InputConfig, channels: int) -> ImageAugment | None:
    return ImageAugment(input_config, channels, config.rand_augment) if config.rand_augment else None
