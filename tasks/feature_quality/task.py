"""Feature quality: label-free measures of frozen features of training images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mimbench.api import (
    Dataset,
    Encoder,
    ImageSplit,
    InputConfig,
    InputError,
    Measured,
    Metric,
    Pooling,
    ProbeAugmentation,
    Task,
    TaskConfig,
    TaskContext,
    TaskResult,
    get_rank,
    get_world_size,
    image_split,
    load_protocols,
    map_over_ranks,
    on_first_rank,
    repeated_views,
    subset,
)
from mimbench_tasks.feature_quality import measures

FEWEST_IMAGES = 10
_SHOWN_AT_ONCE = 256
_WIDEST = 1e6


class FeatureQualityConfig(TaskConfig):
    """The default features are the mean of the last layer's patches."""

    layer: int = -1
    """Depth of the features; -1 is the last layer, after the final norm."""
    pooling: Pooling = "mean"
    images: int = Field(25_600, ge=FEWEST_IMAGES)
    """Training images, at most; RankMe takes so many. Drawn at random, they are the same for every method and seed."""
    pairs_of: int = Field(4096, ge=FEWEST_IMAGES)
    """Uniformity is over all pairs of so many of them, at most."""
    lidar_images: int = Field(200, ge=FEWEST_IMAGES)
    """Images that LiDAR takes, at most, and `lidar_views` of each. Protocol "paper" takes more of both."""
    lidar_views: int = Field(10, ge=2)
    augmentation: ProbeAugmentation = ProbeAugmentation()
    """Of LiDAR's views."""


class FeatureQuality(Task):
    """RankMe and five more measures that need no labels. n is the number of training images.

    None of them is a score by itself: a rank says how many directions features use, not whether these are useful. How
    well each orders the methods of a results folder is what `mimbench plot predictors` shows. alpha_req is best near 1
    by its paper; tables count lower as better. The measures are defined in `measures`.
    """

    name: ClassVar[str] = "feature-quality"
    version: ClassVar[str] = "1"
    needs: ClassVar[frozenset[str]] = frozenset({"images"})
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("rankme", "directions", 0.0, _WIDEST),
        Metric("effective_rank", "directions", 0.0, _WIDEST),
        Metric("alpha_req", "exponent", -100.0, 100.0, higher_is_better=False),
        Metric("lidar", "directions", 0.0, _WIDEST),
        Metric("feature_std", "of unit length", 0.0, 1.0),
        Metric("uniformity", "nats", -8.0, 0.0, higher_is_better=False),
    )
    Config = FeatureQualityConfig
    protocols = load_protocols("mimbench_tasks", "protocols/feature_quality")
    config: FeatureQualityConfig

    def depends_on_processes(self, encoder: Encoder, dataset: Dataset) -> str:
        """Features are the same on any number of processes, and so is what follows from all of them."""
        return ""

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        images = len(image_split(dataset, "train"))
        if images < FEWEST_IMAGES:
            raise InputError(
                f"{self.name} needs {FEWEST_IMAGES} or more training images; dataset {dataset.name!r} has {images}"
            )
        try:
            encoder.layer_index(self.config.layer)
            encoder.check_pooling(self.config.pooling)
        except InputError as error:  # the message begins with the option's name
            raise InputError(f"task.{error}") from error

    def chance(self, dataset: Dataset) -> float:
        """RankMe of an encoder that gives every image the same features."""
        return 1.0

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        config, train = self.config, image_split(dataset, "train")
        count = min(config.images, len(train))
        context.say(f"feature-quality: {count:,} training images")
        whole = context.features(train, "train", layer=config.layer, pooling=config.pooling)
        features = whole[_chosen(len(train), count)].to(context.device)
        few = subset(train, _chosen(len(train), min(config.lidar_images, count)).tolist())
        views = self._views(encoder, few, context)
        values = _measured(features, views, min(config.pairs_of, count))
        samples = {"lidar": len(few), "uniformity": min(config.pairs_of, count)}
        metrics = {
            name: Measured(value, samples.get(name, count)) for name, value in values.items() if math.isfinite(value)
        }
        details: dict[str, Any] = {"feature_dim": int(features.shape[1])}
        if absent := {name: "the features have no two directions" for name in values if name not in metrics}:
            details["absent"] = absent
        return TaskResult(metrics, details=details)

    def _views(self, encoder: Encoder, images: ImageSplit, context: TaskContext) -> Tensor:
        """Features of augmented views, float32 [n, q, D] on the device. Ranks share the images."""
        config = self.config
        encoder = encoder.to(context.device).eval()
        batches: Iterator[Tensor] = repeated_views(
            images,
            config.augmentation.applied(context.input),
            encoder.in_channels,
            count=config.lidar_views,
            images=max(1, _SHOWN_AT_ONCE // config.lidar_views),
            seed=context.seed,
            device=context.device,
            rank=get_rank(),
            world_size=get_world_size(),
        )
        encode = _encoder_of_views(encoder, config.layer, config.pooling)
        return torch.cat(map_over_ranks(encode, batches)).to(context.device)

    def relevant_input(self, input_config: InputConfig) -> dict[str, Any]:
        """Views are augmented by the task's options; what these leave open is the recipe's."""
        return self.config.augmentation.applied(input_config).shaping()


def _encoder_of_views(encoder: Encoder, layer: int, pooling: str) -> Callable[[Tensor], Tensor]:
    @torch.inference_mode()
    def encode(views: Tensor) -> Tensor:
        features = encoder.features(views.flatten(0, 1), layer).pool(pooling)
        return features.float().unflatten(0, views.shape[:2]).cpu()

    return encode


@on_first_rank
def _measured(features: Tensor, views: Tensor, pairs_of: int) -> dict[str, float]:
    return {
        "rankme": measures.rankme(features),
        "effective_rank": measures.effective_rank(features),
        "alpha_req": measures.alpha_req(features),
        "lidar": measures.lidar(views),
        "feature_std": measures.feature_std(features),
        "uniformity": measures.uniformity(features[:pairs_of]),
    }


def _chosen(size: int, count: int) -> Tensor:
    """Positions of `count` of `size` images, in a fixed random order: the fewer are the first of the more."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(0))[:count]
