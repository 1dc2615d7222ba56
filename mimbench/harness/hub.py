"""Checkpoints are uploaded to the Hugging Face hub in timm's format, which `--checkpoint hf:REPO` reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mimbench._version import __version__
from mimbench.contract import InputConfig
from mimbench.contract.validation import validate
from mimbench.convert import to_timm
from mimbench.convert.timm_config import timm_config
from mimbench.errors import InputError
from mimbench.harness.exchange import exported_file
from mimbench.harness.planning.checkpoints import find_checkpoint
from mimbench.store.sealing import seal_card

CARD = "mimbench.json"
"""File with what is known of the pretraining."""
_SENT = ("mimbench", "fingerprint", "what", "recipe", "seed", "cost", "imported")
"""Entries of a checkpoint's card that are sent. The others name the command, the host and packages."""


def push_checkpoint(which: str, repository: str, *, results: Path, private: bool = True) -> str:
    """Upload a checkpoint's encoder in one commit: weights, timm's config.json, a model card and the sealed card.

    Nothing about the user, host, command or packages is sent.

    Args:
        which: fingerprint, or its first characters, or folder of the checkpoint.
        repository: OWNER/NAME. It is made if it is not there.
        private: whether a new repository is private.

    Returns:
        The address of the repository.

    Raises:
        InputError: no such checkpoint, timm has no such encoder, or the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise InputError(f"--push {repository}: name the owner too, as in lab/encoder")
    files = hub_files(which, repository, results=results)
    hub = HfApi()
    try:
        address = hub.create_repo(repository, private=private, exist_ok=True)
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        hub.create_commit(repository, operations, commit_message=f"Encoder exported by mimbench {__version__}")
    except Exception as error:  # of the hub's library, of its HTTP client, and of its checks of arguments
        raise InputError(_refusal(error, repository)) from error
    return str(address)


def hub_files(which: str, repository: str, *, results: Path) -> dict[str, bytes]:
    """The files of the repository, by name.

    Raises:
        InputError: no such checkpoint, or timm has no such encoder.
    """
    checkpoint = find_checkpoint(results, which)
    card, what = checkpoint.card, checkpoint.card["what"]
    images = validate(InputConfig, card["recipe"]["input"], "input")
    state = to_timm(checkpoint.encoder(), what["encoder"])
    config = timm_config(what["encoder"], images, what["channels"])
    public = seal_card(_without_paths({name: card[name] for name in _SENT if name in card}))
    return {
        "model.safetensors": exported_file(state, public),
        "config.json": _json(config),
        CARD: _json(public),
        "README.md": _model_card(repository, card, config).encode(),
    }


def _without_paths(value: Any) -> Any:
    """Plain data with None in place of what may be a path of this machine."""
    if isinstance(value, Mapping):
        return {name: _without_paths(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_paths(one) for one in value]
    return None if isinstance(value, str) and _may_be_path(value) else value


def _may_be_path(text: str) -> bool:
    is_address = text.startswith(("https://", "http://", "hf:", "timm:"))
    return not is_address and (text.startswith("~") or "/" in text or "\\" in text)


def _json(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _model_card(repository: str, card: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    what, cost = card["what"], card["cost"]
    data = what.get("data", {}).get("name")
    channels, height, width = config["pretrained_cfg"]["input_size"]
    trained = f"{cost['images_seen']:,} images in {cost['steps']:,} steps" if cost["steps"] else "not trained here"
    facts = {
        "Method": what["method"]["name"],
        "Encoder": what["encoder"]["name"],
        "Images": f"{channels} x {height} x {width} px",
        **({"Data": data} if data else {}),
        "Seed": card["seed"],
        "Pretraining": trained,
        "Fingerprint": card["fingerprint"],
    }
    lines = [f"| {name} | {value} |" for name, value in facts.items()]
    return "\n".join(
        (
            "---",
            "library_name: timm",
            "tags:",
            "- mimbench",
            "- masked-image-modeling",
            "---",
            f"# {repository.rpartition('/')[2]}",
            "",
            f"An encoder without a classifier, exported by mimbench {__version__}.",
            "",
            "| | |",
            "| --- | --- |",
            *lines,
            "",
            "```python",
            f'model = timm.create_model("hf-hub:{repository}", pretrained=True)',
            "```",
            "",
            "```bash",
            f"mimbench run --checkpoint hf:{repository} --task TASK",
            "```",
            "",
            f"`{CARD}` has all settings of the pretraining.",
            "",
        )
    )


def _refusal(error: Exception, repository: str) -> str:
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"--push {repository}: HF_HUB_OFFLINE is set; unset it to upload"
    if isinstance(error, errors.LocalTokenNotFoundError) or status == 401:
        return f"--push {repository}: you are not logged in to the hub; run hf auth login, or set HF_TOKEN"
    if status == 403:
        return f"--push {repository}: your token may not write there; choose another owner, or a token that may write"
    if isinstance(error, errors.HFValidationError):
        return f"--push {repository} is no name of a repository; write OWNER/NAME"
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"--push {repository}: the hub cannot be written: {reason}"
