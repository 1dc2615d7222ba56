"""One picture of each pretraining: test images, what the method saw of them, and what it made of that."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mimbench.contract import ImageSplit, Method
from mimbench.data import DeviceTransform, denormalise, evaluation_loader
from mimbench.data.pipeline.split import subset
from mimbench.drawing import image_grid, shade_hidden
from mimbench.errors import NotSupported
from mimbench.harness.planning.cells import Pretraining
from mimbench.masks import resize_mask
from mimbench.store.artifacts import damage_of
from mimbench.store.store import Store

IMAGES = 8
SEED = 0
"""Of images and masks: the same for every method and seed, so that pictures can be laid side by side."""


def picture_name(wanted: Pretraining) -> tuple[str, str]:
    """Folder and name, among the artifacts, of the picture of what a pretraining reconstructs."""
    return f"{wanted.recipe.method}-s{wanted.seed}-{wanted.fingerprint}", "reconstruction.png"


def keep_picture(
    wanted: Pretraining, restored: Callable[[], Method], store: Store, say: Callable[[str], None]
) -> dict[str, str]:
    """The picture of what a pretraining reconstructs, drawn once per checkpoint, as a record names it; {}: none.

    restored: gives the pretrained method. An error in here costs the picture, never the pretraining.
    """
    if wanted.recipe.method_class().reconstruct is Method.reconstruct:
        return {}
    folder, name = picture_name(wanted)
    path = store.artifact(folder, name)
    try:
        if path.is_symlink() or not path.exists() or damage_of(path, None):
            store.save_artifact(folder, name, picture_of(restored(), wanted))
    except NotSupported:
        return {}
    except Exception as error:
        say(f"no picture of what {wanted.label} reconstructs: {error}")
        return {}
    return {"reconstruction": str(path.relative_to(store.root))}


@torch.no_grad()
def picture_of(method: Method, wanted: Pretraining) -> bytes:
    """A PNG: original, masked, reconstructed, one row a test image. `method` is in evaluation mode, on any device.

    Raises:
        NotSupported: the method predicts no pixels, or there are no test images.
    """
    device = next(method.parameters()).device
    split, input_config = wanted.dataset.split("test"), wanted.recipe.input
    if not isinstance(split, ImageSplit):
        raise NotSupported(f"dataset {wanted.recipe.dataset!r} has no plain test images")
    generator = torch.Generator().manual_seed(SEED)
    chosen = subset(split, torch.randperm(len(split), generator=generator)[:IMAGES].tolist())
    mask = method.sample_mask(len(chosen), generator).to(device)
    ((pixels, _),) = evaluation_loader(chosen, input_config, batch_size=IMAGES, device=device)
    transform = DeviceTransform(input_config, wanted.channels, train=False, batched=split.is_in_memory)
    images = transform.to(device)(pixels.to(device))
    rebuilt = denormalise(method.reconstruct(images, mask), input_config)
    images, hidden = denormalise(images, input_config), resize_mask(mask, images.shape[-2:])
    return image_grid(
        [(image, shade_hidden(image, out), result) for image, out, result in zip(images, hidden, rebuilt, strict=True)],
        columns=("original", "masked", "reconstructed"),
        title=f"{wanted.label}: {hidden.float().mean():.0%} hidden",
        footnote=method.reconstruction_note,
    )
