"""What every refusal of the command has in common."""

from __future__ import annotations


def refused(done, *words: str) -> None:
    """Exit code 2, one line on standard error, nothing on standard output, no traceback."""
    assert done.returncode == 2, (done.stdout, done.stderr)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("mimbench: ")
    for word in words:
        assert word in lines[0], lines[0]
    assert done.stdout == ""
