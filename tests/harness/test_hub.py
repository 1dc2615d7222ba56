"""Checkpoints on the Hugging Face hub: what is uploaded is loaded again by timm and by mimbench, and names no one."""

import json
from types import SimpleNamespace

import pytest
import timm
import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

from helpers.checkpoints import encoder_of, noisy
from helpers.hub_cache import REVISION, use_offline_cache
from mimbench.cli.export import export
from mimbench.encoders.published import load_published
from mimbench.errors import InputError
from mimbench.harness.hub import CARD, push_checkpoint
from mimbench.harness.published_encoders import keep_checkpoint, open_checkpoint
from mimbench.store.sealing import SEAL, is_sealed, seal_card
from mimbench.store.store import Store

VIT = {"patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 4}
SWIN = {"patch_size": 2, "embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window": [8, 4]}
DIMS = {"dims": [8, 16, 16, 32], "depths": [1, 1, 1, 1]}
CASES = {
    "vit, learned": ("vit", {**VIT, "position": "learned", "layer_scale": 0.1}),
    "vit, sin-cos": ("vit", {**VIT, "position": "sincos", "mlp_ratio": 2.0}),
    "vit, three class tokens": ("vit", {**VIT, "position": "learned", "class_tokens": 3}),
    "vit, no class token": ("vit", {**VIT, "position": "learned", "class_token": False}),
    "vit, shared tables": ("vit", {**VIT, "position": "relative", "layer_scale": 0.1}),
    "vit, a table per block": ("vit", {**VIT, "position": "relative-per-block"}),
    "swin": ("swin", SWIN),
    "convnext": ("convnext", {"patch_size": 4, **DIMS}),
    "convnext v2": ("convnext", {"patch_size": 4, **DIMS, "grn": True, "layer_scale": None}),
    "resnet": ("resnet", DIMS),
    "timm": ("timm", {"model": "test_vit", "arguments": {"depth": 2}}),
}


class LocalHub:
    """A hub whose repositories are folders of the local cache."""

    def __init__(self, cache, monkeypatch):
        self.cache, self.private = cache, {}
        monkeypatch.setattr(HfApi, "create_repo", lambda _, *arguments, **options: self.create(*arguments, **options))
        monkeypatch.setattr(HfApi, "create_commit", lambda _, *arguments, **options: self.commit(*arguments, **options))

    def folder(self, repository):
        return self.cache / f"models--{repository.replace('/', '--')}"

    def create(self, repository, *, private, exist_ok):
        assert exist_ok
        self.private.setdefault(repository, private)
        return f"https://huggingface.co/{repository}"

    def commit(self, repository, operations, *, commit_message):
        snapshot = self.folder(repository) / "snapshots" / REVISION
        snapshot.mkdir(parents=True, exist_ok=True)
        (self.folder(repository) / "refs").mkdir(exist_ok=True)
        (self.folder(repository) / "refs" / "main").write_text(REVISION)
        for operation in operations:
            (snapshot / operation.path_in_repo).write_bytes(operation.path_or_fileobj)

    def files(self, repository):
        return {path.name: path.read_text(errors="replace") for path in self.folder(repository).rglob("*.*")}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    return LocalHub(use_offline_cache(monkeypatch, tmp_path / "hub"), monkeypatch)


def stored(results, kind, options, **changes):
    """A checkpoint with noise for weights. Returns its encoder."""
    encoder = noisy(encoder_of(kind, options, 32, channels=1))
    shown = {"name": kind, "version": "1", **encoder.config.model_dump(mode="json")}
    card = {
        "mimbench": "0.1.0",
        "what": {
            "method": {"name": "mae", "version": "1"},
            "encoder": shown,
            "image_size": 32,
            "channels": 1,
            "data": {"name": "digits"},
        },
        "recipe": {
            "data": {"name": "digits", "root": "/home/someone/data/digits"},
            "input": {"image_size": 32, "mean": [0.1307], "std": [0.3081], "eval_resize": 37},
        },
        "seed": 3,
        "cost": {"images_seen": 1000, "steps": 10},
        "provenance": {"host": "planted-host", "command": "mimbench run --results /home/someone/runs"},
        **changes,
    }
    Store(results).save_checkpoint("0123456789abcdef", encoder.state_dict(), {}, card)
    return encoder


@pytest.mark.parametrize("case", CASES)
def test_a_pushed_encoder_comes_back_with_the_same_features(case, hub, tmp_path):
    kind, options = CASES[case]
    encoder = stored(tmp_path / "runs", kind, options)
    assert push_checkpoint("0123", "lab/encoder", results=tmp_path / "runs") == "https://huggingface.co/lab/encoder"
    published = load_published("hf:lab/encoder")
    images = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        ours, theirs = encoder.features(images), published.encoder.features(images)
    torch.testing.assert_close(theirs.dense, ours.dense)
    assert not published.left_out
    assert (published.input["mean"], published.input["std"]) == ([0.1307], [0.3081])
    assert (published.input["image_size"], published.input["eval_resize"]) == (32, 37)
    by_timm = timm.create_model("hf-hub:lab/encoder", pretrained=True, in_chans=1).eval()
    with torch.no_grad():
        maps = by_timm.forward_features(images)
    assert maps.isfinite().all()
    if kind in ("vit", "swin"):
        assert by_timm.patch_embed.img_size == (32, 32)


def test_a_new_repository_is_private_and_nothing_names_the_user_or_the_host(hub, tmp_path):
    stored(tmp_path / "runs", "vit", CASES["vit, learned"][1])
    push_checkpoint("0123", "lab/encoder", results=tmp_path / "runs")
    push_checkpoint("0123", "lab/open", results=tmp_path / "runs", private=False)
    assert hub.private == {"lab/encoder": True, "lab/open": False}
    files = hub.files("lab/encoder")
    assert set(files) == {"README.md", "config.json", "model.safetensors", CARD}
    for name, content in files.items():
        for secret in ("/home/someone", "planted-host", str(tmp_path)):
            assert secret not in content, (name, secret)
    assert 'timm.create_model("hf-hub:lab/encoder", pretrained=True)' in files["README.md"]
    assert "| Method | mae |\n| Encoder | vit |\n| Images | 1 x 32 x 32 px |\n| Data | digits |" in files["README.md"]


def test_a_card_is_sealed_again_however_often_it_is_exported(hub, tmp_path):
    stored(tmp_path / "runs", "vit", CASES["vit, learned"][1])
    push_checkpoint("0123", "lab/encoder", results=tmp_path / "runs")
    card = json.loads(hub.files("lab/encoder")[CARD])
    assert is_sealed(card)
    assert SEAL in card
    assert seal_card(card) == card
    # The pushed encoder is evaluated here, which stores it, and is pushed again.
    opened = open_checkpoint("hf:lab/encoder", tmp_path / "other", tmp_path / "scratch")
    stored_here = keep_checkpoint(opened, Store(tmp_path / "other"), lambda: None)
    push_checkpoint(stored_here.card["fingerprint"], "lab/again", results=tmp_path / "other")
    again = json.loads(hub.files("lab/again")[CARD])
    assert is_sealed(again)
    assert again["imported"]["file"] == "model.safetensors"
    assert not is_sealed({**again, "seed": 7})


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("vit", {**VIT, "position": "rope"}, r'encoder\.position "rope": timm\'s ViT has no such positions'),
        ("vit", {**VIT, "position": "learned-and-relative"}, r'"learned-and-relative": .* it cannot be pushed'),
        ("swin", {**SWIN, "norm_eps": 1e-3}, r"encoder\.norm_eps 0\.001 cannot be said in timm's config\.json"),
        ("resnet", {**DIMS, "stem_pool": False}, r"encoder\.stem_pool = false cannot be said"),
    ],
)
def test_what_timm_cannot_build_is_refused_before_anything_is_made(kind, options, message, hub, tmp_path):
    stored(tmp_path / "runs", kind, options)
    with pytest.raises(InputError, match=message):
        push_checkpoint("0123", "lab/encoder", results=tmp_path / "runs")
    assert not hub.private


def http_error(status):
    return HfHubHTTPError("no\nway", response=SimpleNamespace(status_code=status, headers={}, request=None))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OfflineModeIsEnabled("x"), "HF_HUB_OFFLINE is set; unset it to upload"),
        (LocalTokenNotFoundError("x"), "you are not logged in to the hub; run hf auth login"),
        (http_error(401), "you are not logged in to the hub"),
        (http_error(403), "your token may not write there"),
        (http_error(500), "the hub cannot be written: no way"),
        (ConnectionError("no route"), "the hub cannot be written: no route"),
    ],
)
def test_a_refusal_of_the_hub_is_one_line(error, message, hub, tmp_path, monkeypatch):
    stored(tmp_path / "runs", "vit", CASES["vit, learned"][1])

    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(HfApi, "create_repo", refuse)
    with pytest.raises(InputError, match=message) as caught:
        push_checkpoint("0123", "lab/encoder", results=tmp_path / "runs")
    assert "\n" not in str(caught.value)


def test_the_command_writes_a_file_a_repository_or_both(hub, tmp_path, capsys):
    results = tmp_path / "runs"
    stored(results, "vit", CASES["vit, learned"][1])
    with pytest.raises(InputError, match=r"name what to write: --output NAME\.safetensors, --push OWNER/NAME, or both"):
        export("0123", None, None, False, results)
    with pytest.raises(InputError, match="--public is for a repository of the hub"):
        export("0123", tmp_path / "a.safetensors", None, True, results)
    export("0123", tmp_path / "a.safetensors", "lab/both", True, results)
    assert (tmp_path / "a.safetensors").is_file()
    assert hub.private == {"lab/both": False}
    assert capsys.readouterr().out.endswith("run tasks on it with --checkpoint hf:lab/both\n")
