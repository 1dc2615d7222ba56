"""Reading weights from disk: safetensors, or a pickle of plain data whose code is never run."""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mimbench.convert.network_choice import Weights, choose_network, list_tensors
from mimbench.errors import InputError

WRAPPERS = ("state_dict", "model", "module", "net")
"""Keys under which training scripts keep the weights, next to optimizers, arguments and the like."""
_CONTAINERS = ("argparse.", "numpy.", "mmengine.logging.", "yacs.", "pathlib.")
"""Packages whose objects training scripts save next to the weights: arguments, scores, log buffers."""


_FOREIGN = {
    b"version https://git-lfs": "a Git LFS pointer and not the weights themselves: fetch them with git lfs pull",
    b"<!DOCTYPE": "a web page and not a checkpoint: fetch the file again",
    b"<html": "a web page and not a checkpoint: fetch the file again",
    b"\x89HDF": "an HDF5 file (Keras), which is not read; save a torch state dict",
    b"\x1f\x8b": "compressed (gzip): unpack it",
}
"""First bytes of files that are often taken for checkpoints, and what they are."""


class _Ignored:
    """Replaces every saved object that is not a tensor, so that its class is never imported or run."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def read_weights(path: Path, key: str | None = None) -> Weights:
    """The state dict in a .safetensors, .pth, .pt or .bin file, taken out of its training wrapper.

    key: which network, if the file holds several; without it, the one that a rule prefers.

    Raises:
        InputError: no such file, not readable as weights, a pickle that would need code to be run, or no rule says
            which network is meant.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; name the checkpoint file in it")
    if not path.is_file():
        raise InputError(f"checkpoint file {path} does not exist")
    _require_weights(path)
    loaded = _load_safetensors(path) if path.suffix == ".safetensors" else _load_pickle(path)
    chosen = choose_network(loaded, key, str(path))
    if chosen:
        return chosen
    if key is not None:
        raise InputError(f"--key {key}: {path} holds no network of a known layout; it holds: {list_tensors(loaded)}")
    return Weights(unwrap(loaded, str(path)))


def _require_weights(path: Path) -> None:
    if path.suffix == ".json":
        raise InputError(
            f"{path} is JSON, such as the index of weights in several files; join those into one safetensors file"
        )
    with path.open("rb") as stream:
        start = stream.read(32)
    for first, what in _FOREIGN.items():
        if start.startswith(first):
            raise InputError(f"{path} is {what}")


def unwrap(loaded: Any, where: str) -> dict[str, Tensor]:
    """The innermost mapping of names to tensors, entries that are no tensors dropped.

    Raises:
        InputError: there is none.
    """
    whole = loaded
    while isinstance(loaded, Mapping):
        inner = next((loaded[key] for key in WRAPPERS if isinstance(loaded.get(key), Mapping)), None)
        if inner is None:
            break
        loaded = inner
    tensors = (
        {key: value.detach() for key, value in loaded.items() if isinstance(key, str) and isinstance(value, Tensor)}
        if isinstance(loaded, Mapping)
        else {}
    )
    if not tensors:
        held = list_tensors(whole)
        raise InputError(
            f"{where} holds no state dict (names and tensors) of a known layout, but "
            f"{held or f'a {type(whole).__name__}{_keys(whole)}'}; save model.state_dict() there"
        )
    return tensors


def _keys(loaded: Any) -> str:
    if not isinstance(loaded, Mapping) or not loaded:
        return ""
    return f" of {', '.join(map(str, list(loaded)[:5]))}{', ...' * (len(loaded) > 5)}"


def _load_safetensors(path: Path) -> Mapping[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a readable safetensors file: {error}") from error


def _load_pickle(path: Path) -> Any:
    needed = _classes(path)
    refused = [name for name in needed if not name.startswith(_CONTAINERS)]
    if refused:
        raise InputError(_refusal(path, ", ".join(refused[:3]) + (", ..." if len(refused) > 3 else "")))
    # A CfgNode is a dict with attributes, and torch fills only plain dicts.
    standins: list[Callable | tuple[Callable, str]] = [
        (OrderedDict if name == "yacs.config.CfgNode" else _Ignored, name) for name in needed
    ]
    try:
        with torch.serialization.safe_globals(standins):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, OSError, RuntimeError, EOFError, ValueError, KeyError, IndexError) as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code:
            raise InputError(_refusal(path, code[1])) from error
        if "TorchScript" in str(error):
            raise InputError(f"{path} is a TorchScript archive, which holds code; save model.state_dict()") from error
        raise InputError(f"{path} is not a whole torch file ({type(error).__name__}); fetch it again") from error


def _classes(path: Path) -> list[str]:
    """Classes that unpickling would import, beyond torch's own; old formats do not list them."""
    with suppress(ValueError, RuntimeError, pickle.UnpicklingError):
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    return []


def _refusal(path: Path, reason: str) -> str:
    return (
        f"{path} is a pickle that needs code to be run ({reason}), which could do anything; "
        "if you trust it, load it in its own project and save model.state_dict() as safetensors"
    )
