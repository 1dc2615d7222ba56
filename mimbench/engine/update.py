"""One optimizer step: bf16 autocast, gradient clipping, and what is called and checked before the update."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from rich.console import Console
from torch import nn

from mimbench.contract import TrainConfig
from mimbench.distributed import get_world_size
from mimbench.engine.adapter import RunnerModel, place_of_step
from mimbench.engine.progress import print_line
from mimbench.engine.sharding import is_split, own_part, whole_norms
from mimbench.errors import RunError
from mimbench.text import list_first


class UpdateWrapper(OptimWrapper):
    """mmengine's optimizer wrapper, with bf16 autocast on any device and clipping per parameter.

    mmengine's own autocast is for CUDA only. bf16 has the range of fp32, so the loss needs no scaling.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        before_update: Callable[[], None],
        bf16_on: str | None,
        clip_each: bool,
        **options: Any,
    ) -> None:
        """
        Args:
            before_update: called before each update, when all gradients are there and clipped.
            bf16_on: type of the device whose autocast is used; None: fp32.
            clip_each: limit the norm of each parameter's gradient instead of the norm of all gradients together.
            options: those of mmengine's OptimWrapper.
        """
        super().__init__(optimizer, **options)
        self._before_update, self._bf16_on, self._clip_each = before_update, bf16_on, clip_each

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        autocast = torch.autocast(self._bf16_on, dtype=torch.bfloat16) if self._bf16_on else nullcontext()
        with super().optim_context(model), autocast:
            yield

    def step(self, **kwargs: Any) -> None:
        if self.clip_grad_kwargs:
            self._clip_grad()
        self._before_update()
        self.optimizer.step(**kwargs)

    def _clip_grad(self) -> None:
        """Limit the norm of all gradients or of each. mmengine's own reads the norm, so that a CUDA device waits."""
        groups = self.optimizer.param_groups
        parameters = [one for group in groups for one in group["params"] if one.grad is not None]
        if not parameters:
            return
        if self._clip_each and (parameters[0].is_cuda or is_split(parameters[0])):
            clip_each_norm(parameters, self.clip_grad_kwargs["max_norm"])
        elif self._clip_each:
            for parameter in parameters:
                nn.utils.clip_grad_norm_(parameter, **self.clip_grad_kwargs)
        else:
            nn.utils.clip_grad_norm_(parameters, **self.clip_grad_kwargs)


def build_update(
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
    precision: str,
    device: torch.device,
    before_update: Callable[[], None],
) -> UpdateWrapper:
    """The update of a training: precision, clipping and accumulation as `config` has them.

    Args:
        precision: as `pick_precision` gives it.
        before_update: see `UpdateWrapper`.
    """
    return UpdateWrapper(
        optimizer,
        before_update=before_update,
        bf16_on=device.type if precision == "bf16" else None,
        clip_each=config.clip_each,
        accumulative_counts=config.accumulate,
        clip_grad={"max_norm": config.clip_grad} if config.clip_grad else None,
    )


def clip_each_norm(parameters: Sequence[nn.Parameter], max_norm: float) -> None:
    """Limit the L2 norm of each gradient, as torch's `clip_grad_norm_` does one by one, in a few kernels for all."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    scales = whole_norms(gradients)
    torch._foreach_add_(scales, 1e-6)
    torch._foreach_reciprocal_(scales)
    torch._foreach_mul_(scales, max_norm)
    torch._foreach_clamp_max_(scales, 1.0)
    torch._foreach_mul_([own_part(gradient) for gradient in gradients], scales)


class FirstUpdate:
    """Checks, before the first update of a training, what the step did to the model. Costs nothing afterwards."""

    def __init__(self, adapter: RunnerModel, label: str, console: Console) -> None:
        """label: names the training in messages."""
        self.adapter, self.label, self.console = adapter, label, console
        self._names = {name for name, _ in adapter.trainable.named_parameters()}
        self._is_done = False

    def check(self) -> None:
        """Raise RunError if parts of the model cannot learn; name parameters without a gradient on the terminal.

        Raises:
            RunError: the step made parameters, which the optimizer does not have; or the model has a
                `trained_encoder` and no parameter of it received a gradient.
        """
        if self._is_done:
            return
        self._is_done = True
        model = self.adapter.trainable
        parameters = dict(model.named_parameters())
        module = getattr(model, "method", model)
        whose, place = f"the training step of {type(module).__qualname__}", place_of_step(module)
        if new := sorted(set(parameters) - self._names):
            raise RunError(
                f"{whose} made parameters that the optimizer does not have: {list_first(new)}; make them in __init__ "
                f"or prepare ({place})"
            )
        encoder = getattr(model, "trained_encoder", None)
        if encoder is not None and all(parameter.grad is None for parameter in encoder.parameters()):
            raise RunError(
                f"{whose} gives no gradient to the encoder, which would stay as it was initialised; compute the loss "
                f"from the encoder's output, without no_grad or detach ({place})"
            )
        idle = [name for name, parameter in parameters.items() if parameter.requires_grad and parameter.grad is None]
        if idle:
            names = list_first([name.removeprefix("method.") for name in idle])
            if get_world_size() > 1:  # the ranks would wait for these gradients
                raise RunError(
                    f"{whose} gives no gradient to {len(idle)} parameters: {names}; training on several processes "
                    f"needs all of them: use them, or freeze them with requires_grad_(False) ({place})"
                )
            print_line(self.console, f"{self.label}: {len(idle)} parameters receive no gradient: {names}")
