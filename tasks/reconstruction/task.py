"""Reconstruction: how well hidden pixels are rebuilt, and how real the images are that are made from nothing."""

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
)
from mimbench_tasks.reconstruction.config import ReconstructionConfig
from mimbench_tasks.reconstruction.fills import hidden_cells, mask_grid
from mimbench_tasks.reconstruction.generated import Generated, generated
from mimbench_tasks.reconstruction.images import normalised, shuffled
from mimbench_tasks.reconstruction.judge import trained_judge
from mimbench_tasks.reconstruction.pictures import generated_picture, rebuilt_picture
from mimbench_tasks.reconstruction.rebuild import MEAN, METHOD, NEAREST, PEEKING, Rebuilding, Sample

WITHHELD = (
    "What is hidden is withheld: the mean and contrast that this method takes of hidden patches "
    "are those of the nearest visible ones."
)


class Reconstruction(Task):
    """PSNR, SSIM and the errors of hidden pixels, at `ratio`; the Frechet distance of generated images.

    Pixels lie in [0, 1]. What is hidden is withheld: the method sees copies of the nearest visible cells in its place,
    so a method that takes statistics of hidden patches (MAE with normalised pixels) has to do with an estimate of
    them; `details["truth_given"]` holds its scores with the true ones. See `Scores` for what is measured, `generate`
    for how images are made. The Frechet distance is that of features of a classifier trained on the same data,
    between generated images and as many test images; `details["frechet"]["floor"]` is the distance between two halves
    of the test images, which nothing can be expected to beat.
    """

    name: ClassVar[str] = "reconstruction"
    version: ClassVar[str] = "1"
    needs: ClassVar[frozenset[str]] = frozenset({"images"})
    needs_reconstruction: ClassVar[bool] = True
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

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        """Rebuild and generate with `context.method`; `encoder` is not used.

        Raises:
            InputError: the context has no method.
        """
        method, config = context.method, self.config
        if method is None:
            raise InputError("reconstruction is measured on a whole method, and only an encoder is there")
        test, grid = shuffled(image_split(dataset, "test"), config.images), mask_grid(method)
        rebuilding, artifacts = self._rebuild(method, test, grid, context)
        metrics, details, cost = _metrics(rebuilding, config.ratio), _details(rebuilding, config.ratio), None
        if config.generate:
            note = self._note(method, rebuilding)
            found, artifacts["generated"], details["frechet"], cost = self._generate(
                method, test, grid, note, dataset, context
            )
            metrics["frechet"] = Measured(found.frechet[config.starts[0]], found.n)
        return TaskResult(metrics, _curves(rebuilding), artifacts, details, cost)

    def chance(self, dataset: Dataset) -> float:
        """PSNR [dB] of filling what is hidden with each image's own mean: -10 log10(ratio x mean variance of an image).

        By channel and at the data's own resolution. `details["mean_fill"]` holds what it comes to on the very masks.
        """
        test = shuffled(image_split(dataset, "test"), self.config.images)
        variances = [(test[index][0].float() / 255).var((1, 2), correction=0).mean() for index in range(len(test))]
        error = self.config.ratio * torch.stack(variances).double().mean()
        return min(100.0, float(-10 * error.log10()))

    def _note(self, method: Method, rebuilding: Rebuilding) -> str:
        """What to know about the pixels that are shown; what the method says of itself holds where it may peek."""
        return method.reconstruction_note if rebuilding.values(PEEKING, self.config.ratio) is None else WITHHELD

    def _rebuild(
        self, method: Method, test: ImageSplit, grid: Grid, context: TaskContext
    ) -> tuple[Rebuilding, dict[str, Path]]:
        config, input_config = self.config, context.input
        rebuilding = Rebuilding(method, input_config, grid, ratios=config.ratios, ratio=config.ratio, seed=context.seed)
        context.say(f"reconstruction: {len(test):,} test images, {len(rebuilding.shares)} shares of hidden cells")
        first: tuple[Tensor, list[Sample]] | None = None
        for images in normalised(test, input_config, method.encoder.in_channels, context.device):
            samples = rebuilding.add(images)
            first = first or (denormalise(images, input_config)[: config.shown], samples)
        assert first is not None
        note = self._note(method, rebuilding)
        path = context.workdir / "rebuilt.png"
        path.write_bytes(rebuilt_picture(*first, footnote=note))
        return rebuilding, {"rebuilt": path}

    def _generate(
        self, method: Method, test: ImageSplit, grid: Grid, note: str, dataset: Dataset, context: TaskContext
    ) -> tuple[Generated, Path, dict[str, Any], FitReport | None]:
        config = self.config
        channels = method.encoder.in_channels
        judge, cost = trained_judge(config.judge, dataset, image_split(dataset, "train"), channels, context)
        context.say(f"reconstruction: generating images in {config.steps} steps")
        found = generated(method, judge, test, context.input, grid, config, device=context.device, seed=context.seed)
        path = context.workdir / "generated.png"
        path.write_bytes(generated_picture(found.frames, footnote=note))
        details = {
            "floor": found.floor,
            "by_share_hidden_at_start": {f"{share:g}": distance for share, distance in found.frechet.items()},
            "images": found.n,
            "judge": {"features": config.judge.features},
        }
        return found, path, details, cost


def _metrics(rebuilding: Rebuilding, ratio: float) -> dict[str, Measured]:
    values = rebuilding.values(METHOD, ratio)
    assert values is not None
    return {name: Measured(value, rebuilding.n) for name, value in values.items()}


def _curves(rebuilding: Rebuilding) -> dict[str, list[float]]:
    curves = {"mask_ratio": rebuilding.shares, **rebuilding.curves(METHOD)}
    return curves | {f"psnr, {kind}": rebuilding.curves(kind)["psnr"] for kind in (MEAN, NEAREST)}


def _details(rebuilding: Rebuilding, ratio: float) -> dict[str, Any]:
    grid = rebuilding.grid
    details: dict[str, Any] = {
        "ratio": ratio,
        "chance": MEAN,
        "mask_grid": list(grid),
        "hidden_cells": {f"{share:g}": hidden_cells(grid, share) for share in rebuilding.shares},
        "mean_fill": rebuilding.values(MEAN, ratio),
        "nearest_fill": rebuilding.values(NEAREST, ratio),
        "truth_given": rebuilding.values(PEEKING, ratio),
    }
    if "ssim" not in rebuilding.curves(METHOD):
        details["absent"] = {"ssim": "its window of 11 px is larger than the images"}
    return details
