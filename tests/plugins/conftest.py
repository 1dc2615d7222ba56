"""The plugins of this folder, registered as an installed package registers its own."""

from __future__ import annotations

import pytest

METHODS = {
    "i-jepa": "plugins.ijepa:IJEPA",
    "ibot": "plugins.ibot:IBOT",
    "spark": "plugins.spark:SparK",
    "mixmim": "plugins.mixmim:MixMIM",
    "distill": "plugins.distill:Distill",
}


@pytest.fixture
def registered(tmp_path_factory, monkeypatch):
    """The metadata of a package whose modules are those of tests/plugins."""
    site = tmp_path_factory.mktemp("site")
    folder = site / "plugins_of_tests-0.1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: plugins-of-tests\nVersion: 0.1\n")
    lines = "\n".join(f"{name} = {target}" for name, target in METHODS.items())
    (folder / "entry_points.txt").write_text(f"[mimbench.methods]\n{lines}\n")
    monkeypatch.syspath_prepend(site)
    return site
