"""Reconstruction: errors of predicted masked pixels, and the Frechet distance of generated images."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from mimbench.api import (
    Dataset,
    Encoder,
    FitReport,
    Grid,
    ImageSplit,
    InputError,
    Measured,
    Method,
    Metric,
    Task,
    TaskConfig,
    TaskContext,
    TaskResult,
    denormalise,
    image_split,
    to_byte_scale,
)
from mimbench_tasks.reconstruction.config import ReconstructionConfig
from mimbench_tasks.reconstruction.fills import grid_of_masks, masked_cells
from mimbench_tasks.reconstruction.generation_scores import GenerationScores, score_generation
from mimbench_tasks.reconstruction.image_batches import image_batches, shuffle
from mimbench_tasks.reconstruction.judge import load_or_train_judge
from mimbench_tasks.reconstruction.picture_grids import draw_generation, draw_reconstructions
from mimbench_tasks.reconstruction.scorer import MEAN, METHOD, NEAREST, PEEKING, ReconstructionScorer, Sample

WITHHELD = (
    "Masked pixels are withheld: instead of the mean and contrast of masked patches, "
    "the method gets those of the nearest visible ones."
)


class Reconstruction(Task):
    """PSNR, SSIM and errors of masked pixels at mask ratio `ratio`, and the Frechet distance of generated images.

    Pixels are in [0, 1]. The method never gets masked pixels, but copies of the nearest visible cells in their place.
    A method that uses the mean and variance of masked patches (MAE with normalised pixels) thus gets an estimate of
    them; `details["truth_given"]` holds its scores with the true values. `Scores` defines the scores and `generate`
    the generation. The Frechet distance is between generated images and as many test images, in the features of a
    classifier trained on the same data. `details["frechet"]["floor"]` is the distance between two halves of the test
    images, which is a lower bound in practice.
    """

    name: ClassVar[str] = "reconstruction"
    version: ClassVar[str] = "1"
    needs: ClassVar[frozenset[str]] = frozenset({"images"})
    needs_reconstruction = True
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("psnr", "dB", 0.0, 100.0),
        Metric("ssim", "index", -1.0, 1.0),
        Metric("hidden_mae", "of full range", 0.0, 1.0, higher_is_better=False),
        Metric("hidden_mse", "of full range squared", 0.0, 1.0, higher_is_better=False),
        Metric("frechet", "squared distance", 0.0, 1e6, higher_is_better=False),
    )
    Config: ClassVar[type[TaskConfig]] = ReconstructionConfig
    config: ReconstructionConfig

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        test = image_split(dataset, "test")
        if len(test) < 4:
            raise InputError(f"reconstruction needs four or more test images; dataset {dataset.name!r} has {len(test)}")
        if self.config.generate and (
            "labels" not in dataset.provides or len(image_split(dataset, "train").classes) < 2
        ):
            raise InputError(
                f"generated images are judged by a classifier, and dataset {dataset.name!r} has no two labelled "
                "classes to train one on; set task.generate=false"
            )

    def depends_on_processes(self, encoder: Encoder, dataset: Dataset) -> str:
        return ""

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        """Reconstruct and generate with `context.method`; `encoder` is not used.

        Raises:
            InputError: the context has no method.
        """
        method, config = context.method, self.config
        if method is None:
            raise InputError("reconstruction needs the whole pretrained method, and there is only an encoder")
        test, grid = shuffle(image_split(dataset, "test"), config.images), grid_of_masks(method)
        scorer, artifacts = self._reconstruct(method, test, grid, context)
        metrics, details, cost = _metrics(scorer, config.ratio), _details(scorer, config.ratio), None
        if config.generate:
            note = self._note(method, scorer)
            scores, artifacts["generated"], details["frechet"], cost = self._generate(
                method, test, grid, note, dataset, context
            )
            metrics["frechet"] = Measured(scores.frechet[config.starts[0]], scores.n)
        return TaskResult(metrics, _curves(scorer), artifacts, details, cost)

    def chance(self, dataset: Dataset) -> float:
        """PSNR [dB] of filling masked pixels with the mean of their image: -10 log10(ratio x mean variance per image).

        Means and variances are per channel and at the original resolution. `details["mean_fill"]` holds the scores of
        the same fill on the actual masks.
        """
        test = shuffle(image_split(dataset, "test"), self.config.images)
        images = (to_byte_scale(test[index][0], test.pixel_range).float() / 255 for index in range(len(test)))
        variances = [image.var((1, 2), correction=0).mean() for image in images]
        error = self.config.ratio * torch.stack(variances).double().mean()
        return min(100.0, float(-10 * error.log10()))

    def _note(self, method: Method, scorer: ReconstructionScorer) -> str:
        """The footnote of the pictures. For a method that would use masked pixels, it says that it did not get them."""
        return method.reconstruction_note if scorer.values(PEEKING, self.config.ratio) is None else WITHHELD

    def _reconstruct(
        self, method: Method, test: ImageSplit, grid: Grid, context: TaskContext
    ) -> tuple[ReconstructionScorer, dict[str, Path]]:
        config, input_config = self.config, context.input
        scorer = ReconstructionScorer(
            method, input_config, grid, ratios=config.ratios, ratio=config.ratio, seed=context.seed
        )
        context.say(f"reconstruction: {len(test):,} test images, {len(scorer.ratios)} mask ratios")
        first: tuple[Tensor, list[Sample]] | None = None
        for images in image_batches(test, input_config, method.encoder.in_channels, context.device):
            samples = scorer.add(images)
            first = first or (denormalise(images, input_config)[: config.shown], samples)
        assert first is not None
        note = self._note(method, scorer)
        path = context.workdir / "rebuilt.png"
        path.write_bytes(draw_reconstructions(*first, footnote=note))
        return scorer, {"rebuilt": path}

    def _generate(
        self, method: Method, test: ImageSplit, grid: Grid, note: str, dataset: Dataset, context: TaskContext
    ) -> tuple[GenerationScores, Path, dict[str, Any], FitReport | None]:
        config = self.config
        channels = method.encoder.in_channels
        judge, cost = load_or_train_judge(config.judge, dataset, image_split(dataset, "train"), channels, context)
        context.say(f"reconstruction: generating images in {config.steps} steps")
        scores = score_generation(
            method, judge, test, context.input, grid, config, device=context.device, seed=context.seed
        )
        path = context.workdir / "generated.png"
        path.write_bytes(draw_generation(scores.frames, footnote=note))
        details = {
            "floor": scores.floor,
            "by_share_hidden_at_start": {f"{ratio:g}": distance for ratio, distance in scores.frechet.items()},
            "images": scores.n,
            "judge": {"features": config.judge.features},
        }
        return scores, path, details, cost


def _metrics(scorer: ReconstructionScorer, ratio: float) -> dict[str, Measured]:
    values = scorer.values(METHOD, ratio)
    assert values is not None
    return {name: Measured(value, scorer.n) for name, value in values.items()}


def _curves(scorer: ReconstructionScorer) -> dict[str, list[float]]:
    curves = {"mask_ratio": scorer.ratios, **scorer.curves(METHOD)}
    return curves | {f"psnr, {kind}": scorer.curves(kind)["psnr"] for kind in (MEAN, NEAREST)}


def _details(scorer: ReconstructionScorer, ratio: float) -> dict[str, Any]:
    grid = scorer.grid
    details: dict[str, Any] = {
        "ratio": ratio,
        "chance": MEAN,
        "mask_grid": list(grid),
        "hidden_cells": {f"{share:g}": masked_cells(grid, share) for share in scorer.ratios},
        "mean_fill": scorer.values(MEAN, ratio),
        "nearest_fill": scorer.values(NEAREST, ratio),
        "truth_given": scorer.values(PEEKING, ratio),
    }
    if "ssim" not in (scorer.values(METHOD, ratio) or {}):
        details["absent"] = {"ssim": "its window of 11 px is larger than the images"}
    return details
