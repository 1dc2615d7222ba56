"""Monitors of one pretraining: they see the encoder that a checkpoint at this step would hold, and nothing else.

The weights are copied into an encoder of its own. So neither the mode, the batch norms nor the compiled blocks of what
is trained are touched. Images are encoded in micro-batches of the training, without gradients, so that they need less
memory than it. Under torchrun the ranks share the images, and rank 0 measures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from mimbench.advice import short_text
from mimbench.contract import Encoder, ImageSplit, Method, Monitor, MonitorInput
from mimbench.data.pipeline.normalised import normalised_batches
from mimbench.data.pipeline.repeated_views import repeated_views
from mimbench.data.pipeline.subsets import subset
from mimbench.distributed import get_rank, get_world_size
from mimbench.engine.monitoring import Monitoring
from mimbench.engine.ranks import fails_together, map_over_ranks, on_first_rank
from mimbench.harness.planning.build import build_method
from mimbench.harness.planning.cells import Pretraining
from mimbench.harness.planning.monitors import load_monitors
from mimbench.harness.planning.weights import copy_exported

BATCH = 128
"""Images that are loaded together, whatever is encoded at once: views depend on it."""
VIEWED = 100
"""Images that augmented views are made of, at most."""
_SEED = 0
"""Of the choice of images and of their views: the same for all methods and seeds."""


class EncoderMonitoring:
    """Measures the encoder of a method by the monitors of its pretraining."""

    def __init__(
        self,
        monitors: Sequence[Monitor],
        pretraining: Pretraining,
        method: Method,
        device: torch.device,
        say: Callable[[str], None],
    ) -> None:
        """
        Args:
            method: that is trained; it is only read.
            say: prints a line.
        """
        self._monitors, self._pretraining, self._method = monitors, pretraining, method
        self._device, self._say = device, say
        self._at_once = pretraining.recipe.pretrain.micro_batch(get_world_size())
        self._failed: set[str] = set()
        self._is_left_out = False

    @cached_property
    def _images(self) -> ImageSplit:
        images, most = self._pretraining.images(), self._pretraining.recipe.pretrain.monitor_images
        # RandomState, because its stream is frozen: the same images with every numpy release.
        chosen = np.random.RandomState(_SEED).permutation(len(images))[:most]
        return subset(images, np.sort(chosen).tolist())

    @cached_property
    def _encoder(self) -> Encoder:
        recipe = self._pretraining.recipe
        encoder = build_method(recipe, self._pretraining.seed, self._pretraining.channels).exported_encoder()
        return encoder.requires_grad_(False).eval()

    def measure(self) -> dict[str, float]:
        """The value of each monitor by name, without those that fail or are not finite. All ranks call it together.

        If the images cannot be encoded, all monitors are left out from then on.
        """
        if self._is_left_out:
            return {}
        try:
            features, views = self._encode()
        except Exception as error:  # the training is worth more than its curves
            problem = f"{type(error).__name__}: {short_text(error)}"
        else:
            is_finite = all(bool(part.isfinite().all()) for part in (features, views) if part is not None)
            problem = "" if is_finite else "its features are not finite"
        if not problem:
            return self._values(features, views)
        self._is_left_out = True
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        if get_rank() == 0:
            self._say(f"monitors are left out from here on; the training goes on: cannot encode images: {problem}")
        return {}

    def _encode(self) -> tuple[Tensor, Tensor | None]:
        try:
            encoder = self._current_encoder()
            return self._features(encoder), self._views(encoder)
        finally:
            if "_encoder" in vars(self):
                self._encoder.cpu()  # the training needs the memory

    @fails_together
    def _current_encoder(self) -> Encoder:
        copy_exported(self._method, self._encoder)
        return self._encoder.to(self._device)

    def _features(self, encoder: Encoder) -> Tensor:
        """float32 [N, D] of all watched images, on the CPU."""
        settings = self._pretraining.recipe.input
        batches = normalised_batches(
            self._images,
            settings,
            encoder.in_channels,
            batch_size=BATCH,
            device=self._device,
            workers=self._workers,
            rank=get_rank(),
            world_size=get_world_size(),
        )

        def encode(batch: tuple[Tensor, Tensor]) -> Tensor:
            return self._pooled(encoder, batch[0])

        return torch.cat(map_over_ranks(encode, batches))

    def _views(self, encoder: Encoder) -> Tensor | None:
        """float32 [n, q, D] of views of the first images, on the CPU; None if no monitor asks for views."""
        count = max(monitor.views for monitor in self._monitors)
        if not count:
            return None
        batches = repeated_views(
            subset(self._images, list(range(min(VIEWED, len(self._images))))),
            self._pretraining.recipe.input,
            encoder.in_channels,
            count=count,
            images=max(1, BATCH // count),
            seed=_SEED,
            device=self._device,
            workers=self._workers,
            rank=get_rank(),
            world_size=get_world_size(),
        )

        def encode(views: Tensor) -> Tensor:
            return self._pooled(encoder, views.flatten(0, 1)).unflatten(0, views.shape[:2])

        return torch.cat(map_over_ranks(encode, batches))

    def _pooled(self, encoder: Encoder, images: Tensor) -> Tensor:
        """float32 [B, D] of a batch, on the CPU."""
        parts = images.split(self._at_once)
        return torch.cat([encoder.features(part, -1).pooled.float().cpu() for part in parts])

    @property
    def _workers(self) -> int:
        return self._pretraining.recipe.pretrain.workers

    @on_first_rank
    def _values(self, features: Tensor, views: Tensor | None) -> dict[str, float]:
        has_labels = "labels" in self._pretraining.dataset.provides
        seen = MonitorInput(
            features,
            self._images.labels if has_labels else None,
            len(self._images.classes),
            views,
        )
        values = {}
        for monitor in self._monitors:
            try:
                value = float(monitor.measure(seen))
            except Exception as error:  # the training is worth more than one of its curves
                self._say_failed(monitor, f"{type(error).__name__}: {short_text(error)}")
                continue
            if np.isfinite(value):
                values[monitor.name] = value
            else:
                self._say_failed(monitor, f"it gives {value}")
        return values

    def _say_failed(self, monitor: Monitor, problem: str) -> None:
        """Once per monitor."""
        if monitor.name not in self._failed:
            self._say(f"monitor {monitor.name!r} is left out where it fails; the training goes on: {problem}")
        self._failed.add(monitor.name)


def monitoring_of(
    pretraining: Pretraining, method: Method, device: torch.device, say: Callable[[str], None]
) -> Monitoring | None:
    """The monitoring that a pretraining asks for; None if it asks for none."""
    config, monitors = pretraining.recipe.pretrain, load_monitors(pretraining)
    if not monitors:
        return None
    every = config.monitoring_interval(max(1, pretraining.image_count // config.batch_size))
    return Monitoring(EncoderMonitoring(monitors, pretraining, method, device, say).measure, every)
