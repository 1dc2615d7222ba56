"""The pictures of a pretraining: test images, the same images masked, and their reconstruction."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mimbench.contract import ImageSplit, Method
from mimbench.data import DeviceTransform, denormalise, evaluation_loader
from mimbench.data.pipeline.subsets import subset
from mimbench.drawing import animate, image_grid, shade_masked
from mimbench.engine.ranks import on_first_rank
from mimbench.errors import LeaseLost, NotSupported
from mimbench.harness.planning.cells import Pretraining
from mimbench.masks import resize_mask
from mimbench.store.artifacts import damage_of
from mimbench.store.store import Store

IMAGES = 8
CLIPS = 3
STILL, MOVING = "reconstruction.png", "moving_reconstruction.png"
COLUMNS = ("original", "masked", "reconstructed")
SEED = 0
"""Seed of images and masks: the same for every method and seed, so that pictures can be compared."""


class Examples(NamedTuple):
    """Test images [N, C, H, W] or clips [N, C, T, H, W], in [0, 1], and what a method makes of them."""

    images: Tensor
    masked: Tensor
    """bool [N, H, W] or [N, T, H, W], True = masked."""
    rebuilt: Tensor
    title: str
    footnote: str


def picture_names(pretraining: Pretraining) -> tuple[str, tuple[str, ...]]:
    """Folder below `artifacts`, and file names, of the pictures of a pretraining. Clips have a moving one too."""
    folder = f"{pretraining.recipe.method}-s{pretraining.seed}-{pretraining.fingerprint}"
    return folder, (STILL,) if pretraining.recipe.input.frames == 1 else (STILL, MOVING)


@on_first_rank
def save_pictures(
    pretraining: Pretraining, restore_method: Callable[[], Method], store: Store, say: Callable[[str], None]
) -> dict[str, str]:
    """Draw the pictures of a pretraining, unless they exist already. An error is printed; only LeaseLost is raised.

    Returns:
        {"reconstruction": path relative to the results folder}, for clips "moving_reconstruction" too; {} if the method
        reconstructs no images.
    """
    if pretraining.recipe.method_class().reconstruct is Method.reconstruct:
        return {}
    folder, names = picture_names(pretraining)
    paths = {name: store.artifact(folder, name) for name in names}
    absent = [name for name, path in paths.items() if path.is_symlink() or not path.exists() or damage_of(path, None)]
    try:
        if absent:
            examples = reconstruct_examples(restore_method(), pretraining)
            for name in absent:
                store.save_artifact(folder, name, DRAWN_BY[name](examples))
    except NotSupported:
        return {}
    except LeaseLost:
        raise
    except Exception as error:
        say(f"no reconstruction picture of {pretraining.label}: {error}")
        return {}
    return {path.stem: str(path.relative_to(store.root)) for path in paths.values()}


@torch.no_grad()
def reconstruct_examples(method: Method, pretraining: Pretraining) -> Examples:
    """A few test images, the same ones for every method and seed.

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
    title = f"{pretraining.label}: {masked.float().mean():.0%} masked"
    return Examples(images, masked, rebuilt, title, method.reconstruction_note)


def draw_still(examples: Examples) -> bytes:
    """A PNG with one row per image: original, masked, reconstructed. A clip has three rows of frames."""
    rows: list[tuple[Tensor, ...]] = []
    is_clip = examples.images.ndim == 5
    for image, mask, rebuilt in zip(*examples[:3], strict=True):
        if is_clip:
            shaded = tuple(map(shade_masked, image.unbind(1), mask))
            rows += [image.unbind(1), shaded, rebuilt.unbind(1)]
        else:
            rows.append((image, shade_masked(image, mask), rebuilt))
    return image_grid(
        rows,
        columns=() if is_clip else COLUMNS,
        labels=COLUMNS * len(examples.images) if is_clip else (),
        title=examples.title,
        footnote=examples.footnote,
    )


def draw_moving(examples: Examples) -> bytes:
    """An animated PNG with one row per clip: original, masked, reconstructed."""
    frames = []
    for time in range(examples.images.shape[2]):
        images, masked, rebuilt = examples.images[:, :, time], examples.masked[:, time], examples.rebuilt[:, :, time]
        rows = list(zip(images, map(shade_masked, images, masked), rebuilt, strict=True))
        frames.append(image_grid(rows, columns=COLUMNS, title=examples.title, footnote=examples.footnote))
    return animate(frames)


DRAWN_BY = {STILL: draw_still, MOVING: draw_moving}
