"""What all commands share: usage errors, help and the version."""

from __future__ import annotations

import re
import subprocess
import sys

import typer

from mimbench import __version__
from mimbench.cli import show
from mimbench.cli.application import COMMANDS, app
from mimbench.cli.options import names_of, recipe_names


def test_help_answers_at_once_and_imports_nothing_heavy():
    heavy = "('torch', 'mmengine', 'timm', 'pandas', 'numpy', 'pydantic')"
    code = f"import sys, mimbench.cli; print([module for module in {heavy} if module in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_usage_errors_exit_with_2(quick):
    for arguments in (("run",), ("run", "--nonsense"), ("nonsense",), ("table", "--format", "word")):
        done = quick(*arguments)
        assert done.returncode == 2, arguments
        assert done.stderr.startswith("mimbench: ")
        assert done.stderr.count("\n") == 1
    misspelt = quick("run", "--metod", "simmim").stderr
    assert "No such option: --metod" in misspelt
    assert quick("show").stderr.startswith("Usage: mimbench show ")
    assert misspelt.endswith("; see `mimbench run --help`\n")


def test_the_version_and_the_short_help(quick):
    done = quick("--version")
    assert (done.returncode, done.stdout) == (0, f"mimbench {__version__}\n")
    for command in ((), ("run",), ("show",), ("show", "recipe"), ("table",)):
        short, long = quick(*command, "-h"), quick(*command, "--help")
        assert (short.returncode, short.stdout) == (0, long.stdout)


def test_every_help_has_examples_and_no_flag_seems_to_take_a_value(quick):
    commands = [[name] for name, *_ in COMMANDS] + [["show", info.name] for info in show.app.registered_commands]
    for command in commands:
        text = quick(*command, "--help").stdout
        assert "Examples:\n  mimbench " in text.replace("    mimbench", "  mimbench").replace("  Examples", "Examples")
        assert "README.md" in text
        assert "<bool>" not in text


def test_examples_use_options_that_exist():
    commands = typer.main.get_command(app).commands
    for name, _, lines in COMMANDS:
        known = {option for parameter in commands[name].params for option in parameter.opts}
        for line in lines:
            assert line.split()[1] == name
            assert set(re.findall(r"--[a-z-]+", line)) <= known, line


def test_completion_is_offered_and_completes_names(quick):
    assert "--install-completion" in quick("--help").stdout
    assert names_of("methods")("simmim,ma") == ["simmim,mae", "simmim,mae-st", "simmim,maskfeat"]
    assert recipe_names("smo") == ["smoke"]
