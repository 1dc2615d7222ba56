"""Golden files whose weights are mimbench's own, under the official names: for sizes that no official file has."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mimbench.contract import Encoder, Golden, Method, OfficialCode
from mimbench.harness.planning.build import build
from mimbench.parity.golden import setup_of
from mimbench.parity.replay import run_step

Inputs = Callable[[Method, torch.Generator], Mapping[str, Tensor]]


def write_self_made(path: Path, meta: Mapping[str, Any], inputs: Inputs) -> Path:
    """Write a file with random weights, what `inputs` gives, and what mimbench computes from both.

    Args:
        meta: of the file, as the official ones have it.
        inputs: (method, generator) -> the file's arrays besides the weights, by name.
    """
    setup, code = setup_of(Golden(path, meta, {}, {}))
    method, generator = build(setup), torch.Generator().manual_seed(0)
    for name, value in method.named_parameters():
        if value.requires_grad or "gain" in name or "teacher" in name:
            value.data = torch.randn(value.shape, generator=generator) * 0.1 + name.endswith(("norm.weight", "gain"))
    weights = {
        f"{start}{name}": value
        for start, place in code.networks.items()
        for name, value in _official_state(method, code, place)
    }
    golden = Golden(path, meta, {**weights, **inputs(method, generator)}, {})
    step = run_step(golden, code, method, torch.float32)
    arrays = {**golden.arrays, **step.outputs, "grad_norm": step.norm}
    values = {name: value.detach().contiguous().numpy() for name, value in arrays.items()}
    np.savez(path, meta=json.dumps(meta), **values)
    return path


def _official_state(method: Method, code: OfficialCode, place: str) -> list[tuple[str, Tensor]]:
    """The tensors of the network at `place`, such as "encoder.", by their official names."""
    module = method.get_submodule(place.rstrip("."))
    state = {name.removeprefix("body."): value for name, value in module.state_dict().items()}
    if isinstance(module, Encoder):
        token = next((there for there, here in code.names.items() if here == "mask_token"), None)
        if module is method.encoder and token:
            state[token] = method.get_parameter("mask_token")
        return list(state.items())
    back = {here: there for there, here in code.names.items() if here}
    return [(_renamed(name, back), value) for name, value in state.items()]


def _renamed(name: str, back: Mapping[str, str]) -> str:
    start = max((here for here in back if name.startswith(here)), key=len, default=None)
    return name if start is None else back[start] + name.removeprefix(start)
