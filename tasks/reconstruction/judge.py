"""The small classifier in whose features images are compared, and the distance between two sets of them."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, distributed, nn

from mimbench.api import (
    Config,
    Dataset,
    DeviceTransform,
    FitReport,
    ImageSplit,
    InputConfig,
    ScheduleConfig,
    StepOutput,
    TaskContext,
    TrainConfig,
    cosmetic,
    get_rank,
    get_world_size,
    training_loader,
    write_atomic,
)

VERSION = "1"
"""Raised whenever the same options would give another judge."""
_CHECKSUM = "sha256 of the tensors"
SEED = 0
"""The judge is the same for every method and seed: distances of different judges cannot be compared."""


class JudgeConfig(Config):
    """A convolutional classifier and its training, always in fp32."""

    features: int = Field(64, ge=2)
    """Dimension of the features."""
    epochs: int = Field(6, ge=1)
    batch_size: int = Field(64, ge=2)
    base_lr: float = Field(3e-3, gt=0)
    workers: int = cosmetic(4, ge=0, le=1024)


class Judge(nn.Module):
    """Strided convolutions down to about 4 px, a mean over space, then features of unit variance and a linear layer."""

    shares_batch = True

    def __init__(
        self, config: JudgeConfig, input_config: InputConfig, *, channels: int, classes: int, batched: bool
    ) -> None:
        super().__init__()
        self.transform = DeviceTransform(input_config, channels, train=False, batched=batched)
        stages = max(2, math.ceil(math.log2(input_config.image_size / 4)))
        widths = [channels, *(min(config.features, 16 * 2**stage) for stage in range(stages - 1)), config.features]
        layers: list[nn.Module] = []
        for inside, outside in itertools.pairwise(widths):
            layers += [nn.Conv2d(inside, outside, 3, 2, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.norm = nn.BatchNorm1d(config.features, affine=False)
        self.head = nn.Linear(config.features, classes)

    def training_step(self, batch: Any, generator: torch.Generator) -> StepOutput:
        images, labels = (part.to(generator.device, non_blocking=True) for part in batch)
        return StepOutput(F.cross_entropy(self.head(self(self.transform(images))), labels))

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [B, C, S, S] -> features [B, D]."""
        return self.norm(self.body(images))

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """The same, as float64 on the CPU."""
        return self(images).double().cpu()


def load_or_train_judge(
    config: JudgeConfig, dataset: Dataset, split: ImageSplit, channels: int, context: TaskContext
) -> tuple[Judge, FitReport | None]:
    """The judge of `split`, in evaluation mode: trained once for each dataset and view of it, then kept in its cache.

    channels: those that the method sees. Returns also what training it cost, where that was now.
    """
    batched = split.is_in_memory
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        judge = Judge(config, context.input, channels=channels, classes=len(split.classes), batched=batched)
    path = dataset.cache / "judges" / f"{_key(config, dataset, channels, context.input)}.safetensors"
    report = None
    if not _all_ranks(_loaded(judge, path)):
        context.say(f"reconstruction: training the classifier that judges images on {len(split):,} images")
        report = _train(judge, config, split, context)
        _keep(judge, path, context.say)
    return judge.to(context.device).eval(), report


def frechet(one: Tensor, other: Tensor) -> float:
    """Squared Frechet distance between Gaussians fitted to two sets of features, float64 [N, D] each.

    See Heusel et al., arXiv:1706.08500. It shrinks as N grows, even for two sets of the same kind: compare at one N.
    """
    # torchmetrics takes a second to import.
    from torchmetrics.image.fid import FrechetInceptionDistance

    identity = _FeaturesAsInput()
    identity.num_features = one.shape[1]
    # Every process has all features: torchmetrics would count them once per process.
    distance = FrechetInceptionDistance(feature=identity, sync_on_compute=False)
    distance.update(one.double(), real=True)
    distance.update(other.double(), real=False)
    return max(0.0, float(distance.compute()))


class _FeaturesAsInput(nn.Identity):
    """torchmetrics asks for a network; the features are here already."""

    num_features: int


def _train(judge: Judge, config: JudgeConfig, split: ImageSplit, context: TaskContext) -> FitReport:
    rank, world = get_rank(), get_world_size()
    train = TrainConfig(
        epochs=config.epochs,
        batch_size=max(world, min(config.batch_size, len(split)) // world * world),
        base_lr=config.base_lr,
        schedule=ScheduleConfig(warmup_epochs=0.5),
        precision="fp32",
    )
    loader = training_loader(
        split,
        context.input,
        batch_size=train.batch_size // world,
        seed=SEED,
        workers=config.workers,
        rank=rank,
        world_size=world,
        device=context.device,
    )
    return context.fit(judge, loader, train, label="judge", images_per_epoch=len(split), options="task.judge")


def _key(config: JudgeConfig, dataset: Dataset, channels: int, input_config: InputConfig) -> str:
    """Of all that shapes the judge; torch's own version and the device are left out, as they are for methods."""
    what = [VERSION, config.shaping(), channels, dataset.fingerprint(), input_config.shaping()]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def _loaded(judge: Judge, path: Path) -> bool:
    """Whether a judge was loaded from `path`. A damaged file counts as none, since the judge can be trained again."""
    try:
        with safe_open(path, "pt") as file:
            names = file.keys()
            state = {name: file.get_tensor(name) for name in names}
            intact = (file.metadata() or {}).get(_CHECKSUM) == _checksum(state)
        if intact:
            judge.load_state_dict(state)
    except (OSError, SafetensorError, RuntimeError):
        return False
    return intact


def _checksum(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _keep(judge: Judge, path: Path, say: Callable[[str], None]) -> None:
    if get_rank() > 0:
        return
    try:
        state = {key: value.cpu() for key, value in judge.state_dict().items()}
        write_atomic(path, save(state, {_CHECKSUM: _checksum(state)}))
    except OSError as error:
        say(f"reconstruction: the classifier cannot be kept for other runs: {error}")


def _all_ranks(here: bool) -> bool:
    """Whether it holds on every rank: they train together or not at all."""
    world = get_world_size()
    if world == 1:
        return here
    answers = [here] * world
    distributed.all_gather_object(answers, here)
    return all(answers)
