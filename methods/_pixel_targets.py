"""Targets of pixel prediction, each with its loss: a pixel's value, its colour cluster, or its bins."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.api import InputError, Stage, at_least_float32

FIT_PIXELS = 65_536
"""Pixels that the colour clusters are fitted to."""
FIT_BATCHES = 16
"""Batches that they are taken from."""


class PixelTarget(nn.Module, ABC):
    """A target at each pixel. `outputs` is how many channels of a prediction [B, outputs, H, W] it needs."""

    outputs: int

    def prepare(self, stage: Stage) -> None:
        """Fit what has to be fitted to the training images."""

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [B, C, H, W] -> the target."""

    @abstractmethod
    def error(self, prediction: Tensor, target: Tensor) -> Tensor:
        """[B, 1 or C, H, W]."""

    @abstractmethod
    def decode(self, prediction: Tensor) -> Tensor:
        """The image [B, C, H, W] that a prediction means."""


class Values(PixelTarget):
    """The normalised pixel values, by regression."""

    def __init__(self, channels: int, loss: str) -> None:
        super().__init__()
        self.outputs = channels
        self.distance = {"l1": F.l1_loss, "smooth-l1": F.smooth_l1_loss, "l2": F.mse_loss}[loss]

    def forward(self, images: Tensor) -> Tensor:
        return images

    def error(self, prediction: Tensor, target: Tensor) -> Tensor:
        return self.distance(at_least_float32(prediction), target, reduction="none")

    def decode(self, prediction: Tensor) -> Tensor:
        return prediction


class Clusters(PixelTarget):
    """The nearest of `count` colours, by cross-entropy (iGPT); `prepare` finds them by k-means over pixels.

    SimMIM took iGPT's 512 colours; here they come from the training images. Until `prepare` they are random.
    """

    colours: Tensor

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.outputs = count
        self.register_buffer("colours", torch.randn(count, channels))

    def prepare(self, stage: Stage) -> None:
        identity = {"what": "colour clusters", "version": 1, "count": self.outputs, "pixels": FIT_PIXELS}
        self.colours.copy_(stage.compute_once(identity, lambda: {"colours": self._fit(stage)})["colours"])

    def forward(self, images: Tensor) -> Tensor:
        """int64 [B, H, W]."""
        pixels = images.float().permute(0, 2, 3, 1).flatten(1, 2)
        nearest = [torch.cdist(one, self.colours).argmin(-1) for one in pixels]
        return torch.stack(nearest).unflatten(1, images.shape[-2:])

    def error(self, prediction: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(prediction.float(), target, reduction="none").unsqueeze(1)

    def decode(self, prediction: Tensor) -> Tensor:
        return self.colours[prediction.argmax(1)].permute(0, 3, 1, 2)

    def _fit(self, stage: Stage) -> Tensor:
        from sklearn.cluster import MiniBatchKMeans  # takes a second to import, and only this needs it

        batches = list(islice(stage.images(), FIT_BATCHES))
        pixels = torch.cat([batch.permute(0, 2, 3, 1).flatten(0, 2) for batch in batches]).cpu()
        if len(pixels) < self.outputs:
            raise InputError(f"method.clusters {self.outputs} is more than the {len(pixels)} pixels of the images")
        drawn = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(stage.seed))[:FIT_PIXELS]
        kmeans = MiniBatchKMeans(self.outputs, n_init=1, random_state=stage.seed % 2**32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # fewer colours than clusters: the surplus ones are never nearest
            kmeans.fit(pixels[drawn].numpy())
        return torch.from_numpy(kmeans.cluster_centers_).float()


class Bins(PixelTarget):
    """For each channel one of `count` equal bins from black to white, by cross-entropy."""

    low: Tensor
    high: Tensor

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.channels, self.count, self.outputs = channels, count, channels * count
        self.register_buffer("low", torch.full((channels, 1, 1), -3.0))
        self.register_buffer("high", torch.full((channels, 1, 1), 3.0))

    def prepare(self, stage: Stage) -> None:
        """Normalised black and white, from the recipe's [input]."""
        mean, std = torch.tensor(stage.input.mean), torch.tensor(stage.input.std)
        self.low.copy_((-mean / std).view(-1, 1, 1).expand_as(self.low))
        self.high.copy_(((1 - mean) / std).view(-1, 1, 1).expand_as(self.high))

    def forward(self, images: Tensor) -> Tensor:
        """int64 [B, C, H, W]."""
        share = (images.float() - self.low) / (self.high - self.low)
        return (share * self.count).long().clamp(0, self.count - 1)

    def error(self, prediction: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(self._classes_first(prediction).float(), target, reduction="none")

    def decode(self, prediction: Tensor) -> Tensor:
        share = (self._classes_first(prediction).argmax(1) + 0.5) / self.count
        return self.low + share * (self.high - self.low)

    def _classes_first(self, prediction: Tensor) -> Tensor:
        return prediction.unflatten(1, (self.channels, self.count)).transpose(1, 2)
