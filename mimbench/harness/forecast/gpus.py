"""GPUs: memory, and how many operations a second their data sheets promise."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

import torch

from mimbench.errors import InputError, nearest

GIB = 2**30
_KEPT_BACK = 1.0
"""GiB of a GPU that are planned for the CUDA context, cuBLAS and NCCL."""
_FRAGMENTS = 0.05
"""Share of the memory that the caching allocator may lose to fragments."""


@dataclass(frozen=True)
class Card:
    """One GPU. Rates are TFLOP/s without sparsity, summed in fp32; None: it has none, or they are not known."""

    name: str
    memory: float
    """GiB."""
    bf16: float | None
    tf32: float | None
    fp32: float | None
    source: str
    is_ampere: bool = True
    """Whether it is of the Ampere generation or newer, with bf16, TF32 and FlashAttention."""

    @property
    def usable(self) -> int:
        """Bytes for a training."""
        return int((self.memory * (1 - _FRAGMENTS) - _KEPT_BACK) * GIB)

    def rate(self, precision: str) -> float | None:
        """Peak operations per second in "fp32", "tf32" or "bf16"."""
        rate = {"fp32": self.fp32, "tf32": self.tf32, "bf16": self.bf16}[precision]
        return None if rate is None else rate * 1e12


_CARDS = (
    Card("V100-16GB", 16, None, None, 15.7, "NVIDIA V100 data sheet (SXM2)", is_ampere=False),
    Card("V100", 32, None, None, 15.7, "NVIDIA V100 data sheet (SXM2)", is_ampere=False),
    Card("T4", 16, None, None, 8.1, "NVIDIA T4 data sheet", is_ampere=False),
    Card("A100-40GB", 40, 312, 156, 19.5, "NVIDIA A100 data sheet"),
    Card("A100", 80, 312, 156, 19.5, "NVIDIA A100 80GB data sheet"),
    Card("A30", 24, 165, 82, 10.3, "NVIDIA A30 data sheet"),
    Card("A10", 24, 125, 62.5, 31.2, "NVIDIA A10 data sheet"),
    Card("A40", 48, 149.7, 74.8, 37.4, "NVIDIA A40 data sheet"),
    Card("A6000", 48, 154.8, 77.4, 38.7, "NVIDIA RTX A6000 data sheet"),
    Card("RTX3090", 24, 71, 35.6, 35.6, "NVIDIA Ampere GA102 whitepaper"),
    Card("RTX4090", 24, 165.2, 82.6, 82.6, "NVIDIA Ada GPU architecture whitepaper"),
    Card("RTX6000Ada", 48, 364.2, 182.1, 91.1, "NVIDIA RTX 6000 Ada data sheet"),
    Card("L4", 24, 121, 60, 30.3, "NVIDIA L4 data sheet"),
    Card("L40S", 48, 362, 183, 91.6, "NVIDIA L40S data sheet"),
    Card("H100-PCIe", 80, 756, 378, 51, "NVIDIA H100 data sheet (PCIe)"),
    Card("H100", 80, 989, 494, 67, "NVIDIA H100 data sheet (SXM)"),
    Card("H200", 141, 989, 494, 67, "NVIDIA H200 data sheet (SXM)"),
)
CARDS = {card.name: card for card in _CARDS}


def parse_gpus(text: str, memory: str | None) -> tuple[int, Card]:
    """ "8xH100" as 8 and its card; "4x8xA100" is 32. A card that is not in `CARDS` needs its memory, such as "80GB".

    Raises:
        InputError: this is not a number and a card, or the card is unknown and has no memory.
    """
    match = re.fullmatch(r"\s*((?:\d+\s*x\s*)*)([a-z].*?)\s*", text, re.IGNORECASE)
    counts = [int(number) for number in re.findall(r"\d+", match[1])] if match else [0]
    if match is None or not all(counts):
        raise InputError(f"--gpus {text}: write a number and a card, such as 8xH100; known: {', '.join(CARDS)}")
    card = {_plain(name): card for name, card in CARDS.items()}.get(_plain(match[2]))
    if card is None and memory is None:
        raise InputError(
            f"--gpus {text}: unknown card {match[2]!r}{nearest(match[2], CARDS)}; or give its --memory, such as 80GB"
        )
    card = card or Card(match[2], 0, None, None, None, "--memory")
    return math.prod(counts), replace(card, memory=parse_memory(memory)) if memory else card


def card_here() -> Card:
    """The first CUDA device of this machine, with the rates of its kind if they are known."""
    properties = torch.cuda.get_device_properties(0)
    name, memory = _plain(properties.name), properties.total_memory / GIB
    known = [card for card in _CARDS if _plain(card.name).split("gb")[0] in name]
    here = Card(properties.name, memory, None, None, None, "this machine", is_ampere=properties.major >= 8)
    nearest_size = min(known, key=lambda card: abs(card.memory - memory), default=here)
    return replace(nearest_size, name=properties.name, memory=memory, is_ampere=here.is_ampere)


def parse_memory(text: str) -> float:
    """GiB of "80GB", "80 GiB" or "80"; cards count in units of 2 ** 30 bytes whatever they call them.

    Raises:
        InputError: it is no size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:G|GB|GiB)?\s*", text, re.IGNORECASE)
    if match is None or not float(match[1]) > _KEPT_BACK / (1 - _FRAGMENTS):
        raise InputError(f"--memory {text}: write the memory of one GPU, such as 80GB, of more than 1 GB")
    return float(match[1])


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]|nvidia|geforce|quadro", "", name.lower())
