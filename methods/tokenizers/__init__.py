"""Visual vocabularies: from images to grids of words, and back if the tokenizer can."""

from mimbench_methods.tokenizers.base import Tokenizer, TokenizerConfig
from mimbench_methods.tokenizers.choice import TOKENIZERS, TokenizedConfig
from mimbench_methods.tokenizers.dalle import DalleConfig, DalleTokenizer
from mimbench_methods.tokenizers.dvae import DVAEConfig, DVAETokenizer
from mimbench_methods.tokenizers.kmeans import KMeansConfig, KMeansTokenizer

__all__ = [
    "TOKENIZERS",
    "DVAEConfig",
    "DVAETokenizer",
    "DalleConfig",
    "DalleTokenizer",
    "KMeansConfig",
    "KMeansTokenizer",
    "TokenizedConfig",
    "Tokenizer",
    "TokenizerConfig",
]
