"""Models are built from a seed, or refused in one line when no memory holds them."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file

from mimbench import registry
from mimbench.encoders.timm_model import TimmConfig, TimmModel
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


@pytest.mark.parametrize("method", ["mae", "data2vec", "simmim", "random-init"])
def test_weights_from_a_file_stay_whatever_a_method_initialises(method, tmp_path):
    arguments = {"depth": 2, "patch_size": 4}
    source = timm.create_model("test_vit", num_classes=0, in_chans=1, img_size=16, **arguments)
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    config = TimmConfig(model="test_vit", arguments=arguments, weights=tmp_path / "weights.safetensors")
    options = {"data2vec": {"target_layers": 1, "hidden_patches": 8, "min_block": 2}, "simmim": {"mask_patch_size": 4}}
    plugin = registry.methods.load(method)
    sizes = {"image_size": 16, "channels": 1, "seed": 0}
    built = assemble("timm", config, plugin, plugin.Config(**options.get(method, {})), **sizes)
    encoders = [module for module in built.modules() if isinstance(module, TimmModel)]
    assert len(encoders) == (2 if method == "data2vec" else 1)
    for encoder in encoders:
        for name, value in encoder.state_dict().items():
            assert torch.equal(value, source.state_dict()[name.removeprefix("body.")]), name
    with torch.device("meta"):
        assert assemble("timm", config, plugin, plugin.Config(**options.get(method, {})), **sizes) is not None
