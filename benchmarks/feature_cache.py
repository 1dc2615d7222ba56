"""What the feature cache saves: seconds of a frozen task that extracts features, and of one that finds them there.

    python benchmarks/feature_cache.py [--recipe mnist5k-vit-tiny] [--method random-init]

Every task runs in a process of its own on one checkpoint, and its record's `cost.seconds` is compared: the task alone,
without pretraining and without starting Python. What extraction costs does not depend on how good the weights are, so
by default they are not trained. The first task is knn, which extracts. The second is knn with another temperature: the
same work but for the extraction. few-shot and linear-probe, which fit classifiers besides, are timed with the cache
and, on a copy of the results without its features, without it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mimbench.store.features import checksum

MEGABYTES = 200
"""Of the file that hashing and reading are compared on."""


def seconds(task: str, results: Path, arguments: argparse.Namespace, *settings: str) -> float:
    """Run one task on the real command, and read from its record what it took."""
    command = [sys.executable, "-m", "mimbench", "run", "--json", "--method", arguments.method, "--task", task]
    command += ["--recipe", arguments.recipe, "--results", str(results)]
    for setting in ("data.train_limit=4000", "data.test_limit=1000", *settings):
        command += ["--set", setting]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    (record,) = json.loads(done.stdout)
    return record["cost"]["seconds"]


def without_features(results: Path, copy: Path) -> Path:
    shutil.copytree(results, copy, ignore=shutil.ignore_patterns("features", "records", "work"))
    return copy


def rate(read: Callable[[], object], path: Path, *, cold: bool) -> float:
    """MB a second, the best of three; `cold`: from the disk, not from the system's cache."""
    best = float("inf")
    for _ in range(3):
        if cold:
            with path.open("rb") as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        started = time.perf_counter()
        read()
        best = min(best, time.perf_counter() - started)
    return path.stat().st_size / 1e6 / best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="mnist5k-vit-tiny")
    parser.add_argument("--method", default="random-init")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results"
        first = seconds("knn", results, arguments)
        print(f"knn, extracting                {first:8.3f} s")
        second = seconds("knn", results, arguments, "task.temperature=0.1")
        print(f"knn, another temperature       {second:8.3f} s   {second / first:.1%} of the first")
        for task in ("few-shot", "linear-probe"):
            there = seconds(task, results, arguments)
            fresh = seconds(task, without_features(results, Path(folder) / task), arguments)
            print(f"{task + ', from the cache':<30} {there:8.3f} s   {there / fresh:.1%} of {fresh:.3f} s without it")
        path = Path(folder) / "features.npy"
        np.save(path, np.random.default_rng(0).random((MEGABYTES * 1000, 250), dtype=np.float32))
        os.sync()
        checking, reading = (
            [rate(read, path, cold=cold) for cold in (True, False)]
            for read in (lambda: checksum(path), lambda: np.load(path))
        )
    for where, check, read in zip(("disk", "memory"), checking, reading, strict=True):
        print(f"a file of {MEGABYTES} MB in {where}: checked at {check:,.0f} MB/s, read at {read:,.0f} MB/s")


if __name__ == "__main__":
    main()
