"""Long trials of what a results folder survives, too long for the suite: `make soak`, or `python tests/soak.py kills`.

kills   random kills, and kills before operations on files
stops   processes that share a folder are stopped for longer than a lease, and go on
full    a disk that fills at different points, and then has room (needs root, for a tmpfs)
cells   300 cells in one process: memory and open files stay flat
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
os.environ["OMP_NUM_THREADS"] = "1"

from conftest import PRELOADED

from helpers.faults import Command, differences, run, state_of

GRID = [
    *("run", "--method", "simmim", "--task", "finetune,knn", "--recipe", "smoke"),
    *("--vary", "pretrain.at_epoch=1,2", "--set", "datasets.mnist5k.train_limit=64"),
    *("--set", "datasets.mnist5k.test_limit=32"),
]
MB = 2**20


class Trials:
    """Trials of one grid, each in a folder of its own, compared with a run that nobody disturbs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bad, self.count = folder, 0, 0
        run(GRID, folder / "first", folder / "log")  # fills the cache
        started = time.monotonic()
        whole = run(GRID, folder / "whole", folder / "log")
        self.seconds, self.operations = time.monotonic() - started, whole.operations
        self.expected = state_of(folder / "whole")

    def new(self) -> tuple[Path, Path]:
        """Results folder and log of the next trial."""
        self.count += 1
        return self.folder / str(self.count), self.folder / f"{self.count}.log"

    def check(self, results: Path, log: Path, what: str) -> None:
        """Run the same command once more, and compare."""
        code = Command(GRID, results, log).wait()
        wrong = differences(self.expected, results)
        verified = Command(["verify", str(results)], results, log, appends_results=False).wait()
        if code or wrong or verified:
            self.bad += 1
            print(f"BAD {what}: exit code {code}, verify {verified}, {wrong[:5]}; see {log}", flush=True)
        else:
            shutil.rmtree(results)


def kills(trials: Trials, moments: random.Random, count: int) -> None:
    for _ in range(count):
        results, log = trials.new()
        for _ in range(moments.randint(1, 3)):
            killed = Command(GRID, results, log)
            killed.wait(moments.uniform(0.02, 1) * trials.seconds)
            killed.kill()
        trials.check(results, log, "random kills")
    for point in range(1, trials.operations, max(1, trials.operations // count)):
        results, log = trials.new()
        Command(GRID, results, log, kill_at=point).wait()
        trials.check(results, log, f"killed before operation {point}")


def stops(trials: Trials, moments: random.Random, count: int) -> None:
    """Of three processes on one folder, the first is stopped for longer than a lease of two seconds."""
    ends = []
    for _ in range(count // 3):
        results, log = trials.new()
        several = [Command(GRID, results, log, MIMBENCH_LEASE_SECONDS="2") for _ in range(3)]
        several[0].wait(moments.uniform(0.1, 0.9) * trials.seconds)
        if several[0].process.is_alive():
            several[0].send(signal.SIGSTOP)
            time.sleep(5)
            several[0].send(signal.SIGCONT)
        codes = [one.wait() for one in several]
        ends.append(codes[0])
        if codes[0] not in (0, 75) or any(codes[1:]):
            trials.bad += 1
            print(f"BAD stop: exit codes {codes}; see {log}", flush=True)
        trials.check(results, log, "stop")
    print(f"stops: {ends.count(75)} of {len(ends)} lost a lease", flush=True)


def full(trials: Trials, moments: random.Random, count: int) -> None:
    if os.geteuid():
        print("full: left out, since a tmpfs needs root")
        return
    disk = trials.folder / "disk"
    disk.mkdir()
    size = sum(path.stat().st_size for path in (trials.folder / "whole").rglob("*"))
    for share in [(number + 0.5) / (count // 4) for number in range(count // 4)]:
        _, log = trials.new()
        kilobytes = max(8, int(share * size / 1024))
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", disk], check=True)
        try:
            code = Command(GRID, disk / "runs", log).wait()
            said = log.read_text()
            if code not in (0, 1, 2) or (code and "No space left" not in said) or "free space" not in said + " " * code:
                trials.bad += 1
                print(f"BAD full at {kilobytes} kB: exit code {code}; see {log}", flush=True)
            subprocess.run(["mount", "-o", "remount,size=256m", disk], check=True)
            trials.check(disk / "runs", log, f"full at {kilobytes} kB")
        finally:
            subprocess.run(["umount", disk], check=True)


def cells(folder: Path, count: int = 300) -> bool:
    """Memory and open files while so many cells run. Returns whether they stay flat.

    A sample may fall into a training or not, so medians over 30 cells are compared: those from the 50th, and the last.
    """
    seeds = ",".join(map(str, range(count // 3)))
    grid = ["run", "--method", "random-init,simmim,mae", "--task", "knn", "--recipe", "smoke", "--seeds", seeds]
    limits = [
        "--set",
        "datasets.mnist5k.train_limit=100",
        "--set",
        "pretrain.epochs=1",
        "--set",
        "pretrain.schedule.warmup_epochs=0",
    ]
    results, log = folder / "cells", folder / "cells.log"
    # Not a fork, whose memory grows as it writes to pages that it shared at first.
    whole = [sys.executable, "-m", "mimbench", *grid, *limits, "--results", str(results)]
    with log.open("wb") as stream:
        command = subprocess.Popen(whole, stdout=stream, stderr=stream)
    seen = list(_watch(command, results))
    early = [sample for sample in seen if 50 <= sample[0] < 80] or seen[:1]
    late = [sample for sample in seen if sample[0] >= count - 30] or seen[-1:]
    before, after = ([statistics.median(column) for column in zip(*part, strict=True)] for part in (early, late))
    growth, files = (after[1] - before[1]) / MB, after[2] - before[2]
    print(
        f"cells: exit code {command.poll()}, {growth:.1f} MB more memory and {files:.0f} more open files at "
        f"{after[0]:.0f} cells than at {before[0]:.0f}",
        flush=True,
    )
    return command.poll() == 0 and growth < 10 and files < 5


def _watch(command: subprocess.Popen[bytes], results: Path) -> Iterator[tuple[int, int, int]]:
    """Every second: cells done, bytes of anonymous memory, open files."""
    process = Path(f"/proc/{command.pid}")
    while command.poll() is None:
        time.sleep(1)
        try:
            status = (process / "status").read_text()
            files = len(list((process / "fd").iterdir()))
        except OSError:
            continue
        kilobytes = int(status.partition("RssAnon:")[2].split()[0]) if "RssAnon:" in status else 0
        if kilobytes:
            yield len(list((results / "records").glob("*.json"))), 1024 * kilobytes, files


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["kills", "stops", "full", "cells"])
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--trials", type=int, default=32, help="kills of each kind; a third of it stops")
    parser.add_argument("--cells", type=int, default=300, help="how many cells")
    arguments = parser.parse_args()
    multiprocessing.set_forkserver_preload(PRELOADED)
    folder = Path(tempfile.mkdtemp(prefix="mimbench-soak-"))
    os.environ["MIMBENCH_CACHE"] = str(folder / "cache")
    is_good = True
    kinds = {"kills": kills, "stops": stops, "full": full}
    if chosen := [name for name in kinds if name in arguments.what]:
        trials = Trials(folder)
        for name in chosen:
            before = trials.count, trials.bad
            kinds[name](trials, random.Random(arguments.seed), arguments.trials)
            print(f"{name}: {trials.count - before[0]} trials, {trials.bad - before[1]} bad", flush=True)
        is_good = not trials.bad
    if "cells" in arguments.what:
        is_good &= cells(folder, arguments.cells)
    if is_good:
        shutil.rmtree(folder)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
