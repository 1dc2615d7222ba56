"""CPU time until a command ends that computes nothing, as a multiple of the start of a bare Python interpreter.

`python benchmarks/start.py` prints the table of benchmarks/README.md. CPU time (user and system, of the process and its
children) depends less on what else runs than elapsed time does. The least of several runs counts.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile

RUNS = 3
COMMANDS = (
    ("--help",),
    ("list", "--names"),
    ("list",),
    ("list", "--check"),
    ("show", "method", "simmim"),
    ("show", "recipe", "smoke"),
    ("show", "recipe", "smoke", "--method", "mae"),
    ("run", "--method", "simmim", "--task", "knn", "--recipe", "smoke", "--dry-run"),
    ("doctor",),
)


def cpu_seconds(arguments: list[str], folder: str) -> float:
    """Least CPU time of a Python process with these arguments."""
    times = []
    for _ in range(RUNS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], cwd=folder, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def main() -> None:
    """Measure all commands in a temporary folder and print a Markdown table."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        bare = cpu_seconds(["-c", "pass"], folder)
        print("| Command | CPU time / bare interpreter |\n| --- | --- |")
        print(f"| `python -c pass` ({bare:.3f} s) | 1 |")
        print(f"| `python -c 'import torch'` | {cpu_seconds(['-c', 'import torch'], folder) / bare:.0f} |")
        for command in COMMANDS:
            ratio = cpu_seconds(["-m", "mimbench", *command], folder) / bare
            print(f"| `mimbench {' '.join(command)}` | {ratio:.0f} |", flush=True)


if __name__ == "__main__":
    main()
