"""Encoders that others have published, by the names that timm and the Hugging Face hub give them.

`timm:MODEL` is a model of timm with its pretrained weights, `hf:REPO` a repository of the hub in timm's format, and
`timm:local-dir:PATH` a folder in that format. The hub's files are read from its local cache, or downloaded into it.
Nothing is downloaded if HF_HUB_OFFLINE is set.
"""

from __future__ import annotations

import math
import os
import re
import urllib.error
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mimbench.encoders.timm_model import TimmConfig, TimmModel
from mimbench.encoders.timm_weights import load_timm_weights
from mimbench.errors import InputError, nearest
from mimbench.files import file_sha256

PREFIXES = ("timm:", "hf:")
_WEIGHTS = (
    "model.safetensors",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)
"""Files of a repository or folder that hold weights, in timm's order."""
_SET_HERE = ("num_classes", "in_chans", "img_size", "pretrained", "pretrained_cfg")
"""Arguments of timm's model that are chosen here, and not by the file of its configuration."""


@dataclass(frozen=True)
class PublishedFiles:
    """What describes a published encoder, and its file of weights."""

    name: str
    """As --checkpoint gives it; of a folder without the path to it."""
    model: str
    """timm's name of the architecture, with the tag of the weights if timm knows them."""
    arguments: Mapping[str, Any]
    config: Mapping[str, Any]
    """timm's `pretrained_cfg`: size and normalisation of the images, names of layers."""
    weights: Path
    revision: str = ""
    """Commit of the repository on the hub; "" if the file comes from elsewhere."""


@dataclass(frozen=True)
class PublishedEncoder:
    """A published encoder with its weights."""

    files: PublishedFiles
    encoder: TimmModel
    input: Mapping[str, Any]
    """Options of [input]: size, normalisation, resizing and interpolation that the encoder was made for."""
    pooling: Literal["mean", "token"]
    """How the model itself pools its features for a classifier."""
    left_out: Sequence[str] = ()
    """Tensors of the file that the encoder has no place for."""
    sha256: str = field(default="", repr=False)
    """Of the file of weights."""


def is_published(which: str) -> bool:
    """Whether --checkpoint names a published encoder, and not a checkpoint of mimbench."""
    return which.startswith(PREFIXES)


def load_published(which: str) -> PublishedEncoder:
    """A published encoder with its weights, on the CPU.

    Args:
        which: `timm:MODEL`, `timm:local-dir:PATH`, `hf:REPO` or `hf:REPO@REVISION`.

    Raises:
        InputError: there is no such model, its files are neither in the cache nor to be had, or are not in timm's
            format, or mimbench cannot use the model.
    """
    files = find_files(which)
    options = _input_options(files)
    config = TimmConfig(model=files.model, arguments=dict(files.arguments))
    encoder = TimmModel(config, image_size=options["image_size"], in_channels=_input_size(files)[0])
    left_out = load_timm_weights(
        encoder.body,
        files.model,
        files.weights,
        channels=encoder.in_channels,
        optional=encoder.parts.unused,
        where=f"--checkpoint {files.name}",
        refuses_others=False,
    )
    has_token = getattr(encoder.body, "global_pool", "") == "token" and "class-token" in encoder.can
    return PublishedEncoder(
        files, encoder.eval(), options, "token" if has_token else "mean", left_out, file_sha256(files.weights)
    )


def find_files(which: str) -> PublishedFiles:
    """Locate the files of a published encoder; those of the hub are downloaded if its cache lacks them.

    Raises:
        InputError: as `load_published`, without those of the weights themselves.
    """
    prefix, _, name = which.partition(":")
    if prefix == "timm" and name.startswith(("hf-hub:", "hf_hub:")):
        prefix, name = "hf", name.partition(":")[2]
    if not name:
        raise InputError(f"--checkpoint {which} names no model; write timm:MODEL or hf:REPO")
    if prefix == "hf":
        return _of_repository(name)
    folder = name.removeprefix("local-dir:")
    return _of_folder(Path(folder)) if folder != name else _of_timm(name)


def _of_timm(name: str) -> PublishedFiles:
    import timm

    model, _, tag = name.partition(".")
    if "/" in name or ":" in name or not timm.is_model(model):
        raise InputError(
            f"--checkpoint timm:{name}: timm {timm.__version__} has no model {model!r}{nearest(model, _known())}"
        )
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:  # no such tag
        config = None
    weights = timm.list_pretrained(f"{model}.*")
    if config is None or not (config.hf_hub_id or config.url or config.file):
        listed = nearest(name, weights) if weights else "; there are none of this model"
        raise InputError(f"--checkpoint timm:{name}: timm {timm.__version__} has no weights {tag!r} of it{listed}")
    values = config.to_dict()
    named = name if tag or not config.tag else f"{model}.{config.tag}"
    if config.hf_hub_id:
        chosen = (config.hf_hub_filename,) if config.hf_hub_filename else _WEIGHTS
        path, revision = _of_hub(config.hf_hub_id, chosen, f"timm:{name}")
        return PublishedFiles(f"timm:{named}", named, {}, values, path, revision)
    path = Path(config.file) if config.file else _downloaded(config.url, f"timm:{name}")
    return PublishedFiles(f"timm:{named}", named, {}, values, path)


def _known() -> list[str]:
    import timm

    return timm.list_models()


def _of_repository(name: str) -> PublishedFiles:
    path, revision = _of_hub(name, ("config.json",), f"hf:{name}")
    model, arguments, config = _read_config(path, f"hf:{name}")
    weights, revision = _of_hub(name, _WEIGHTS, f"hf:{name}")
    return PublishedFiles(f"hf:{name}", model, arguments, config, weights, revision)


def _of_folder(folder: Path) -> PublishedFiles:
    name = f"timm:local-dir:{folder.name}"
    if not (folder / "config.json").is_file():
        raise InputError(f"--checkpoint timm:local-dir:{folder}: there is no config.json in this folder")
    model, arguments, config = _read_config(folder / "config.json", name)
    weights = next((folder / file for file in _WEIGHTS if (folder / file).is_file()), None)
    if weights is None:
        raise InputError(f"--checkpoint timm:local-dir:{folder}: there is none of {', '.join(_WEIGHTS)} in this folder")
    return PublishedFiles(name, model, arguments, config, weights)


def _read_config(path: Path, name: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """timm's name of the model, its arguments and its `pretrained_cfg`, from a config.json."""
    from timm.models._hub import load_model_config_from_path

    try:
        config, model, arguments = load_model_config_from_path(path.parent)
    except (KeyError, AttributeError, TypeError, ValueError, OSError) as error:
        raise InputError(
            f"--checkpoint {name}: its config.json is not in timm's format, which says an architecture; name a "
            "repository in that format, such as hf:timm/MODEL"
        ) from error
    return model, {key: value for key, value in (arguments or {}).items() if key not in _SET_HERE}, config


def _of_hub(repository: str, files: Sequence[str], name: str) -> tuple[Path, str]:
    """The first of these files that a repository has, in the hub's local cache, and the commit that it is of.

    Args:
        repository: OWNER/NAME, or OWNER/NAME@REVISION.
        name: what --checkpoint names, for messages.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    repository, _, revision = repository.partition("@")
    first: Exception | None = None
    for file in files:
        try:
            path = Path(hf_hub_download(repository, file, revision=revision or None))
        except EntryNotFoundError as error:  # another file of the list may be there
            first = first or error
        except Exception as error:
            raise InputError(_hub_refusal(error, name, repository, files)) from error
        else:
            commit = re.search(r"/snapshots/([^/]+)/", path.as_posix())
            return path, commit[1] if commit else ""
    assert first is not None
    raise InputError(_hub_refusal(first, name, repository, files)) from first


def _hub_refusal(error: Exception, name: str, repository: str, files: Sequence[str]) -> str:
    from huggingface_hub import constants, errors

    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
        return (
            f"--checkpoint {name}: {repository} is not in the local cache {constants.HF_HUB_CACHE}, and {why}; run it "
            "once with a network, or set HF_HOME to a folder that has it"
        )
    if isinstance(error, errors.GatedRepoError):
        return f"--checkpoint {name}: {repository} is gated; accept its terms on its page, then run hf auth login"
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return f"--checkpoint {name}: the hub has no repository {repository!r} that you can read"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"--checkpoint {name}: the hub's {repository} has no such revision"
    if isinstance(error, errors.EntryNotFoundError):
        return f"--checkpoint {name}: the hub's {repository} has none of {', '.join(files)}; it is not in timm's format"
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"--checkpoint {name}: {repository} cannot be read from the hub: {reason}"


def _downloaded(url: str, name: str) -> Path:
    """A file that timm keeps in torch's cache, downloaded if it is not there."""
    import torch
    from huggingface_hub import constants
    from timm.models._hub import check_cached_file, download_cached_file

    cached = Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(url)
    if not check_cached_file(url) and constants.HF_HUB_OFFLINE:
        raise InputError(f"--checkpoint {name}: {cached} is not there, and HF_HUB_OFFLINE is set; fetch {url}")
    try:
        return Path(download_cached_file(url))
    except (urllib.error.URLError, OSError) as error:
        raise InputError(
            f"--checkpoint {name}: {url} cannot be fetched ({error}), and {cached} is not there"
        ) from error


def _input_size(files: PublishedFiles) -> tuple[int, int, int]:
    channels, height, width = files.config.get("input_size") or (3, 224, 224)
    return int(channels), int(height), int(width)


def _input_options(files: PublishedFiles) -> dict[str, Any]:
    """Options of [input] from timm's configuration of the weights."""
    from timm.data import resolve_data_config

    data = resolve_data_config(pretrained_cfg=dict(files.config))
    _, height, width = _input_size(files)
    if height != width:
        raise InputError(f"--checkpoint {files.name} takes images of {height} x {width} px; mimbench's are squares")
    interpolation = data["interpolation"] if data["interpolation"] in ("bilinear", "bicubic") else "bicubic"
    return {
        "image_size": height,
        "mean": list(data["mean"]),
        "std": list(data["std"]),
        "interpolation": interpolation,
        "eval_interpolation": interpolation,
        "eval_resize": math.floor(height / data["crop_pct"]),  # as timm.data.create_transform rounds it
    }
