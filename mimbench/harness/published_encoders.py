"""Published encoders as checkpoints of a results folder: what --checkpoint timm:MODEL and hf:REPO stand for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mimbench._version import __version__
from mimbench.contract import InputConfig
from mimbench.contract.config import shaping_at
from mimbench.contract.validation import validate
from mimbench.convert.external import External, ExternalConfig
from mimbench.encoders.published import PublishedEncoder, is_published, load_published
from mimbench.encoders.timm_model import TimmModel
from mimbench.harness.exchange import NOTHING_SPENT
from mimbench.harness.planning.checkpoints import find_checkpoint
from mimbench.harness.planning.code import code_of_plugin
from mimbench.harness.running.provenance import provenance
from mimbench.store.sealing import fingerprint
from mimbench.store.store import Store, StoredCheckpoint


def open_checkpoint(which: str, results: Path, scratch: Path) -> StoredCheckpoint:
    """The checkpoint that --checkpoint names. Nothing is written to the results folder.

    Args:
        which: fingerprint, or its first characters, or folder of a checkpoint, or a published encoder, such as
            timm:MODEL or hf:REPO.
        results: the results folder.
        scratch: a folder for a published encoder that `results` does not have yet; see `keep_checkpoint`.

    Raises:
        InputError: there is no such checkpoint or encoder, or it cannot be read.
    """
    if not is_published(which):
        return find_checkpoint(results, which)
    published = load_published(which)
    method = ExternalConfig(model=published.files.name)
    images = validate(InputConfig, dict(published.input), "input")
    what = _identity(published, method, images)
    key = fingerprint(what)
    if stored := Store(results, write=False).checkpoint(key):
        return stored
    state = {name: value.detach() for name, value in published.encoder.state_dict().items()}
    return Store(scratch).save_checkpoint(key, state, {}, _card(published, what, method, images))


def keep_checkpoint(checkpoint: StoredCheckpoint, store: Store, on_wait: Callable[[], None]) -> StoredCheckpoint:
    """Store a checkpoint of a scratch folder in the results folder, unless that has it.

    Args:
        on_wait: called if another process stores the same one.
    """
    card = checkpoint.card
    with store.lease(card["fingerprint"], f"storing {card['what']['imported']['source']}", on_wait):
        stored = store.checkpoint(card["fingerprint"])
        return stored or store.save_checkpoint(card["fingerprint"], checkpoint.encoder(), checkpoint.rest(), card)


def _identity(published: PublishedEncoder, method: ExternalConfig, images: InputConfig) -> dict[str, Any]:
    """All that shapes features of a published encoder: its weights, and how images are put in and features pooled."""
    encoder = published.encoder
    return {
        "method": {"name": External.name, "version": External.version, **shaping_at(method, "method")},
        "encoder": {
            "name": TimmModel.kind,
            "version": TimmModel.version,
            **shaping_at(encoder.config, "encoder"),
        },
        "image_size": encoder.image_size,
        "channels": encoder.in_channels,
        "imported": {
            "source": published.files.name,
            "sha256": published.sha256,
            "pooling": published.pooling,
            "input": images.evaluation(),
        },
    }


def _card(
    published: PublishedEncoder, what: dict[str, Any], method: ExternalConfig, images: InputConfig
) -> dict[str, Any]:
    files = published.files
    return {
        "mimbench": __version__,
        "what": what,
        "recipe": {
            "input": images.model_dump(mode="json"),
            "encoder": {"name": TimmModel.kind, **published.encoder.config.model_dump(mode="json")},
            "method": {"name": External.name, **method.model_dump(mode="json")},
        },
        "seed": 0,
        "cost": NOTHING_SPENT,
        "imported": {
            "file": files.weights.name,
            "revision": files.revision,
            "left_out": list(published.left_out),
        },
        "provenance": provenance(
            {"method": code_of_plugin("method", External.name), "encoder": code_of_plugin("encoder", TimmModel.kind)}
        ),
    }
