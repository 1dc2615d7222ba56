"""How fast a recipe's loader gives images, how fast its training step takes them, and which of both waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader

from mimbench.data import Decoding, EncodedSplit, decoding_of, default_cache, open_dataset, training_loader
from mimbench.engine.bare_step import BareStep
from mimbench.engine.device import device_name, pick_precision
from mimbench.engine.pretrain import TrainableMethod
from mimbench.errors import InputError
from mimbench.harness.planning.build import build_method
from mimbench.harness.planning.cells import Pretraining
from mimbench.harness.planning.image_sizes import training_views
from mimbench.harness.planning.pretraining import require_decoder
from mimbench.recipe.resolve import Recipe

EQUAL = 0.05
"""Rates that differ by less are called equal: two runs on a quiet machine differ by as much."""
_WARM_UP = 2
"""Steps before the clock starts: the first ones allocate memory and choose kernels."""


@dataclass(frozen=True)
class Rate:
    """Images and the seconds that they took."""

    images: int
    seconds: float

    @property
    def per_second(self) -> float:
        return self.images / self.seconds


@dataclass(frozen=True)
class DataRates:
    """What was measured of one recipe, in one process."""

    batch: int
    """Images per micro-batch."""
    workers: int
    """Processes that load images; 0: the training process loads them."""
    is_in_memory: bool
    decoding: Decoding | None
    """None: the dataset has no encoded images."""
    device: str
    precision: str
    loader: Rate
    """The loader alone, up to a batch in main memory."""
    step: Rate
    """Optimizer steps alone, on one batch in main memory again and again."""
    together: Rate
    """Steps on batches of the loader."""
    waiting: float
    """Share of the seconds of `together` in which the step waited for a batch."""

    @property
    def waiting_side(self) -> str:
        """Which side waits for the other one: "step", "loader", or "neither" if the rates are equal."""
        ratio = self.loader.per_second / self.step.per_second
        return "neither" if abs(ratio - 1) < EQUAL else "step" if ratio < 1 else "loader"


def measure_rates(recipe: Recipe, device: torch.device, *, seconds: float) -> DataRates:
    """Measure a recipe's loader and steps for so many seconds each, and both together. Nothing is written.

    Steps are those of a pretraining from initial weights, without the stages that a method fits before it, in the
    precision of the recipe and without `pretrain.compile`. They take micro-batches of this one process.

    Raises:
        InputError: the recipe cannot train: its method trains nothing, or the data or the model is not possible.
    """
    if not recipe.method_class().pretrains:
        raise InputError(f"method {recipe.method!r} trains nothing, so there is no step to measure; choose another one")
    dataset = open_dataset(recipe.dataset, recipe.data.model_dump(), default_cache())
    require_decoder(recipe, device)
    pretraining = Pretraining(recipe, 0, dataset, "", {"channels": dataset.channels})
    split, config = pretraining.images(), recipe.pretrain
    config.require_images(len(split), "pretrain")
    views = training_views(pretraining)
    loader = training_loader(
        split,
        views,
        batch_size=config.micro_batch(1),
        seed=0,
        workers=config.workers,
        device=device,
        decoding=decoding_of(recipe.data),
    )
    method = build_method(recipe, 0, dataset.channels, to_train=True)
    if config.grad_checkpointing:
        method.encoder.set_grad_checkpointing()
    model = TrainableMethod(method, views, channels=dataset.channels, batched=split.is_in_memory)
    step = BareStep(model, config, device)
    batches = _endless(loader)
    first = next(batches)
    for _ in range(2 * loader.num_workers):  # workers load two batches each ahead, which must not count
        next(batches)
    loading = _measure(lambda: next(batches), _do_nothing, config.micro_batch(1), seconds)
    for _ in range(_WARM_UP):
        step(first)
    finish = torch.cuda.synchronize if device.type == "cuda" else _do_nothing
    stepping = _measure(lambda: step(first), finish, config.micro_batch(1), seconds)
    waits: list[float] = []

    def step_on_next() -> None:
        start = time.perf_counter()
        batch = next(batches)
        waits.append(time.perf_counter() - start)
        step(batch)
        finish()  # or the wait for the next batch would seem long while the device still computes

    for _ in range(2 * loader.num_workers):  # what was loaded ahead during the steps alone
        next(batches)
    together = _measure(step_on_next, finish, config.micro_batch(1), seconds)
    return DataRates(
        batch=config.micro_batch(1),
        workers=loader.num_workers,
        is_in_memory=split.is_in_memory,
        decoding=decoding_of(recipe.data) if isinstance(split, EncodedSplit) else None,
        device=device_name(device),
        precision=pick_precision(config, device),
        loader=loading,
        step=stepping,
        together=together,
        waiting=sum(waits) / together.seconds,
    )


def _endless(loader: DataLoader) -> Iterator[Any]:
    epoch = 0
    sampler: Any = loader.sampler
    while True:
        sampler.set_epoch(epoch)
        yield from loader
        epoch += 1


def _measure(act: Callable[[], Any], finish: Callable[[], None], images: int, seconds: float) -> Rate:
    """Repeat `act`, which handles so many images, for so many seconds. finish: waits until the device is done."""
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        act()
        count += 1
    finish()
    return Rate(count * images, time.perf_counter() - start)


def _do_nothing() -> None:
    pass
