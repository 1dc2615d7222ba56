"""Protocols of the frozen dense tasks: complete, with a source per value, and the official figures."""

from __future__ import annotations

import pytest

from mimbench import registry
from mimbench.recipe.document import source_of

TASKS = ("dense-linear", "dense-knn")


def leaves(options, path=()):
    for key, value in options.items():
        yield from leaves(value, (*path, key)) if isinstance(value, dict) else [(*path, key)]


@pytest.mark.parametrize("name", TASKS)
def test_every_value_has_a_source(name):
    task = registry.tasks.load(name)
    assert "default" in task.protocols
    for protocol_name, protocol in task.protocols.items():
        task(task.Config.model_validate({"protocol": protocol_name, **protocol.options})).protocol()
        paths = [".".join(path) for path in leaves(protocol.options)]
        for path in paths:
            assert source_of(path, protocol.sources), (protocol_name, path)
        for source in protocol.sources:
            assert any(path == source or path.startswith(f"{source}.") for path in paths), (protocol_name, source)


def test_official_figures():
    linear = registry.tasks.load("dense-linear")
    for name in ("dinov2-ade20k", "dinov2-voc"):
        config = linear.Config.model_validate(linear.protocols[name].options)
        assert (config.train.steps, config.train.batch_size, config.train.lr) == (40_000, 16, 1e-3)
        assert (config.crop_size, config.slide, config.mask_size) == ((512, 512), 341, None)
    knn = registry.tasks.load("dense-knn")
    capi = knn.Config.model_validate(knn.protocols["capi-ade20k"].options)
    assert len(capi.settings) == 8
    assert (capi.image_size, capi.mask_size, capi.memory) == (224, 224, None)
