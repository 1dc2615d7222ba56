"""The optimizer of golden files' trajectories."""

from __future__ import annotations

from mimbench.api import Golden, TrainConfig


def mae_training(golden: Golden) -> TrainConfig:
    """AdamW of a file whose `meta.traj` has MAE's names of options; the rates of the steps are in the file."""
    options = golden.meta["traj"]
    return TrainConfig(
        epochs=options["epochs"],
        batch_size=options["batch"],
        base_lr=options["blr"],
        lr_divisor=256,
        betas=tuple(options["betas"]),
        weight_decay=options["weight_decay"],
    )
