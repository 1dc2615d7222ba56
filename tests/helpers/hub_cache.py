"""A local cache of the Hugging Face hub with small models of timm, laid out as huggingface_hub keeps it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import Tensor

REVISION = "0123456789abcdef0123456789abcdef01234567"


def use_offline_cache(monkeypatch: Any, folder: Path) -> Path:
    """Let the hub's library read `folder` only, without a network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder


def put_in_cache(cache: Path, repository: str, files: Mapping[str, Any]) -> Path:
    """A repository with these files: tensors by name, or JSON data. Returns the folder of its only revision."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(REVISION)
    for name, content in files.items():
        if name.endswith(".safetensors"):
            save_file({key: value.contiguous() for key, value in content.items()}, snapshot / name)
        else:
            (snapshot / name).write_text(json.dumps(content))
    return snapshot


def small_model(name: str, **arguments: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights of a model of timm with a classifier, and its config.json in timm's format."""
    torch.manual_seed(0)
    model: Any = timm.create_model(name, num_classes=7, **arguments)
    config = {key: value for key, value in model.pretrained_cfg.items() if value is not None}
    return model.state_dict(), {
        "architecture": name.partition(".")[0],
        "num_classes": 7,
        "model_args": arguments,
        "pretrained_cfg": {**config, "num_classes": 7},
    }
