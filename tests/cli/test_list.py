"""`mimbench list`."""

from __future__ import annotations


def test_list_prints_every_kind(quick):
    listed = quick("list").stdout
    assert all(name in listed for name in ("simmim", "detection", "mnist5k", "vit", "smoke"))
    assert quick("list", "--names").stdout.splitlines()[0] == "methods"
