"""VQ-KD, the tokenizer of BEiT v2: its words are those from which a teacher's features can be predicted."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from mimbench.api import (
    Batch,
    CLIPTower,
    InputError,
    Stage,
    StepOutput,
    per_channel,
)
from mimbench_methods.tokenizers.base import FittedTokenizer
from mimbench_methods.tokenizers.vqkd_config import VQKDConfig
from mimbench_methods.tokenizers.vqkd_network import VQKD
from mimbench_methods.tokenizers.vqkd_teachers import HOGTeacher, read_clip
from mimbench_methods.tokenizers.vqkd_weights import load_words


class VQKDTokenizer(FittedTokenizer):
    """Words of images of one size. Grey images are shown as RGB. It cannot turn words back into pixels.

    Checkpoints hold what makes words, and neither the decoder nor the teacher.
    """

    name: ClassVar[str] = "vqkd"
    Config = VQKDConfig
    config: VQKDConfig
    mean: Tensor
    std: Tensor

    def __init__(self, config: VQKDConfig, *, patch_size: int, channels: int, image_size: int) -> None:
        super().__init__(config, patch_size=patch_size, channels=channels)
        if channels not in (1, 3):
            raise InputError(f"tokenizer 'vqkd' takes grey and RGB images, and these have {channels} channels")
        self.grid = image_size // patch_size
        self.words = config.word_encoder(image_size, patch_size)
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("std", torch.ones(channels, 1, 1))
        if config.weights:
            load_words(config.weights, self.words)
        elif config.teacher == "clip" and config.clip is None:
            raise InputError(
                "tokenizer 'vqkd' needs a teacher: set method.vqkd.clip to a file of CLIP's image tower, or "
                'method.vqkd.weights to a trained tokenizer; method.vqkd.teacher = "hog" is a stand-in without weights'
            )

    def prepare(self, stage: Stage) -> None:
        if not self.config.weights:
            super().prepare(stage)
        self._set_statistics(stage)

    def fitted(self, stage: Stage) -> Mapping[str, Tensor]:
        config = self.config
        self._set_statistics(stage)
        teacher = self._teacher()
        network = config.network(copy.deepcopy(self.words).requires_grad_(True), self.grid, teacher.dim)
        model = _Distillation(network, teacher, self.mean.clone(), self.std.clone())
        stage.fit(model, config.train, label="VQ-KD", options="method.vqkd")
        return self.state_dict() | {f"words.{name}": value for name, value in network.words.state_dict().items()}

    def _teacher(self) -> HOGTeacher | CLIPTower:
        if self.config.clip is None:
            return HOGTeacher(self.patch_size)
        return read_clip(self.config.clip, grid=self.grid, quick_gelu=self.config.clip_activation == "quick-gelu")

    def _set_statistics(self, stage: Stage) -> None:
        self.mean.copy_(per_channel(stage.input.mean, self.channels, "mean"))
        self.std.copy_(per_channel(stage.input.std, self.channels, "std"))

    def _tokens(self, images: Tensor) -> Tensor:
        return self.words(2 * _shown(images, self.mean, self.std) - 1)


class _Distillation(nn.Module):
    """What the stage trains."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: VQKD, teacher: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network, self.teacher = network, teacher.requires_grad_(False)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def train(self, mode: bool = True) -> _Distillation:
        super().train(mode)
        self.teacher.eval()
        return self

    def step(self, batch: Batch, generator: torch.Generator) -> StepOutput:
        pixels = _shown(batch.images, self.mean, self.std)
        with torch.no_grad():
            target = self.teacher(pixels)
        read = self.network(2 * pixels - 1, target, generator)
        unused = (self.network.words.quantizer.usage == 0).float().mean()
        logs = {"commitment": read.commitment.detach(), "error": read.error.detach(), "unused_words": unused}
        return StepOutput(read.commitment + read.error, logs)

    def no_weight_decay(self) -> set[str]:
        return {f"network.{name}" for name in self.network.no_weight_decay()}


def _shown(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Normalised images as RGB pixels in [0, 1]."""
    return (images * std + mean).expand(-1, 3, -1, -1)
