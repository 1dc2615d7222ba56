"""Models are built from a seed, or refused in one line when no memory holds them."""

from __future__ import annotations

import pytest

from mimbench import registry
from mimbench.errors import InputError
from mimbench.harness.planning.build import assemble


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail at alloc_cpu.cpp:127] can't allocate memory")]
)
def test_no_memory_while_a_model_is_built_is_one_line(error, monkeypatch):
    encoder, method = registry.encoders.load("vit"), registry.methods.load("mae")

    def fail(*_):
        raise error

    monkeypatch.setattr(method, "__init__", fail)
    with pytest.raises(InputError, match=r"^method 'mae' .* does not fit into the memory of this machine .* lower the"):
        assemble("vit", encoder.Config(), method, method.Config(), image_size=32, channels=1, seed=0)
