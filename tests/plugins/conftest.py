"""The plugins of this folder, registered as an installed package registers its own."""

from __future__ import annotations

import pytest

ENTRY_POINTS = {
    "methods": {
        "distill": "plugins.distill:Distill",
        "coarse": "plugins.coarse:Coarse",
        "tube-mae": "plugins.tube_mae:TubeMAE",
    },
    "tasks": {
        "cluster": "plugins.cluster:Cluster",
        "one-query-probe": "plugins.one_query_probe:OneQueryProbe",
    },
    "datasets": {"bands": "plugins.bands:Bands", "moving-squares": "plugins.moving_squares:MovingSquares"},
    "encoders": {
        "mixer": "plugins.mixer:Mixer",
        "poolformer": "plugins.poolformer:PoolFormer",
        "cube-vit": "plugins.cube_vit:CubeViT",
    },
}


@pytest.fixture
def registered(tmp_path_factory, monkeypatch):
    """The metadata of a package whose modules are those of tests/plugins."""
    site = tmp_path_factory.mktemp("site")
    folder = site / "plugins_of_tests-0.1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: plugins-of-tests\nVersion: 0.1\n")
    lines = []
    for kind, targets in ENTRY_POINTS.items():
        lines += [f"[mimbench.{kind}]", *(f"{name} = {target}" for name, target in targets.items())]
    (folder / "entry_points.txt").write_text("\n".join([*lines, ""]))
    monkeypatch.syspath_prepend(site)
    return site
