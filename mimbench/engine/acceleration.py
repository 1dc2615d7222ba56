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
"""Micro-batches from which `compile = "auto"` compiles on CUDA: they repay 30 s of compiling if each step takes 6 ms
less. `benchmarks/gpu.sh` measures both."""


@dataclass(frozen=True)
class Acceleration:
    """What one training uses."""

    compiles: bool
    cuda_graphs: bool
    form: Form | None
    """None: each module keeps its own form."""


def choose_acceleration(
    config: TrainConfig, device: torch.device, micro_batches: int, *, has_dropout: bool = False
) -> Acceleration:
    """What `config.compile` and `config.attention` mean on a device, for a training of so many micro-batches.

    Args:
        has_dropout: whether the model has dropout, for which compiled blocks and other kernels draw other numbers.

    Raises:
        InputError: CUDA graphs or flex were asked for on another device, CUDA graphs with accumulated gradients, or one
            of both for a model with dropout.
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
        compiles = on_cuda and micro_batches >= REPAYS_AFTER and not has_dropout
    if has_dropout and (compiles or config.attention not in ("auto", "sdpa")):
        option = f"compile = {config.compile!r}" if compiles else f"attention = {config.attention!r}"
        raise InputError(
            f"{option} would change the numbers of a model with dropout, which then draws others; leave it out, or set "
            "the rates of dropout to 0"
        )
    if config.attention == "flex" and not on_cuda:
        raise InputError('attention = "flex" trains on CUDA only; leave it out')
    form: Form | None = None
    if config.attention != "auto":
        form = config.attention
    elif compiles and on_cuda:
        form = "plain"  # its products and softmax are fused with the rest of a compiled block
    return Acceleration(compiles, cuda_graphs, form)


def has_dropout(model: nn.Module) -> bool:
    """Whether a layer of the model zeroes single values at random, unlike drop path."""
    return any(isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0 for module in model.modules())


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
