"""Compare the memory that `mimbench plan` prints with what a step takes on this machine's GPU.

    python benchmarks/plan.py                      # several methods and encoders, on a CUDA device
    python benchmarks/plan.py --images 64 --tolerance 0.15

A row is one pretraining step with AdamW in bf16 and in fp32: predicted bytes, `torch.cuda.max_memory_allocated` of the
second step, and their ratio. It ends with 1 if a ratio is off by more than the tolerance. It has not been run yet: no
card was at hand when it was written.
"""

from __future__ import annotations

import argparse
import gc
import sys

import torch

from mimbench.engine.bare_step import BareStep
from mimbench.harness.forecast.stages import pretraining_step
from mimbench.harness.forecast.tracing import Target, traced
from mimbench.recipe.document import parse_assignments, read
from mimbench.recipe.resolve import resolve
from mimbench.text import align_columns

CASES = (
    ("imagenet-vit-base", "mae", []),
    ("imagenet-vit-base", "simmim", []),
    ("imagenet-vit-base", "data2vec", []),
    ("imagenet-vit-base", "mae", ["pretrain.grad_checkpointing=true"]),
    ("imagenet-vit-large", "mae", []),
    ("imagenet-swin-base", "simmim", []),
    ("imagenet-convnext-base", "fcmae", []),
)
"""Recipe, method and settings."""


def compare(recipe: str, method: str, settings: list[str], precision: str, images: int) -> tuple[int, int]:
    """Predicted and measured bytes at the peak of one step."""
    resolved = resolve(recipe, read(recipe), method, parse_assignments(settings), None)
    step, device = pretraining_step(resolved, channels=3), torch.device("cuda")
    has_flash = torch.cuda.get_device_capability(device) >= (8, 0)
    with traced(step.build, Target(on_cuda=True, has_flash=has_flash, precision=precision)) as trace:
        predicted = trace(images, False).total
    planned = step.build()
    changes = {"accumulate": 1, "precision": precision}
    run = BareStep(planned.model, planned.config.model_copy(update=changes), device)
    run(planned.batch(images))
    torch.cuda.reset_peak_memory_stats(device)
    run(planned.batch(images))
    return predicted, torch.cuda.max_memory_allocated(device)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--tolerance", type=float, default=0.15)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no CUDA device: tests/harness/forecast/test_tracing.py compares on the CPU")
    rows, worst = [("recipe", "method", "settings", "precision", "predicted, GiB", "measured, GiB", "ratio")], 0.0
    for recipe, method, settings in CASES:
        for precision in ("bf16", "fp32"):
            predicted, measured = compare(recipe, method, settings, precision, arguments.images)
            worst = max(worst, abs(predicted / measured - 1))
            sizes = (f"{predicted / 2**30:.2f}", f"{measured / 2**30:.2f}", f"{predicted / measured:.3f}")
            rows.append((recipe, method, " ".join(settings), precision, *sizes))
            gc.collect()
            torch.cuda.empty_cache()
    print("\n".join(align_columns(rows)))
    sys.exit(worst > arguments.tolerance)


if __name__ == "__main__":
    main()
