"""Depth: metres of each pixel, by a linear or a DPT head on frozen features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.api import (
    Dataset,
    DataSizes,
    DepthSplit,
    Encoder,
    InputConfig,
    InputError,
    Measured,
    Metric,
    PlannedStep,
    Task,
    TaskConfig,
    TaskContext,
    TaskResult,
    load_protocols,
    map_over_ranks,
    require_grey_or_rgb,
)
from mimbench_tasks.dense.config import resolution
from mimbench_tasks.dense.depth.config import DepthConfig
from mimbench_tasks.dense.depth.heads import build_depth_head
from mimbench_tasks.dense.depth.picture import DepthPanel, draw_depths
from mimbench_tasks.dense.depth.scores import ImageScores, average, check_region, scale_invariant_loss, score_image
from mimbench_tasks.dense.images import PixelImages, Sample
from mimbench_tasks.dense.maps import FrozenMaps, Scores, slide, upsample
from mimbench_tasks.dense.parallel_heads import (
    Loss,
    ParallelHeads,
    check_heads_training,
    choose_head,
    curve,
    sweep_details,
)
from mimbench_tasks.dense.planned import plan_heads
from mimbench_tasks.dense.segmentation import hold_out
from mimbench_tasks.dense.training_data import check_one_size, training_batches

_MOST_READ = 200
"""Images per split from which chance is estimated, evenly spaced."""


class DepthTask(Task):
    """Depth from frozen features, in the original pixels of the test images.

    Each score is taken over the pixels of an image, and averaged over images; n is the number of test images with
    readings. With several `lr_factors`, as many heads are trained in one pass, and delta1 on held-out training images
    chooses one.
    """

    name: ClassVar[str] = "depth"
    version: ClassVar[str] = "1"
    needs: ClassVar[frozenset[str]] = frozenset({"depth"})
    encoder_needs: ClassVar[frozenset[str]] = frozenset({"any-size"})
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("delta1", "percent", 0.0, 100.0),
        Metric("rmse", "m", 0.0, 1e3, higher_is_better=False),
        Metric("abs_rel", "ratio", 0.0, 1e6, higher_is_better=False),
    )
    Config: ClassVar[type[TaskConfig]] = DepthConfig
    protocols = load_protocols("mimbench_tasks", "protocols/depth")
    default_protocol: ClassVar[str | None] = "default"
    default_dataset: ClassVar[str | None] = "depth-scenes"
    config: DepthConfig

    def depends_on_processes(self, encoder: Encoder, dataset: Dataset) -> str:
        """Frozen maps, losses that are means over images and shared batch norms are the same on any number."""
        return ""

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        """Raises InputError for layers, sizes, a budget or data that do not suit."""
        config, (train, test) = self.config, _splits(dataset)
        require_grey_or_rgb(encoder.in_channels, "the encoder", self.name)
        config.check_encoder(encoder)
        if config.head == "dpt" and len(encoder.pyramid_strides) > 1:
            raise InputError("task.head dpt makes a pyramid of maps of one size; use linear for this encoder")
        if config.min_depth >= self._max_depth(train):
            raise InputError(
                f"task.min_depth {config.min_depth:g} m is not below the dataset's {train.max_depth:g} m; lower it"
            )
        for split, where in ((train, "the train split"), (test, "the test split")):
            check_region(split, config.region, f"{where} of dataset {dataset.name!r}")
        fit_on, _ = self._parts(train, 0)
        check_heads_training(config.train, config.lr_factors, len(fit_on))
        check_one_size(config, self._images(train, encoder, fit_on, 0, augmented=True))

    def planned_step(self, encoder: Encoder, data: DataSizes, images: InputConfig) -> PlannedStep:
        """Of a dataset whose greatest depth is not set, any depth has the same memory."""
        high = self.config.max_depth or 2 * self.config.min_depth

        def build(channels: Sequence[int]) -> list[nn.Module]:
            return [build_depth_head(channels, self.config, high, 0) for _ in self.config.lr_factors]

        return plan_heads(self.config, encoder, data, images, build, self._loss(high), torch.float32)

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        """Train the heads, choose one, and score it on the test images. Raises InputError for an unreadable image."""
        config, (train, test) = self.config, _splits(dataset)
        fit_on, held = self._parts(train, context.seed)
        context.say(f"depth: {len(fit_on):,} training images, {len(config.lr_factors)} learning rates at once")
        maps = FrozenMaps(encoder, config, context.input, context.device)
        dims, high = maps.dims(), self._max_depth(train)
        heads = [build_depth_head(dims, config, high, context.seed) for _ in config.lr_factors]
        images = self._images(train, encoder, fit_on, context.seed, augmented=True)
        loader, see = training_batches(maps, images, config.train, context)
        model = ParallelHeads(see, maps.step, heads, config.lr_factors, self._loss(high))
        report = context.fit(model, loader, config.train, label="depth", images_per_epoch=len(fit_on))
        model.to(context.device).eval()
        rates = [config.train.lr * factor for factor in config.lr_factors]
        details: dict[str, Any] = {"feature_dim": sum(dims), "max_depth": high}
        best = 0
        if held:
            of_heads, _ = self._scored(maps, model.heads, self._images(train, encoder, held, 0), 0)
            where = f"the held-out images of the train split of dataset {dataset.name!r}"
            chosen_by = [average(scores, where)[0].delta1 for scores in of_heads]
            diverged = model.diverged.tolist()
            best = choose_head(chosen_by, diverged)
            details |= {"held_out_images": len(held), **sweep_details("held_out_delta1", rates, chosen_by, diverged)}
        tests = self._images(test, encoder, range(len(test)), 0)
        (scores,), panels = self._scored(maps, model.heads[best : best + 1], tests, config.pictures)
        mean, count = average(scores, f"the test split of dataset {dataset.name!r}")
        names, known = ("delta1", "rmse", "abs_rel"), [one for one in scores if one is not None]
        return TaskResult(
            {name: Measured(getattr(mean, name), count) for name in names},
            curves={"loss": report.logs[curve(config.lr_factors[best])]},
            artifacts={"predictions": draw_depths(context.workdir / "predictions.png", panels)},
            details={**details, "lr": rates[best], "resolution": resolution(config, encoder, "original pixels")},
            cost=report,
            by_sample={name: np.array([getattr(one, name) for one in known]) for name in names},
        )

    def chance(self, dataset: Dataset) -> float:
        """delta1 of answering the median depth of the training pixels everywhere.

        It is estimated from up to 200 images of each split.
        """
        config, (train, test) = self.config, _splits(dataset)
        low, high = config.min_depth, self._max_depth(train)
        readings = [train.depth(index).flatten() for index in _spaced(len(train))]
        known = torch.cat([each[(each > low) & (each < high)] for each in readings])
        if not len(known):
            return 0.0
        constant = float(known.median())
        scores = []
        for index in _spaced(len(test)):
            truth = test.depth(index)
            scores.append(score_image(torch.full_like(truth, constant), truth, low, high, config.region))
        return average(scores, "the test split")[0].delta1 if any(scores) else 0.0

    def _loss(self, high: float) -> Loss:
        return lambda predicted, truth: scale_invariant_loss(predicted[:, 0], truth, self.config.min_depth, high)

    def _max_depth(self, split: DepthSplit) -> float:
        return self.config.max_depth or split.max_depth

    def _parts(self, train: DepthSplit, seed: int) -> tuple[Sequence[int], Sequence[int]]:
        """Training images to fit on, and held-out ones."""
        if len(self.config.lr_factors) == 1:
            return range(len(train)), []
        return hold_out(len(train), self.config.held_out, seed)

    def _images(
        self, split: DepthSplit, encoder: Encoder, indices: Sequence[int], seed: int, *, augmented: bool = False
    ) -> PixelImages:
        return PixelImages(
            split,
            split.depth,
            self.config,
            channels=encoder.in_channels,
            unknown=0.0,
            indices=indices,
            augmentation=self.config.augmentation if augmented else None,
            seed=seed,
        )

    def _scored(
        self, maps: FrozenMaps, heads: nn.ModuleList, images: PixelImages, pictures: int
    ) -> tuple[list[list[ImageScores | None]], list[DepthPanel]]:
        """Scores of each image for each head, and panels of the first images by the first head."""
        config, remaining = self.config, [pictures]
        split = images.split
        assert isinstance(split, DepthSplit)
        low, high = config.min_depth, self._max_depth(split)

        def score(samples: list[Sample]) -> tuple[list[list[ImageScores | None]], list[DepthPanel]]:
            guesses = self._predicted(maps, heads, samples)
            scores = [
                [score_image(g, s.target, low, high, config.region) for g, s in zip(of_head, samples, strict=True)]
                for of_head in guesses
            ]
            panels = [
                DepthPanel(sample.image.permute(1, 2, 0).numpy(), sample.target.numpy(), guess.clamp(low, high).numpy())
                for sample, guess in list(zip(samples, guesses[0], strict=True))[: remaining[0]]
            ]
            remaining[0] -= len(panels)
            return scores, panels

        by_head: list[list[ImageScores | None]] = [[] for _ in heads]
        shown: list[DepthPanel] = []
        for scores, panels in map_over_ranks(score, images.evaluation_loader(pin_memory=maps.device.type == "cuda")):
            for of_head, more in zip(by_head, scores, strict=True):
                of_head += more
            shown += panels
        return by_head, shown[:pictures]

    @torch.no_grad()
    def _predicted(self, maps: FrozenMaps, heads: nn.ModuleList, samples: Sequence[Sample]) -> list[list[Tensor]]:
        """Depth [H, W] of each image in its original pixels, on the CPU, per head."""
        config = self.config
        images = torch.stack([sample.image for sample in samples]).to(maps.device)

        def predict(window: Tensor) -> Scores:
            seen, size = maps(window), (window.shape[-2], window.shape[-1])
            return [upsample(head(seen), size, maps.step) for head in heads]

        def whole(shown: Tensor) -> Scores:
            if config.slide and config.crop_size:
                return slide(predict, shown, config.crop_size, config.slide)
            return predict(shown)

        depths = whole(images)
        if config.flip_test:
            mirrored = whole(images.flip(-1))
            depths = [(one + other.flip(-1)) / 2 for one, other in zip(depths, mirrored, strict=True)]
        sizes = [tuple(sample.target.shape) for sample in samples]
        return [[_resized(one, size) for one, size in zip(head[:, 0], sizes, strict=True)] for head in depths]


def _resized(depth: Tensor, size: tuple[int, ...]) -> Tensor:
    """[h, w] -> [*size] on the CPU, bilinearly."""
    if tuple(depth.shape) != size:
        depth = F.interpolate(depth[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    return depth.cpu()


def _spaced(count: int) -> list[int]:
    """Up to 200 evenly spaced indices below `count`."""
    return np.unique(np.linspace(0, count - 1, min(count, _MOST_READ)).round().astype(int)).tolist()


def _splits(dataset: Dataset) -> tuple[DepthSplit, DepthSplit]:
    """Training and test images. Raises InputError if the dataset has no depth."""
    train, test = dataset.split("train"), dataset.split("test")
    if not isinstance(train, DepthSplit) or not isinstance(test, DepthSplit):
        raise InputError(f"dataset {dataset.name!r} has no depth; depth needs some, e.g. depth-scenes or nyu")
    return train, test
