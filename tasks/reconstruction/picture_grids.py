"""Pictures of reconstructed and of generated images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from mimbench.api import image_grid, shade_masked
from mimbench_tasks.reconstruction.scorer import Sample


def draw_reconstructions(truth: Tensor, samples: Sequence[Sample], *, footnote: str) -> bytes:
    """A PNG with one column per mask ratio, and two rows per image: the visible part and the reconstruction.

    Args:
        truth: the images [N, C, H, W] in [0, 1].
        samples: reconstructions, one sample per mask ratio.
        footnote: one line under the picture.
    """
    rows: list[list[Tensor | None]] = []
    for index, image in enumerate(truth):
        rows.append([image, *(shade_masked(image, sample.masked[index]) for sample in samples)])
        rows.append([None, *(sample.rebuilt[index] for sample in samples)])
    columns = ["image", *(f"{sample.ratio:.0%} masked" for sample in samples)]
    return image_grid(rows, columns=columns, footnote=footnote)


def draw_generation(frames: Mapping[float, Sequence[tuple[Tensor, Tensor]]], *, footnote: str) -> bytes:
    """A PNG with one row per image, from the start to the last step.

    Args:
        frames: mask ratio at the start -> after each step, images [N, C, H, W] in [0, 1] and masks bool [N, H, W].
        footnote: one line under the picture.
    """
    rows, labels = [], []
    for ratio, steps in frames.items():
        images_per_step = len(steps[0][0])
        for index in range(images_per_step):
            rows.append([shade_masked(images[index], masked[index]) for images, masked in steps])
            labels.append(f"{ratio:.0%} masked")
    most_steps = max(len(steps) for steps in frames.values())
    columns = ["start", *(f"step {step}" for step in range(1, most_steps))]
    return image_grid(rows, columns=columns, labels=labels, footnote=footnote)
