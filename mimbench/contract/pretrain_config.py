"""Options of a pretraining: its budget, its images, the start of its weights, and what is measured on the way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import model_validator

from mimbench.contract.config import added, cosmetic
from mimbench.contract.image_sizes import ImageSizes
from mimbench.contract.train_config import Names, TrainConfig


class PretrainConfig(TrainConfig):
    """The budget of a pretraining, and the epoch or step after which its weights are taken."""

    at_epoch: int | None = added(None, ge=0)
    """Take the weights after this epoch of the schedule; 0 means untrained. Default: the last epoch."""
    at_step: int | None = added(None, ge=0)
    """The same for a budget in `steps`: take the weights after this optimizer step. Default: the last step."""
    data_share: float = added(1.0, gt=0, le=1)
    """Fraction of the training images to pretrain on, with every class in proportion."""
    data_seed: int = added(0, ge=0)
    """Which images these are."""
    plant_count: int = added(0, ge=0)
    """Number of planted images (canaries), drawn from all training images, whatever their class."""
    plant_copies: int = added(1, ge=0)
    """How often each of them is among the images to pretrain on; 0 leaves them out."""
    plant_seed: int = added(0, ge=0)
    """Which images are planted. Of two counts with one seed, the smaller set is part of the larger one."""
    image_sizes: ImageSizes = added(())
    """[share, px] pairs, such as [[0, 112], [0.8, 224]]: side of the training images from this share of the training
    on, changed only between epochs. All views of a method scale along. Default: input.image_size."""
    start: Path | None = added(None)
    """File of encoder weights (encoder.safetensors of a checkpoint) to start from, of the same [encoder]. Its content
    is part of the fingerprint. Default: initial weights from the seed."""
    monitor: Names = cosmetic(())
    """Monitors by name, such as ["knn", "rankme"], which measure the encoder on training images on the way and change
    no weight. `mimbench list` prints them."""
    monitor_every: int | None = cosmetic(None, ge=1)
    """Epochs between two measurements. Default: 1, unless `monitor_steps` is set."""
    monitor_steps: int | None = cosmetic(None, ge=1)
    """Optimizer steps between two measurements, instead of `monitor_every`."""
    monitor_images: int = cosmetic(1000, ge=10)
    """Training images that monitors see, at most; the same ones for all methods and seeds."""

    @model_validator(mode="before")
    @classmethod
    def _end_is_the_end(cls, values: Any) -> Any:
        """Drop an `at_epoch` that equals `epochs`, or an `at_step` that equals `steps`: it means the same as none."""
        if not isinstance(values, Mapping):
            return values
        ends = [at for at, all_ in (("at_epoch", "epochs"), ("at_step", "steps")) if values.get(at) == values.get(all_)]
        return {key: value for key, value in values.items() if key not in ends}

    @model_validator(mode="after")
    def _within(self) -> PretrainConfig:
        if self.at_epoch is not None and self.epochs is None:
            raise ValueError(f"at_epoch {self.at_epoch}: the budget is in steps; use at_step")
        if self.at_step is not None and self.steps is None:
            raise ValueError(f"at_step {self.at_step}: the budget is in epochs; use at_epoch, or set steps")
        if self.end > self.length:
            raise ValueError(f"at_{self.unit} {self.end} is more than the {self.length} {self.unit}s")
        if self.monitor_every is not None and self.monitor_steps is not None:
            raise ValueError(
                f"monitor_every {self.monitor_every} and monitor_steps {self.monitor_steps} are both set: set only one"
            )
        if self.start and self.start.is_dir():
            raise ValueError(f"start is the folder {self.start}; write {self.start / 'encoder.safetensors'}")
        if self.data_seed and self.data_share == 1:
            raise ValueError("data_seed needs a data_share below 1: it chooses the images")
        if not self.plant_count and (self.plant_copies != 1 or self.plant_seed):
            raise ValueError("plant_copies and plant_seed need a plant_count above 0: the number of planted images")
        return self

    def monitoring_interval(self, steps_per_epoch: int) -> int:
        """Optimizer steps between two measurements of the monitors."""
        return self.monitor_steps or (self.monitor_every or 1) * steps_per_epoch

    @property
    def end(self) -> int:
        """The epoch or step, by `unit`, after which the weights are taken."""
        chosen = self.at_step if self.epochs is None else self.at_epoch
        return self.length if chosen is None else chosen
