"""In-context segmentation: patches get the classes of the nearest patches of the training images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from mimbench.api import (
    IGNORED,
    Confusion,
    Dataset,
    Encoder,
    InputError,
    SemanticSplit,
    TaskConfig,
    TaskContext,
    TaskResult,
    cosmetic,
    image_seed,
    load_protocols,
    map_over_ranks,
    train_and_test,
)
from mimbench_tasks.dense.config import FrozenSegmentationConfig
from mimbench_tasks.dense.images import Sample, resize_nearest
from mimbench_tasks.dense.linear import concatenate
from mimbench_tasks.dense.maps import FrozenMaps
from mimbench_tasks.dense.memory import (
    Distance,
    Memory,
    join,
    patch_labels,
    pixel_votes,
    rare_first,
    soft_votes,
    standardise,
)
from mimbench_tasks.dense.segmentation import FrozenSegmentation, Scored, decide, hold_out

Setting = tuple[int, Distance]
"""Number of neighbours, and how near is measured."""


class DenseKNNConfig(FrozenSegmentationConfig):
    """Values come from a protocol."""

    neighbours: tuple[int, ...] = Field((30,), min_length=1)
    """Numbers k of neighbours. With several settings of k and distance, held-out training images choose one."""
    distances: tuple[Distance, ...] = Field(("cosine",), min_length=1)
    vote: Literal["soft", "pixels"] = "soft"
    """soft: neighbours vote with the softmax of closeness / `temperature`, each for the classes of its patch; patches'
    votes are resized bilinearly. pixels: each neighbour has one vote for the class of each pixel of its patch."""
    temperature: float = Field(0.02, gt=0)
    """Of soft votes."""
    memory: int | None = Field(None, ge=1)
    """Patches that are remembered, equally many per training image, preferably those with rare classes; absent: all."""
    standardise: bool = False
    """Subtract the mean of the remembered vectors, and divide by their standard deviation."""
    memory_precision: Literal["fp32", "fp16"] = "fp32"
    """Of remembered vectors. They take D x 4 or 2 bytes each, and as many bytes as a patch has pixels."""
    chunk: int = cosmetic(65536, ge=1)
    """Remembered vectors that are compared at once."""
    queries: int = cosmetic(4096, ge=1)
    """Test patches that are compared at once."""

    @field_validator("neighbours")
    @classmethod
    def _positive(cls, counts: tuple[int, ...]) -> tuple[int, ...]:
        if min(counts) < 1:
            raise ValueError(f"neighbours must be 1 or more, not {list(counts)}")
        return counts

    @property
    def settings(self) -> list[Setting]:
        return list(product(dict.fromkeys(self.neighbours), dict.fromkeys(self.distances)))


class DenseKNN(FrozenSegmentation):
    """Semantic segmentation by the nearest of the remembered patches of the training images; nothing is trained.

    The memory is searched exactly. Under torchrun each process holds and searches its part of it.
    """

    name: ClassVar[str] = "dense-knn"
    Config: ClassVar[type[TaskConfig]] = DenseKNNConfig
    protocols = load_protocols("mimbench_tasks", "protocols/dense_knn")
    config: DenseKNNConfig

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        super().check(encoder, dataset)
        config, (train, _) = self.config, train_and_test(dataset)
        if config.keep_aspect or config.image_size is None or config.crop_size is not None:
            raise InputError("dense-knn compares patches of square images: set task.image_size alone")
        if config.image_size % max(encoder.stride, encoder.patch_size):
            raise InputError(
                f"task.image_size {config.image_size} px is not a multiple of the {encoder.stride} px of a feature; "
                "choose one that is"
            )
        images = len(self._parts(train, 0)[0])
        if config.memory is not None and config.memory < images:
            raise InputError(f"task.memory {config.memory} is below one patch for each of the {images} training images")

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        """Fill the memory, choose a setting, and score it on the test images. Raises InputError for a bad image."""
        config, (train, test) = self.config, train_and_test(dataset)
        maps = FrozenMaps(encoder, config, context.input, context.device)
        details: dict[str, Any] = {}
        setting = config.settings[0]
        if len(config.settings) > 1:
            rest, held = self._parts(train, context.seed)
            memory = self._remember(maps, train, rest, context)
            results = self._scores(maps, memory, train, held, context)
            setting = max(results, key=lambda each: results[each].scores().mean_iou)
            details["held_out_images"] = len(held)
            details["held_out_mIoU"] = {f"{k} {name}": one.scores().mean_iou for (k, name), one in results.items()}
        memory = self._remember(maps, train, range(len(train)), context)
        remembered = int(sum(map_over_ranks(lambda local: local, [len(memory.vectors)])))
        context.say(f"dense-knn: {remembered:,} remembered patches, {len(test):,} test images")
        details |= {
            "neighbours": setting[0],
            "distance": setting[1],
            "memory": remembered,
            "feature_dim": sum(maps.dims()),
        }
        parts = self._compared(maps, memory, test, range(len(test)), [setting], context, config.pictures)
        return self.result(parts[setting], encoder, test, context, details, {})

    def _parts(self, train: SemanticSplit, seed: int) -> tuple[Sequence[int], Sequence[int]]:
        """Training images to remember while a setting is chosen, and held-out ones."""
        if len(self.config.settings) == 1:
            return range(len(train)), []
        return hold_out(len(train), self.config.held_out, seed)

    def _remember(self, maps: FrozenMaps, train: SemanticSplit, indices: Sequence[int], context: TaskContext) -> Memory:
        """This process's part of the memory of some training images."""
        config, stride = self.config, maps.encoder.stride
        each = None if config.memory is None else config.memory // len(indices)
        dtype = torch.float16 if config.memory_precision == "fp16" else torch.float32
        images = self.evaluation_images(train, maps.encoder, indices)
        local: list[tuple[Tensor, Tensor]] = []

        def remember(samples: list[Sample]) -> None:
            for sample, vectors in zip(samples, self._vectors(maps, samples), strict=True):
                labels = patch_labels(resize_nearest(sample.target, sample.image.shape[-2:]), stride)
                places = (labels != IGNORED).any(1).nonzero().flatten()
                if each is not None:
                    generator = torch.Generator().manual_seed(image_seed(context.seed, 0, sample.index))
                    places = places[rare_first(labels[places], len(train.classes), each, generator)]
                local.append((vectors.cpu().to(dtype)[places], labels[places]))

        map_over_ranks(remember, images.evaluation_loader(pin_memory=context.device.type == "cuda"))
        vectors, labels = join(local, sum(maps.dims()), stride * stride, dtype)
        return Memory(vectors, labels, chunk=config.chunk, device=context.device)

    def _vectors(self, maps: FrozenMaps, samples: Sequence[Sample]) -> Tensor:
        """[B, N, D], the patches of each image row by row."""
        images = torch.stack([sample.image for sample in samples]).to(maps.device)
        grid = (images.shape[-2] // maps.encoder.stride, images.shape[-1] // maps.encoder.stride)
        return concatenate(maps(images), grid).flatten(2).transpose(1, 2)

    def _scores(
        self,
        maps: FrozenMaps,
        memory: Memory,
        split: SemanticSplit,
        indices: Sequence[int],
        context: TaskContext,
    ) -> dict[Setting, Confusion]:
        totals = {}
        for setting, parts in self._compared(maps, memory, split, indices, self.config.settings, context, 0).items():
            totals[setting] = Confusion(len(split.classes))
            for confusion, _ in parts:
                totals[setting].merge(confusion)
        return totals

    def _compared(
        self,
        maps: FrozenMaps,
        memory: Memory,
        split: SemanticSplit,
        indices: Sequence[int],
        settings: Sequence[Setting],
        context: TaskContext,
        pictures: int,
    ) -> dict[Setting, list[Scored]]:
        """Predictions of every setting compared with the labels. Each process searches its memory for all images."""
        images = self.evaluation_images(split, maps.encoder, indices)
        moments = memory.moments() if self.config.standardise else None
        memory = memory if moments is None else memory.standardised(moments)
        parts: dict[Setting, list[Scored]] = {setting: [] for setting in settings}
        for samples in images.evaluation_loader(pin_memory=context.device.type == "cuda", share=False):
            vectors = self._vectors(maps, samples)
            vectors = vectors if moments is None else standardise(vectors.flatten(0, 1), moments).view_as(vectors)
            for setting in settings:
                answers = self._answers(memory, vectors, samples, setting, len(split.classes), maps.encoder.stride)
                parts[setting].append(self.compare(samples, answers, len(split.classes), pictures))
            pictures -= len(samples)
        return parts

    def _answers(
        self,
        memory: Memory,
        vectors: Tensor,
        samples: Sequence[Sample],
        setting: Setting,
        classes: int,
        stride: int,
    ) -> list[Tensor]:
        """Classes of each image at the size at which they are compared."""
        config, (k, distance) = self.config, setting
        rows, columns = (side // stride for side in samples[0].image.shape[-2:])
        results = []
        for queries in vectors.flatten(0, 1).split(config.queries):
            neighbours = memory.nearest(queries, k, distance)
            is_soft = config.vote == "soft"
            votes = soft_votes(neighbours, classes, config.temperature) if is_soft else pixel_votes(neighbours, classes)
            results.append(votes.cpu())
        grids = torch.cat(results).unflatten(0, (len(samples), rows, columns))
        sizes = [self.masks(sample).shape for sample in samples]
        if config.vote == "soft":
            return [decide(grid.permute(2, 0, 1), size) for grid, size in zip(grids, sizes, strict=True)]
        whole = grids.unflatten(3, (stride, stride)).transpose(2, 3).flatten(1, 2).flatten(2)
        return [resize_nearest(labels.to(torch.uint8), size) for labels, size in zip(whole, sizes, strict=True)]
