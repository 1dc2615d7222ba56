"""Options of a training: its length, its learning rate, its optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from mimbench.contract.config import Config, added, cosmetic
from mimbench.contract.image_sizes import ImageSizes
from mimbench.errors import InputError


def split_list(value: Any) -> Any:
    """A text of names with commas as a list of them; everything else as it is."""
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


class ScheduleConfig(Config):
    """The learning rate over optimizer steps."""

    kind: Literal["cosine", "linear", "multistep", "constant"] = "cosine"
    convention: Literal["plain", "simmim", "mae", "beit", "ijepa", "spark"] = "plain"
    """Whose arithmetic to follow. "plain": linear warmup, then a full cosine (or line) over the remaining steps.
    The others: the exact values of these official scripts. Rates are given before scaling by the batch size; "simmim"
    and "spark" scale `warmup_lr` and `min_lr` too."""
    warmup_epochs: float = Field(0.0, ge=0)
    warmup_steps: int | None = added(None, ge=0)
    """The warmup in optimizer steps, instead of `warmup_epochs`."""
    warmup_lr: float = Field(0.0, ge=0)
    min_lr: float = Field(0.0, ge=0)
    cosine_share: float = added(1.0, gt=0, le=1)
    """Share of its half wave that a cosine of the learning rate goes through; below 1 it ends above min_lr."""
    milestones: tuple[float, ...] = ()
    """Epochs after which the rate is multiplied by `gamma` (multistep)."""
    milestone_steps: tuple[int, ...] = added(())
    """The same in optimizer steps, instead of `milestones`."""
    gamma: float = Field(0.1, gt=0)
    cycles: int = added(1, ge=1)
    """How often the schedule runs, warmup and all, each time over an equal share of the training (dBOT's stages)."""

    @model_validator(mode="after")
    def _one_unit(self) -> ScheduleConfig:
        if self.warmup_steps is not None and self.warmup_epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs:g} and warmup_steps {self.warmup_steps}: set only one")
        if self.milestones and self.milestone_steps:
            raise ValueError("milestones and milestone_steps are both set: set only one")
        if self.cosine_share != 1 and self.kind != "cosine":
            raise ValueError(
                f"cosine_share {self.cosine_share:g} is for a cosine, and kind is {self.kind}; leave it out"
            )
        return self

    @property
    def has_warmup(self) -> bool:
        return bool(self.warmup_steps or self.warmup_epochs)


class TrainConfig(Config):
    """A training budget and its optimizer. Its length is in epochs or in optimizer steps; rates are per optimizer step.

    A later layer of a recipe that sets one unit removes the other unit of the layers below: see `docs/concepts.md`.
    """

    epochs: int | None = Field(ge=1, le=10_000_000)
    """None if `steps` is set. A subclass with a default declares `int | None` too."""
    steps: int | None = added(None, ge=1)
    """Optimizer steps of the whole training, instead of `epochs`. It ends within an epoch if need be."""
    batch_size: int = Field(ge=1)
    """Images per optimizer step, summed over all processes and accumulated micro-batches."""
    base_lr: float = Field(gt=0)
    lr_divisor: int | None = Field(None, ge=1)
    """lr = base_lr x batch_size / lr_divisor (SimMIM 512, MAE 256, BEiT none). Without it, lr = base_lr."""
    optimizer: Literal["adamw", "sgd", "lars", "lamb"] = "adamw"
    """sgd and lars use `momentum`; adamw and lamb use `betas` and `eps`."""
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = added(False)
    """Nesterov's momentum, of sgd."""
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    final_weight_decay: float | None = added(None, ge=0)
    """Weight decay goes from weight_decay to this on a half cosine over all steps (DINO, iBOT). Default: constant."""
    layer_decay: float | None = Field(None, gt=0, le=1)
    clip_grad: float | None = Field(None, gt=0)
    """Largest L2 norm of the gradient. Default: no clipping."""
    clip_each: bool = added(False)
    """clip_grad limits the norm of each parameter's gradient (DINO, iBOT), not that of the whole gradient."""
    schedule: ScheduleConfig = ScheduleConfig()
    accumulate: int = Field(1, ge=1)
    """Micro-batches per optimizer step."""
    auto_batch: bool = cosmetic(False)
    """Raise `accumulate` until a micro-batch fits the device: found before the training, printed, and recorded as
    `accumulate`, which enters the fingerprint."""
    parallel: Literal["ddp", "fsdp"] = cosmetic("ddp")
    """How several processes share a training. ddp: each holds the whole model. fsdp: each holds a part of the weights,
    gradients and optimizer states (torch's FSDP2), for encoders that do not fit. Results change by rounding only."""
    precision: Literal["auto", "fp32", "bf16", "tf32"] = "auto"
    """auto: bf16 autocast on CUDA devices that support it, else fp32. tf32: fp32 whose products round their factors to
    ten bits, which CUDA devices since Ampere compute several times faster; the record states it."""
    compile: Literal["auto", "on", "off", "cuda-graphs"] = cosmetic("auto")
    """Compile the blocks of the networks, each kind once. auto: on CUDA, if the training is long enough to repay it.
    cuda-graphs: also replay the kernels of each block as one CUDA graph. Results change by rounding only."""
    attention: Literal["auto", "sdpa", "plain", "flex", "aligned"] = cosmetic("auto")
    """Kernels of attention with a relative position bias; see mimbench/compute/attention.py. auto: plain in blocks that
    are compiled on CUDA, else as timm has it. Results change by rounding only."""
    channels_last: bool = cosmetic(False)
    grad_checkpointing: bool = cosmetic(False)
    workers: int = cosmetic(4, ge=0, le=1024)
    """DataLoader workers. Datasets in memory use none."""
    checkpoint_every: int | None = cosmetic(10, ge=1)
    """Epochs between saved training states, from which an interrupted run resumes; None with `checkpoint_steps`."""
    checkpoint_steps: int | None = cosmetic(None, ge=1)
    """Optimizer steps between saved training states, instead of `checkpoint_every`."""
    checkpoint_minutes: float | None = cosmetic(15.0, gt=0)
    """Save a state, between two steps, if the last one is older than so many minutes. None: by epochs or steps only."""
    track: tuple[str, ...] = cosmetic(())
    """Trackers that get the curves too: tensorboard, wandb, mlflow, aim. Each is an extra of mimbench to install."""

    @field_validator("track", mode="before")
    @classmethod
    def _trackers_by_comma(cls, value: Any) -> Any:
        return split_list(value)

    @model_validator(mode="before")
    @classmethod
    def _steps_replace_a_default(cls, values: Any) -> Any:
        """Leave out defaults of `epochs` and `checkpoint_every` if their counterparts in steps are set."""
        if not isinstance(values, Mapping):
            return values
        pairs = (("epochs", "steps"), ("checkpoint_every", "checkpoint_steps"))
        replaced = [one for one, steps in pairs if values.get(steps) is not None and one not in values]
        return {**values, **dict.fromkeys(replaced)}

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if self.epochs is not None and self.steps is not None:
            raise ValueError(f"epochs {self.epochs} and steps {self.steps} are both set: set only one")
        if self.epochs is None and self.steps is None:
            raise ValueError("epochs and steps are both none: set one of them")
        if self.checkpoint_every is not None and self.checkpoint_steps is not None:
            raise ValueError(
                f"checkpoint_every {self.checkpoint_every} and checkpoint_steps {self.checkpoint_steps} are both set: "
                "set only one"
            )
        if self.checkpoint_every is None and self.checkpoint_steps is None:
            raise ValueError("checkpoint_every and checkpoint_steps are both none: set one of them")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must lie in [0, 1), not {self.betas}")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of accumulate {self.accumulate}")
        if self.nesterov and (self.optimizer != "sgd" or not self.momentum):
            raise ValueError("nesterov is an option of sgd with momentum; leave it out")
        if self.final_weight_decay is not None and not self.weight_decay:
            raise ValueError("final_weight_decay needs a weight_decay above 0 to start from")
        if self.optimizer == "lamb" and not self.weight_decay:
            raise ValueError(
                "lamb adapts the steps of decayed parameters only: give weight_decay above 0, or use adamw"
            )
        if self.parallel == "fsdp":
            self._require_splittable()
        if self.clip_each and self.clip_grad is None:
            raise ValueError("clip_each needs clip_grad, the largest norm")
        # A warmup in the other unit is checked by `Schedule`, which knows the steps in an epoch.
        for name, warmup, length in (
            ("epochs", self.schedule.warmup_epochs, self.epochs),
            ("steps", self.schedule.warmup_steps, self.steps),
        ):
            if warmup and length and warmup >= length:
                raise ValueError(f"warmup_{name} {warmup:g} must be less than {name}, which is {length}")
        return self

    def _require_splittable(self) -> None:
        """Raise ValueError if other options cannot be combined with `parallel = "fsdp"`."""
        if self.optimizer in ("lars", "lamb"):
            raise ValueError(f'parallel "fsdp" splits weights, and {self.optimizer} needs their whole norms: use "ddp"')
        if self.compile == "cuda-graphs":
            raise ValueError('compile "cuda-graphs" needs weights that stay in their place, unlike parallel "fsdp"')
        if self.channels_last:
            raise ValueError('channels_last is not for parallel "fsdp", which splits contiguous weights only')
        if self.auto_batch:
            raise ValueError('auto_batch tries micro-batches on one device; with parallel "fsdp" set accumulate')

    @property
    def unit(self) -> Literal["epoch", "step"]:
        """What the length of the training is counted in."""
        return "step" if self.epochs is None else "epoch"

    @property
    def length(self) -> int:
        """Length of the training, in `unit`."""
        return self.epochs or self.steps or 0

    def saving_interval(self, steps_per_epoch: int) -> int:
        """Optimizer steps between two saved training states."""
        return self.checkpoint_steps or (self.checkpoint_every or 1) * steps_per_epoch

    @property
    def lr_scale(self) -> float:
        """Factor from a rate in the recipe to the effective rate: batch_size / lr_divisor, or 1."""
        return 1.0 if self.lr_divisor is None else self.batch_size / self.lr_divisor

    @property
    def lr(self) -> float:
        """The effective peak learning rate."""
        return self.base_lr * self.lr_scale

    def micro_batch(self, processes: int) -> int:
        """Images per forward pass in each process."""
        return self.batch_size // self.accumulate // processes

    def require_several(self, processes: int, where: str) -> None:
        """Raise InputError if `parallel` needs more processes than there are.

        Args:
            where: path of this table, such as "pretrain", for the message.
        """
        if self.parallel == "fsdp" and processes == 1:
            raise InputError(
                f"{where}.parallel=fsdp splits a training over processes, and there is one: start several with "
                f"`torchrun --nproc-per-node N -m mimbench`, or set {where}.parallel=ddp"
            )

    def require_processes(self, processes: int, where: str) -> None:
        """Raise InputError if this number of processes cannot share a batch equally.

        Args:
            where: path of this table, such as "pretrain", for the message.
        """
        if self.batch_size % (self.accumulate * processes):
            parts = f"{processes} processes" + (f" x {self.accumulate} micro-batches" if self.accumulate > 1 else "")
            raise InputError(
                f"{where}.batch_size {self.batch_size} cannot be shared equally by {parts}; choose a multiple of "
                f"{self.accumulate * processes} with --set {where}.batch_size=N"
            )

    def require_images(self, images: int, where: str) -> None:
        """Raise InputError if this number of training images does not fill a batch.

        Args:
            where: path of this table, such as "pretrain", for the message.
        """
        if self.batch_size > images:
            raise InputError(
                f"{where}.batch_size {self.batch_size} is more than the {images} training images; "
                f"lower it with --set {where}.batch_size=N"
            )

    def lr_arithmetic(self) -> str:
        """The effective rate and its computation, such as "lr = base_lr x batch_size / 256 = ..."."""
        if self.lr_divisor is None:
            return f"lr = base_lr = {self.base_lr:g} (absolute)"
        return (
            f"lr = base_lr x batch_size / {self.lr_divisor} = "
            f"{self.base_lr:g} x {self.batch_size} / {self.lr_divisor} = {self.lr:g}"
        )


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
    monitor: tuple[str, ...] = cosmetic(())
    """Monitors by name, such as ["knn", "rankme"], which measure the encoder on training images on the way and change
    no weight. `mimbench list` prints them."""
    monitor_every: int | None = cosmetic(None, ge=1)
    """Epochs between two measurements. Default: 1, unless `monitor_steps` is set."""
    monitor_steps: int | None = cosmetic(None, ge=1)
    """Optimizer steps between two measurements, instead of `monitor_every`."""
    monitor_images: int = cosmetic(1000, ge=10)
    """Training images that monitors see, at most; the same ones for all methods and seeds."""

    @field_validator("monitor", mode="before")
    @classmethod
    def _monitors_by_comma(cls, value: Any) -> Any:
        return split_list(value)

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
