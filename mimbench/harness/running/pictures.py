"""The picture of a pretraining: test images, the same images masked, and their reconstruction."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from mimbench.contract import ImageSplit, Method
from mimbench.data import DeviceTransform, denormalise, evaluation_loader
from mimbench.data.pipeline.subsets import subset
from mimbench.drawing import image_grid, shade_masked
from mimbench.engine.ranks import on_first_rank
from mimbench.errors import LeaseLost, NotSupported
from mimbench.harness.planning.cells import Pretraining
from mimbench.masks import resize_mask
from mimbench.store.artifacts import damage_of
from mimbench.store.store import Store

IMAGES = 8
CLIPS = 3
SEED = 0
"""Seed of images and masks: the same for every method and seed, so that pictures can be compared."""


def picture_name(pretraining: Pretraining) -> tuple[str, str]:
    """Folder below `artifacts`, and file name, of the picture of a pretraining."""
    return f"{pretraining.recipe.method}-s{pretraining.seed}-{pretraining.fingerprint}", "reconstruction.png"


@on_first_rank
def save_picture(
    pretraining: Pretraining, restore_method: Callable[[], Method], store: Store, say: Callable[[str], None]
) -> dict[str, str]:
    """Draw the picture of a pretraining, unless it exists already. An error is printed, and only LeaseLost is raised.

    Returns:
        {"reconstruction": path relative to the results folder}, or {} if the method reconstructs no images.
    """
    if pretraining.recipe.method_class().reconstruct is Method.reconstruct:
        return {}
    folder, name = picture_name(pretraining)
    path = store.artifact(folder, name)
    try:
        if path.is_symlink() or not path.exists() or damage_of(path, None):
            store.save_artifact(folder, name, picture_of(restore_method(), pretraining))
    except NotSupported:
        return {}
    except LeaseLost:
        raise
    except Exception as error:
        say(f"no reconstruction picture of {pretraining.label}: {error}")
        return {}
    return {"reconstruction": str(path.relative_to(store.root))}


@torch.no_grad()
def picture_of(method: Method, pretraining: Pretraining) -> bytes:
    """A PNG with one row per test image: original, masked, reconstructed. A clip has three rows of frames.

    Args:
        method: the pretrained method of `pretraining`, in evaluation mode, on any device.

    Raises:
        NotSupported: the method predicts no pixels, or there are no test images.
    """
    device = next(method.parameters()).device
    split, input_config = pretraining.dataset.split("test"), pretraining.recipe.input
    if not isinstance(split, ImageSplit):
        raise NotSupported(f"dataset {pretraining.recipe.dataset!r} has no plain test images")
    count = IMAGES if input_config.frames == 1 else CLIPS
    generator = torch.Generator().manual_seed(SEED)
    chosen = subset(split, torch.randperm(len(split), generator=generator)[:count].tolist())
    cells = method.masked_cells(method.sample_mask(len(chosen), generator))
    if cells is None:
        raise NotSupported(f"the masks of method {method.name!r} are no grid")
    cells = cells.to(device)
    ((pixels, _),) = evaluation_loader(chosen, input_config, batch_size=IMAGES, device=device)
    transform = DeviceTransform(input_config, pretraining.channels, train=False, batched=split.is_in_memory)
    images = transform.to(device)(pixels.to(device))
    rebuilt = denormalise(method.reconstruct(images, cells), input_config)
    images, masked = denormalise(images, input_config), resize_mask(cells, images.shape[2:])
    names, is_clip = ("original", "masked", "reconstructed"), images.ndim == 5
    rows: list[tuple[Tensor, ...]] = []
    for one in zip(images, masked, rebuilt, strict=True):
        rows += _rows_of_clip(*one) if is_clip else [(one[0], shade_masked(one[0], one[1]), one[2])]
    return image_grid(
        rows,
        columns=() if is_clip else names,
        labels=names * len(images) if is_clip else (),
        title=f"{pretraining.label}: {masked.float().mean():.0%} masked",
        footnote=method.reconstruction_note,
    )


def _rows_of_clip(clip: Tensor, masked: Tensor, rebuilt: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Frames [C, H, W] of a clip [C, T, H, W]: original, masked (bool [T, H, W]) and reconstructed."""
    yield clip.unbind(1)
    yield tuple(map(shade_masked, clip.unbind(1), masked))
    yield rebuilt.unbind(1)
