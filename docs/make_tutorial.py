"""Run the commands of docs/tutorial.md, and write what they print into the page.

    python docs/make_tutorial.py

tests/test_tutorial.py runs them too, and compares. A ```bash block followed by a ```text block is compared: the text is
all that the commands print on standard output, or, if it has lines "...", an excerpt of it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
PLUGIN = ROOT / "tests" / "plugins" / "coarse.py"
STEP = re.compile(r"```bash\n(.*?) *```(?:\n\n```text\n(.*?)```)?", re.DOTALL)
"""Blocks may be indented, within lists."""
LONG = " --results full"
"""The results folder of trainings that take minutes."""
GAP = "..."
"""A line of an excerpt that stands for any number of lines."""
SHIMS = {
    "mimbench": '"{python}" -m mimbench "$@"',
    "pytest": '"{python}" -m pytest "$@"',
    "pip": '"{python}" -m pip "$@" --quiet --no-deps --no-build-isolation --target "{site}"',
}
"""Commands of the page that run with this Python, without network and without a change of its packages."""


@dataclass(frozen=True)
class Step:
    """The commands of a bash block, and the text block that follows it."""

    commands: str
    output: str | None

    @property
    def takes_minutes(self) -> bool:
        """Whether the block has a training that is only planned here (--dry-run). Its output is not compared."""
        return any(map(_takes_minutes, self.commands.splitlines()))

    @property
    def is_excerpt(self) -> bool:
        return self.output is not None and GAP in self.output.splitlines()


def read_steps(text: str) -> list[Step]:
    """The bash blocks of a page, in order."""
    return [Step(*match.groups()) for match in STEP.finditer(text)]


def make_environment(folder: Path) -> dict[str, str]:
    """The environment of the commands. The folder gets their shims, and what pip installs."""
    programs, site = folder / "bin", folder / "site"
    programs.mkdir()
    for name, line in SHIMS.items():
        shim = programs / name
        shim.write_text(f"#!/bin/sh\nexec {line.format(python=sys.executable, site=site)}\n")
        shim.chmod(0o755)
    paths = filter(None, [str(site), os.environ.get("PYTHONPATH")])
    return {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(paths),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "100",
    }


def run_step(step: Step, folder: Path, environment: dict[str, str]) -> str:
    """What the commands of a block print on standard output. Raises RuntimeError if one fails."""
    lines = [line.strip() for line in step.commands.splitlines()]
    if step.takes_minutes:  # their results folder stays empty, and the one of the quick runs is read instead
        lines = [f"{line} --dry-run" if _takes_minutes(line) else line.replace(LONG, "") for line in lines]
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(lines)], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{step.commands}ends with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def _takes_minutes(command: str) -> bool:
    return command.strip().startswith("mimbench run ") and "--recipe smoke" not in command


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as name:
        tools, work = Path(name, "tools"), Path(name, "work")
        tools.mkdir()
        work.mkdir()
        (work / "coarse.py").write_text(PLUGIN.read_text(encoding="utf-8"), encoding="utf-8")
        environment = make_environment(tools)
        for step in read_steps(text):
            output = run_step(step, work, environment)
            if step.output is not None and not step.is_excerpt and not step.takes_minutes:
                old = f"```bash\n{step.commands}```\n\n```text\n{step.output}```"
                text = text.replace(old, f"```bash\n{step.commands}```\n\n```text\n{output}```")
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
