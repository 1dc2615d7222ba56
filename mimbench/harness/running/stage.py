"""What a method fits before it trains (a tokenizer): made once, then kept under the hash of all that shapes it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import load_file, save
from torch import Tensor, nn

from mimbench.contract import Batch, FitReport, Stage, StepOutput, TrainConfig
from mimbench.data import DeviceTransform, training_loader
from mimbench.distributed import get_rank
from mimbench.engine.device import barrier, shaping_processes
from mimbench.engine.progress import say
from mimbench.engine.ranks import on_first_rank
from mimbench.harness.planning.cells import Pretraining
from mimbench.harness.running.provenance import provenance
from mimbench.harness.running.training import train_on_images
from mimbench.seeds import derive_seed
from mimbench.store.sealing import fingerprint
from mimbench.store.stages import check_stage, write_stage
from mimbench.store.store import Store

BATCH = 256


class PretrainStage(Stage):
    """The Stage of one pretraining."""

    def __init__(
        self, wanted: Pretraining, store: Store, device: torch.device, console: Console, *, fresh: bool = False
    ) -> None:
        """fresh: what was fitted before is fitted anew."""
        self.wanted, self.store, self.console, self.fresh = wanted, store, console, fresh
        self.split, self.workers = wanted.images(), wanted.recipe.pretrain.workers
        self.seed, self.device, self.input = wanted.seed, device, wanted.recipe.input
        self.classes = self.split.classes
        self._fits: list[str] = []

    def images(self) -> Iterator[Tensor]:
        seed = derive_seed("stage", self.seed)
        generator = torch.Generator(self.device).manual_seed(seed)
        transform = self._transform().to(self.device)
        loader = training_loader(
            self.split,
            self.input,
            batch_size=min(BATCH, len(self.split)),
            seed=seed,
            workers=self.workers,
            device=self.device,
        )
        for images, _ in loader:
            yield transform(images.to(self.device, non_blocking=True), generator)

    def fit(self, model: nn.Module, config: TrainConfig, *, label: str, options: str) -> FitReport:
        # A method may fit several models; each has a folder of its own, in which an interrupted one is found again.
        self._fits.append(label)
        key = fingerprint(self._fits)
        return train_on_images(
            _Fitted(model, self._transform()),
            self.wanted,
            config,
            label=label,
            options=options,
            workdir=self.store.work(self.wanted.training) / "stages" / key,
            device=self.device,
            console=self.console,
            identity=f"{self.wanted.training}/stages/{key}",
        )

    def compute_once(self, identity: Mapping[str, Any], make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        what = {
            "stage": dict(identity),
            **{key: self.wanted.identity[key] for key in ("data", "channels", "input", "seed")},
            **shaping_processes(),
        }
        key = fingerprint(what)
        path = self.store.root / "stages" / f"{key}.safetensors"
        waiting = functools.partial(self.say, f"waiting: another process is fitting {key}")
        # All ranks make it together, since `make` may train on all of them; the first one locks and writes.
        with self.store.lock(f"stage-{key}", waiting) if get_rank() == 0 else nullcontext():
            if not self.fresh and on_first_rank(path.with_suffix(".json").exists):
                self.say(f"reusing what was fitted before ({path})")
            else:
                self._fits = [key]
                state = make()
                if get_rank() == 0:
                    content = save({key: value.detach().cpu().contiguous() for key, value in state.items()})
                    write_stage(path, content, what, provenance())
                barrier()
            check_stage(path)
            return load_file(path)

    def say(self, text: str) -> None:
        say(self.console, text)

    def _transform(self) -> DeviceTransform:
        channels = self.wanted.dataset.channels
        return DeviceTransform(self.input, channels, train=True, batched=self.split.is_in_memory)


class _Fitted(nn.Module):
    """A model with `step`, as the engine trains it."""

    def __init__(self, model: nn.Module, transform: DeviceTransform) -> None:
        super().__init__()
        self.model: Any = model
        self.transform = transform

    def training_step(self, batch: Any, generator: torch.Generator) -> StepOutput:
        images = self.transform(batch[0].to(generator.device, non_blocking=True), generator)
        return self.model.step(Batch(images), generator)

    def after_step(self, progress: float) -> None:
        if hasattr(self.model, "after_step"):
            self.model.after_step(progress)
