"""The pages in docs/: their generated parts are current, their names exist, their code and commands work."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from mimbench.recipe import document

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
_spec = importlib.util.spec_from_file_location("make_pages", DOCS / "make_pages.py")
make_pages = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_pages)
METHODS = DOCS / "methods" / "index.md"
PAGES = [*make_pages.pages(), ROOT / "README.md"]
TUTORIAL = DOCS / "tutorial.md"
"""Its code and commands build on each other, and are tested in tests/test_tutorial.py."""
FOLDERS = "mimbench|methods|tasks|tests|results|docs|examples|benchmarks"
ENTRY_POINT_GROUPS = {
    *("mimbench.methods", "mimbench.tasks", "mimbench.datasets", "mimbench.encoders"),
    *("mimbench.recipes", "mimbench.preset_tables", "mimbench.executors", "mimbench.monitors"),
}


def page_id(path: Path) -> str:
    return path.name


def code_blocks(path: Path, language: str) -> list[str]:
    """The code blocks that a page writes itself. Blocks of files are tested with their package."""
    text = make_pages.PART.sub("", path.read_text(encoding="utf-8"))
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def has_name(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute (of an attribute) of one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        module_name = ".".join(parts[:length])
        try:
            value = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise
            continue
        for attribute in parts[length:]:
            if not hasattr(value, attribute):
                return False
            value = getattr(value, attribute)
        return True
    return False


@pytest.mark.parametrize("page", make_pages.pages(), ids=page_id)
def test_generated_parts_are_current(page):
    text = page.read_text(encoding="utf-8")
    assert make_pages.fill(text) == text, "run `make pages`"


def test_each_room_is_described():
    rooms = {room.split(".")[0] for room in make_pages.layering().ALLOWED}
    assert set(make_pages.HOLDS) == rooms, "correct HOLDS in docs/make_pages.py"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_each_name_exists(page):
    names = set(re.findall(r"`(mimbench(?:\.\w+)+)`", page.read_text(encoding="utf-8"))) - ENTRY_POINT_GROUPS
    assert [name for name in sorted(names) if not has_name(name)] == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_each_path_exists(page):
    text = page.read_text(encoding="utf-8")
    paths = re.findall(rf"`((?:{FOLDERS})/[\w./-]+)`", text)
    missing = [path for path in paths if not (ROOT / path).exists()]
    links = re.findall(r"\]\(([^)#:]+)[)#]", text)
    missing += [link for link in links if not (page.parent / link).exists()]
    assert missing == []


def test_the_start_page_links_every_page():
    pages = {page.name for page in DOCS.glob("*.md")} - {"index.md"}
    assert linked_pages(DOCS / "index.md") == pages | {"methods/index.md"}
    assert linked_pages(METHODS) == {page.name for page in METHODS.parent.glob("*.md")} - {"index.md"}


def linked_pages(page):
    return set(re.findall(r"\]\((\S+\.md)\)", page.read_text(encoding="utf-8")))


def test_what_methods_get_and_return_is_documented():
    documented = re.findall(r"^::: ([\w.]+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [name for name in documented if not has_name(name)] == []
    names = {name.rpartition(".")[2] for name in documented}
    assert names >= {"Method", "Batch", "InputConfig", "View", "StepOutput", "Stage", "Encoder", "Features"}


@pytest.mark.parametrize("source", ["mimbench", "methods", "tasks"])
def test_each_environment_variable_is_documented(source):
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / source).rglob("*.py"))
    assert set(re.findall(r"MIMBENCH_[A-Z]+", code)) <= set(
        re.findall(r"MIMBENCH_[A-Z]+", (DOCS / "cli.md").read_text(encoding="utf-8"))
    )


def test_a_missing_name_is_noticed():
    assert has_name("mimbench.api.Method.predict")
    assert not has_name("mimbench.api.Metod")
    assert not has_name("mimbench.no_room.module")


@pytest.mark.parametrize("page", sorted({*DOCS.glob("*.md")} - {TUTORIAL}), ids=page_id)
def test_python_blocks_run(page, monkeypatch):
    blocks = code_blocks(page, "python")
    if not blocks:
        return
    monkeypatch.syspath_prepend(ROOT / "examples" / "plugin")
    for block in blocks:
        exec(compile(block, str(page), "exec"), {"__name__": page.stem})


def test_toml_blocks_are_lines_of_the_example():
    with (ROOT / "examples" / "plugin" / "pyproject.toml").open("rb") as stream:
        entry_points = tomllib.load(stream)["project"]["entry-points"]
    blocks = [block for page in DOCS.glob("adding-*.md") for block in code_blocks(page, "toml")]
    assert len(blocks) == 5
    for block in blocks:
        for group, lines in tomllib.loads(block)["project"]["entry-points"].items():
            assert lines.items() <= entry_points[group].items()


@pytest.mark.e2e
def test_commands_are_accepted(mimbench, example_plugin):
    """Each `mimbench run` of the guides passes all checks of a plan. tests/test_third_party.py runs such commands."""
    pages = [*sorted({*DOCS.glob("*.md")} - {TUTORIAL}), ROOT / "examples" / "plugin" / "README.md"]
    lines = [line for page in pages for block in code_blocks(page, "bash") for line in block.splitlines()]
    commands = [line for line in lines if line.startswith("mimbench ")]
    assert len(commands) >= 5
    for command in commands:
        arguments = shlex.split(command)[1:]
        if arguments[0] == "run":
            arguments.append("--dry-run")
        path = os.pathsep.join([example_plugin, *filter(None, [os.environ.get("PYTHONPATH")])])
        done = mimbench(*arguments, PYTHONPATH=path)
        assert done.returncode == 0, (command, done.stderr)
    others = [line for line in lines if not line.startswith("mimbench ")]
    assert set(others) <= {"pip install examples/plugin", "make docs", "make pages"}


@pytest.mark.parametrize("page", sorted(set((DOCS / "methods").glob("*.md")) - {METHODS}), ids=page_id)
def test_a_methods_page_runs_that_method_with_a_preset_for_it(page):
    commands = [shlex.split(line) for block in code_blocks(page, "bash") for line in block.splitlines()]
    runs = [command for command in commands if command[:2] == ["mimbench", "run"]]
    assert runs
    for command in runs:
        method, preset = (command[command.index(flag) + 1] for flag in ("--method", "--recipe"))
        assert method == page.stem
        assert method in document.read(preset)["methods"]


def test_the_site_builds_without_network(tmp_path):
    """Strict: a broken link, or a name that mkdocstrings does not find, is an error."""
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    no_network = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **no_network}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    html = "".join(page.read_text(encoding="utf-8") for page in tmp_path.glob("*.html"))
    assert "mimbench.contract.method.Method.predict" in html
    # Fonts, scripts, styles and images come with the site. Links to other sites are fine.
    assert re.findall(r'<(?:script|img|iframe)[^>]*src="(?:https?:)?//[^"]*', html) == []
    loaded = re.findall(r'<link[^>]*rel="(?:stylesheet|preconnect|icon)"[^>]*>', html)
    assert [link for link in loaded if "//" in link] == []
