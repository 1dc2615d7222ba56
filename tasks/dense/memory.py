"""A memory of labelled patch features, and the votes of the nearest ones. Processes hold a part of it each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mimbench.api import IGNORED, gather_over_ranks, get_rank, get_world_size, mean_over_ranks

Distance = Literal["cosine", "L2"]


@dataclass(frozen=True)
class Neighbours:
    """The k nearest patches of the whole memory, for each of Q queries.

    Attributes:
        closeness: [Q, k], in falling order: cosine similarity, or minus the Euclidean distance; -inf: there are fewer.
        is_local: bool [Q, k], those that this process holds.
        labels: uint8 [Q, k, P], classes of their pixels; of no meaning where `is_local` is false.
    """

    closeness: Tensor
    is_local: Tensor
    labels: Tensor


class Memory:
    """Vectors of patches with the classes of their pixels.

    Each process holds those of the images that it encoded, so that memory and search are shared. All processes make the
    same calls, with the same queries, and get the same results.
    """

    def __init__(self, vectors: Tensor, labels: Tensor, *, chunk: int, device: torch.device) -> None:
        """
        Args:
            vectors: [N, D] on the CPU, this process's part.
            labels: uint8 [N, P], classes of the pixels of each patch, row by row; 255: unknown.
            chunk: vectors that are on `device` at once.
        """
        self.vectors, self.labels, self.chunk, self.device = vectors, labels, chunk, device

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each dimension over the whole memory, float32 [D]; 1 if it is constant."""
        total = torch.zeros(2, self.vectors.shape[1], dtype=torch.float64)
        for part in self.vectors.split(self.chunk):
            total += torch.stack((part.double().sum(0), part.double().pow(2).sum(0)))
        count = torch.tensor([float(len(self.vectors))], dtype=torch.float64)
        first, second = (mean_over_ranks(total.to(self.device)) / mean_over_ranks(count.to(self.device))).cpu()
        deviation = (second - first.pow(2)).clamp(min=0).sqrt()
        return first.float(), torch.where(deviation > 0, deviation, 1.0).float()

    def standardised(self, moments: tuple[Tensor, Tensor]) -> Memory:
        """The same memory with vectors minus mean, over standard deviation."""
        parts = [standardise(part, moments).to(part.dtype) for part in self.vectors.split(self.chunk)]
        return Memory(torch.cat(parts), self.labels, chunk=self.chunk, device=self.device)

    @torch.no_grad()
    def nearest(self, queries: Tensor, k: int, distance: Distance) -> Neighbours:
        """The k nearest vectors to each query [Q, D] on the device."""
        closeness, index = self._nearest_own(queries, k, distance)
        if get_world_size() == 1:
            is_local = closeness > -torch.inf
        else:
            every = gather_over_ranks(closeness).unflatten(0, (get_world_size(), -1)).transpose(0, 1).flatten(1)
            closeness, places = every.topk(k, dim=1)
            is_local = (places // k == get_rank()) & (closeness > -torch.inf)
            index = torch.where(is_local, index.gather(1, places % k), 0)
        if not len(self.labels):
            return Neighbours(
                closeness, is_local, torch.full((*index.shape, self.labels.shape[1]), IGNORED, dtype=torch.uint8)
            )
        return Neighbours(closeness, is_local, self.labels[index.cpu()].to(self.device))

    def _nearest_own(self, queries: Tensor, k: int, distance: Distance) -> tuple[Tensor, Tensor]:
        """Closeness and index [Q, k] of this process's vectors; -inf and 0 if there are fewer than k."""
        queries = _prepared(queries, distance)
        best = torch.empty(len(queries), 0, device=self.device)
        where = torch.empty(len(queries), 0, dtype=torch.int64, device=self.device)
        for start in range(0, len(self.vectors), self.chunk):
            part = _prepared(self.vectors[start : start + self.chunk].to(self.device), distance)
            near = queries @ part.T if distance == "cosine" else -torch.cdist(queries, part)
            index = torch.arange(start, start + len(part), device=self.device).expand(len(queries), -1)
            best, where = torch.cat((best, near), 1), torch.cat((where, index), 1)
            best, places = best.topk(min(k, best.shape[1]), dim=1)
            where = where.gather(1, places)
        missing = (0, k - best.shape[1])
        return F.pad(best, missing, value=-torch.inf), F.pad(where, missing)


def standardise(vectors: Tensor, moments: tuple[Tensor, Tensor]) -> Tensor:
    """Vectors [N, D] minus the mean, over the standard deviation."""
    mean, deviation = (each.to(vectors.device) for each in moments)
    return (vectors.float() - mean) / deviation


def _prepared(vectors: Tensor, distance: Distance) -> Tensor:
    return F.normalize(vectors.float(), dim=1) if distance == "cosine" else vectors.float()


def soft_votes(neighbours: Neighbours, classes: int, temperature: float) -> Tensor:
    """Share of each class for each query, float32 [Q, classes].

    The softmax of closeness / temperature weights the neighbours, and a neighbour votes for each class by its share of
    the patch's known pixels: in-context segmentation (Balazevic et al., arXiv:2306.01667).
    """
    weights = torch.where(neighbours.is_local, (neighbours.closeness / temperature).softmax(1), 0.0)
    known = (neighbours.labels != IGNORED).sum(2).clamp(min=1)
    shares = torch.where(neighbours.labels != IGNORED, (weights / known)[..., None], 0.0)
    index = torch.where(neighbours.labels != IGNORED, neighbours.labels, 0).long()
    votes = torch.zeros(len(weights), classes, device=weights.device)
    votes.scatter_add_(1, index.flatten(1), shares.flatten(1))
    return mean_over_ranks(votes) * get_world_size()


def pixel_votes(neighbours: Neighbours, classes: int) -> Tensor:
    """The most frequent class of the neighbours at each pixel of the patch, int64 [Q, P]; of equal ones the lowest.

    As facebookresearch/capi@3493b571 eval_segmentation.py, except that pixels of unknown class have no vote.
    """
    counts = neighbours.is_local[..., None] & (neighbours.labels != IGNORED)
    votes = torch.zeros(*neighbours.labels.shape[::2], classes, device=neighbours.labels.device)
    for place in range(neighbours.labels.shape[1]):
        index = torch.where(counts[:, place], neighbours.labels[:, place], 0).long()
        votes.scatter_add_(2, index[..., None], counts[:, place, :, None].float())
    return mean_over_ranks(votes).argmax(2)


def patch_labels(labels: Tensor, side: int) -> Tensor:
    """uint8 [H, W] -> [H / side * W / side, side * side]: the pixels of each patch, row by row."""
    height, width = (extent // side for extent in labels.shape)
    cells = labels.reshape(height, side, width, side).transpose(1, 2)
    return cells.reshape(height * width, side * side)


def rare_first(labels: Tensor, classes: int, count: int, generator: torch.Generator) -> Tensor:
    """Indices of `count` of an image's patches, preferably with rare classes, int64 [count].

    Each patch gets the sum, over its classes, of how many patches of the image have the class, times a uniform number;
    the lowest are taken (arXiv:2306.01667, appendix; vpariza/open-hummingbird-eval@0fd976fc hbird/hbird_eval.py).

    Args:
        labels: uint8 [N, P], with a known pixel in each patch.
    """
    has = torch.zeros(len(labels), 256, dtype=torch.bool)
    has.scatter_(1, labels.long(), True)
    has = has[:, :classes].float()
    scores = has @ has.sum(0)
    draws = torch.rand(len(labels), generator=generator)
    return (scores * draws).argsort(stable=True)[:count].sort().values


def join(parts: Sequence[tuple[Tensor, Tensor]], width: int, pixels: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Vectors [N, width] and labels [N, pixels] of several images as one; N may be 0."""
    vectors = [part[0] for part in parts] or [torch.empty(0, width, dtype=dtype)]
    labels = [part[1] for part in parts] or [torch.empty(0, pixels, dtype=torch.uint8)]
    return torch.cat(vectors), torch.cat(labels)
