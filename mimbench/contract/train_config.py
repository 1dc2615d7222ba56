"""Options of a training: its length, its optimizer, and how it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from mimbench.contract.config import Config, added, cosmetic
from mimbench.contract.schedule_config import ScheduleConfig
from mimbench.errors import InputError


def _split_list(value: Any) -> Any:
    """A text of names with commas as a list of them; everything else as it is."""
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_split_list)]
"""Several names: a list, or a text with commas."""


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
    track: Names = cosmetic(())
    """Trackers that get the curves too: tensorboard, wandb, mlflow, aim. Each is an extra of mimbench to install."""

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
