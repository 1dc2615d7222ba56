"""Files of golden vectors: read, and matched with the method whose official code made them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from mimbench import registry
from mimbench.contract import Golden, Method, ModelSetup, OfficialCode
from mimbench.errors import InputError

_NEEDED = "give an .npz of one model's weights, inputs and outputs, with the model's options in its meta"


def read_golden(path: Path) -> Golden:
    """Raises InputError: the file is missing, damaged or no .npz, or has no readable `meta`."""
    if not path.is_file():
        raise InputError(f"golden file {path} does not exist")
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        meta = json.loads(str(arrays.pop("meta", "null")))
        texts = {name: tuple(map(str, value.ravel())) for name, value in arrays.items() if value.dtype.kind == "U"}
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in arrays.items() if name not in texts}
    except (ValueError, TypeError, OSError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        why = "it is no .npz of plain arrays" if "pickle" in str(error) else f"{type(error).__name__}: {error}"
        raise InputError(f"golden file {path} cannot be read ({why}); {_NEEDED}") from error
    if not any(name.startswith("param/") for name in tensors):
        raise InputError(
            f"golden file {path} holds no weights (param/...), and parity compares whole models; {_NEEDED}"
        )
    if not isinstance(meta, dict) or not isinstance(meta.get("config"), dict):
        raise InputError(f"golden file {path} has no config in its meta; {_NEEDED}")
    return Golden(path, meta, tensors, texts)


def setup_of(golden: Golden) -> tuple[ModelSetup, OfficialCode]:
    """The plugins and options that are the same model as a golden file's, and what relates them to its code.

    A method recognises the files of its official code by `meta.method`, or by `meta.repo` if they name no method. A
    file of any other code names the plugins itself: `meta.setup` has the fields of `ModelSetup`.

    Raises:
        InputError: no method recognises the file, or the model has a part that mimbench lacks.
    """
    try:
        code = _official_code(golden)
        if code is not None:
            return code.setup(golden.config, golden.meta), code
        if "setup" in golden.meta:
            setup = ModelSetup(**golden.meta["setup"])
            method: type[Method] = registry.methods.load(setup.method)
            return setup, method.official or OfficialCode()
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"golden file {golden.path}: its meta is incomplete ({type(error).__name__}: {error})"
        ) from error
    name = golden.meta.get("method")
    what = f"of method {name!r}" if name else f"of repository {golden.meta.get('repo')!r}"
    known = sorted({name for code in _all_codes() for name in (*code.methods, code.repository) if name})
    raise InputError(
        f"golden file {golden.path} is {what}, which no method here is compared with; known: {', '.join(known)}"
    )


def _official_code(golden: Golden) -> OfficialCode | None:
    codes = list(_all_codes())
    name = golden.meta.get("method")
    if name is not None:
        return next((code for code in codes if name in code.methods), None)
    repository = str(golden.meta.get("repo", "")).lower()
    matches = [code for code in codes if code.repository and code.repository.lower() in repository]
    return max(matches, key=lambda code: len(code.repository), default=None)  # the most specific name


def _all_codes() -> Iterator[OfficialCode]:
    """Of every installed method. A broken plugin does not keep the others from working."""
    for name in registry.methods.names():
        with suppress(InputError):
            method: type[Method] = registry.methods.load(name)
            if method.official is not None:
                yield from (method.official, *method.official.parts)
