"""Sparse convolution by masking: a convolutional network that computes on visible cells only (SparK)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mimbench.compute.blocks import has_runner, uncompiled
from mimbench.distributed import mean_over_ranks
from mimbench.errors import InputError
from mimbench.masks import resize_mask
from mimbench.shared_batch import current_share

_BATCH_NORM = (nn.BatchNorm2d, nn.SyncBatchNorm)
_LOCAL = (nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d)
_REFUSED = (nn.GroupNorm, nn.modules.instancenorm._InstanceNorm, nn.MultiheadAttention)


@contextmanager
def visible_only(
    network: nn.Module, mask: Tensor, *, response_norm: Literal["image", "batch"] = "image"
) -> Iterator[None]:
    """Within this context, a convolutional network computes as if masked cells did not exist.

    - A convolution or pooling reads zero at masked cells, and puts out zero there.
    - A batch norm takes its statistics, also the running ones, over the visible cells of the batch, and puts out zero
      at masked cells. If it is synchronised, over those of all ranks.
    - A layer norm over channels puts out zero at masked cells. A global response norm (ConvNeXt V2) takes its norms
      over the visible cells of each image.

    So a visible output does not depend on masked pixels. These are the semantics of SparK (arXiv:2301.03580;
    keyu-tian/SparK@a63e386f, pretrain/encoder.py). Outputs at masked cells have no meaning; replace them by mask
    tokens. All hooks are removed at the end, also after an error.

    Args:
        network: an encoder or another module whose maps [B, C, h, w] are aligned with the image.
        mask: bool [B, Gh, Gw], True = masked, on the grid of the coarsest map: (image_size // stride,) * 2.
        response_norm: "batch": a global response norm takes its norms over the visible cells of the whole batch, as
            facebookresearch/ConvNeXt-V2@25538957 models/convnextv2_sparse.py does; also those of other processes that
            share the batch.

    Raises:
        InputError: the network has parts that mix cells in another way (attention, group norm), or is compiled, or uses
            gradient checkpointing. At a map that is coarser than the mask, or whose size is no multiple of it, the
            network's forward pass raises it.
    """
    _check(network, mask)
    cells = _Cells(mask)
    with ExitStack() as hooks:
        hooks.enter_context(uncompiled(network))
        for module in network.modules():
            for register, hook in _hooks(module, cells, response_norm == "batch"):
                hooks.callback(register(hook).remove)
        yield


class _Cells:
    """The mask at the size of each map, computed once per size."""

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask
        self._masked: dict[tuple[int, int], Tensor] = {}
        self._visible: dict[tuple[int, int], Tensor] = {}

    def masked(self, height: int, width: int) -> Tensor:
        """bool [B, h, w]."""
        rows, columns = self.mask.shape[1:]
        if height < rows or width < columns:
            raise InputError(
                f"visible_only meets a map of {height} x {width} cells, coarser than the mask, {rows} x {columns}; "
                "draw the mask on the grid of the coarsest map, and use a network without squeeze-and-excitation"
            )
        if (height, width) not in self._masked:
            self._masked[height, width] = resize_mask(self.mask, (height, width))
        return self._masked[height, width]

    def visible(self, height: int, width: int) -> Tensor:
        """Indices of the visible cells in B * h * w, int64 [N]."""
        if (height, width) not in self._visible:
            visible = ~self.masked(height, width).flatten()
            # The meta device holds no values, only sizes: take all cells there.
            index = torch.arange(len(visible), device="meta") if visible.is_meta else visible.nonzero().squeeze(1)
            self._visible[height, width] = index
        return self._visible[height, width]

    def blank(self, x: Tensor) -> Tensor:
        """A map [B, C, h, w], zero at masked cells."""
        return x.masked_fill(self.masked(*x.shape[-2:]).unsqueeze(1), 0)

    def blank_last(self, x: Tensor) -> Tensor:
        """A map [B, h, w, C], zero at masked cells; pooled features [B, C] as they are."""
        return x if x.ndim < 4 else x.masked_fill(self.masked(*x.shape[1:3]).unsqueeze(-1), 0)


def _hooks(module: nn.Module, cells: _Cells, joins_images: bool) -> list[tuple[Callable[..., Any], Callable[..., Any]]]:
    """(function that registers, hook) for what `module` has to do differently.

    joins_images: whether a global response norm sees the batch as one image.
    """
    before, after = module.register_forward_pre_hook, module.register_forward_hook

    def on_input(blank: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
        return lambda _, inputs: (blank(inputs[0]), *inputs[1:])

    def on_output(blank: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
        return lambda _, inputs, output: blank(output)

    if isinstance(module, _LOCAL):
        return [(before, on_input(cells.blank)), (after, on_output(cells.blank))]
    if isinstance(module, _BATCH_NORM):
        return _batch_norm_hooks(module, cells)
    if _is_response_norm(module):
        is_last = getattr(module, "channel_dim", -1) in (-1, 3)
        blank = cells.blank_last if is_last else cells.blank
        if not joins_images:
            return [(before, on_input(blank)), (after, on_output(blank))]
        return _response_norm_hooks(module, blank, len(cells.mask), rows=1 if is_last else 2)
    if isinstance(module, nn.LayerNorm):
        # timm's LayerNorm2d takes [B, C, h, w], torch's own [B, h, w, C].
        return [
            (after, on_output(cells.blank if type(module).__name__.startswith("LayerNorm2d") else cells.blank_last))
        ]
    return []


def _response_norm_hooks(
    norm: nn.Module, blank: Callable[[Tensor], Tensor], images: int, rows: int
) -> list[tuple[Callable[..., Any], Callable[..., Any]]]:
    """The norm gets the batch as one image, and below it a row that is as long as the images of other processes."""
    others = int(current_share() is not None)

    def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = _stacked(blank(inputs[0]), rows)
        return (torch.cat((x, _row_of_others(x, rows)), rows) if others else x, *inputs[1:])

    def after(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = output.narrow(rows, 0, output.shape[rows] - others)
        return blank(x.unflatten(rows, (images, -1)).squeeze(0).movedim(rows - 1, 0))

    return [(norm.register_forward_pre_hook, before), (norm.register_forward_hook, after)]


def _row_of_others(x: Tensor, rows: int) -> Tensor:
    """A row of cells of `x` whose norm in each channel is that of the images of all other processes."""
    share, values = current_share(), x.float()
    local = values.square().sum((rows, rows + 1), keepdim=True)
    total = mean_over_ranks(local, differentiable=True) * (share.processes if share else 1)
    first = (total - local).clamp(min=1e-20).sqrt().to(x.dtype)
    rest = x.narrow(rows, 0, 1).narrow(rows + 1, 1, x.shape[rows + 1] - 1)
    return torch.cat((first, torch.zeros_like(rest)), rows + 1)


def _stacked(x: Tensor, rows: int) -> Tensor:
    """The images of a batch one below the other, as one image. rows: the axis of rows, 1 or 2."""
    return x.movedim(0, rows - 1).unsqueeze(0).flatten(rows, rows + 1)


def _batch_norm_hooks(norm: nn.Module, cells: _Cells) -> list[tuple[Callable[..., Any], Callable[..., Any]]]:
    """The norm gets the visible cells as samples [N, C, 1, 1], and its output goes back to their places."""
    shapes: list[torch.Size] = []

    def gather(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = inputs[0]
        shapes.append(x.shape)
        rows = x.permute(0, 2, 3, 1).flatten(0, 2).index_select(0, cells.visible(*x.shape[-2:]))
        return (rows[:, :, None, None], *inputs[1:])

    def scatter(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        batch, channels, height, width = shapes.pop()
        places = output.new_zeros(batch * height * width, channels)
        places = places.index_copy(0, cells.visible(height, width), output[:, :, 0, 0])
        return places.unflatten(0, (batch, height, width)).permute(0, 3, 1, 2)

    return [(norm.register_forward_pre_hook, gather), (norm.register_forward_hook, scatter)]


def _is_response_norm(module: nn.Module) -> bool:
    """timm's GlobalResponseNorm, or the GRN of the official ConvNeXt V2 code; each library has its own class."""
    return type(module).__name__ in ("GlobalResponseNorm", "GRN")


def _check(network: nn.Module, mask: Tensor) -> None:
    if mask.dtype != torch.bool or mask.ndim != 3:
        raise InputError(f"visible_only needs a mask bool [B, Gh, Gw], not {mask.dtype} {list(mask.shape)}")
    if torch.compiler.is_compiling():
        raise InputError("visible_only does not work in compiled code; call it outside of what you compile")
    for name, module in network.named_modules():
        kind = type(module).__name__
        if isinstance(module, _REFUSED) or "Attention" in kind:
            raise InputError(
                f"visible_only takes convolutional networks; {name or 'this one'} is a {kind}, which mixes visible and "
                "masked cells"
            )
        if hasattr(module, "_orig_mod") or (module._compiled_call_impl is not None and not has_runner(module)):
            raise InputError(f"visible_only does not work with a compiled module ({name or kind}); leave it uncompiled")
        if getattr(module, "grad_checkpointing", False) and module.training:
            raise InputError(
                "visible_only does not work with gradient checkpointing, whose second forward pass would see masked "
                "pixels; set pretrain.grad_checkpointing to false"
            )
