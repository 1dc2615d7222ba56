"""Words are the centres of a k-means over the pixels of patches: no network, fitted in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mimbench.api import InputError, Stage, patchify, unpatchify
from mimbench_methods.tokenizers.base import FittedTokenizer, TokenizerConfig


class KMeansConfig(TokenizerConfig):
    """scikit-learn's MiniBatchKMeans over normalised patches."""

    samples: int = Field(100_000, ge=2)
    """Patches that it is fitted to, at most."""
    iterations: int = Field(100, ge=1)
    """Passes over them, at most."""


class KMeansTokenizer(FittedTokenizer):
    """A patch's word is the nearest centre; decoding shows the centre."""

    name: ClassVar[str] = "kmeans"
    Config = KMeansConfig
    config: KMeansConfig
    words: Tensor

    def __init__(self, config: KMeansConfig, *, patch_size: int, channels: int) -> None:
        super().__init__(config, patch_size=patch_size, channels=channels)
        self.register_buffer("words", torch.randn(config.vocabulary, patch_size**2 * channels))

    def _tokens(self, images: Tensor) -> Tensor:
        patches = patchify(images, self.patch_size)
        # The nearest centre, without the distances' common term |patch|^2.
        closeness = patches @ self.words.T - self.words.square().sum(1) / 2
        return closeness.argmax(-1)

    def decode(self, tokens: Tensor) -> Tensor:
        return unpatchify(self.words[tokens], self.patch_size)

    def fitted(self, stage: Stage) -> Mapping[str, Tensor]:
        # scikit-learn takes a second to import.
        from sklearn.cluster import MiniBatchKMeans

        patches = self._patches(stage)
        if len(patches) < self.vocabulary:
            raise InputError(
                f"{len(patches)} patches cannot make {self.vocabulary} words; lower method.kmeans.vocabulary"
            )
        stage.say(f"fitting a k-means vocabulary of {self.vocabulary} words to {len(patches):,} patches")
        means = MiniBatchKMeans(
            self.vocabulary,
            max_iter=self.config.iterations,
            batch_size=4096,
            n_init=1,
            random_state=stage.seed % 2**32,
        ).fit(patches.numpy())
        return {"words": torch.from_numpy(means.cluster_centers_).float()}

    def _patches(self, stage: Stage) -> Tensor:
        """float32 [N, patch * patch * C] of the first images, N up to `samples`."""
        parts, count = [], 0
        for images in stage.images():
            parts.append(patchify(images, self.patch_size).flatten(0, 2).cpu())
            count += len(parts[-1])
            if count >= self.config.samples:
                break
        return torch.cat(parts)[: self.config.samples]
