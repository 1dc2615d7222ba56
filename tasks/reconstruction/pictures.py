"""What was rebuilt and what was generated, as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from mimbench.api import image_grid, shade_masked
from mimbench_tasks.reconstruction.rebuild import Sample


def rebuilt_picture(truth: Tensor, samples: Sequence[Sample], *, footnote: str) -> bytes:
    """A PNG: a column for each share of hidden cells; for each image what was visible, and what was made of it.

    truth: [N, C, H, W] in [0, 1].
    """
    rows: list[list[Tensor | None]] = []
    for index, image in enumerate(truth):
        rows.append([image, *(shade_masked(image, sample.hidden[index]) for sample in samples)])
        rows.append([None, *(sample.rebuilt[index] for sample in samples)])
    columns = ["image", *(f"{sample.share:.0%} hidden" for sample in samples)]
    return image_grid(rows, columns=columns, footnote=footnote)


def generated_picture(frames: Mapping[float, Sequence[tuple[Tensor, Tensor]]], *, footnote: str) -> bytes:
    """A PNG: one row an image, from the start to the last step.

    frames: for each share hidden at the start, (images [N, C, H, W] in [0, 1], hidden bool [N, H, W]) after each step.
    """
    rows = [
        [shade_masked(images[index], hidden[index]) for images, hidden in steps]
        for steps in frames.values()
        for index in range(len(steps[0][0]))
    ]
    labels = [f"{share:.0%} hidden" for share, steps in frames.items() for _ in range(len(steps[0][0]))]
    steps = max(len(steps) for steps in frames.values())
    columns = ["start", *(f"step {step}" for step in range(1, steps))]
    return image_grid(rows, columns=columns, labels=labels, footnote=footnote)
