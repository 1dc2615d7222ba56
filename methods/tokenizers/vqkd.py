"""VQ-KD, the tokenizer of BEiT v2: its words are those from which a teacher's features can be predicted."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from mimbench.api import (
    Batch,
    CLIPTower,
    Depth,
    InputError,
    PatchViT,
    ScheduleConfig,
    Stage,
    StepOutput,
    TrainConfig,
    per_channel,
    read_weights,
    to_part,
)
from mimbench_methods.tokenizers.base import FittedTokenizer, TokenizerConfig
from mimbench_methods.tokenizers.vqkd_network import VQKD, Quantizer, WordEncoder
from mimbench_methods.tokenizers.vqkd_teachers import HOGTeacher, read_clip

OFFICIAL_NAMES = {
    "encoder.": "encoder.body.",
    "encode_task_layer.": "to_code.",
    "quantize.embedding.weight": "quantizer.codes",
    "quantize.embedding.initted": "quantizer.is_started",
    "quantize.embedding.cluster_size": None,
    "quantize.embedding.embed_avg": None,
    "quantize.cluster_size": "quantizer.usage",
}
"""Beginnings of official names of the part that makes words -> here. None: nothing reads it."""
_MAKES_WORDS = ("encoder.", "encode_task_layer.", "quantize.")
_OF_WORDS = ("vocabulary", "embed_dim", "depth", "num_heads", "mlp_ratio", "code_dim", "weights")


class VQKDConfig(TokenizerConfig):
    """Its size, its teacher and its training. The defaults are the official ones for ViT-B."""

    weights: Path | None = None
    """A trained tokenizer: a state dict under the names of the official VQ-KD. Then none is trained."""
    embed_dim: int = Field(768, ge=4)
    depth: Depth = Field(12, ge=1)
    num_heads: int = Field(12, ge=1)
    mlp_ratio: float = Field(4.0, gt=0)
    code_dim: int = Field(32, ge=1)
    """Numbers per code."""
    decoder_dim: int = Field(768, ge=4)
    decoder_depth: Depth = Field(3, ge=1)
    decoder_heads: int = Field(12, ge=1)
    decay: float = Field(0.99, ge=0, lt=1)
    """What a code keeps of itself in each step."""
    teacher: Literal["clip", "hog"] = "clip"
    """Whose features are predicted. hog: a stand-in without weights, which knows nothing but pixels."""
    clip: Path | None = None
    """Weights of CLIP's image tower under timm's names."""
    clip_activation: Literal["quick-gelu", "gelu"] = "quick-gelu"
    """quick-gelu: OpenAI's weights; gelu: OpenCLIP's, most of them."""
    epochs: int = Field(100, ge=1)
    batch_size: int = Field(512, ge=1)
    base_lr: float = Field(5e-5, gt=0)
    """For a batch of 128."""
    min_lr: float = Field(1e-5, ge=0)
    """Absolute."""
    warmup_epochs: float = Field(10, ge=0)

    @model_validator(mode="after")
    def _has_effect(self) -> VQKDConfig:
        if self.weights and self.clip:
            raise ValueError("clip does nothing if weights names a trained tokenizer; leave one of them out")
        if self.clip and self.teacher != "clip":
            raise ValueError(f'clip does nothing while teacher is "{self.teacher}"; leave it out')
        for side, dim, heads in (
            ("", self.embed_dim, self.num_heads),
            ("decoder_", self.decoder_dim, self.decoder_heads),
        ):
            if dim % heads:
                name = "decoder_heads" if side else "num_heads"
                raise ValueError(f"{side}{'dim' if side else 'embed_dim'} {dim} is not a multiple of {name} {heads}")
        if not self.weights and self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs:g} must be less than epochs, {self.epochs}")
        return self

    def shaping(self) -> dict[str, Any]:
        """Of a trained tokenizer only what makes words."""
        shaping = super().shaping()
        if self.weights:
            return {key: value for key, value in shaping.items() if key in _OF_WORDS}
        return {key: value for key, value in shaping.items() if key != "clip_activation" or self.teacher == "clip"}

    @property
    def train(self) -> TrainConfig:
        return TrainConfig(
            epochs=self.epochs,
            batch_size=self.batch_size,
            base_lr=self.base_lr,
            lr_divisor=128,
            betas=(0.9, 0.99),
            weight_decay=1e-4,
            schedule=ScheduleConfig(convention="beit", warmup_epochs=self.warmup_epochs, min_lr=self.min_lr),
        )

    def word_encoder(self, image_size: int, patch_size: int) -> WordEncoder:
        """With initial weights."""
        encoder = PatchViT(
            image_size,
            patch_size,
            3,
            dim=self.embed_dim,
            depth=self.depth,
            num_heads=self.num_heads,
            mlp_ratio=self.mlp_ratio,
        )
        return WordEncoder(encoder, self.embed_dim, Quantizer(self.vocabulary, self.code_dim, self.decay))

    def network(self, words: WordEncoder, grid: int, target_dim: int) -> VQKD:
        """The whole network around `words`, the rest with initial weights."""
        decoder = PatchViT(
            grid,
            1,
            self.code_dim,
            dim=self.decoder_dim,
            depth=self.decoder_depth,
            num_heads=self.decoder_heads,
            mlp_ratio=self.mlp_ratio,
        )
        return VQKD(words, decoder, self.decoder_dim, target_dim)


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
            _load_words(config.weights, self.words)
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


def _load_words(path: Path, words: WordEncoder) -> None:
    """Give `words` the weights of a file with the official names."""
    place = "method.vqkd.weights"
    target = words.state_dict()
    try:
        state = {name: value for name, value in read_weights(path).state.items() if name.startswith(_MAKES_WORDS)}
        placed = to_part(state, target, OFFICIAL_NAMES)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
    trouble = next((why for why in placed.left_out.values() if "as a whole" in why), "")
    missing = sorted(set(target) - set(placed.state) - {"quantizer.usage", "quantizer.is_started"})
    if trouble or missing:
        what = trouble.partition("since ")[2] or f"it has no {missing[0]!r}"
        raise InputError(f"{place}: {path} does not fit ({what}); set the sizes in [method.vqkd] to the file's")
    words.load_state_dict(placed.state, strict=False)
