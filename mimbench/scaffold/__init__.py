"""New packages with one plugin each, for `mimbench new`: the text of the example package under another name.

`templates` holds the files. Those of a kind are written by docs/make_pages.py from examples/plugin, so that the
documentation, the example and new packages are the same code.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template

from mimbench import registry
from mimbench.errors import InputError, nearest
from mimbench.files import writing

KINDS = tuple(kind.kind for kind in registry.ALL)
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def write_package(kind: str, name: str, folder: Path | None = None) -> list[Path]:
    """Write an installable package with one plugin and its tests.

    Args:
        kind: "method", "task", "dataset" or "encoder".
        name: of the plugin: small letters, digits and single hyphens.
        folder: is made; by default "mimbench-NAME".

    Returns:
        The files; the plugin's module comes first.

    Raises:
        InputError: an unknown kind, a name that cannot be used or is taken, or a folder that is not empty.
    """
    if kind not in KINDS:
        raise InputError(f"unknown kind of plugin {kind!r}{nearest(kind, KINDS)}")
    values = _values(kind, name)
    folder = folder or Path(values["distribution"])
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "is not empty" if folder.is_dir() else "is a file"
        raise InputError(f"--output {folder} {what}; name a new or an empty folder")
    values["command"] = _render(f"{kind}/command", values).strip()
    package, module = values["package"], values["module"]
    texts = {
        f"{package}/{module}.py": _render(f"{kind}/module.py", values),
        f"{package}/__init__.py": f'"""The {kind} {name} for mimbench."""\n',
        f"tests/test_{module}.py": _render(f"{kind}/test.py", values),
        "pyproject.toml": _render("pyproject.toml", values),
        "README.md": _render("README.md", values),
    }
    with writing(f"--output {folder}"):
        for path, text in texts.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    return [folder / path for path in texts]


def _values(kind: str, name: str) -> dict[str, str]:
    """What replaces the placeholders of templates."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} is no name of a {kind}; use small letters, digits and single hyphens, beginning with a letter"
        )
    module = name.replace("-", "_")
    if keyword.iskeyword(module):
        raise InputError(f"{name!r} is a keyword of Python; choose another name")
    plugins = next(each for each in registry.ALL if each.kind == kind)
    if name in plugins.names():
        raise InputError(f"{kind} {name!r} exists already, in {plugins.owner(name)}; choose another name")
    class_name = "".join(part.capitalize() for part in name.split("-"))
    if re.search(rf"\b{class_name}(Config)?\b", _text(f"{kind}/module.py") + _text(f"{kind}/test.py")):
        raise InputError(f"class {class_name} would hide another one that the module uses; choose another name")
    package = f"mimbench_{module}"
    if find_spec(package):
        raise InputError(f"a package {package!r} is installed already; choose another name than {name!r}")
    return {
        "kind": kind,
        "name": name,
        "module": module,
        "package": package,
        "distribution": f"mimbench-{name}",
        "class_name": class_name,
    }


def _render(template: str, values: Mapping[str, str]) -> str:
    return Template(_text(template)).substitute(values)


def _text(template: str) -> str:
    return files("mimbench.scaffold").joinpath("templates", f"{template}.txt").read_text(encoding="utf-8")
