"""The command line, one module per command. Importing it imports neither torch nor pandas: `--help` answers at once.

Each module defines the options of its command and a short handler. The handler imports what it needs, calls a function
of another room, and prints what that returns.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import typer

from mimbench.advice import advice_on, describe_error
from mimbench.cli.application import app
from mimbench.errors import MimbenchError
from mimbench.lean_imports import install
from mimbench.text import print_any_text, print_line, print_text


def main() -> None:
    """Entry point: every foreseen error is one line on standard error and an exit code, never a traceback."""
    print_any_text()
    install()
    try:
        sys.exit(typer.main.get_command(app).main(prog_name="mimbench", standalone_mode=False) or 0)
    except MimbenchError as error:
        print_line(f"mimbench: {error}", error=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        print_text("mimbench: stopped", error=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        # A usage error of typer's parser. Its class is click's in some versions of typer and typer's own in others.
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            if type(error).__name__ == "NoArgsIsHelpError":  # a group without a command: its message is the help
                error.show()
            else:
                print_line(f"mimbench: {_usage_error(error)}", error=True)
            sys.exit(error.exit_code)
        line, code = _foreseen(error)
        if line is None:
            raise
        print_line(f"mimbench: {line}", error=True)
        sys.exit(code)


def _usage_error(error: Any) -> str:
    """One line for a usage error, with the command whose help lists the options."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "mimbench"
    return f"{' '.join(error.format_message().split()).rstrip('.')}; see `{command} --help`"


def _foreseen(error: Exception) -> tuple[str | None, int]:
    """One line and an exit code for an error of the machine or of a plugin's code; None for all others.

    With MIMBENCH_DEBUG=1 always None, so that the traceback is printed.
    """
    if os.environ.get("MIMBENCH_DEBUG"):
        return None, 1
    if advice_on(error):
        return describe_error(error), 1
    from mimbench.harness.running.blame import describe_culprit

    culprit = describe_culprit(error)
    if not culprit:
        return None, 1
    return f"{describe_error(error)} ({culprit}); MIMBENCH_DEBUG=1 shows the traceback", 2
