"""How long 10,000 records take: to load (every seal checked), to become a table or the page, and `mimbench table`.

    python benchmarks/records.py [--records 10000]

Writes grids of 8 methods' names x varied mask ratios x 5 seeds x 2 tasks into a temporary folder, with recipe, protocol
and provenance of the size that real records have, and removes it.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mimbench.report.page.build import write_page
from mimbench.report.records.frame import load_records
from mimbench.report.scores.choice import Choice
from mimbench.report.tables.command import table_command
from mimbench.report.tables.comparison import build_comparison
from mimbench.report.tables.render import render
from mimbench.store.sealing import fingerprint

EXAMPLES = Path(__file__).parents[1] / "results" / "reference" / "records"
SEEDS, METHODS = 5, 8


def write_records(folder: Path, count: int) -> None:
    """`count` sealed records like the examples, each with numbers, seed, times and hashes of its own."""
    paths = [path for task in ("detection", "linear-probe") for path in EXAMPLES.glob(f"simmim-{task}-s0-*.json")]
    examples = [body for body in map(json.loads, (path.read_text() for path in sorted(paths))) if not body["varied"]]
    rng = random.Random(0)
    folder.mkdir(parents=True)
    for index in range(count):
        setting, seed = divmod(index // len(examples), SEEDS)
        varied, method = divmod(setting, METHODS)
        body = copy.deepcopy(examples[index % len(examples)])
        body.pop("sha256")
        body["method"]["name"] = f"method-{method}"
        ratio = round(0.1 + varied / 1000, 3)
        body |= {"seed": seed, "varied": {"method.mask_ratio": ratio}, "pretraining": fingerprint([method, varied])}
        body["recipe"]["method"]["mask_ratio"] = ratio
        body["checkpoint"] |= {
            "fingerprint": fingerprint(index),
            "weights_sha256": fingerprint(index, 64),
            "seed": seed,
        }
        body["checkpoint"]["cost"]["seconds"] = rng.uniform(100, 200)
        body["cost"]["seconds"] = rng.uniform(10, 20)
        body["provenance"]["time"] = f"2026-01-01T00:{index // 60 % 60:02}:{index % 60:02}+00:00"
        for value in body["metrics"].values():
            value["value"] = rng.uniform(40, 60)
        body["id"] = f"method-{method}-{body['task']['name']}-s{seed}-{fingerprint(index, 12)}"
        text = json.dumps({**body, "sha256": fingerprint(body, 64)}, indent=2, ensure_ascii=False)
        (folder / f"{body['id']}.json").write_text(text + "\n")


@contextlib.contextmanager
def timed(what: str):
    start = time.perf_counter()
    yield
    print(f"{time.perf_counter() - start:6.2f} s  {what}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=10_000)
    count = parser.parse_args().records
    with tempfile.TemporaryDirectory() as name:
        results = Path(name)
        with timed(f"writing {count} records"):
            write_records(results / "records", count)
        with timed("load_records"):
            tidy = load_records(results, earlier_epochs=True)
        print(f"          {len(tidy)} rows")
        with timed("comparison"):
            table = build_comparison(tidy)
        print(f"          {len(table.rows)} rows, {len(table.columns)} columns")
        with timed("render as text"):
            render(table, "text")
        with timed("load and print, in this process"):
            table_command(Choice(), results=results, format="text", layout=None)
        with timed("`mimbench table`, start of Python and imports included"):
            command = [sys.executable, "-m", "mimbench", "table", "--results", name]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        with timed("the page, records read and written to disk included"):
            page = write_page(results, results / "page")
        print(f"          {page.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
