"""Maps of what made a probe decide, and maps that know nothing of it: float [B, S, S], higher for what matters more."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from mimbench.api import recorded_attention
from mimbench_tasks.attribution.probe import Probe

MapFunction = Callable[[Probe, Tensor, Tensor], Tensor]
"""(probe, normalised images [B, C, S, S], class to explain int64 [B]) -> map [B, S, S]."""
NEEDS_ATTENTION = frozenset({"rollout", "gradient-attention"})
STEPS = 32
"""Points of the path of integrated gradients."""


@torch.no_grad()
def rollout(probe: Probe, images: Tensor, target: Tensor) -> Tensor:
    """Attention rollout (arXiv:2005.00928): product over layers of the mean over heads, half of it the identity.

    It does not depend on the class.
    """
    flow = _read_tokens(probe, images)
    for weights in reversed([*probe.encoder.attention(images)]):
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
    """How far the probability falls if a patch is filled with the mean of the normalisation; at least 0."""
    rows, columns = probe.encoder.grid
    side = probe.encoder.stride
    before = _chosen(probe(images).softmax(1), target)
    falls = images.new_zeros(len(images), rows * columns)
    for place in range(rows * columns):
        top, left = side * (place // columns), side * (place % columns)
        filled = images.clone()
        filled[..., top : top + side, left : left + side] = 0
        falls[:, place] = before - _chosen(probe(filled).softmax(1), target)
    return _enlarged(falls.clamp_min(0).unflatten(1, (rows, columns)), images)


def integrated_gradients(probe: Probe, images: Tensor, target: Tensor) -> Tensor:
    """Integrated gradients (arXiv:1703.01365) of the logit from the mean image, summed over channels; at least 0."""
    total = torch.zeros_like(images)
    for step in range(STEPS):
        with torch.enable_grad():
            point = (images * ((step + 0.5) / STEPS)).detach().requires_grad_()
            (gradient,) = torch.autograd.grad(_chosen(probe(point), target).sum(), point)
        total += gradient / STEPS
    return (images * total).sum(1).clamp_min(0)


MAPS: Mapping[str, MapFunction] = {
    "occlusion": occlusion,
    "gradient-attention": gradient_attention,
    "rollout": rollout,
    "integrated-gradients": integrated_gradients,
}


def random_map(images: Tensor, seed: int) -> Tensor:
    """Independent noise per patch of 4 px, as coarse as other maps."""
    side = -(-images.shape[-1] // 4)
    noise = torch.rand(len(images), side, side, generator=torch.Generator().manual_seed(seed))
    return _enlarged(noise.to(images.device), images)


def centre_map(images: Tensor) -> Tensor:
    """High in the middle of the image."""
    axis = torch.linspace(-1, 1, images.shape[-1], device=images.device)
    return (2 - axis.square()[:, None] - axis.square()[None, :]).expand(len(images), -1, -1)


def intensity_map(images: Tensor) -> Tensor:
    """How far a pixel is from the mean of its image, the mean over channels."""
    return (images - images.mean((-2, -1), keepdim=True)).abs().mean(1)


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
