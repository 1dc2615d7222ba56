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


def open_checkpoint(
    which: str, results: Path, *, place: Path | None = None, on_wait: Callable[[], None] = lambda: None
) -> StoredCheckpoint:
    """The checkpoint that --checkpoint names.

    Args:
        which: fingerprint, or its first characters, or folder of a checkpoint, or a published encoder, such as
            timm:MODEL or hf:REPO.
        results: the results folder.
        place: where a published encoder is stored; None: in `results`.
        on_wait: called if another process stores the same encoder.

    Raises:
        InputError: there is no such checkpoint or encoder, or it cannot be read.
    """
    if not is_published(which):
        return find_checkpoint(results, which)
    return _store(load_published(which), place or results, on_wait)


def _store(published: PublishedEncoder, place: Path, on_wait: Callable[[], None]) -> StoredCheckpoint:
    files, encoder = published.files, published.encoder
    method = ExternalConfig(model=files.name)
    what = {
        "method": {"name": External.name, "version": External.version, **shaping_at(method, "method")},
        "encoder": {
            "name": TimmModel.kind,
            "version": TimmModel.version,
            **shaping_at(encoder.config, "encoder"),
        },
        "image_size": encoder.image_size,
        "channels": encoder.in_channels,
        "imported": {"source": files.name, "sha256": published.sha256},
    }
    store, key = Store(place), fingerprint(what)
    with store.lease(key, f"storing {files.name}", on_wait):
        stored = store.checkpoint(key)
        if stored is None:
            state = {name: value.detach() for name, value in encoder.state_dict().items()}
            stored = store.save_checkpoint(key, state, {}, _card(published, what, method))
    return stored


def _card(published: PublishedEncoder, what: dict[str, Any], method: ExternalConfig) -> dict[str, Any]:
    files = published.files
    images = validate(InputConfig, dict(published.input), "input")
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
            "pooling": published.pooling,
            "left_out": list(published.left_out),
        },
        "provenance": provenance(
            {"method": code_of_plugin("method", External.name), "encoder": code_of_plugin("encoder", TimmModel.kind)}
        ),
    }
