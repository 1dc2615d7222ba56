"""A sweep of linear probes: several features and learning rates, trained in one pass over augmented images (DINOv2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mimbench.contract import (
    DataSizes,
    Encoder,
    ImageSplit,
    InputConfig,
    InputError,
    PlannedStep,
    Pooling,
    TaskContext,
    TaskResult,
)
from mimbench.toolkit.accuracy import classification_scores, top_k_accuracy, top_k_hits
from mimbench.toolkit.head_candidates import (
    Candidate,
    choose,
    count_fitted,
    hold_out_images,
    make_candidates,
    needs_choice,
)
from mimbench.toolkit.head_sweep import HeadSweep
from mimbench.toolkit.head_training import planned_heads
from mimbench.toolkit.trained_probe import ProbeAugmentation, ProbeTraining, check_probe_training


@dataclass(frozen=True)
class LinearSweep:
    """Linear layers on the vectors of last blocks, and the learning rates that they are trained with.

    As facebookresearch/dinov2@05c66df0 dinov2/eval/linear.py trains them, except that the best is chosen on held-out
    training images, and that all start from weights of one seed.
    """

    layer: int
    """Index of the last block."""
    blocks: Sequence[int]
    """Numbers of last blocks whose vectors are concatenated."""
    poolings: Sequence[Pooling]
    rates: Sequence[float]
    held_out: float
    init_std: float
    train: ProbeTraining
    augmentation: ProbeAugmentation

    @property
    def kinds(self) -> dict[str, tuple[int, Pooling]]:
        """What the linear layers read, by name."""
        return {
            f"{pooling} of {count} block{'s' if count > 1 else ''}": (count, pooling)
            for count in self.blocks
            for pooling in self.poolings
        }

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return make_candidates({kind: kind for kind in self.kinds}, self.rates)

    @property
    def has_choice(self) -> bool:
        return needs_choice(self.candidates, list(self.kinds))

    def check(self, encoder: Encoder, images: int) -> None:
        """Raise InputError if the encoder has no such features, or the budget does not fit the training images."""
        check_probe_training(self.train, count_fitted(images, self.held_out, holds_out=self.has_choice))
        if max(self.blocks) > self.layer + 1:
            raise InputError(
                f"task.blocks {max(self.blocks)} is more than the {self.layer + 1} layers up to task.layer; "
                f"set task.blocks=[1]"
            )
        for pooling in self.poolings:
            try:
                encoder.check_pooling(pooling)
            except InputError as error:
                raise InputError(f"task.poolings: {error}") from error

    def planned_step(self, encoder: Encoder, data: DataSizes, images: InputConfig) -> PlannedStep:
        return planned_heads(encoder, data, images, self.train, self.read, self.candidates, self.build)

    def run(self, encoder: Encoder, train: ImageSplit, test: ImageSplit, context: TaskContext) -> TaskResult:
        candidates, kinds, workers = self.candidates, list(self.kinds), self.train.workers
        fitted, held_out = hold_out_images(train, self.held_out, context.seed, holds_out=self.has_choice)
        sweep = HeadSweep(encoder, context, self.read, candidates, self.build, len(train.classes))
        shown = self.augmentation.applied(context.input)
        report = sweep.train(fitted, self.train, shown, label="linear sweep")
        accuracies = {} if held_out is None else sweep.accuracies(held_out, workers)
        choice = choose(candidates, accuracies, 0 if held_out is None else len(held_out), kinds)
        scores = sweep.score(test, choice, workers)
        labels = test.labels.numpy()
        return TaskResult(
            {f"top{k}": top_k_accuracy(labels, scores.logits, k) for k in (1, 5)},
            curves={"loss": [loss / len(candidates) for loss in report.loss]},
            details=choice.details() | {"top1": dict(scores.top1), "parameters": sweep.parameters()},
            cost=report,
            scores=classification_scores(test, torch.from_numpy(scores.logits).double().softmax(1).numpy()),
            by_sample={f"top{k}": top_k_hits(labels, scores.logits, k) for k in (1, 5)},
        )

    def read(self, encoder: Encoder, images: Tensor) -> dict[str, Tensor]:
        """What each kind of linear layer reads, [B, D]."""
        indices = range(self.layer - max(self.blocks) + 1, self.layer + 1)
        tokens = encoder.embed(images)
        if "further-blocks" in encoder.can:
            blocks = [encoder.run_blocks((), one) for one in encoder.forward_layers(tokens, indices, final_norm=False)]
        else:  # an encoder whose final norm does not fit its earlier layers
            blocks = encoder.forward_layers(tokens, indices)
        read = {}
        for kind, (count, pooling) in self.kinds.items():
            last = blocks[-count:]
            vectors = [one.pool("mean" if pooling == "mean" else "token") for one in last]
            read[kind] = torch.cat((*vectors, last[-1].pool("mean")) if pooling == "mean+token" else vectors, 1)
        return read

    def build(self, kind: str, dim: int, classes: int) -> nn.Linear:
        linear = nn.Linear(dim, classes)
        nn.init.trunc_normal_(linear.weight, std=self.init_std)
        nn.init.zeros_(linear.bias)
        return linear
