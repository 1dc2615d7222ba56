"""Tables and pictures of README and the docs, from committed records: `make pictures` (needs Chromium)."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
REFERENCE, DOCS = Path("results/reference"), Path("docs")
MADE_FROM = DOCS / "made_from.sha256"
TABLE = re.compile(r"(<!-- mimbench (table [^>]*) -->\n).*?(<!-- end -->)", re.DOTALL)
PAGES = tuple(
    str(path.relative_to(ROOT))
    for path in (ROOT / "README.md", ROOT / "results" / "README.md", *sorted((ROOT / DOCS).rglob("*.md")))
    if TABLE.search(path.read_text(encoding="utf-8"))
)
"""Pages that hold tables of records."""
METHODS = "random-init,supervised,simmim,mae,beit,maskfeat,data2vec"
BARS = (
    "plot",
    "bars",
    "--results",
    str(REFERENCE),
    "--method",
    METHODS,
    "--task",
    "linear-probe,knn,few-shot,detection",
)
BARS += ("--width", "7")
EPOCHS = ("plot", "epochs", "--results", str(REFERENCE), "--method", "simmim,mae,maskfeat,random-init")
EPOCHS += ("--task", "linear-probe", "--baseline", "random-init", "--width", "4.5")
FURTHER = "ijepa,localmim,cae,hpm,crossmae,capi,dbot,beitv2,data2vec2,ibot,greenmim,mixmim,fcmae,spark"
LOSS = ("plot", "loss", "--results", str(REFERENCE), "--method", FURTHER, "--width", "7")
EFFICIENCY = ("plot", "cost", "--results", "results/efficiency", "--width", "7")
PLOTS = {"bars.svg": BARS, "epochs.svg": EPOCHS, "loss.svg": LOSS, "efficiency.svg": EFFICIENCY}
SHOWN = {"simmim-knn-s0-*.json": "reconstruction", "mae-detection-s1-*.json": "predictions"}
"""Records and their pictures that README shows."""


def digest(root: Path = ROOT) -> str:
    """One hash of all reference records: what pictures were made from."""
    whole = hashlib.sha256()
    for path in sorted((root / REFERENCE / "records").glob("*.json")):
        whole.update(path.read_bytes())
    return whole.hexdigest()


def mimbench(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "mimbench", *arguments], cwd=ROOT, text=True, capture_output=True)
    if done.returncode:
        sys.exit(f"mimbench {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def photograph(chromium: str, address: str, path: Path) -> None:
    """A picture of a page, once its tables are drawn: its data is unpacked after the page is loaded."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--hide-scrollbars"])
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        tab.goto(address)
        tab.wait_for_selector("#leaderboard tbody tr")
        tab.screenshot(path=path)
        browser.close()


def main() -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if chromium is None:
        sys.exit("no Chromium for the picture of the page: `make tools`")
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        written = TABLE.sub(lambda m: m[1] + mimbench(*m[2].split()) + m[3], text)
        (ROOT / page).write_text(written, encoding="utf-8")
    for name, arguments in PLOTS.items():
        mimbench(*arguments, "--output", str(DOCS / name))
    for pattern, kind in SHOWN.items():
        (record,) = (ROOT / REFERENCE / "records").glob(pattern)
        picture = json.loads(record.read_text(encoding="utf-8"))["artifacts"][kind]
        shutil.copy(ROOT / REFERENCE / picture, ROOT / DOCS / f"{kind}.png")
    with tempfile.TemporaryDirectory() as folder:
        mimbench("report", "--results", str(REFERENCE), "--output", f"{folder}/page")
        photograph(chromium, f"file://{folder}/page/index.html", ROOT / DOCS / "page.png")
    (ROOT / MADE_FROM).write_text(f"{digest()}\n")


if __name__ == "__main__":
    main()
