"""The options of VQ-KD, and the networks of their sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from mimbench.api import Depth, PatchViT, ScheduleConfig, TrainConfig
from mimbench_methods.tokenizers.base import TokenizerConfig
from mimbench_methods.tokenizers.quantizer import Quantizer
from mimbench_methods.tokenizers.vqkd_network import VQKD, WordEncoder

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
