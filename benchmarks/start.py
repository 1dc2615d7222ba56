"""CPU time until a command ends that computes nothing or little, as a multiple of the start of a bare interpreter.

`python benchmarks/start.py` prints the table of benchmarks/README.md. CPU time (user and system, of the process and its
children) depends less on what else runs than elapsed time does. The least of several runs counts.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

RUNS = 3
METHOD = Path(__file__).resolve().parents[1] / "examples" / "plugin" / "mimbench_example" / "deblur.py"
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
    # What an author runs after each change of a small method: pretraining and one task, in a new results folder.
    ("run", "--plugin", str(METHOD), "--method", "deblur", "--task", "knn", "--recipe", "smoke"),
)


def cpu_seconds(arguments: list[str], folder: str) -> float:
    """Least CPU time of a Python process with these arguments."""
    times = []
    for count in range(RUNS):
        results = ["--results", f"results{count}"] if "run" in arguments else []
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments, *results], cwd=folder, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def main() -> None:
    """Measure all commands in a temporary folder and print a Markdown table."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        bare = cpu_seconds(["-c", "pass"], folder)
        print("| Command | CPU time / bare interpreter | CPU time, s |\n| --- | --- | --- |")
        print(f"| `python -c pass` | 1 | {bare:.3f} |")
        seconds = cpu_seconds(["-c", "import torch"], folder)
        print(f"| `python -c 'import torch'` | {seconds / bare:.0f} | {seconds:.2f} |")
        for command in COMMANDS:
            seconds = cpu_seconds(["-m", "mimbench", *command], folder)
            words = " ".join(command).replace(str(METHOD), METHOD.name)
            print(f"| `mimbench {words}` | {seconds / bare:.0f} | {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
