"""A results folder made up for the page: methods, mask ratios, seeds, curves, pictures and a failure."""

from __future__ import annotations

import copy
import json
import math
import random
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.preset_records import record_fields, resolved
from mimbench.files import write_atomic
from mimbench.store.failure import Failure, failure_path, write_failure
from mimbench.store.samples import pack_samples
from mimbench.store.scores import pack_scores
from mimbench.store.sealing import fingerprint, write_sealed

REFERENCE = Path(__file__).parents[2] / "results" / "reference" / "records"
RATIOS = (0.3, 0.45, 0.6, 0.75, 0.9)
_LEVELS = {"simmim": 56.0, "mae": 58.5, "beit": 54.0, "random-init": 41.0}


def write_results(root: Path, methods=tuple(_LEVELS), ratios=RATIOS, seeds=(0, 1, 2)) -> list[str]:
    """Sealed records like the demo's, with numbers of their own; returns the ids."""
    rng = random.Random(1)
    examples = {task: _example(task) for task in ("linear-probe", "detection")}
    written = []
    for method in methods:
        for ratio in (None,) if method == "random-init" else ratios:
            for seed in seeds:
                for task, example in examples.items():
                    body = _body(example, method, ratio, seed, rng)
                    written.append(write_body(root, body, task, method, seed))
    _pictures(root)
    failure(root)
    return written


def write_epochs(root: Path, epochs=(2, 10)) -> None:
    """Earlier epochs of simmim's pretraining, which score better than its end, so that they would lead."""
    rng = random.Random(2)
    for epoch in epochs:
        body = _body(_example("linear-probe"), "simmim", 0.6, 0, rng)
        body["recipe"]["pretrain"]["at_epoch"] = epoch
        body["varied"] = {"pretrain.at_epoch": epoch}
        body["pretraining"] = f"epoch {epoch}"
        body["metrics"]["top1"]["value"] = 90.0 + epoch / 10
        write_body(root, body, "linear-probe", "simmim", 0)


def write_paper(root: Path, ratios=(0.5, 0.75, 0.9)) -> None:
    """Linear probes of MAE's ViT-L as the paper made them, but for the mask ratio: its own curve shares their chart."""
    for ratio in ratios:
        body = _body(_example("linear-probe"), "mae", ratio, 0, random.Random(3))
        settings = {"method.norm_pixels": False, "method.mask_ratio": ratio, "task.train.epochs": 90}
        fields = record_fields(resolved("imagenet-vit-large", "mae", settings, "linear-probe"), "linear-probe")
        body |= fields
        body["checkpoint"]["cost"]["images_seen"] = 800 * 1_281_167
        body["metrics"]["top1"]["n"] = 50_000
        write_body(root, body, "linear-probe", "mae", 0)


def write_body(root: Path, body: dict, task: str, method: str, seed: int) -> str:
    body["id"] = f"{method}-{task}-s{seed}-{fingerprint(body, 12)}"
    detects = task == "detection"
    body["artifacts"] = {"predictions": f"artifacts/{body['id']}/predictions.png"} if detects else {}
    if seed == 0 and method == "simmim":
        name, content = ("samples", _matched_detections()) if detects else ("scores", _class_scores())
        body["artifacts"][name] = f"artifacts/{body['id']}/{name}.npz"
        write_atomic(root / body["artifacts"][name], content)
    name = "".join(sign if sign.isalnum() or sign in "-." else "_" for sign in body["id"])
    write_sealed(root / "records" / f"{name}.json", body)
    return body["id"]


SCORED = 150
"""Samples of each run of simmim's seed 0. Of each ten, the third and fourth are taken for the next class."""


def _class_scores() -> bytes:
    ids = np.arange(SCORED)
    labels = ids % 10
    wrong = (labels == 2) | (labels == 3)
    columns = {"id": ids, "label": labels, "prediction": np.where(wrong, labels + 1, labels)}
    columns["loss"] = np.where(wrong, 2.0 + ids / SCORED, ids / SCORED).astype(np.float32)
    columns["loss"][SCORED - 1] = np.inf
    return pack_scores(columns, "test")


def _matched_detections() -> bytes:
    """Four images with two objects each: both found; one found; none found, and a false detection; no detection."""
    hits = np.array([True, True, True, False, False])
    return pack_samples(
        {},
        [
            {
                "images": np.array([0, 0, 1, 2, 2]),
                "classes": np.zeros(5, dtype=int),
                "scores": np.array([0.9, 0.8, 0.9, 0.7, 0.3]),
                "hits": hits[:, None],
                "ignored": np.zeros((5, 1), dtype=bool),
                "objects": np.full((4, 1), 2),
                "metrics": {"AP": (0,)},
            }
        ],
    )


def failure(root: Path, command: str = "mimbench run --method beit") -> str:
    noted = Failure(
        id="beit-finetune-s0-0123456789ab",
        label="beit on finetune, seed 0",
        stage="task",
        reason="the loss is not finite at step 120",
        error="RunError",
        traceback="failures/beit-finetune-s0-0123456789ab.txt",
        method="beit",
        task="finetune",
        seed=0,
        checkpoint="0" * 16,
        recipe_name="mnist5k-vit-tiny",
        recipe_passed={},
        provenance={"time": "2026-11-24T08:00:00+00:00", "host": "a", "command": command},
    )
    write_failure(failure_path(root, noted.id), noted)
    return command


def _example(task: str) -> dict:
    bodies = [json.loads(path.read_text()) for path in sorted(REFERENCE.glob(f"simmim-{task}-s0-*.json"))]
    body = next(body for body in bodies if not body["varied"])
    body.pop("sha256")
    return body


def _body(example: dict, method: str, ratio: float | None, seed: int, rng: random.Random) -> dict:
    body = copy.deepcopy(example)
    level = _LEVELS.get(method, 50.0) - (0 if ratio is None else 60 * (ratio - 0.62) ** 2) + rng.gauss(0, 0.7)
    for value in body["metrics"].values():
        value["value"] = level
        level += 9.4 if value["unit"] == "percent" else 0
    epochs = body["recipe"]["pretrain"]["epochs"]
    trained = method != "random-init"
    body["method"]["name"] = method
    body["seed"] = seed
    body["varied"] = {} if ratio is None else {"method.mask_ratio": ratio}
    body["recipe_passed"]["vary"] = {} if ratio is None else {"method.mask_ratio": list(RATIOS)}
    body["recipe"]["method"] = {**body["recipe"]["method"], "mask_ratio": ratio} if trained else {}
    body["recipe"]["method"]["name"] = method
    body["pretraining"] = fingerprint([method, ratio])
    body["checkpoint"] |= {
        "fingerprint": fingerprint([method, ratio, seed]),
        "weights_sha256": fingerprint([method, ratio, seed], 64),
        "seed": seed,
        "loss": [0.3 + 0.6 * math.exp(-i / 6) + rng.gauss(0, 0.005) for i in range(epochs)] if trained else [],
    }
    if not trained:
        body["checkpoint"]["cost"] |= {"steps": 0, "images_seen": 0, "seconds": 0.1}
    body["curves"] = {name: [value + rng.gauss(0, 0.02) for value in curve] for name, curve in body["curves"].items()}
    return body


def _pictures(root: Path) -> None:
    for path in (root / "records").glob("*-detection-s0-*.json"):
        body = json.loads(path.read_text())
        picture = root / body["artifacts"]["predictions"]
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.radial_gradient("L").resize((320, 160)).rotate(len(picture.parent.name)).save(picture)


_FREE = ("label", "reason", "error", "traceback", "method", "task", "checkpoint", "recipe_name")
HOSTILE = "</script><script>window.hacked = 1; alert(1)</script><img src=x onerror=alert(2)>"


def write_hostile(root: Path) -> None:
    """A record whose every free text is markup, its sealed and honest neighbour, and a failure of the same kind."""
    honest = _example("detection")
    write_body(root, honest, "detection", "simmim", 0)
    body = copy.deepcopy(honest)
    for part in ("method", "task", "encoder", "dataset"):
        body[part] |= {"name": HOSTILE, "version": HOSTILE}
    body["varied"] = {f"method.{HOSTILE}": HOSTILE, "__proto__": HOSTILE}
    body["recipe"]["method"] = {HOSTILE: HOSTILE, "__proto__": {"x": HOSTILE}}
    body["recipe"]["data"]["name"] = HOSTILE
    body["recipe_passed"]["set"] = {HOSTILE: HOSTILE}
    body["protocol"] = {HOSTILE: HOSTILE}
    body |= {"protocol_fingerprint": "__proto__", "recipe_name": HOSTILE, "pretraining": HOSTILE}
    body["metrics"] = {HOSTILE: body["metrics"]["AP"] | {"unit": HOSTILE}, "constructor": body["metrics"]["AP50"]}
    body["curves"] = {HOSTILE: [1.0, 2.0], "__proto__": [3.0, 1.0], "toString": [1.0]}
    body["details"] = {HOSTILE: [HOSTILE], "__proto__": {HOSTILE: HOSTILE}}
    body["provenance"] = {"time": HOSTILE, "command": HOSTILE, HOSTILE: HOSTILE, "host": HOSTILE}
    body["cost"] |= {"device": HOSTILE, "precision": HOSTILE}
    body["checkpoint"] |= {"fingerprint": HOSTILE, "weights_sha256": HOSTILE}
    write_body(root, body, HOSTILE, HOSTILE, 0)
    name = next(path for path in (root / "records").glob("*_script_*"))
    body = json.loads(name.read_text())
    body.pop("sha256")
    body["artifacts"] = {HOSTILE: "javascript:alert(3)", "away": "../../../etc/passwd"}
    write_sealed(name, body)
    noted = Failure(
        **dict.fromkeys(_FREE, HOSTILE),
        id=HOSTILE,
        stage="task",
        seed=0,
        recipe_passed={},
        provenance={"command": HOSTILE},
    )
    write_failure(failure_path(root, "hostile"), noted)
