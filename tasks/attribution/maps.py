"""Maps of what made a probe decide, and maps that know nothing of it: float [B, S, S], higher for what matters more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor

from mimbench.api import recorded_attention
from mimbench_tasks.attribution.probe import Probe

MapFunction = Callable[[Probe, Tensor, Tensor], Tensor]
"""(probe, normalised images [B, C, S, S], class to explain int64 [B]) -> map [B, S, S]."""
NEEDS_ATTENTION = frozenset({"rollout", "gradient-attention"})
PER_PIXEL = frozenset({"integrated-gradients"})
"""Maps with one value per pixel; the others have one per patch."""
STEPS = 32
"""Points of the path of integrated gradients."""


@torch.no_grad()
def rollout(probe: Probe, images: Tensor, target: Tensor) -> Tensor:
    """Attention rollout (arXiv:2005.00928): product over layers of the mean over heads, half of it the identity.

    Layers are those up to the one that the probe reads. It does not depend on the class.
    """
    flow = _read_tokens(probe, images)
    layers = islice(probe.encoder.attention(images), probe.encoder.layer_index(probe.layer) + 1)
    for weights in reversed([*layers]):
        mixed = (weights.float().mean(1) + torch.eye(weights.shape[-1], device=weights.device)) / 2
        flow = flow @ (mixed / mixed.sum(-1, keepdim=True))
    return _of_patches(probe, images, flow)


def gradient_attention(probe: Probe, images: Tensor, target: Tensor) -> Tensor:
    """Relevance of tokens by attention times its gradient, positive part, mean over heads (arXiv:2103.15679)."""
    with torch.enable_grad(), recorded_attention() as layers:
        logits = probe(images.detach().requires_grad_())
        gradients = torch.autograd.grad(_chosen(logits, target).sum(), layers)
    flow = _read_tokens(probe, images)
    for weights, gradient in zip(reversed(layers), reversed(gradients), strict=True):
        flow = flow + flow @ (weights.detach() * gradient).clamp_min(0).mean(1).float()
    return _of_patches(probe, images, flow)


@torch.no_grad()
def occlusion(probe: Probe, images: Tensor, target: Tensor) -> Tensor:
    """How far the probability falls if a patch is filled with the mean of its image; at least 0."""
    rows, columns = probe.encoder.grid
    side = probe.encoder.stride
    mean, before = mean_colour(images), _chosen(probe(images).softmax(1), target)
    falls = images.new_zeros(len(images), rows * columns)
    for place in range(rows * columns):
        top, left = side * (place // columns), side * (place % columns)
        filled = images.clone()
        filled[..., top : top + side, left : left + side] = mean
        falls[:, place] = before - _chosen(probe(filled).softmax(1), target)
    return _enlarged(falls.clamp_min(0).unflatten(1, (rows, columns)), images)


def integrated_gradients(probe: Probe, images: Tensor, target: Tensor) -> Tensor:
    """Integrated gradients (arXiv:1703.01365) of the logit, from a plain image of the image's mean; at least 0.

    They are summed over channels.
    """
    mean, total = mean_colour(images), torch.zeros_like(images)
    for step in range(STEPS):
        with torch.enable_grad():
            point = torch.lerp(mean, images, (step + 0.5) / STEPS).detach().requires_grad_()
            (gradient,) = torch.autograd.grad(_chosen(probe(point), target).sum(), point)
        total += gradient / STEPS
    return ((images - mean) * total).sum(1).clamp_min(0)


MAPS: Mapping[str, MapFunction] = {
    "occlusion": occlusion,
    "gradient-attention": gradient_attention,
    "rollout": rollout,
    "integrated-gradients": integrated_gradients,
}


def centre_map(images: Tensor) -> Tensor:
    """High in the middle of the image."""
    axis = torch.linspace(-1, 1, images.shape[-1], device=images.device)
    return (2 - axis.square()[:, None] - axis.square()[None, :]).expand(len(images), -1, -1)


def intensity_map(images: Tensor) -> Tensor:
    """How far a pixel is from the mean of its image, the mean over channels."""
    return (images - mean_colour(images)).abs().mean(1)


def edge_map(images: Tensor) -> Tensor:
    """How far a pixel is from those to its right and below, the mean over channels."""
    right, below = (F.pad(images.diff(dim=dim).abs(), pad) for dim, pad in ((-1, (0, 1)), (-2, (0, 0, 0, 1))))
    return (right + below).mean(1)


def coarsened(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Maps [B, S, S] averaged over the cells of a grid, and enlarged again: as coarse as a map of patches."""
    return _enlarged(F.adaptive_avg_pool2d(maps, grid), maps)


def mean_colour(images: Tensor) -> Tensor:
    """The mean over pixels, [B, C, 1, 1]: what stands for a pixel that is left out."""
    return images.mean((-2, -1), keepdim=True)


def _chosen(scores: Tensor, target: Tensor) -> Tensor:
    """The score of the class to explain, [B]."""
    return scores.gather(1, target[:, None])[:, 0]


def _read_tokens(probe: Probe, images: Tensor) -> Tensor:
    """How much the probe's pooling reads of each token, [B, 1, P + N], with sum 1."""
    prefix, patches = probe.encoder.num_prefix_tokens, probe.encoder.grid[0] * probe.encoder.grid[1]
    of_patches = F.pad(torch.full((patches,), 1 / patches), (prefix, 0))
    of_token = F.one_hot(torch.zeros((), dtype=torch.long), prefix + patches).float()
    read = {"mean": of_patches, "token": of_token}.get(probe.pooling, (of_patches + of_token) / 2)
    return read.to(images.device).expand(len(images), 1, -1)


def _of_patches(probe: Probe, images: Tensor, flow: Tensor) -> Tensor:
    """The map of relevances of tokens [B, 1, P + N]."""
    return _enlarged(flow[:, 0, probe.encoder.num_prefix_tokens :].unflatten(1, probe.encoder.grid), images)


def _enlarged(maps: Tensor, images: Tensor) -> Tensor:
    """Maps [B, h, w] at the size of the images."""
    return F.interpolate(maps[:, None].float(), images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
