"""Golden vectors: what an official implementation computed, in an .npz file, and the model that computed it.

Arrays: `param/NAME` (its state dict), `input/*`, `out/*`, `grad/NAME`, `grad_norm`, `grad_norm_names` with
`grad_norm_each`, the last two scalars in double precision as `*_f64`; `meta`: JSON with `repo` and `config`.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mimbench import registry
from mimbench.contract import Method, ModelSetup, ReadConfig
from mimbench.errors import InputError


@dataclass(frozen=True)
class Golden:
    """One file, read."""

    path: Path
    meta: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]

    def group(self, prefix: str) -> dict[str, Tensor]:
        """The arrays whose names start with `prefix`, without it, as tensors."""
        start = f"{prefix}/"
        return {name.removeprefix(start): self.tensor(name) for name in self.arrays if name.startswith(start)}

    def tensor(self, name: str) -> Tensor:
        """Raises InputError: the file has no array `name`."""
        if name not in self.arrays:
            raise InputError(f"golden file {self.path} has no {name!r}")
        return torch.from_numpy(np.array(self.arrays[name]))


def read_golden(path: Path) -> Golden:
    """Raises InputError: the file is missing, damaged or no .npz, or has no readable `meta`."""
    if not path.is_file():
        raise InputError(f"golden file {path} does not exist")
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        meta = json.loads(str(arrays.pop("meta")))
    except (ValueError, OSError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        why = "it is no .npz of plain arrays" if "pickle" in str(error) else f"{type(error).__name__}: {error}"
        raise InputError(f"golden file {path} cannot be read ({why})") from error
    if not isinstance(meta, dict) or not isinstance(meta.get("config"), dict):
        raise InputError(f"golden file {path} has no config in its meta")
    return Golden(path, meta, arrays)


def setup_of(golden: Golden) -> ModelSetup:
    """The plugins and options that are the same model as a golden file's.

    Each method recognises the files of its official repository. A file of any other code names the plugins itself:
    meta.setup holds the fields of `ModelSetup`.

    Raises:
        InputError: no method recognises the repository, or the model has a part that mimbench lacks.
    """
    try:
        if "setup" in golden.meta:
            return ModelSetup(**golden.meta["setup"])
        repository = str(golden.meta.get("repo", "")).lower()
        known = _official_configs()
        for official in sorted(known, key=len, reverse=True):  # the most specific name first
            if official.lower() in repository:
                return known[official](golden.meta["config"], golden.meta)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"golden file {golden.path}: its meta is incomplete ({type(error).__name__}: {error})"
        ) from error
    raise InputError(
        f"golden file {golden.path} is of repository {golden.meta.get('repo')!r}; known: {', '.join(known)}"
    )


def _official_configs() -> dict[str, ReadConfig]:
    """{official repository: the function that reads its configs}, of every installed method."""
    functions: dict[str, ReadConfig] = {}
    for name in registry.methods.names():
        with suppress(InputError):  # a broken plugin does not keep the others from working
            method: type[Method] = registry.methods.load(name)
            functions |= method.official_configs
    return functions
