"""Published encoders: files from a local cache of the hub or from a folder, and what timm's configuration says."""

from __future__ import annotations

import json
import shutil

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from helpers.hub_cache import REVISION, put_in_cache, small_model, use_offline_cache
from mimbench.encoders import published as module
from mimbench.encoders.published import load_published
from mimbench.errors import InputError
from mimbench.files import file_sha256

VIT = {"depth": 2, "embed_dim": 64, "num_heads": 2}
STAGES = {"embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2]}
MODELS = {
    "ViT": ("vit_tiny_patch16_224", {**VIT, "img_size": 32}, "token", 1),
    "DINOv2 with registers": ("vit_small_patch14_reg4_dinov2", {**VIT, "img_size": 28}, "token", 5),
    "DINOv3 with RoPE": ("vit_small_patch16_dinov3", {**VIT, "img_size": 32}, "mean", 5),
    "CLIP": ("vit_base_patch16_clip_224", {**VIT, "img_size": 32}, "token", 1),
    "SigLIP": ("vit_base_patch16_siglip_224", {**VIT, "img_size": 32}, "mean", 0),
    "EVA-02": ("eva02_tiny_patch14_224", {**VIT, "img_size": 28}, "mean", 1),
    "Swin": ("swin_tiny_patch4_window7_224", {**STAGES, "img_size": 56}, "mean", 0),
    "ConvNeXt": ("test_convnext", {}, "mean", 0),
    "Hiera": ("hiera_tiny_224", {"embed_dim": 16, "num_heads": 1, "stages": [1, 1, 1, 1]}, "mean", 0),
}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    return use_offline_cache(monkeypatch, tmp_path / "hub")


@pytest.mark.parametrize("case", MODELS)
def test_the_weights_and_the_input_are_those_of_timm(case, cache):
    name, arguments, pooling, prefix = MODELS[case]
    state, config = small_model(name, **arguments)
    folder = put_in_cache(cache, "lab/model", {"config.json": config, "model.safetensors": state})
    published = load_published("hf:lab/model")
    model = timm.create_model("hf-hub:lab/model", pretrained=True, num_classes=0).eval()
    ours = published.encoder.body.state_dict()
    assert all(torch.equal(ours[key], value) for key, value in model.state_dict().items())
    data = timm.data.resolve_model_data_config(model)
    assert published.input["mean"] == list(data["mean"])
    assert published.input["std"] == list(data["std"])
    assert published.input["image_size"] == data["input_size"][-1] == published.encoder.image_size
    assert published.input["eval_resize"] == int(data["input_size"][-1] / data["crop_pct"])
    assert (published.pooling, published.encoder.num_prefix_tokens) == (pooling, prefix)
    assert (published.files.revision, published.files.name) == (REVISION, "hf:lab/model")
    assert published.sha256 == file_sha256(folder / "model.safetensors")
    if pooling == "token":  # else timm has a norm or attention after its pooling
        size = published.encoder.image_size
        images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(published.encoder.features(images).pool(pooling), model(images))


def test_a_model_of_timm_is_found_by_name_with_its_tag(cache):
    state, config = small_model("test_vit.r160_in1k")
    put_in_cache(cache, "timm/test_vit.r160_in1k", {"config.json": config, "model.safetensors": state})
    short, long = load_published("timm:test_vit"), load_published("timm:test_vit.r160_in1k")
    assert short.files == long.files
    assert (long.files.name, long.files.model) == ("timm:test_vit.r160_in1k", "test_vit.r160_in1k")
    assert long.input["eval_resize"] == 168  # floor(160 / 0.95)
    assert torch.equal(long.encoder.body.state_dict()["norm.weight"], state["norm.weight"])


def test_a_folder_and_its_pickle_are_read(cache, tmp_path):
    state, config = small_model("test_vit", depth=2)
    folder = put_in_cache(cache, "lab/model", {"config.json": config, "model.safetensors": state})
    local = shutil.copytree(folder, tmp_path / "mine")
    expected = load_published("hf:lab/model").encoder.state_dict()
    torch.save(state, local / "pytorch_model.bin")
    (local / "model.safetensors").unlink()
    published = load_published(f"timm:local-dir:{local}")
    assert (published.files.name, published.files.revision) == ("timm:local-dir:mine", "")
    assert all(torch.equal(value, expected[key]) for key, value in published.encoder.state_dict().items())


def test_weights_of_a_larger_network_leave_the_rest_out_and_smaller_ones_are_refused(cache):
    state, config = small_model("test_vit", depth=2)
    more = state | {"decoder.weight": torch.ones(2)}
    put_in_cache(cache, "lab/more", {"config.json": config, "model.safetensors": more})
    assert load_published("hf:lab/more").left_out == ["decoder.weight"]
    less = {key: value for key, value in state.items() if not key.startswith("blocks.1.")}
    put_in_cache(cache, "lab/less", {"config.json": config, "model.safetensors": less})
    with pytest.raises(InputError, match=r"^--checkpoint hf:lab/less: .* it lacks blocks\.1\."):
        load_published("hf:lab/less")


def test_what_cannot_be_had_is_one_clear_line(cache, tmp_path, monkeypatch):
    state, config = small_model("test_vit", depth=2)
    wide = {**config, "pretrained_cfg": {**config["pretrained_cfg"], "input_size": [3, 32, 64]}}
    put_in_cache(cache, "lab/wide", {"config.json": wide, "model.safetensors": state})
    put_in_cache(cache, "lab/transformers", {"config.json": {"model_type": "dinov2"}, "model.safetensors": state})
    put_in_cache(cache, "lab/no-weights", {"config.json": config})
    refused = {
        "hf:lab/none": r"lab/none is not in the local cache .*/hub, and HF_HUB_OFFLINE is set; run it once with a",
        "hf:lab/wide": r"takes images of 32 x 64 px; mimbench's are squares",
        "hf:lab/transformers": r"its config\.json is not in timm's format, which says an architecture",
        "hf:lab/no-weights": r"lab/no-weights is not in the local cache",
        "hf:no repository": r"the hub has no repository 'no repository' that you can read",
        "hf:": "names no model; write timm:MODEL or hf:REPO",
        "timm:test_vit": "timm/test_vit.r160_in1k is not in the local cache",
        "timm:vit_base_patch16_224.maes": r"has no weights 'maes' of it; did you mean 'vit_base_patch16_224\.mae'",
        "timm:vit_bas_patch16_224": r"has no model 'vit_bas_patch16_224'; did you mean 'vit_base_patch16_224'",
        "timm:qqqqqqqqqq": r"has no model 'qqqqqqqqqq'; none of the \d+ that it has is like it",
        f"timm:local-dir:{tmp_path / 'none'}": r"there is no config\.json in this folder",
    }
    for which, message in refused.items():
        with pytest.raises(InputError, match=message) as caught:
            load_published(which)
        assert str(caught.value).startswith(f"--checkpoint {which}")
        assert "\n" not in str(caught.value)


def test_without_a_network_a_file_outside_of_the_hub_is_refused_only_if_it_is_not_there(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    with pytest.raises(InputError, match=r"model\.pth is not there, and HF_HUB_OFFLINE is set; fetch https://example"):
        module._downloaded("https://example.org/model.pth", "timm:x")
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"x": torch.ones(1)}, folder / "model.pth")
    assert load_file(module._downloaded("https://example.org/model.pth", "timm:x"))["x"] == 1


def test_a_repository_that_another_process_changes_keeps_its_revision(cache):
    state, config = small_model("test_vit", depth=2)
    folder = put_in_cache(cache, "lab/model", {"config.json": config, "model.safetensors": state})
    named = load_published(f"hf:lab/model@{REVISION}")
    assert (named.files.revision, named.files.name) == (REVISION, f"hf:lab/model@{REVISION}")
    (folder / "config.json").write_text(json.dumps({**config, "architecture": "no_such_model"}))
    with pytest.raises(InputError, match="no model 'no_such_model'"):
        load_published("hf:lab/model")
