"""Writes the generated parts of the pages in docs/: run `python docs/make_pages.py` after a change, or `make pages`.

It also writes the templates of `mimbench new` from the example package.

A generated part stands between `<!-- generated: WHAT -->` and `<!-- end -->`. WHAT is

    floors          the rooms of mimbench by floor, from ALLOWED in tests/test_layering.py
    file PATH       the content of a file, as a code block
    base            the modules that every room may import, from BASE there
    rooms           the rooms by top-level folder: what each holds, and what it may import
    commands        the help of every command
    cost RECIPE     what `mimbench cost` prints
    abilities       what encoders can do, from ABILITIES in mimbench/contract/abilities.py, and which encoder can
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PART = re.compile(r"(<!-- generated: (.*?) -->\n).*?(<!-- end -->)", re.DOTALL)


HOLDS = {
    "masks": "mask sampling, patches",
    "drawing": "images in rows and columns",
    "contract": "what a plugin author reads",
    "registry": "plugins by name, from entry points",
    "plugin_source": "descriptions of plugins, read without importing them",
    "plugin_file": "plugins from a Python file, for one process",
    "scaffold": "new packages with one plugin each",
    "display": "labels, colours and metrics of plugins by name",
    "display_file": "what a `display.toml` holds, read and checked",
    "optim": "schedules, parameter groups",
    "compute": "compiled blocks, forms of attention, drop path",
    "encoders": "built-in backbones",
    "parts": "parts of methods: teachers, predictors, heads, sparse convolution",
    "convert": "weights of other code bases",
    "data": "datasets, loaders, augmentation",
    "recipe": "TOML to typed settings, departures",
    "store": "the results folder: records, checkpoints, verify",
    "engine": "training with mmengine",
    "harness": "planning and running",
    "executors": "runs by several workers, on this machine or a cluster; their status",
    "toolkit": "parts of tasks",
    "api": "all that plugins may import",
    "parity": "comparison with golden vectors of official code",
    "testing": "checks for authors of plugins",
    "report": "tables, plots and page, from records alone",
    "": "`mimbench.load_records`, `summary`, `curves`, `table`, `load_scores`, `join_scores`",
    "cli": "one module per command",
    "__main__": "`python -m mimbench`",
}
"""What each top-level room holds. A test fails if a room is missing here."""


def layering() -> ModuleType:
    """tests/test_layering.py, which holds ALLOWED and BASE."""
    spec = importlib.util.spec_from_file_location("test_layering", ROOT / "tests" / "test_layering.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assign_floors(allowed: Mapping[str, set[str]]) -> dict[str, int]:
    """Room -> its floor. A room is one floor above the highest room that it may import; 0 imports none."""
    floors: dict[str, int] = {}

    def floor_of(room: str) -> int:
        if room not in floors:
            floors[room] = max((floor_of(below) + 1 for below in allowed[room]), default=0)
        return floors[room]

    for room in allowed:
        floor_of(room)
    return floors


def floors_text() -> str:
    floors = assign_floors(layering().ALLOWED)
    lines = []
    for floor in range(max(floors.values()), -1, -1):
        rooms = sorted(room or "mimbench (package root)" for room, number in floors.items() if number == floor)
        lines.append(f"{floor:2}  " + "   ".join(rooms))
    return "```text\n" + "\n".join(lines) + "\n```\n"


def base_text() -> str:
    return "".join(f"- `mimbench/{name}.py`\n" for name in sorted(layering().BASE))


def rooms_text() -> str:
    """One row per top-level room. Its sub-rooms count as part of it."""
    imports: dict[str, set[str]] = {}
    for room, allowed in layering().ALLOWED.items():
        folder = room.split(".")[0]
        imports.setdefault(folder, set()).update(name.split(".")[0] for name in allowed)
    lines = ["| Room | Holds | May import |", "| --- | --- | --- |"]
    for folder in sorted(imports, key=lambda name: (len(imports[name] - {name}), name)):
        path = f"mimbench/{folder}".rstrip("/")
        path += "" if (ROOT / path).is_dir() else ".py"
        allowed_names = ", ".join(sorted(imports[folder] - {folder})) or "-"
        lines.append(f"| `{path}` | {HOLDS.get(folder, '')} | {allowed_names} |")
    lines.append("| `methods`, `tasks` | built-in plugins, bound by entry points as a third party's are | api |")
    return "\n".join(lines) + "\n"


def file_text(path: str) -> str:
    language = {"py": "python", "toml": "toml"}[path.rsplit(".", 1)[1]]
    return f"```{language}\n# {path}\n{(ROOT / path).read_text(encoding='utf-8')}```\n"


def commands_text() -> str:
    """The help of each command, as it is printed on a terminal of 80 columns."""
    from typer.testing import CliRunner

    from mimbench.cli.application import app, bench, show

    os.environ["COLUMNS"] = "80"
    names = [[command.name or ""] for command in app.registered_commands]
    for group, commands in (("show", show.app), ("bench", bench.app)):
        names += [[group, command.name or ""] for command in commands.registered_commands]
    parts = []
    for name in names:
        result = CliRunner().invoke(app, [*name, "--help"], prog_name="mimbench")
        assert result.exit_code == 0, result.output
        parts.append(f"## mimbench {' '.join(name)}\n\n```text\n{result.output.strip()}\n```\n")
    return "\n" + "\n".join(parts) + "\n"


def abilities_text() -> str:
    """One row per ability, with the built-in encoders that have it with some of their options."""
    from mimbench.contract import ABILITIES
    from mimbench.encoders.convnet import ConvNeXt, ResNet
    from mimbench.encoders.swin import Swin
    from mimbench.encoders.timm_model import TimmModel
    from mimbench.encoders.vit import ViT

    encoders = {"vit": ViT, "swin": Swin, "convnext": ConvNeXt, "resnet": ResNet, "timm": TimmModel}
    lines = ["| Name | The encoder can | Built-in encoders |", "| --- | --- | --- |"]
    for name, text in ABILITIES.items():
        able = ", ".join(f"`{encoder}`" for encoder, cls in encoders.items() if name in cls.can)
        lines.append(f"| `{name}` | {text} | {able} |")
    return "\n".join(lines) + "\n"


EXAMPLES = {
    "method": ("deblur", "deblur", "Deblur"),
    "task": ("nearest-mean", "nearest_mean", "NearestMean"),
    "dataset": ("shapes", "shapes", "Shapes"),
    "encoder": ("plain-cnn", "plain_cnn", "PlainCNN"),
}
"""Kind of plugin -> name, module and class in the example package."""


def templates() -> dict[Path, str]:
    """The templates of `mimbench new` that are made from the example package, by path."""
    example = ROOT / "examples" / "plugin"
    folder = ROOT / "mimbench" / "scaffold" / "templates"
    made = {}
    for kind, names in EXAMPLES.items():
        module = (example / "mimbench_example" / f"{names[1]}.py").read_text(encoding="utf-8")
        test = (example / "tests" / f"test_{names[1]}.py").read_text(encoding="utf-8")
        arguments = re.search(r"^RUN = (\[.*\])$", test, re.MULTILINE)
        assert arguments is not None, kind
        command = " ".join(["run", *ast.literal_eval(arguments[1])])
        texts = {"module.py": module, "test.py": test, "command": f"{command}\n"}
        made |= {folder / kind / f"{name}.txt": _as_template(text, *names) for name, text in texts.items()}
    return made


def _as_template(text: str, name: str, module: str, class_name: str) -> str:
    """A file of the example package with placeholders instead of its names."""
    text = text.replace("$", "$$").replace(f"mimbench_example.{module}", "${package}.${module}")
    text = text.replace("mimbench_example", "${package}").replace(f'"{module}.py"', '"${module}.py"')
    text = text.replace(class_name, "${class_name}")
    return re.sub(rf"""(?<=["=\s]){name}(?=["\s])""", "${name}", text)


def pages() -> list[Path]:
    return [*sorted(DOCS.rglob("*.md")), ROOT / "CONTRIBUTING.md"]


def cost_text(recipe: str) -> str:
    """The table of methods."""
    command = [sys.executable, "-m", "mimbench", "cost", "--recipe", recipe, "--format", "markdown"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return f"\n{done.stdout}\n"


def fill(text: str) -> str:
    """A page with its generated parts as they should be."""

    def replace(part: re.Match[str]) -> str:
        what, _, argument = part[2].partition(" ")
        make = {
            "floors": floors_text,
            "base": base_text,
            "rooms": rooms_text,
            "commands": commands_text,
            "abilities": abilities_text,
            "cost": lambda: cost_text(argument),
            "file": lambda: file_text(argument),
        }[what]
        return part[1] + make() + part[3]

    return PART.sub(replace, text)


def main() -> None:
    for page in pages():
        text = page.read_text(encoding="utf-8")
        page.write_text(fill(text), encoding="utf-8")
    for path, text in templates().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
