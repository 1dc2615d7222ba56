"""Records made up for plots: they hold something for every kind, and scores that follow from method, task and seed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from mimbench.store.record import Checkpoint, Cost, Record, write_record

Make = Callable[..., Record]
METHODS = ("random-init", "simmim", "mae", "beit", "sharpen")
LEVELS = {"random-init": 44.0, "simmim": 60.0, "mae": 57.0, "beit": 52.0, "sharpen": 49.0}
TASKS = {"linear-probe": 0.0, "knn": -6.0, "finetune": 30.0, "segmentation": -15.0}
LAYERS = 6
RATIOS = (0.2, 0.4, 0.6, 0.8)


def score(method: str, task: str, seed: int) -> float:
    wobble = int(hashlib.sha256(f"{method}{task}{seed}".encode()).hexdigest()[:4], 16) / 65535 - 0.5
    return LEVELS.get(method, 50.0) + TASKS.get(task, 0.0) + 3 * wobble


def one(make: Make, method: str, seed: int = 0, task: str = "linear-probe", *, epochs: int = 26, **changes) -> Record:
    """A record with a resolved recipe, the loss of its pretraining, and what that cost."""
    trained = method != "random-init"
    settings = {"name": method, **({"mask_ratio": 0.75 if method == "mae" else 0.6} if trained else {})}
    settings |= {"simmim": {"masking": "random", "mask_patch_size": 4}, "mae": {"mask": "random"}}.get(method, {})
    varied = changes.get("varied", {})
    settings |= {path[7:]: value for path, value in varied.items() if path.startswith("method.")}
    minutes = 0.02 if not trained else 40.0 * epochs / 26 * (0.55 if method == "mae" else 1.0)
    loss = [0.2 + 0.8 / (1 + epoch) + 0.01 * seed for epoch in range(epochs)] if trained else []
    spent = Cost(seconds=60 * minutes, images_seen=5000 * epochs * trained, steps=80 * epochs * trained, device="cpu")
    fingerprint = hashlib.sha256(repr((settings, epochs, seed)).encode()).hexdigest()[:16]
    recipe = {
        "data": {"name": "mnist5k"},
        "encoder": {"name": "vit", "patch_size": 4, "embed_dim": 64, "depth": 4},
        "method": settings,
        "pretrain": {"epochs": epochs},
        "task": {"layer": changes.get("varied", {}).get("task.layer", -1)},
    }
    standard = {
        "value": score(method, task, seed),
        "metric": "mIoU" if task == "segmentation" else "top1",
        "recipe": recipe,
        "pretraining": hashlib.sha256(repr((settings, epochs)).encode()).hexdigest()[:16],
        "checkpoint": Checkpoint(fingerprint=fingerprint, weights_sha256="0", seed=seed, cost=spent, loss=loss),
        "protocol": {"task": task, "layers": "one"},
        "cost": Cost(seconds=30.0, images_seen=10000 * (task == "finetune"), device="cpu"),
    }
    return make(method, seed=seed, task=task, **(standard | changes))


def scores(make: Make, methods: Sequence[str] = METHODS, tasks: Sequence[str] = tuple(TASKS), seeds: int = 5) -> list:
    return [one(make, m, seed, task) for m in methods for task in tasks for seed in range(seeds)]


def ablation(make: Make, method: str = "simmim", seeds: int = 3, **changes) -> list[Record]:
    """At 0.6, the default, it is the record of a plain run: the harness makes each cell once."""

    def at(ratio: float, seed: int) -> Record:
        value = score(method, "linear-probe", seed) - 30 * (ratio - 0.6) ** 2
        varied = {} if ratio == 0.6 else {"varied": {"method.mask_ratio": ratio}}
        return one(make, method, seed, value=value, **varied, **changes)

    return [at(ratio, seed) for ratio in RATIOS for seed in range(seeds)]


def lengths(make: Make, method: str = "mae", seeds: int = 3) -> list[Record]:
    return [
        one(
            make,
            method,
            seed,
            epochs=epochs,
            varied={"pretrain.epochs": epochs},
            value=score(method, "linear-probe", seed) - 40 / epochs,
        )
        for epochs in (5, 10, 20, 40)
        for seed in range(seeds)
    ]


def on_the_way(make: Make, method: str = "mae", seeds: int = 3) -> list[Record]:
    """Epochs of one schedule; its end is the record of a plain run."""

    def at(epoch: int, seed: int) -> Record:
        plain = one(make, method, seed)
        if epoch == 26:
            return plain
        recipe = {**plain.recipe, "pretrain": {"epochs": 26, "at_epoch": epoch}}
        value, pretraining = 45.0 + epoch + seed, f"{plain.pretraining}-{epoch}"
        varied = {"pretrain.at_epoch": epoch}
        return one(make, method, seed, recipe=recipe, value=value, pretraining=pretraining, varied=varied)

    return [at(epoch, seed) for epoch in (0, 5, 26) for seed in range(seeds)]


def early(record: Record, epoch: int = 1) -> Record:
    """The record as if it were of an earlier epoch; as it is where nothing was pretrained."""
    if not record.checkpoint.cost.steps:
        return record
    recipe = {**record.recipe, "pretrain": {**record.recipe["pretrain"], "at_epoch": epoch}}
    return record.model_copy(update={"recipe": recipe, "varied": {**record.varied, "pretrain.at_epoch": epoch}})


def layered(make: Make, seeds: int = 3) -> list[Record]:
    def curve(method: str, seed: int) -> list[float]:
        top = score(method, "linear-probe", seed)
        return [top - 2.0 * abs(layer - LAYERS + 2) for layer in range(LAYERS)]

    return [
        one(
            make,
            method,
            seed,
            protocol={"task": "linear-probe", "layers": "all"},
            curves={"top1_by_layer": curve(method, seed), "held_out_top1_by_layer": curve(method, seed)},
        )
        for method in METHODS
        for seed in range(seeds)
    ]


def rebuilt(make: Make, seeds: int = 2) -> list[Record]:
    shares = [0.3, 0.5, 0.75, 0.9]
    return [
        one(
            make,
            method,
            seed,
            "reconstruction",
            metrics={"psnr": 20.0 + seed},
            unit="dB",
            curves={
                "mask_ratio": shares,
                "psnr": [26 - 10 * share + seed + (method == "mae") for share in shares],
                "psnr, mean fill": [14 - 4 * share for share in shares],
                "psnr, nearest fill": [18 - 6 * share for share in shares],
            },
            artifacts={"rebuilt": f"artifacts/{method}-{seed}/rebuilt.png"},
        )
        for method in ("simmim", "mae")
        for seed in range(seeds)
    ]


def detected(make: Make) -> list[Record]:
    return [
        one(
            make,
            method,
            task="detection",
            metrics={"AP": 40.0, "AP50": 60.0},
            artifacts={"predictions": f"artifacts/{method}-0/predictions.png"},
        )
        for method in ("random-init", "simmim")
    ]


def everything(make: Make, seeds: int = 5) -> list[Record]:
    parts = [
        scores(make, tasks=("linear-probe", "finetune", "segmentation"), seeds=seeds),
        *(part(make, seeds=2) for part in (ablation, lengths, layered, rebuilt)),
    ]
    return list({record.id: record for part in [*parts, detected(make)] for record in part}.values())


def stored(records: Sequence[Record], folder: Path, side: tuple[int, int] = (400, 160)) -> Path:
    """Write a results folder, with a picture for each artifact."""
    (folder / "records").mkdir(parents=True)
    for record in records:
        write_record(folder / "records" / f"{record.id}.json", record)
        for name in record.artifacts.values():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            part = Image.linear_gradient("L").resize(side)
            Image.merge("RGB", (part, part.rotate(180), part)).save(path)
    return folder
