"""`mimbench show record`: finds a record and describes it in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from mimbench.errors import InputError, nearest
from mimbench.store.reading import record_files
from mimbench.store.record import Checkpoint, Record, read_record


def find_record(results: Path, identifier: str) -> tuple[Path, Record]:
    """The record whose id is, or begins with, `identifier`; or the record in the file `identifier`.

    Raises:
        InputError: no such record, several of them, or a damaged one.
    """
    if identifier.endswith(".json"):
        if not Path(identifier).exists():
            raise InputError(f"there is no file {identifier}; name a record's file, or its id with --results")
        return Path(identifier), read_record(Path(identifier))
    paths = {path.stem: path for path in record_files(results)}
    matches = [identifier] if identifier in paths else [name for name in paths if name.startswith(identifier)]
    if not matches:
        raise InputError(f"there is no record {identifier!r} in {results}{nearest(identifier, paths)}")
    if len(matches) > 1:
        raise InputError(
            f"{len(matches)} records in {results} begin with {identifier!r}, such as {matches[0]}; give more"
        )
    return paths[matches[0]], read_record(paths[matches[0]])


def describe_record(path: Path, record: Record) -> str:
    """What `mimbench show record ID` prints."""
    checkpoint, training, provenance = record.checkpoint, record.checkpoint.cost, record.provenance
    lines = [
        f"record {record.id}",
        f"file: {path}",
        "",
        f"method: {record.method.name}, version {record.method.version}",
        f"encoder: {record.encoder.name}, version {record.encoder.version}",
        f"task: {record.task.name}, version {record.task.version}",
        f"dataset of the task: {record.dataset.name}, fingerprint {record.dataset.version}",
        f"seed: {record.seed}",
        f"recipe: {record.recipe_name}",
        *(f"  varied: {setting} = {json.dumps(value)}" for setting, value in record.varied.items()),
        f"protocol: fingerprint {record.protocol_fingerprint}",
    ]
    if record.departures is None:
        lines.append("  departures from the named protocol: not noted in this record")
    else:
        lines += [f"  departure: {setting} = {json.dumps(value)}" for setting, value in record.departures.items()]
    lines += ["", "metrics (the first one is the primary metric):"]
    width = max(map(len, record.metrics))
    for name, value in record.metrics.items():
        better = "higher" if value.higher_is_better else "lower"
        lines.append(f"  {name:<{width}}  {value.value:.6g} {value.unit} over {value.n} samples; {better} is better")
    lines += [
        f"chance level of the primary metric: {record.chance:.6g}",
        "",
        f"checkpoint: {checkpoint.fingerprint}, pretrained with seed {checkpoint.seed}",
        f"  weights sha256: {checkpoint.weights_sha256}",
        f"  cost: {training.seconds:.1f} s, {training.images_seen} images, {training.steps} steps on {training.device}",
        *_counted_lines(checkpoint),
        *_monitor_lines(checkpoint),
        f"cost of the task: {record.cost.seconds:.1f} s, {record.cost.images_seen} images on {record.cost.device}",
        *(f"artifact {name}: {file}" for name, file in record.artifacts.items()),
        *(f"{name}: {_short(value)}" for name, value in provenance.items() if name != "plugins"),
        *_plugin_lines(provenance.get("plugins")),
        "",
        "The file also holds the recipe as passed and as resolved, curves and details, as JSON.",
    ]
    return "\n".join(lines) + "\n"


def _counted_lines(checkpoint: Checkpoint) -> list[str]:
    if checkpoint.flops_per_image is None:
        return []
    return [f"  per image: {checkpoint.flops_per_image / 1e9:.3g} GFLOPs, {checkpoint.patches_per_image:.0f} patches"]


def _monitor_lines(checkpoint: Checkpoint) -> Iterator[str]:
    """The last value of each monitor, and what all of them took."""
    if checkpoint.monitored:
        yield f"  monitors, {checkpoint.monitor_seconds:.1f} s, at their last measurement:"
    for name, points in checkpoint.monitored.items():
        epochs, value = points[-1]
        yield f"    {name} {value:.6g} after {epochs:g} epochs"


def _plugin_lines(plugins: object) -> Iterator[str]:
    """A line per plugin with its code. Older records hold none."""
    if not isinstance(plugins, Mapping):
        return
    yield "code of the plugins:"
    for kind, code in plugins.items():
        yield f"  {kind}: {_short(code)}"


def _short(value: object) -> str:
    """Plain data in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(item)}" for name, item in value.items()) or "none"
    return value if isinstance(value, str) else json.dumps(value)
