"""What makes the steps of a training faster: compiled blocks, the form of attention, TF32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from rich.console import Console
from torch import nn

from mimbench.compute.attention import Form, restore_attention_forms, set_attention_form
from mimbench.compute.compiling import OPTIONS, compiled_blocks
from mimbench.compute.kinds import Kind
from mimbench.contract import TrainConfig
from mimbench.engine.progress import print_line
from mimbench.errors import InputError

REPAYS_AFTER = 5_000
"""Micro-batches from which `compile = "auto"` compiles on CUDA. Compiling a ViT-B takes about 30 s; a compiled step of
SimMIM ViT-B takes 20 ms less than one of 90 ms, and that of a small network some ms less (shared/findings/gpu.md)."""


@dataclass(frozen=True)
class Acceleration:
    """What one training uses."""

    compiles: bool
    cuda_graphs: bool
    form: Form | None
    """None: each module keeps its own form."""


def choose_acceleration(config: TrainConfig, device: torch.device, micro_batches: int) -> Acceleration:
    """What `config.compile` and `config.attention` mean on a device, for a training of so many micro-batches.

    Raises:
        InputError: CUDA graphs were asked for on another device, or with accumulated gradients.
    """
    on_cuda = device.type == "cuda"
    cuda_graphs = config.compile == "cuda-graphs"
    if cuda_graphs and not on_cuda:
        raise InputError('compile = "cuda-graphs" needs a CUDA device; use "on" or "auto" here')
    if cuda_graphs and config.accumulate > 1:
        raise InputError(
            f'compile = "cuda-graphs" cannot accumulate gradients over {config.accumulate} micro-batches, which would '
            'overwrite each other; set accumulate = 1, or compile = "on"'
        )
    compiles = config.compile in ("on", "cuda-graphs")
    if config.compile == "auto":
        compiles = on_cuda and micro_batches >= REPAYS_AFTER
    form: Form | None = None
    if config.attention != "auto":
        form = config.attention
    elif compiles and on_cuda:
        form = "plain"  # the fastest with a bias inside of compiled blocks, by the measurement above
    return Acceleration(compiles, cuda_graphs, form)


@contextmanager
def accelerated(
    model: nn.Module, choice: Acceleration, *, falls_back: bool, label: str, console: Console
) -> Iterator[Callable[[], str]]:
    """Within this context, `model` computes as chosen; at the end it is as before.

    Args:
        model: on its device, with its final memory format.
        falls_back: blocks that cannot be compiled run eagerly, with a line on the console. Otherwise they are an error.
        label: names the training in messages.

    Yields:
        A function that says what was used so far, for the record, such as "2 kinds of blocks compiled, attention
        plain"; "" for nothing.
    """
    before = set_attention_form(model, choice.form) if choice.form else []
    try:
        if not choice.compiles:
            yield lambda: _describe([], choice, bool(before))
            return

        def on_failure(problem: str) -> None:
            print_line(console, f"{label}: blocks run uncompiled: {problem}")

        options = OPTIONS["cuda-graphs" if choice.cuda_graphs else "kernels"]
        with compiled_blocks(model, options, on_failure=on_failure if falls_back else None) as kinds:
            yield lambda: _describe(kinds, choice, bool(before))
    finally:
        restore_attention_forms(before)


def _describe(kinds: list[Kind], choice: Acceleration, has_forms: bool) -> str:
    compiled = sum(1 for kind in kinds if kind.graphs and not kind.problem)
    parts = []
    if compiled:
        graphs = " with CUDA graphs" if choice.cuda_graphs else ""
        parts.append(f"{compiled} kind{'s' * (compiled > 1)} of blocks compiled{graphs}")
    eager = sum(1 for kind in kinds if kind.problem or kind.is_full)
    parts += [f"{eager} partly or wholly uncompiled"] if eager else []
    parts += [f"attention {choice.form}"] if has_forms else []
    return ", ".join(parts)


@contextmanager
def matrix_precision(precision: str, device: torch.device) -> Iterator[None]:
    """Within this context, float32 products and convolutions on CUDA use TF32 if `precision` is "tf32", and else not.

    torch's default computes convolutions, but not products, in TF32.
    """
    if device.type != "cuda":
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def set_channels_last(model: nn.Module) -> None:
    """Store convolution kernels over images with the channels innermost, as `channels_last` asks."""
    for parameter in model.parameters():
        if parameter.ndim == 4:  # kernels over clips have five axes, and stay as they are
            parameter.data = parameter.data.to(memory_format=torch.channels_last)
