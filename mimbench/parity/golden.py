"""Golden vectors: what an official implementation computed, in an .npz file, and the model that it was of.

Arrays: `param/NAME` (its state dict), `input/*`, `out/*`, `grad/NAME`, `grad_norm`, `grad_norm_names` with
`grad_norm_each`, the last two scalars in double precision as `*_f64`; `meta`: JSON with `repo` and `config`.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mimbench.errors import InputError
from mimbench.harness.planning.build import Setup

Options = dict[str, Any]


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
        """Raises InputError where the file has no array `name`."""
        if name not in self.arrays:
            raise InputError(f"golden file {self.path} has no {name!r}")
        return torch.from_numpy(np.array(self.arrays[name]))


def read_golden(path: Path) -> Golden:
    """Raises InputError: no such file, no .npz, damaged, or without readable `meta`."""
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


def setup_of(golden: Golden) -> Setup:
    """The plugins and options that stand for the official model of a file.

    A file made by other code names them itself: meta.setup holds the fields of `Setup`.

    Raises:
        InputError: an unknown repository, or a setting that mimbench's encoders do not have.
    """
    try:
        if "setup" in golden.meta:
            return Setup(**golden.meta["setup"])
        repo = str(golden.meta.get("repo", "")).lower()
        for word, build in _REPOSITORIES.items():
            if word in repo:
                return build(golden.meta["config"], golden.meta)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"golden file {golden.path}: its meta is incomplete ({type(error).__name__}: {error})"
        ) from error
    known = ", ".join(_REPOSITORIES)
    raise InputError(f"golden file {golden.path} is of repository {golden.meta.get('repo')!r}; known: {known}")


def _simmim(config: Options, meta: Mapping[str, Any]) -> Setup:
    swin = "depths" in config
    encoder = _swin(config) if swin else _relative_vit(config)
    cell = meta.get("mask_patch_size", config["patch_size"])
    return Setup(
        "simmim",
        "swin" if swin else "vit",
        config["img_size"],
        config["in_chans"],
        {"mask_patch_size": cell},
        encoder,
    )


def _mae(config: Options, _: Mapping[str, Any]) -> Setup:
    method = {
        "mask_ratio": config["mask_ratio"],
        "norm_pixels": config["norm_pix_loss"],
        "decoder_dim": config["decoder_embed_dim"],
        "decoder_depth": config["decoder_depth"],
        "decoder_heads": config["decoder_num_heads"],
        "decoder_mlp_ratio": config["mlp_ratio"],
    }
    encoder = _vit(config) | {"position": "sincos"}
    return Setup("mae", "vit", config["img_size"], config["in_chans"], method, encoder)


def _beit(config: Options, _: Mapping[str, Any]) -> Setup:
    patches = (config["img_size"] // config["patch_size"]) ** 2
    method = {
        "hidden_patches": max(1, patches * 2 // 5),
        "min_block": 1,
        "kmeans": {"vocabulary": config["vocab_size"]},
    }
    return Setup("beit", "vit", config["img_size"], config["in_chans"], method, _relative_vit(config))


_REPOSITORIES: dict[str, Callable[[Options, Mapping[str, Any]], Setup]] = {
    "simmim": _simmim,
    "mae": _mae,
    "beit": _beit,
}


def _vit(config: Options) -> Options:
    same = ("patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio")
    return {key: config[key] for key in same} | {"drop_path": config.get("drop_path_rate", 0.0)}


def _relative_vit(config: Options) -> Options:
    _only(config, qkv_bias=True, use_abs_pos_emb=False, use_mean_pooling=False)
    _only(config, use_shared_rel_pos_bias=True, use_rel_pos_bias=False)
    return _vit(config) | {"position": "relative", "layer_scale": config.get("init_values") or None}


def _swin(config: Options) -> Options:
    _only(config, qkv_bias=True, ape=False, patch_norm=True)
    same = ("patch_size", "embed_dim", "depths", "num_heads", "mlp_ratio")
    return {key: config[key] for key in same} | {
        "window": config["window_size"],
        "drop_path": config.get("drop_path_rate", 0.0),
    }


def _only(config: Options, **values: bool) -> None:
    for key, value in values.items():
        if bool(config.get(key, value)) is not value:
            raise InputError(f"mimbench's encoders have no {key} = {config[key]}")
