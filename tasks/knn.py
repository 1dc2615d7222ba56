"""k-nearest-neighbour classification on frozen features, without training or tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from mimbench.api import (
    Dataset,
    Encoder,
    FrozenFeaturesTask,
    ImageSplit,
    InputError,
    LastLayersConfig,
    Measured,
    Metric,
    TaskContext,
    TaskResult,
    added,
    classification_scores,
    cosmetic,
    held_out_indices,
    labelled_split,
    load_protocols,
    map_over_ranks,
    own_share,
    top_k_accuracy,
    top_k_hits,
)

NEIGHBOURS = (20, 10, 100, 200)
"""Those of DINO's protocol; 20 comes first because it "is usually working the best", as its script says."""
K20 = f"top1_k{NEIGHBOURS[0]}"
CHUNK = 1024
"""Test images per comparison, where nothing else is chosen."""
HELD_OUT = 0.1
"""Share of the training images on which the best layer is chosen, by a vote of the others."""


class KNNConfig(LastLayersConfig):
    """The default features are the mean of the last layer's patches; protocol "dino" uses the class token.

    Of several layers (`last_layers`), each has unit length before they are concatenated.
    """

    layers: Literal["one", "all"] = added("one")
    """"all" also votes with each layer by itself. The best on held-out training images gives another metric."""
    temperature: float = Field(0.07, gt=0)
    """A neighbour's vote counts exp(cosine similarity / temperature)."""
    chunk: int = cosmetic(CHUNK, ge=1)
    """Number of test images per comparison, with 16 times as many training images."""


class KNN(FrozenFeaturesTask):
    """Top-1 accuracy of a vote among the k training images of highest cosine similarity.

    Wu et al. (arXiv:1805.01978); facebookresearch/dino@7c446df eval_knn.py. DINO votes with the class token, which is
    protocol "dino". The default votes with the mean of the patches, which every encoder has; its scores are not to be
    compared with published ones of the class token, which may be tens of points away. A k above the number of training
    images is left out, and `details["absent"]` says so.

    `top1_best_layer` is the test accuracy, with k = 20, of the layer that is best on held-out training images. The
    choice uses no test label.
    """

    name: ClassVar[str] = "knn"
    version: ClassVar[str] = "1"
    takes_clips: ClassVar[bool] = True
    metrics: ClassVar[tuple[Metric, ...]] = tuple(
        Metric(name, "percent", 0.0, 100.0) for name in (*(f"top1_k{k}" for k in NEIGHBOURS), "top1_best_layer")
    )
    Config = KNNConfig
    protocols = load_protocols("mimbench_tasks", "protocols/knn")
    config: KNNConfig

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        super().check(encoder, dataset)
        images = len(labelled_split(dataset, "train"))
        if images < NEIGHBOURS[0]:
            raise InputError(f"knn needs {NEIGHBOURS[0]} or more training images; the dataset has {images}")

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        train, test = labelled_split(dataset, "train"), labelled_split(dataset, "test")
        context.say(f"knn: comparing {len(test):,} test images with {len(train):,} training images")
        bank, queries = self.features(train, test, context)
        counts = [k for k in NEIGHBOURS if k <= len(train)]
        scores = self._votes(queries, bank, train.labels, len(train.classes), counts, context.device)
        labels = test.labels.numpy()
        details: dict[str, Any] = {"feature_dim": bank.shape[1]}
        reason = f"there are only {len(train)} training images"
        details["absent"] = {f"top1_k{k}": reason for k in NEIGHBOURS if k > len(train)}
        metrics = {f"top1_k{k}": top_k_accuracy(labels, scores[k], 1) for k in counts}
        curves: dict[str, list[float]] = {}
        if self.config.layers == "all":
            of_test, of_held_out = self._by_layer(encoder, train, test, context)
            best = int(np.argmax(of_held_out))
            metrics["top1_best_layer"] = Measured(of_test[best], len(test))
            curves = {f"{K20}_by_layer": of_test, f"held_out_{K20}_by_layer": of_held_out}
            details["layer"] = encoder.layer_index(self.config.layer)
            details |= {"best_layer": best, "best_layer_on_test": int(np.argmax(of_test))}
        else:
            details["absent"]["top1_best_layer"] = 'one layer was compared; task.layers = "all" compares all'
        return TaskResult(
            metrics,
            curves=curves,
            details=details,
            # A class without a neighbour has no vote, and its loss would be infinite.
            scores=classification_scores(test, as_probabilities(scores[NEIGHBOURS[0]]), has_loss=False),
            by_sample={f"top1_k{k}": top_k_hits(labels, scores[k], 1) for k in counts},
        )

    def join(self, layers: Sequence[Tensor]) -> Tensor:
        return torch.cat([F.normalize(layer.float(), dim=1) for layer in layers], 1)

    def _by_layer(
        self, encoder: Encoder, train: ImageSplit, test: ImageSplit, context: TaskContext
    ) -> tuple[list[float], list[float]]:
        """Top-1 accuracy in percent with each layer and k = 20: of the test images, and of held-out training images."""
        indices = range(encoder.num_layers)
        train_x = context.features.each_layer(train, "train", layers=indices, pooling=self.config.pooling)
        test_x = context.features.each_layer(test, "test", layers=indices, pooling=self.config.pooling)
        rows = held_out_indices(train.labels.numpy(), HELD_OUT, context.seed, "the train split")
        others, held_out = (torch.from_numpy(rows[part]) for part in ("train", "test"))
        classes, k = len(train.classes), NEIGHBOURS[0]

        def accuracy(queries: Tensor, labels: Tensor, bank: Tensor, known: Tensor) -> float:
            votes = self._votes(queries, bank, known, classes, [min(k, len(bank))], context.device)
            return top_k_accuracy(labels.numpy(), next(iter(votes.values())), 1).value

        of_test = [accuracy(test_x[at], test.labels, train_x[at], train.labels) for at in indices]
        of_held_out = [
            accuracy(train_x[at][held_out], train.labels[held_out], train_x[at][others], train.labels[others])
            for at in indices
        ]
        return of_test, of_held_out

    def _votes(
        self, queries: Tensor, bank: Tensor, labels: Tensor, classes: int, counts: list[int], device: torch.device
    ) -> dict[int, np.ndarray]:
        config = self.config
        return count_votes(
            queries, bank, labels, classes, counts, device, temperature=config.temperature, chunk=config.chunk
        )


def count_votes(
    queries: Tensor,
    bank: Tensor,
    labels: Tensor,
    classes: int,
    counts: Sequence[int],
    device: torch.device,
    *,
    temperature: float,
    chunk: int = CHUNK,
) -> dict[int, np.ndarray]:
    """k -> votes of the k nearest training images for each class, float64 [N, classes]. Ranks share the queries.

    Args:
        queries: features of the test images, [N, D].
        bank: features of the training images, [M, D].
        labels: of the training images, int64 [M].
        counts: values of k.
        temperature, chunk: as in KNNConfig.
    """
    labels = labels.to(device)

    @torch.inference_mode()
    def vote(rows: Tensor) -> list[np.ndarray]:
        similarity, index = nearest(rows.to(device), bank, max(counts), 16 * chunk)
        # The sum of up to 200 votes is taken in float64, where their order hardly matters.
        weights = ((similarity.double() - 1) / temperature).exp()
        empty = torch.zeros(len(rows), classes, dtype=torch.float64, device=device)
        return [empty.scatter_add(1, labels[index[:, :k]], weights[:, :k]).cpu().numpy() for k in counts]

    parts = map_over_ranks(vote, own_share(queries.split(chunk)))
    return {k: np.concatenate(of_count) for k, of_count in zip(counts, zip(*parts, strict=True), strict=True)}


def as_probabilities(votes: np.ndarray) -> np.ndarray:
    """Votes [N, classes], each row divided by its sum; a row of zeros, if all votes underflow, stays so."""
    return votes / votes.sum(axis=1, keepdims=True).clip(min=np.finfo(votes.dtype).tiny)


def nearest(queries: Tensor, bank: Tensor, k: int, chunk: int) -> tuple[Tensor, Tensor]:
    """The k rows of `bank` of highest cosine similarity to each query: similarities and indices [Q, k], best first.

    queries: [Q, D]. bank: [N, D] on any device; `chunk` rows of it are on the queries' device at once.
    """
    queries = F.normalize(queries.float(), dim=1)
    best = torch.empty(len(queries), 0, device=queries.device)
    where = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(bank), chunk):
        part = F.normalize(bank[start : start + chunk].to(queries.device).float(), dim=1)
        best = torch.cat((best, queries @ part.T), 1)
        index = torch.arange(start, start + len(part), device=queries.device).expand(len(queries), -1)
        best, positions = best.topk(min(k, best.shape[1]), dim=1)
        where = torch.cat((where, index), 1).gather(1, positions)
    return best, where
