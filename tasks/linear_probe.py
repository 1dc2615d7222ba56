"""Linear probe: a linear classifier on frozen features, trained as papers do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from mimbench.api import (
    Dataset,
    DataSizes,
    Encoder,
    ImageSplit,
    InputConfig,
    LastLayersConfig,
    LinearSweep,
    Metric,
    PlannedStep,
    Pooling,
    ProbeAugmentation,
    ProbeTraining,
    Regression,
    RegressionConfig,
    RegressionTask,
    TaskContext,
    TaskResult,
    added,
    check_probe_training,
    class_probabilities,
    classification_scores,
    fit_regression,
    labelled_split,
    load_protocols,
    map_over_ranks,
    own_share,
    planned_probe,
    top_k_accuracy,
    top_k_hits,
    train_probe,
)

DINOV2_RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)


class LinearProbeConfig(RegressionConfig, LastLayersConfig):
    """lbfgs: logistic regression on standardised, cached features, its regularisation chosen on a held-out part of the
    training set. trained: batch normalisation and a linear layer, trained on augmented images through the frozen
    encoder. sweep: linear layers on several features with several learning rates, trained in one pass over augmented
    images, and chosen on a held-out part of the training set.
    """

    probe: Literal["lbfgs", "trained", "sweep"] = "lbfgs"
    layers: Literal["one", "all"] = "one"
    """"all" (lbfgs only) probes every layer. The best on held-out training images gives another metric."""
    train: ProbeTraining = ProbeTraining()
    augmentation: ProbeAugmentation = ProbeAugmentation()
    init_std: float = Field(0.01, ge=0)
    """Standard deviation of the trained layer's initial weights (normal, truncated at +-2). Its bias starts at 0."""

    blocks: tuple[int, ...] = added((1, 4), min_length=1)
    """Of a sweep: numbers of last blocks, up to `layer`, whose vectors are concatenated. The encoder's final norm is
    applied to each."""
    poolings: tuple[Pooling, ...] = added(("token", "mean+token"), min_length=1)
    """Of a sweep: "token", the class tokens of the blocks; "mean+token", these and the mean over the patches of the
    last one; "mean", the means over the patches of each."""
    rates: tuple[float, ...] = added(DINOV2_RATES, min_length=1)
    """Of a sweep: base learning rates, scaled by the batch size as train.base_lr is, which is not used."""

    @model_validator(mode="after")
    def _layers_fit_the_probe(self) -> LinearProbeConfig:
        if self.probe != "lbfgs" and self.layers == "all":
            raise ValueError('layers = "all" needs probe = "lbfgs": a trained probe sees one layer')
        if self.last_layers > 1 and (self.probe != "lbfgs" or self.layers == "all"):
            raise ValueError('last_layers needs probe = "lbfgs" and layers = "one"; a sweep has blocks')
        if any(count < 1 for count in self.blocks) or any(rate <= 0 for rate in self.rates):
            raise ValueError("blocks must be 1 or more, and rates above 0")
        for name, values in (("blocks", self.blocks), ("poolings", self.poolings), ("rates", self.rates)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names one value twice")
        return self


_OF_LBFGS = {"layers", "inverse_regularisation", "max_iterations", "tolerance", "last_layers"}
_OF_TRAINING = {"train", "augmentation", "init_std"}
_OF_SWEEP = {"blocks", "poolings", "rates"}
_UNUSED = {
    "lbfgs": _OF_TRAINING | _OF_SWEEP,
    "trained": _OF_LBFGS | {"held_out"} | _OF_SWEEP,
    "sweep": _OF_LBFGS | {"pooling"},
}
"""Options that say nothing about a probe, by its kind."""


@dataclass(frozen=True)
class _Fit:
    """Logistic regression on one layer."""

    regression: Regression
    scores: np.ndarray
    """Class probabilities of the test images, [N, classes]."""
    dim: int


class LinearProbe(RegressionTask):
    """Top-1 accuracy of a linear classifier on frozen features.

    `top1` and `top5` are of the configured `layer` under every protocol. `top1_best_layer` is the test accuracy of the
    layer that is best on held-out training images. The choice uses no test label.
    """

    name: ClassVar[str] = "linear-probe"
    version: ClassVar[str] = "1"
    takes_clips: ClassVar[bool] = True
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("top1", "percent", 0.0, 100.0),
        Metric("top5", "percent", 0.0, 100.0),
        Metric("top1_best_layer", "percent", 0.0, 100.0),
    )
    Config = LinearProbeConfig
    config: LinearProbeConfig
    protocols = load_protocols("mimbench_tasks", "protocols/linear_probe")
    default_protocol: ClassVar[str | None] = "cached-lbfgs"

    def protocol(self) -> dict[str, Any]:
        unused = _UNUSED[self.config.probe]
        return {key: value for key, value in super().protocol().items() if key not in unused}

    def protocol_on(self, device: torch.device) -> dict[str, Any]:
        return super().protocol_on(device) if self.config.probe == "lbfgs" else {}

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        super().check(encoder, dataset)
        images = len(labelled_split(dataset, "train"))
        if self.config.probe == "trained":
            check_probe_training(self.config.train, images)
        if self.config.probe == "sweep":
            self._sweep(encoder).check(encoder, images)

    def planned_step(self, encoder: Encoder, data: DataSizes, images: InputConfig) -> PlannedStep | None:
        """The step of a trained probe. One that is fitted to stored features has none."""
        if self.config.probe == "lbfgs":
            return None
        shown = self.config.augmentation.applied(images)
        if self.config.probe == "sweep":
            return self._sweep(encoder).planned_step(encoder, data, shown)
        return planned_probe(
            encoder, data, shown, self.config.train, layer=self.config.layer, pooling=self.config.pooling
        )

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        train, test = labelled_split(dataset, "train"), labelled_split(dataset, "test")
        context.say(f"linear-probe: probing {len(train):,} training and {len(test):,} test images")
        if self.config.probe == "trained":
            return self._trained(encoder, train, test, context)
        if self.config.probe == "sweep":
            result = self._sweep(encoder).run(encoder, train, test, context)
            return replace(result, details={**result.details, **_one_layer()})
        reported_layer = encoder.layer_index(self.config.layer)
        layers = list(range(encoder.num_layers)) if self.config.layers == "all" else [reported_layer]
        fits = dict(zip(layers, self._regress(train, test, layers, context), strict=True))
        chosen, test_y = fits[reported_layer], test.labels.numpy()
        metrics = {"top1": top_k_accuracy(test_y, chosen.scores, 1), "top5": top_k_accuracy(test_y, chosen.scores, 5)}
        details: dict[str, Any] = {
            **chosen.regression.details(),
            "feature_dim": chosen.dim,
        }
        by_sample = classification_scores(test, chosen.scores)
        if self.config.layers == "one":
            hits = _hits(test_y, chosen.scores)
            return TaskResult(metrics, details=details | _one_layer(), scores=by_sample, by_sample=hits)
        test_curve = [top_k_accuracy(test_y, fits[layer].scores, 1) for layer in layers]
        held_out_curve = [100 * max(fits[layer].regression.held_out.values()) for layer in layers]
        best = int(np.argmax(held_out_curve))
        return TaskResult(
            metrics | {"top1_best_layer": test_curve[best]},
            curves={"top1_by_layer": [point.value for point in test_curve], "held_out_top1_by_layer": held_out_curve},
            details=details
            | {
                "layer": reported_layer,
                "best_layer": best,
                "best_layer_on_test": int(np.argmax([point.value for point in test_curve])),
            },
            scores=by_sample,
            by_sample=_hits(test_y, chosen.scores)
            | {"top1_best_layer": top_k_hits(test_y, fits[layers[best]].scores, 1)},
        )

    def _regress(self, train: ImageSplit, test: ImageSplit, layers: Sequence[int], context: TaskContext) -> list[_Fit]:
        """A regression on each layer. Ranks share the layers."""
        pooling, y = self.config.pooling, train.labels.numpy()
        if self.last_layers > 1:
            train_x, test_x = ([one] for one in self.features(train, test, context))
        else:
            train_x = context.features.each_layer(train, "train", layers=layers, pooling=pooling)
            test_x = context.features.each_layer(test, "test", layers=layers, pooling=pooling)
        compares_layers = self.config.layers == "all"

        def regress(place: int) -> _Fit:
            x = train_x[place].numpy()
            fitted = fit_regression(
                x, y, self.config, context.seed, measure_held_out=compares_layers, device=context.device
            )
            scores = class_probabilities(fitted.classifier, test_x[place].numpy(), len(train.classes))
            return _Fit(fitted, scores, x.shape[1])

        return map_over_ranks(regress, own_share(range(len(layers))))

    def _sweep(self, encoder: Encoder) -> LinearSweep:
        config = self.config
        return LinearSweep(
            layer=encoder.layer_index(config.layer),
            blocks=config.blocks,
            poolings=config.poolings,
            rates=config.rates,
            held_out=config.held_out,
            init_std=config.init_std,
            train=config.train,
            augmentation=config.augmentation,
        )

    def _trained(self, encoder: Encoder, train: ImageSplit, test: ImageSplit, context: TaskContext) -> TaskResult:
        config = self.config
        trained = train_probe(
            encoder,
            train,
            context,
            config.train,
            config.augmentation,
            layer=config.layer,
            pooling=config.pooling,
            init_std=config.init_std,
        )
        scores = trained.scores(context.features(test, "test", layer=config.layer, pooling=config.pooling))
        test_y = test.labels.numpy()
        return TaskResult(
            {"top1": top_k_accuracy(test_y, scores, 1), "top5": top_k_accuracy(test_y, scores, 5)},
            curves={"loss": trained.report.loss},
            details={"feature_dim": trained.dim} | _one_layer(),
            cost=trained.report,
            scores=classification_scores(test, torch.from_numpy(scores).double().softmax(1).numpy()),
            by_sample=_hits(test_y, scores),
        )


def _hits(labels: np.ndarray, scores: np.ndarray) -> dict[str, np.ndarray]:
    return {"top1": top_k_hits(labels, scores, 1), "top5": top_k_hits(labels, scores, 5)}


def _one_layer() -> dict[str, Any]:
    return {"absent": {"top1_best_layer": 'one layer was probed; task.layers = "all" with an lbfgs probe probes all'}}
