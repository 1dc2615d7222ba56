"""How long a folder of very many images takes to open: at first, and again from its index.

`python benchmarks/folder_index.py` makes 200,000 files of 1 to 7 bytes in 1,000 class folders, opens them as
`imagenet` does (nothing is decoded), and prints the rows of benchmarks/README.md. Each opening is in a new process;
that the operating system still knows the folders is part of the measurement.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

OPEN = """
import resource, sys, time
from pathlib import Path
from mimbench.data.sources.folder import Folder
from mimbench.data.sources.folder_config import FolderConfig
start, cpu = time.perf_counter(), time.process_time()
config = FolderConfig(root=Path(sys.argv[1]), verify=False, fingerprint="names")
dataset = Folder(config, Path(sys.argv[2]))
count = len(dataset.split("train")) + len(dataset.split("test"))
dataset.fingerprint()
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
print(f"{count:,} | {seconds:.1f} | {cpu:.1f} | {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f}")
"""


def make(root: Path, count: int, classes: int) -> None:
    for label in range(classes):
        folder = root / f"n{label:08}"
        folder.mkdir(parents=True)
        for index in range(count // classes):
            (folder / f"n{label:08}_{index}.JPEG").write_bytes(b"x" * (1 + index % 7))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--classes", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder) / "images", Path(folder) / "cache"
        make(root, options.count, options.classes)
        print(
            "| Opening | Images | Seconds | CPU time, s | Memory of the process, MiB |\n| --- | --- | --- | --- | --- |"
        )
        for name in ("first, 2 s after the last change or later", "second", "third"):
            subprocess.run(["sleep", "2.5"], check=True)
            command = [sys.executable, "-c", OPEN, str(root), str(cache)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            print(f"| {name} | {done.stdout.strip()} |", flush=True)


if __name__ == "__main__":
    main()
