"""What a second process brings: images per second of a pretraining on two single-threaded processes and on one.

    python benchmarks/ddp.py [--recipe mnist5k-vit-tiny] [--method mae] [--epochs 3] [--rounds 2]

Each training is the real command, with OMP_NUM_THREADS=1; two processes are started by torchrun. The effective batch is
the same, and so are the numbers (docs/concepts.md). Rates come from the checkpoints' cards: the training alone, without
starting Python. Trainings alternate, and the best of each kind counts. Two cores must be idle: the load is
printed before each training.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d")
RENDEZVOUS = ("--rdzv-endpoint=localhost:0",)


def rate(processes: int, arguments: argparse.Namespace, folder: Path) -> float:
    """Images per second of one training on one or two processes."""
    launcher = [*TORCHRUN, *RENDEZVOUS, "-m", "mimbench"] if processes > 1 else ["-m", "mimbench"]
    command = [sys.executable, *launcher, "run", "--method", arguments.method, "--task", "knn", "--device", "cpu"]
    command += ["--recipe", arguments.recipe, "--results", str(folder), "--set", f"pretrain.epochs={arguments.epochs}"]
    command += ["--set", "pretrain.schedule.warmup_epochs=0"]
    subprocess.run(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=True,
    )
    (card,) = folder.glob("checkpoints/*/checkpoint.json")
    content = json.loads(card.read_text(encoding="utf-8"))
    assert content["provenance"]["processes"] == processes
    return content["cost"]["images_seen"] / content["cost"]["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="mnist5k-vit-tiny")
    parser.add_argument("--method", default="mae")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    best = {1: 0.0, 2: 0.0}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            for processes in best:
                load = os.getloadavg()[0]
                images = rate(processes, arguments, Path(folder) / f"{processes}-{number}")
                best[processes] = max(best[processes], images)
                print(f"{processes} process{'es' * (processes > 1):<2} {images:9.1f} images/s   load before {load:.1f}")
    print(f"two processes: {best[2] / best[1]:.2f} times the throughput of one")


if __name__ == "__main__":
    main()
