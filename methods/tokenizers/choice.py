"""Which tokenizer gives a method its targets."""

from __future__ import annotations

from typing import Any, Literal

from mimbench.api import Config, Encoder
from mimbench_methods.tokenizers.base import Tokenizer, TokenizerConfig
from mimbench_methods.tokenizers.dalle import DalleConfig, DalleTokenizer
from mimbench_methods.tokenizers.dvae import DVAEConfig, DVAETokenizer
from mimbench_methods.tokenizers.kmeans import KMeansConfig, KMeansTokenizer

TOKENIZERS: dict[str, type[Tokenizer]] = {cls.name: cls for cls in (KMeansTokenizer, DVAETokenizer, DalleTokenizer)}


class TokenizedConfig(Config):
    """Options of a method whose targets are words. Only the chosen tokenizer's table counts."""

    tokenizer: Literal["kmeans", "dvae", "dalle"] = "kmeans"
    kmeans: KMeansConfig = KMeansConfig()
    dvae: DVAEConfig = DVAEConfig()
    dalle: DalleConfig = DalleConfig()

    def shaping(self) -> dict[str, Any]:
        shared = {key: value for key, value in super().shaping().items() if key not in TOKENIZERS}
        return {**shared, self.tokenizer: self.words.identity()}

    @property
    def words(self) -> TokenizerConfig:
        """Options of the chosen tokenizer."""
        return getattr(self, self.tokenizer)

    def build_tokenizer(self, encoder: Encoder) -> Tokenizer:
        """The chosen tokenizer, frozen, with one word per patch of `encoder`."""
        chosen = TOKENIZERS[self.tokenizer]
        tokenizer = chosen(self.words, patch_size=encoder.patch_size, channels=encoder.in_channels)
        return tokenizer.requires_grad_(False)
