"""What a method fits before its training, such as a tokenizer: fitted once, then stored under its fingerprint."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import load_file, save
from torch import Tensor, nn

from mimbench.contract import FitReport, Stage, TrainConfig
from mimbench.data import DeviceTransform, training_loader
from mimbench.engine.device import world_size_identity
from mimbench.engine.pretrain import TrainableMethod
from mimbench.engine.progress import print_line
from mimbench.engine.ranks import on_first_rank
from mimbench.harness.planning.cells import Pretraining
from mimbench.harness.planning.pretraining import depends_on_processes
from mimbench.harness.running.provenance import provenance
from mimbench.harness.running.training import fit_on_images
from mimbench.seeds import derive_seed
from mimbench.store.sealing import fingerprint
from mimbench.store.stages import card_of, check_stage, write_stage
from mimbench.store.store import Store

BATCH = 256


class PretrainStage(Stage):
    """The Stage of one pretraining."""

    def __init__(
        self, pretraining: Pretraining, store: Store, device: torch.device, console: Console, *, fresh: bool = False
    ) -> None:
        """fresh: fit again, even if a fitted result is stored."""
        self.pretraining, self.store, self.console, self.fresh = pretraining, store, console, fresh
        self.split, self.workers = pretraining.images(), pretraining.recipe.pretrain.workers
        self.seed, self.device, self.input = pretraining.seed, device, pretraining.recipe.input
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
        # A method may fit several models. The labels of all fits so far name the folder, so that a repeated run
        # resumes each of them.
        self._fits.append(label)
        key = fingerprint(self._fits)
        return fit_on_images(
            TrainableMethod(
                model,
                [self.input],
                channels=self._channels,
                batched=self.split.is_in_memory,
                shares_batch=not depends_on_processes(self.pretraining.recipe),
            ),
            self.pretraining,
            config,
            label=label,
            options=options,
            workdir=self.store.work(self.pretraining.training) / "stages" / key,
            device=self.device,
            console=self.console,
            identity=f"{self.pretraining.training}/stages/{key}",
            tracks=self.store.tracks,
        )

    def compute_once(self, identity: Mapping[str, Any], make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        shaping = {
            "stage": dict(identity),
            **{key: self.pretraining.identity[key] for key in ("data", "channels", "input", "seed")},
            **(world_size_identity() if depends_on_processes(self.pretraining.recipe) else {}),
        }
        key = fingerprint(shaping)
        path = self.store.root / "stages" / f"{key}.safetensors"
        waiting = functools.partial(self.say, f"waiting: another process is fitting {key}")
        lease = self.store.lease(f"stage-{key}", f"fitting for {self.pretraining.label}", waiting)
        with ExitStack() as stack:
            # All ranks call `make`, since it may train on all of them. Rank 0 holds the lease and writes.
            on_first_rank(stack.enter_context)(lease)
            is_stored = on_first_rank(card_of(path).exists)()
            if is_stored and not self.fresh:
                self.say(f"reusing the fitted stage ({path})")
            else:
                self._fits = [key]
                _write(path, make(), shaping)
            check_stage(path)
            return load_file(path)

    def say(self, text: str) -> None:
        print_line(self.console, text)

    def _transform(self) -> DeviceTransform:
        return DeviceTransform(self.input, self._channels, train=True, batched=self.split.is_in_memory)

    @property
    def _channels(self) -> int:
        return self.pretraining.dataset.channels


@on_first_rank
def _write(path: Path, state: Mapping[str, Tensor], shaping: Mapping[str, Any]) -> None:
    content = save({key: value.detach().cpu().contiguous() for key, value in state.items()})
    write_stage(path, content, shaping, provenance())
