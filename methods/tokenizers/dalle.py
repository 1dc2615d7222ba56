"""The encoder of OpenAI's DALL-E discrete VAE, with weights from a local file: BEiT's own tokenizer."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mimbench.api import Depth, InputError, Stage, cosmetic, per_channel
from mimbench_methods.tokenizers.base import Tokenizer, TokenizerConfig
from mimbench_methods.tokenizers.dalle_encoder import dalle_encoder

STRIDE = 8
EDGE = 0.1
"""Pixels are squeezed into [EDGE, 1 - EDGE], as the logit-Laplace likelihood wants them."""
CONVERSION = (
    "if you trust the file, convert it once, with the dall_e package installed: "
    "torch.save(torch.load('encoder.pkl', weights_only=False).state_dict(), 'encoder.pt')"
)


class DalleConfig(TokenizerConfig):
    """The published encoder has 8192 words and width 256."""

    weights: Path | None = cosmetic(None)
    """A safetensors file, or a state dict saved by torch; its content enters fingerprints."""
    width: int = Field(256, ge=4, multiple_of=4)
    blocks: Depth = Field(2, ge=1)
    """Blocks in each of the four groups."""

    def identity(self) -> dict[str, Any]:
        with _weights_file(self.weights).open("rb") as stream:
            return {**self.shaping(), "weights": hashlib.file_digest(stream, "sha256").hexdigest()}


class DalleTokenizer(Tokenizer):
    """One word for each 8 px of the image, brought to 8 px for each patch first (112 px for 14 x 14 patches).

    BEiT cuts the same box out of the original image a second time and resizes that by a Lanczos filter
    (microsoft/unilm@768a3c87 beit/transforms.py). Here the crop that the encoder sees is resized, by an antialiased
    bicubic filter on the device. Grey images are shown as RGB. openai/DALL-E@16f02ec6, dall_e/encoder.py.
    """

    name: ClassVar[str] = "dalle"
    Config = DalleConfig
    config: DalleConfig
    mean: Tensor
    std: Tensor

    def __init__(self, config: DalleConfig, *, patch_size: int, channels: int) -> None:
        super().__init__(config, patch_size=patch_size, channels=channels)
        if channels not in (1, 3):
            raise InputError(f"tokenizer 'dalle' takes grey and RGB images, and these have {channels} channels")
        self.encoder = dalle_encoder(config.width, config.blocks, config.vocabulary)
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("std", torch.ones(channels, 1, 1))
        self.encoder.load_state_dict(_official_state(_weights_file(config.weights), self.encoder.state_dict()))

    def prepare(self, stage: Stage) -> None:
        self.mean.copy_(per_channel(stage.input.mean, self.channels, "mean"))
        self.std.copy_(per_channel(stage.input.std, self.channels, "std"))

    def _tokens(self, images: Tensor) -> Tensor:
        size = [side // self.patch_size * STRIDE for side in images.shape[-2:]]
        pixels = F.interpolate(images * self.std + self.mean, size, mode="bicubic", antialias=True).clamp(0, 1)
        return self.encoder((1 - 2 * EDGE) * pixels.expand(-1, 3, -1, -1) + EDGE).argmax(1)


def _weights_file(path: Path | None) -> Path:
    if path is None:
        raise InputError(
            "tokenizer 'dalle' needs the weights of OpenAI's encoder: set method.dalle.weights to a local file"
        )
    if not path.is_file():
        raise InputError(f"method.dalle.weights: there is no file {path}")
    return path


def _official_state(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The file's tensors under this encoder's names (theirs say w and b), names and shapes checked."""
    names = {".w": ".weight", ".b": ".bias"}
    state = {}
    for key, value in _read(path).items():
        start, end = key[:-2], key[-2:]
        state[start + names[end] if end in names else key] = value
    for key, value in expected.items():
        if key not in state:
            raise InputError(f"method.dalle.weights: {path} has no tensor {key!r}; is it the DALL-E encoder?")
        if state[key].shape != value.shape:
            raise InputError(
                f"method.dalle.weights: {key!r} is {list(state[key].shape)} in {path}, not {list(value.shape)}; "
                "set method.dalle.width, blocks and vocabulary to the file's"
            )
    if unknown := sorted(state.keys() - expected.keys()):
        raise InputError(f"method.dalle.weights: {path} has a tensor {unknown[0]!r} that the encoder does not have")
    return state


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError:
        pass  # not a safetensors file
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"method.dalle.weights: {path} is a pickled module, or nothing that torch saved: unpickling one can run "
            f"any code, so only safetensors and state dicts are read; {CONVERSION}"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise InputError(
            f"method.dalle.weights: {path} is neither safetensors nor a torch file ({type(error).__name__})"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"method.dalle.weights: {path} is no state dict, name -> tensor; {CONVERSION}")
    return state
