"""Statistics of attention, layer by layer and head by head."""

from __future__ import annotations

import math
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
from mimbench_tasks.attention import measures

NAMES = ("nmi", "distance", "entropy", "head_divergence")
"""The measures, in the order in which they are stacked."""
_LONGEST = 1e5


class AttentionConfig(TaskConfig):
    """Which images are looked at."""

    images: int = Field(256, ge=1)
    """Test images, at most. They are drawn at random, and are the same for every method and seed."""
    batch: int = cosmetic(16, ge=1)
    """Images at once: a layer's weights take batch x heads x patches^2 numbers."""


class Attention(Task):
    """How far heads attend, how widely, and how differently: means over heads, images and the last third of the layers.

    `nmi` is the normalised mutual information of queries and keys: near 0, all patches attend to the same places.
    `distance` is the mean distance to the patches attended to, px. `entropy` is 1 for uniform attention.
    `head_divergence` says how much heads differ, in nats. None of them is good or bad by itself, though tables count
    higher as better. Weights on class and register tokens are left out, and rows sum to 1 again, so that encoders with
    and without such tokens compare. `curves` holds each layer's means, `details["by_head"]` each head's.

    Encoders whose attention is limited to windows (Swin) have none to compare, and are refused.
    """

    name: ClassVar[str] = "attention"
    version: ClassVar[str] = "1"
    needs: ClassVar[frozenset[str]] = frozenset({"images"})
    encoder_needs: ClassVar[frozenset[str]] = frozenset({"attention"})
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("nmi", "of 1", 0.0, 1.0),
        Metric("distance", "px", 0.0, _LONGEST),
        Metric("entropy", "of 1", 0.0, 1.0),
        Metric("head_divergence", "nats", 0.0, 30.0),
    )
    Config = AttentionConfig
    config: AttentionConfig

    def depends_on_processes(self, encoder: Encoder, dataset: Dataset) -> str:
        """Each image has its own weights."""
        return ""

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        if not len(image_split(dataset, "test")):
            raise InputError(f"{self.name}: the test split of dataset {dataset.name!r} has no images")

    def chance(self, dataset: Dataset) -> float:
        """Attention that is the same for all queries has no information about the query."""
        return 0.0

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        images = sample_images(image_split(dataset, "test"), self.config.images)
        context.say(f"{self.name}: looking at {len(images):,} test images")
        rows, columns = encoder.grid
        distances = measures.patch_distances((rows, columns), encoder.stride).to(context.device)

        def measure(batch: Tensor) -> Tensor:
            return _measured(encoder, batch, distances).cpu()

        # [images, layers, heads, measures]
        values = torch.cat(map_over_images(measure, encoder, images, context, batch_size=self.config.batch))
        late = values[:, -math.ceil(values.shape[1] / 3) :].mean((1, 2)).numpy()
        by_layer, by_head = values.mean((0, 2)), values.mean(0)
        details: dict[str, Any] = {
            "layers": values.shape[1],
            "late_layers": math.ceil(values.shape[1] / 3),
            "by_head": {name: by_head[..., place].tolist() for place, name in enumerate(NAMES)},
        }
        return TaskResult(
            {name: Measured(float(late[:, place].mean()), len(images)) for place, name in enumerate(NAMES)},
            curves={f"{name}_by_layer": by_layer[:, place].tolist() for place, name in enumerate(NAMES)},
            details=details,
            by_sample={name: late[:, place] for place, name in enumerate(NAMES)},
        )


def _measured(encoder: Encoder, images: Tensor, distances: Tensor) -> Tensor:
    """Measures of normalised images: float64 [B, layers, heads, measures], in the order of NAMES."""
    layers = []
    for attention in encoder.attention(images):
        weights = measures.between_patches(attention, encoder.num_prefix_tokens)
        layers.append(
            torch.stack(
                (
                    measures.mutual_information(weights),
                    measures.distance(weights, distances),
                    measures.entropy(weights),
                    measures.head_divergence(weights),
                ),
                -1,
            )
        )
    return torch.stack(layers, 1)
