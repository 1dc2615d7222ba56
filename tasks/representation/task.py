"""What the layers represent: similarity of layers, spectrum of maps, similarity of patches, effective rank."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mimbench.api import (
    Dataset,
    Encoder,
    InputError,
    Measured,
    Metric,
    Task,
    TaskConfig,
    TaskContext,
    TaskResult,
    cosmetic,
    image_split,
    map_over_images,
    sample_images,
)
from mimbench_tasks.feature_quality.measures import effective_rank
from mimbench_tasks.representation import measures

LayerMeasures = tuple[Tensor, Tensor, Tensor]
"""Of one layer: mean over patches [B, D], spectrum [B, K], similarity of patches [B]."""
_WIDEST = 1e6


class RepresentationConfig(TaskConfig):
    """Which images are looked at."""

    images: int = Field(512, ge=measures.FEWEST_IMAGES)
    """Test images, at most. They are drawn at random, and are the same for every method and seed."""
    batch: int = cosmetic(64, ge=1)
    """Images at once."""


class Representation(Task):
    """What the layers represent. Features are the outputs of blocks, before the final norm; prefix tokens are left out.

    `patch_similarity` is the mean cosine similarity of two patches of an image, `high_frequency` the log-amplitude of
    the highest frequency of the map minus that of its mean, and `effective_rank` the number of directions of the mean
    over patches; all three are of the last layer. `cka_adjacent` is the similarity of a layer to the next one (debiased
    linear CKA of the means over patches), averaged over layers, and `cka_first_last` that of the first and the last.
    None of them is good or bad by itself, though tables count higher as better. `curves` holds each layer's values, and
    `details["cka"]` the similarity of any two layers.
    """

    name: ClassVar[str] = "representation"
    version: ClassVar[str] = "1"
    needs: ClassVar[frozenset[str]] = frozenset({"images"})
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("patch_similarity", "of 1", -1.0, 1.0),
        Metric("high_frequency", "nats", -50.0, 50.0),
        Metric("effective_rank", "directions", 0.0, _WIDEST),
        Metric("cka_adjacent", "of 1", -1.0, 1.0),
        Metric("cka_first_last", "of 1", -1.0, 1.0),
    )
    Config = RepresentationConfig
    config: RepresentationConfig

    def depends_on_processes(self, encoder: Encoder, dataset: Dataset) -> str:
        """Features are the same on any number of processes, and so is what follows from all of them."""
        return ""

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        count = len(image_split(dataset, "test"))
        if count < measures.FEWEST_IMAGES:
            raise InputError(
                f"{self.name} needs {measures.FEWEST_IMAGES} or more test images; dataset {dataset.name!r} has {count}"
            )

    def chance(self, dataset: Dataset) -> float:
        """Similarity of patches that all have the same features."""
        return 1.0

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        images = sample_images(image_split(dataset, "test"), self.config.images)
        count = len(images)
        context.say(f"{self.name}: looking at {count:,} test images")

        def measure(batch: Tensor) -> list[LayerMeasures]:
            return [
                (
                    features.pooled.float().cpu(),
                    measures.spectrum(features.dense).cpu(),
                    measures.patch_similarity(features.patches).cpu(),
                )
                for features in encoder.layers(batch, final_norm=False)
            ]

        batches = map_over_images(measure, encoder, images, context, batch_size=self.config.batch)
        pooled, spectra, similarity = zip(
            *(tuple(map(torch.cat, zip(*layer, strict=True))) for layer in zip(*batches, strict=True)), strict=True
        )
        cka = measures.debiased_cka(pooled)
        ranks = [effective_rank(features) for features in pooled]
        metrics = {
            "patch_similarity": Measured(float(similarity[-1].mean()), count),
            "effective_rank": Measured(ranks[-1], count),
        }
        by_sample = {"patch_similarity": similarity[-1].numpy()}
        curves = {
            "patch_similarity_by_layer": [float(one.mean()) for one in similarity],
            "high_frequency_by_layer": [float(one[:, -1].mean()) for one in spectra],
            "effective_rank_by_layer": ranks,
            "spectrum_of_last_layer": spectra[-1].mean(0).tolist(),
        }
        absent = {}
        if spectra[-1].shape[1] > 1:
            metrics["high_frequency"] = Measured(curves["high_frequency_by_layer"][-1], count)
            by_sample["high_frequency"] = spectra[-1][:, -1].numpy()
        else:
            absent["high_frequency"] = "the last map has fewer than 3 x 3 cells"
        if len(pooled) > 1:
            metrics["cka_adjacent"] = Measured(float(cka.diagonal(1).mean()), count)
            metrics["cka_first_last"] = Measured(float(cka[0, -1]), count)
        else:
            absent |= dict.fromkeys(("cka_adjacent", "cka_first_last"), "the encoder has one layer")
        details: dict[str, Any] = {"layers": len(pooled), "cka": cka.tolist()} | ({"absent": absent} if absent else {})
        return TaskResult(metrics, curves=curves, details=details, by_sample=by_sample)
