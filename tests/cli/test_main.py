"""What all commands share: usage errors, help and the version."""

from __future__ import annotations

import subprocess
import sys

from mimbench import __version__


def test_help_answers_at_once_and_imports_nothing_heavy():
    heavy = "('torch', 'mmengine', 'timm', 'pandas', 'numpy', 'pydantic')"
    code = f"import sys, mimbench.cli; print([module for module in {heavy} if module in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_usage_errors_exit_with_2(quick):
    for arguments in (("run",), ("run", "--nonsense"), ("nonsense",), ("table", "--format", "word")):
        done = quick(*arguments)
        assert done.returncode == 2, arguments
        assert "Traceback" not in done.stderr


def test_the_version_and_the_short_help(quick):
    done = quick("--version")
    assert (done.returncode, done.stdout) == (0, f"mimbench {__version__}\n")
    for command in ((), ("run",), ("show",), ("show", "recipe"), ("table",)):
        short, long = quick(*command, "-h"), quick(*command, "--help")
        assert (short.returncode, short.stdout) == (0, long.stdout)
