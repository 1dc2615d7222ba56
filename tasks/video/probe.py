"""Frozen probes of clips: linear, attentive and k-NN, over several views, in order and with frames shuffled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from mimbench.api import (
    Dataset,
    DataSizes,
    Encoder,
    FrozenFeaturesTask,
    HeadSweep,
    ImageSplit,
    InputConfig,
    InputError,
    Measured,
    Metric,
    PlannedStep,
    RegressionConfig,
    TaskConfig,
    TaskContext,
    TaskResult,
    check_probe_training,
    choose,
    class_probabilities,
    classification_scores,
    count_fitted,
    fit_regression,
    hold_out_images,
    labelled_split,
    load_protocols,
    make_candidates,
    needs_choice,
    on_first_rank,
    planned_heads,
    shuffle_frames,
    solver_protocol,
    top_k_accuracy,
    top_k_hits,
)
from mimbench_tasks.attentive_probe.config import AttentiveTraining
from mimbench_tasks.attentive_probe.heads import build_head
from mimbench_tasks.knn import as_probabilities, count_votes
from mimbench_tasks.video.views import ViewsConfig, check_views, mean_probabilities, per_class

ProbeName = Literal["linear", "knn", "attentive"]
PROBES: tuple[ProbeName, ...] = ("linear", "knn", "attentive")
"""The attentive one comes last: it reads test clips with their labels, and all features are extracted before that."""
Score = Callable[[ImageSplit, str], Tensor]
"""(the split that shows one view, its name) -> class probabilities [N, classes]."""


class VideoProbeConfig(ViewsConfig, RegressionConfig):
    """Which probes read the frozen encoder, and how they are fitted.

    linear: logistic regression on the features of each training video's middle clip. knn: a vote of the same features.
    attentive: one head that attends to the cubes, trained on clips that are drawn and cropped as in pretraining.
    """

    probes: tuple[ProbeName, ...] = Field(PROBES, min_length=1)
    neighbours: int = Field(20, ge=1)
    temperature: float = Field(0.07, gt=0)
    """A neighbour's vote counts exp(cosine similarity / temperature)."""
    head: Literal["abmilp", "cae", "vjepa"] = "vjepa"
    """Of the attentive probe: AbMILP, or cross-attention as CAE or V-JEPA have it. A batch normalisation precedes its
    linear layer, as in the task attentive-probe."""
    rates: tuple[float, ...] = Field((3e-3, 1e-2, 3e-2), min_length=1)
    """Of the attentive probe: base learning rates, of which the best on held-out training clips is scored."""
    train: AttentiveTraining = AttentiveTraining()
    """Of the attentive probe."""

    @field_validator("probes")
    @classmethod
    def _with_linear(cls, probes: tuple) -> tuple:
        if "linear" not in probes:
            raise ValueError('it lacks "linear", whose accuracy is the primary metric')
        return probes

    @field_validator("probes", "rates")
    @classmethod
    def _each_once(cls, values: tuple) -> tuple:
        if len(set(values)) < len(values):
            raise ValueError("it names one value twice")
        return values


class VideoProbe(FrozenFeaturesTask):
    """Top-1 accuracy of three probes on frozen features of clips. n is the number of test videos.

    A video's class probabilities are the mean over its views. `top1_linear_shuffled` and its like are scores of the
    same views with the frames of each clip in random order: probes that read motion lose there.
    """

    name: ClassVar[str] = "video-probe"
    version: ClassVar[str] = "1"
    takes_clips: ClassVar[bool] = True
    takes_images: ClassVar[bool] = False
    metrics: ClassVar[tuple[Metric, ...]] = tuple(
        Metric(name.format(probe), "percent", 0.0, 100.0)
        for probe in PROBES
        for name in ("top1_{}", "top1_{}_shuffled", "top5_{}", "class_mean_{}")
    )
    Config: ClassVar[type[TaskConfig]] = VideoProbeConfig
    config: VideoProbeConfig
    protocols = load_protocols("mimbench_tasks", "protocols/video_probe")
    default_protocol: ClassVar[str | None] = "default"

    def protocol_on(self, device: torch.device) -> dict[str, Any]:
        return solver_protocol(self.config.solver, device) if "linear" in self.config.probes else {}

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        super().check(encoder, dataset)
        check_views(self.config, dataset)
        images = len(labelled_split(dataset, "train"))
        if "knn" in self.config.probes and images < self.config.neighbours:
            raise InputError(
                f"task.neighbours {self.config.neighbours} is more than the {images} training clips; lower it"
            )
        if "attentive" in self.config.probes:
            check_probe_training(self.config.train, self._fitted(images))

    def planned_step(self, encoder: Encoder, data: DataSizes, images: InputConfig) -> PlannedStep | None:
        """The step of the attentive probe. The others are fitted to stored features."""
        if "attentive" not in self.config.probes:
            return None
        return planned_heads(encoder, data, images, self.config.train, self._read, self._candidates, self._build)

    def relevant_input(self, input_config: InputConfig) -> dict[str, Any]:
        """The attentive probe's training augments as the recipe's [input] does."""
        return input_config.shaping() if "attentive" in self.config.probes else input_config.evaluation()

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        train, test = labelled_split(dataset, "train"), labelled_split(dataset, "test")
        shuffled = shuffle_frames(test)
        context.say(f"video-probe: probing {len(train):,} training and {len(test):,} test clips")
        fits = {"linear": self._linear, "attentive": self._attentive, "knn": self._knn}
        probabilities: dict[str, tuple[Tensor, Tensor]] = {}
        details: dict[str, Any] = {}
        for probe in (one for one in PROBES if one in self.config.probes):
            score, details[probe] = fits[probe](encoder, train, context)
            probabilities[probe] = (
                mean_probabilities(test, self.config, score),
                mean_probabilities(shuffled, self.config, score, "test, frames shuffled"),
            )
        metrics: dict[str, Measured] = {}
        by_sample: dict[str, np.ndarray] = {}
        labels = test.labels.numpy()
        for name, (in_order, out_of_order) in probabilities.items():
            ordered, shuffled_scores = in_order.numpy(), out_of_order.numpy()
            class_mean, details[name]["classes"] = per_class(in_order, out_of_order, test)
            metrics |= {
                f"top1_{name}": top_k_accuracy(labels, ordered, 1),
                f"top1_{name}_shuffled": top_k_accuracy(labels, shuffled_scores, 1),
                f"top5_{name}": top_k_accuracy(labels, ordered, 5),
                f"class_mean_{name}": class_mean,
            }
            by_sample[f"top1_{name}"] = top_k_hits(labels, ordered, 1)
            by_sample[f"top1_{name}_shuffled"] = top_k_hits(labels, shuffled_scores, 1)
        absent = [metric.name for metric in self.metrics if metric.name not in metrics]
        details["absent"] = dict.fromkeys(absent, "its probe is not among task.probes")
        first = next(iter(probabilities))
        scores = classification_scores(test, probabilities[first][0].numpy(), has_loss=first != "knn")
        return TaskResult(metrics, details=details, scores=scores, by_sample=by_sample)

    def _linear(self, encoder: Encoder, train: ImageSplit, context: TaskContext) -> tuple[Score, dict[str, Any]]:
        x, classes = self._features(train, "train", context).numpy(), len(train.classes)

        @on_first_rank
        def fit() -> Any:
            return fit_regression(x, train.labels.numpy(), self.config, context.seed, device=context.device)

        fitted = fit()

        def score(view: ImageSplit, name: str) -> Tensor:
            features = self._features(view, name, context).numpy()
            return torch.from_numpy(class_probabilities(fitted.classifier, features, classes))

        return score, {**fitted.details(), "feature_dim": x.shape[1]}

    def _knn(self, encoder: Encoder, train: ImageSplit, context: TaskContext) -> tuple[Score, dict[str, Any]]:
        config, bank, classes = self.config, self._features(train, "train", context), len(train.classes)
        k = config.neighbours

        def score(view: ImageSplit, name: str) -> Tensor:
            queries, device = self._features(view, name, context), context.device
            votes = count_votes(queries, bank, train.labels, classes, [k], device, temperature=config.temperature)
            return torch.from_numpy(as_probabilities(votes[k]))

        return score, {"feature_dim": bank.shape[1]}

    def _attentive(self, encoder: Encoder, train: ImageSplit, context: TaskContext) -> tuple[Score, dict[str, Any]]:
        config, candidates = self.config, self._candidates
        fitted, held_out = hold_out_images(train, config.held_out, context.seed, holds_out=len(candidates) > 1)
        sweep = HeadSweep(encoder, context, self._read, candidates, self._build, len(train.classes))
        report = sweep.train(fitted, config.train, context.input, label=self.name)
        accuracies = {} if held_out is None else sweep.accuracies(held_out, config.train.workers)
        choice = choose(candidates, accuracies, 0 if held_out is None else len(held_out), (config.head,))

        def score(view: ImageSplit, name: str) -> Tensor:
            logits = sweep.score(view, choice, config.train.workers).logits
            return torch.from_numpy(logits).double().softmax(1)

        loss = [one / len(candidates) for one in report.loss]
        return score, {**choice.details(), "parameters": sweep.parameters(), "loss": loss}

    def _features(self, split: ImageSplit, which: str, context: TaskContext) -> Tensor:
        return context.features(split, which, layer=self.config.layer, pooling=self.config.pooling)

    def _fitted(self, images: int) -> int:
        """Number of training clips that the attentive probe is trained on."""
        holds_out = needs_choice(self._candidates, (self.config.head,))
        return count_fitted(images, self.config.held_out, holds_out=holds_out)

    @property
    def _candidates(self) -> Any:
        return make_candidates({self.config.head: "tokens"}, self.config.rates)

    def _read(self, encoder: Encoder, images: Tensor) -> dict[str, Tensor]:
        return {"tokens": encoder.features(images, self.config.layer).patches}

    def _build(self, kind: str, dim: int, classes: int) -> nn.Module:
        return build_head(self.config.head, dim, classes, queries=1, batch_norm=True)
