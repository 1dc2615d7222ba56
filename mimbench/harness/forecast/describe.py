"""A forecast as a table with its assumptions, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from mimbench.harness.forecast.forecast import Forecast, Machine, Stage
from mimbench.text import align_columns, format_duration

_HEAD = (
    "stage", "trained", "frozen", "GFLOPs/image", "images", "precision", "micro-batch", "memory", "largest micro-batch",
    "time", "disk",
)  # fmt: skip


def describe(forecast: Forecast) -> str:
    """A row per stage, what has to change to fit, totals, and what the numbers assume."""
    machine = forecast.machine
    lines = [
        f"{forecast.method} on {forecast.encoder}, recipe {forecast.recipe}, on {machine.count} x {machine.device} "
        f"({machine.memory:.4g} GiB each)",
        "",
        *align_columns([_HEAD, *(_row(stage, machine) for stage in forecast.stages)]),
        "",
        *_advice(forecast),
        *(f"note: {note}" for stage in forecast.stages for note in stage.notes),
        *(f"note: {note}" for note in forecast.notes),
        *_totals(forecast),
        *_assumptions(forecast),
    ]
    return "\n".join(lines) + "\n"


def as_json(forecast: Forecast) -> dict[str, Any]:
    """Plain JSON data: bytes, seconds and FLOPs, null for what is not known."""
    machine = forecast.machine
    stages = []
    for stage in forecast.stages:
        row = asdict(stage)
        for name in ("memory", "largest"):
            memory = getattr(stage, name)
            row[name] = memory and {**row[name], "total": memory.total}
        row["fits"] = None if stage.memory is None else stage.memory.total <= machine.usable
        row["notes"] = list(stage.notes)
        stages.append(row)
    return {
        "method": forecast.method,
        "encoder": forecast.encoder,
        "recipe": forecast.recipe,
        "machine": {
            "device": machine.device,
            "count": machine.count,
            "memory_gib": machine.memory,
            "usable_bytes": machine.usable,
            "source": machine.card.source if machine.card else None,
        },
        "mfu": None if forecast.measured else forecast.mfu,
        "data": {name: asdict(sizes) for name, sizes in forecast.data.items()},
        "stages": stages,
        "notes": forecast.notes,
    }


def _row(stage: Stage, machine: Machine) -> tuple[str, ...]:
    memory, largest = stage.memory, stage.largest
    fits = memory is None or memory.total <= machine.usable
    return (
        stage.name,
        _count(stage.trained),
        _count(stage.frozen),
        "-" if stage.flops is None else _digits(stage.flops / 1e9),
        "-" if stage.images is None else _count(stage.images),
        stage.precision,
        "-" if memory is None else f"{memory.images}",
        "-" if memory is None else f"{_bytes(memory.total)}{'' if fits else ' (too much)'}",
        "-" if not stage.options or memory is None else "none" if largest is None else f"{largest.images}",
        "-" if stage.seconds is None else format_duration(stage.seconds),
        "-" if stage.disk is None else _bytes(stage.disk),
    )


def _advice(forecast: Forecast) -> Iterator[str]:
    machine = forecast.machine
    for stage in forecast.stages:
        memory = stage.memory
        if memory is None:
            continue
        parts = {
            "weights": memory.weights, "gradients": memory.gradients, "optimizer": memory.states,
            "activations": memory.activations,
        }  # fmt: skip
        yield f"{stage.name}: " + ", ".join(f"{name} {_bytes(size)}" for name, size in parts.items() if size)
        if memory.total <= machine.usable:
            continue
        over = f"{stage.name} takes {_bytes(memory.total)}, and {_bytes(machine.usable)} of each device can be used"
        yield f"{over}: {'; or '.join(_ways(stage, machine))}"


def _ways(stage: Stage, machine: Machine) -> Iterator[str]:
    """What may make a stage fit, with the paths of the settings."""
    if not stage.options:
        yield "use a smaller encoder or smaller images"
        return
    if stage.largest is not None and stage.batch:
        accumulate = stage.batch // machine.count // stage.largest.images
        yield f"set {stage.options}.accumulate={accumulate}, so that a micro-batch has {stage.largest.images} images"
    if not stage.has_checkpointing:
        yield f"set {stage.options}.grad_checkpointing=true"
    if stage.precision == "fp32" and machine.card is not None and machine.card.is_ampere:
        yield f"set {stage.options}.precision=bf16"
    yield "use larger GPUs" if stage.largest is not None else "use larger GPUs or a smaller encoder"


def _totals(forecast: Forecast) -> Iterator[str]:
    known = [stage for stage in forecast.stages if stage.seconds is not None]
    if not known:
        return
    seconds = sum(stage.seconds or 0.0 for stage in known)
    more = "at least " if len(known) < len(forecast.stages) else ""
    hours = seconds * forecast.machine.count / 3600
    device_hours = f"{more}{_digits(hours)}" if hours >= 0.01 else "under 0.01"
    yield f"time: {more}{format_duration(seconds)} in all, {device_hours} device hours; loading not included"


def _assumptions(forecast: Forecast) -> Iterator[str]:
    machine, card = forecast.machine, forecast.machine.card
    for name, sizes in forecast.data.items():
        counts = f"{sizes.train:,} training and {sizes.test:,} test images"
        if sizes.classes > 1:
            counts += f", {sizes.classes} classes"
        yield f"{name}: {counts} ({sizes.source})"
    if forecast.measured:
        yield "time is that of steps measured here, on blank images, without loading"
    elif card and card.rate("fp32"):
        rates = ", ".join(
            f"{name} {rate / 1e12:g}" for name in ("bf16", "tf32", "fp32") if (rate := card.rate(name)) is not None
        )
        peak = f"the card's peak, in TFLOP/s {rates} ({card.source})"
        yield f"time is at {forecast.mfu:.0%} of {peak}; change it with --mfu"
    else:
        yield "time is not known: name a card with --gpus, such as 8xH100, or measure steps here with --measure 5"
    if machine.on_cuda:
        planned = f"{_bytes(machine.usable)} of {machine.memory:.4g} GiB"
        yield f"memory is of eager kernels; the plan uses {planned}, the rest is for the CUDA context and fragments"


def _count(number: int) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{_digits(number / size)} {unit}"
    return str(number)


def _bytes(size: float) -> str:
    for unit, name in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB")):
        if size >= unit:
            return f"{_digits(size / unit)} {name}"
    return f"{_digits(size / 2**10)} KiB"


def _digits(number: float) -> str:
    """Three digits, or as many as a whole number has: "0.123", "12.3", "1,234"."""
    return f"{number:,.0f}" if number >= 999.5 else f"{number:.3g}"
