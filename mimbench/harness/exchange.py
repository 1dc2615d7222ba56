"""Checkpoints of other code bases are imported; ours are exported under timm's names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from mimbench._version import __version__
from mimbench.contract import InputConfig, Method, ModelSetup
from mimbench.contract.config import shaping_at
from mimbench.contract.input import frames_identity
from mimbench.contract.validation import validate
from mimbench.convert import ConvertedWeights, Weights, read_weights, recognise, to_method, to_timm
from mimbench.convert.encoder_sizes import channels_of, describe_encoder
from mimbench.convert.file_tensors import rename_tensors
from mimbench.convert.key_layouts import KeyLayout
from mimbench.errors import InputError
from mimbench.files import file_sha256, write_atomic, writing
from mimbench.harness.planning.build import build
from mimbench.harness.planning.checkpoints import find_checkpoint
from mimbench.harness.planning.code import code_of_plugin
from mimbench.harness.running.provenance import provenance
from mimbench.recipe import document as recipe_document
from mimbench.recipe.resolve import NAME_IS_A_FLAG, check_settings, resolve
from mimbench.store.sealing import fingerprint
from mimbench.store.store import Store

NOTHING_SPENT = {
    "seconds": 0.0,
    "images_seen": 0,
    "steps": 0,
    "peak_memory": None,
    "device": "imported",
    "precision": "fp32",
    "compiled": "",
}
"""The cost of a checkpoint that was not trained here."""


@dataclass(frozen=True)
class Imported:
    """A foreign checkpoint as it will be stored."""

    method: Method
    converted: ConvertedWeights
    layout: KeyLayout
    identity: Mapping[str, Any]
    tables: Mapping[str, Any]
    weights: Weights


@dataclass(frozen=True)
class Exported:
    """What an exported file contains."""

    tensors: int
    encoder: str
    method: str


def import_checkpoint(
    file: Path,
    *,
    method: str,
    encoder: str | None,
    recipe: str | None,
    settings: Mapping[str, Any],
    results: Path,
    key: str | None = None,
    on_wait: Callable[[], None] = lambda: None,
) -> tuple[Imported, Path]:
    """Store a foreign checkpoint under its fingerprint.

    Args:
        on_wait: called if another process imports the same file.

    Returns:
        What was imported, and the folder of the checkpoint.

    Raises:
        InputError: see `prepare_import`; or neither or both of `encoder` and `recipe` are given.
    """
    if (encoder is None) == (recipe is None):
        raise InputError("name the encoder with either --encoder SIZE (such as vit-base) or --recipe NAME")
    imported = prepare_import(file, method=method, encoder=encoder, recipe=recipe, settings=settings, key=key)
    store = Store(results)
    name = fingerprint(imported.identity)
    with store.lease(name, f"import {file.name}", on_wait):
        if store.checkpoint(name) is None:
            encoder_state = {name: value.detach() for name, value in imported.method.encoder.state_dict().items()}
            rest = {name: value for name, value in imported.converted.state.items() if not name.startswith("encoder.")}
            store.save_checkpoint(name, encoder_state, rest, _card(imported, file))
    return imported, store.checkpoint_path(name)


def prepare_import(
    file: Path,
    *,
    method: str,
    encoder: str | None,
    recipe: str | None,
    settings: Mapping[str, Any],
    key: str | None = None,
) -> Imported:
    """Read, recognise, convert and check a checkpoint, without writing anything.

    Raises:
        InputError: the file cannot be read, is of no known layout, or does not fit the encoder.
    """
    chosen = read_weights(file, key)
    weights = chosen.state
    layout = recognise(weights)
    channels = channels_of(rename_tensors(weights, layout))
    tables = _recipe_tables(recipe, method, settings) if recipe else {}
    if encoder:
        described = describe_encoder(weights, layout, encoder)
        tables = {
            "input": {"image_size": described.image_size},
            "encoder": {"name": described.encoder, **described.options},
            "method": {"name": method},
        }
        tables = _with_settings(tables, settings)
    images = validate(InputConfig, tables["input"], "input")
    setup = _setup(tables, method, channels, images)
    model = build(setup)
    converted = to_method(weights, layout, model, chosen.outside)
    unused = model.official.computed if model.official else ()  # what its files do not give
    missing = [name for name in converted.missing if name.startswith("encoder.") and not name.startswith(unused)]
    if missing:
        raise InputError(
            f"{file} lacks {len(missing)} of the encoder's tensors, such as {missing[0].removeprefix('encoder.')!r}; "
            "name the encoder that it was trained with"
        )
    model.load_state_dict(converted.state, strict=False)
    full_tables = {
        "input": images.model_dump(mode="json"),
        "encoder": {"name": setup.encoder, **model.encoder.config.model_dump(mode="json")},
        "method": {"name": method, **model.config.model_dump(mode="json")},
    }
    identity = {
        "method": {"name": method, "version": model.version, **shaping_at(model.config, "method")},
        "encoder": {
            "name": setup.encoder,
            "version": model.encoder.version,
            **shaping_at(model.encoder.config, "encoder"),
        },
        "image_size": setup.image_size,
        **frames_identity(setup.frames),
        "channels": channels,
        # A file with a single network needs no key in its identity.
        "imported": {"sha256": file_sha256(file), "layout": layout.name}
        | ({"key": chosen.key} if chosen.others else {}),
    }
    return Imported(model, converted, layout, identity, full_tables, chosen)


def export_checkpoint(which: str, output: Path, *, results: Path) -> Exported:
    """Write a checkpoint's encoder as a safetensors file that timm loads.

    Args:
        which: fingerprint, or its first characters, or folder of the checkpoint.

    Raises:
        InputError: no such checkpoint, another suffix than .safetensors, or a file that cannot be written.
    """
    if output.suffix != ".safetensors":
        raise InputError(
            f"{output}: the exported file is in safetensors format; name it {output.with_suffix('.safetensors')}"
        )
    checkpoint = find_checkpoint(results, which)
    what = checkpoint.card["what"]
    state = to_timm(checkpoint.encoder(), what["encoder"])
    with writing(str(output)):
        write_atomic(output, exported_file(state, checkpoint.card))
    return Exported(len(state), what["encoder"]["name"], what["method"]["name"])


def exported_file(state: Mapping[str, Tensor], card: Mapping[str, Any]) -> bytes:
    """A safetensors file of weights under timm's names, with notes on the checkpoint that `card` is of."""
    notes = {
        "format": "pt",
        "mimbench": __version__,
        "fingerprint": card["fingerprint"],
        "what": json.dumps(card["what"], sort_keys=True),
    }
    return save(dict(state), notes)


def _recipe_tables(name: str, method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    check_settings(list(settings), [method], [])
    tables = resolve(name, recipe_document.read(name), method, settings, None).as_tables()
    return {table: tables[table] for table in ("input", "encoder", "method")}


def _with_settings(tables: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    for path, value in settings.items():
        if path.partition(".")[0] not in tables:
            raise InputError(f"--set {path}: an import takes {', '.join(tables)} settings only")
        tables = recipe_document.put(tables, path, value)
    return tables


def _setup(tables: Mapping[str, Any], method: str, channels: int, images: InputConfig) -> ModelSetup:
    encoder, options = dict(tables["encoder"]), dict(tables["method"])
    if options.pop("name") != method:
        raise InputError(NAME_IS_A_FLAG)
    name = encoder.pop("name")
    return ModelSetup(method, name, images.image_size, channels, options, encoder, images.frames)


def _card(imported: Imported, file: Path) -> dict[str, Any]:
    converted = imported.converted
    return {
        "mimbench": __version__,
        "what": dict(imported.identity),
        "recipe": dict(imported.tables),
        "seed": 0,
        "cost": NOTHING_SPENT,
        "imported": {
            "file": file.name,
            "key": imported.weights.key,
            "source": imported.layout.source,
            "left_out": converted.left_out,
            "changed": converted.changed,
            "missing": sorted(converted.missing),
        },
        "provenance": provenance(
            {kind: code_of_plugin(kind, imported.identity[kind]["name"]) for kind in ("method", "encoder")}
        ),
    }
