"""Golden files of other sizes than the official ones, with numbers that mimbench itself computed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from helpers.official_values import GOLDEN
from mimbench.contract import Golden
from mimbench.harness.planning.build import build
from mimbench.parity.golden import read_golden, setup_of
from mimbench.parity.replay import run_step
from mimbench.parity.weights import load_weights

_BLOCK = re.compile(r"(blocks\w*\.)(\d+)\.")


def other_sizes(name: str, config: Mapping[str, Any], inputs: Mapping[str, Tensor], path: Path) -> Path:
    """Write a file like the golden file `name`, of a model with changes in its config.

    Its weights are random and have the official names, so `compare` shows whether anything depends on the sizes.

    Args:
        config: changed arguments of the official model.
        inputs: arrays of `input/`.
    """
    official = read_golden(GOLDEN / f"{name}.npz")
    setup, code = setup_of(official)
    sources = load_weights(official, code, build(setup)).sources
    meta = {**official.meta, "config": {**official.config, **config}}
    setup, code = setup_of(Golden(path, meta, {}, {}))
    method = build(setup)
    generator = torch.Generator().manual_seed(0)
    arrays = {key: value for key, value in official.arrays.items() if key.startswith("param/") and _is_fixed(key, code)}
    names: dict[str, str] = {}
    for ours, value in method.state_dict().items():
        theirs = _official(ours, sources, code.names)
        if not theirs:
            continue
        if not ours.endswith("pos_embed") and value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.1)
        parts = [value] if len(theirs) == 1 else [value.chunk(3)[0], value.chunk(3)[2]]  # biases of q and v
        if len(theirs) > 1:
            value.chunk(3)[1].zero_()
        arrays |= dict(zip(theirs, [part.clone() for part in parts], strict=True))
        if len(theirs) == 1:
            names[ours] = theirs[0].removeprefix("param/")
    arrays |= {f"input/{key}": value for key, value in inputs.items()}
    result = run_step(Golden(path, meta, arrays, {}), code, method, torch.float32)
    arrays |= dict(result.outputs) | {"grad_norm": result.norm}
    arrays |= {f"grad/{names[ours]}": value for ours, value in result.gradients.items() if ours in names}
    np.savez(path, meta=json.dumps(meta), **{key: value.numpy() for key, value in arrays.items()})
    return path


def _official(ours: str, sources: Mapping[str, tuple[str, ...]], names: Mapping[str, str | None]) -> tuple[str, ...]:
    """The arrays of a parameter here.

    A block that the official file lacks is named as the first one, and another part as `names` has it.
    """
    if ours in sources:
        return sources[ours]
    match = _BLOCK.search(ours)
    first = _BLOCK.sub(r"\g<1>0.", ours)
    if match and first in sources:
        return tuple(_BLOCK.sub(rf"\g<1>{match[2]}.", key) for key in sources[first])
    start = next((start for start, here in names.items() if here and ours.startswith(here)), None)
    return () if start is None else (f"param/{start}{ours.removeprefix(str(names[start]))}",)


def _is_fixed(key: str, code: Any) -> bool:
    """Whether no parameter here is made of this array."""
    name = key.removeprefix("param/")
    return any(name.startswith(start) for start, ours in code.names.items() if ours is None)
