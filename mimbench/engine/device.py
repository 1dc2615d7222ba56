"""The device of a run, its name, its memory, and the precision it can train in."""

from __future__ import annotations

import resource
import sys

import torch

from mimbench.contract import TrainConfig
from mimbench.distributed import get_world_size
from mimbench.errors import InputError

CHOICES = ("auto", "cpu", "cuda")


def world_size_identity() -> dict[str, int]:
    """The world size as part of a fingerprint, or {} for one process, if each rank draws its own random numbers."""
    return {"processes": get_world_size()} if get_world_size() > 1 else {}


def pick_device(choice: str) -> torch.device:
    """The device that --device names. "auto" is CUDA if it is available, and the CPU otherwise.

    Raises:
        InputError: the choice is unknown, or it is "cuda" and CUDA is not available.
    """
    if choice not in CHOICES:
        raise InputError(f"unknown device {choice!r}; choose one of {', '.join(CHOICES)}")
    if choice == "cuda" and not torch.cuda.is_available():
        build = "this torch was built without CUDA" if torch.version.cuda is None else "torch finds no CUDA device"
        raise InputError(f"--device cuda: {build}; use --device cpu, or see `mimbench doctor`")
    return torch.device("cuda" if choice != "cpu" and torch.cuda.is_available() else "cpu")


def pick_precision(config: TrainConfig, device: torch.device) -> str:
    """The configured precision; "auto" is bf16 on a GPU that computes in it, and fp32 otherwise.

    Raises:
        InputError: it is "tf32", and the device does not have it.
    """
    if config.precision == "tf32" and not (
        device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    ):
        raise InputError('precision "tf32" needs an NVIDIA GPU of the Ampere generation or newer; use "fp32" here')
    if config.precision != "auto":
        return config.precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def device_name(device: torch.device) -> str:
    """The name of the device, as records and cards hold it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} threads"


def reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Bytes: on CUDA, the most allocated since the last reset; on the CPU, the peak of the process so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
