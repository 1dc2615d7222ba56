"""`mimbench check` of the plugins of this folder whose defaults suit small images."""

from __future__ import annotations

import pytest


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("task", "cluster"),
        ("task", "one-query-probe"),
        ("dataset", "bands"),
        ("encoder", "mixer"),
        ("encoder", "poolformer"),
        ("method", "coarse"),
    ],
)
def test_the_command_checks_them_with_their_defaults(quick, kind, name):
    done = quick("check", kind, name)
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith(f"{kind} {name}, from plugins-of-tests 0.1\n")
    assert "waived" not in done.stdout
