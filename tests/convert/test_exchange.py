"""`import`, `run --checkpoint` and `export`: a foreign checkpoint in, tasks on it, timm's names out."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from helpers.checkpoints import GOLDEN, encoder_of, noisy, params
from mimbench.cli import main
from mimbench.cli.import_ import describe_import
from mimbench.convert import to_timm
from mimbench.errors import InputError
from mimbench.harness.exchange import export_checkpoint, import_checkpoint
from mimbench.harness.planning.checkpoints import find_checkpoint
from mimbench.harness.run import RunOptions, execute
from mimbench.store.record import read_records
from mimbench.store.store import Store

VIT = {"encoder.embed_dim": 32, "encoder.depth": 2, "encoder.num_heads": 4}
SWIN = {"encoder.embed_dim": 8, "encoder.depths": [2, 2, 2, 1], "encoder.num_heads": [1, 2, 4, 8]}
MAE = VIT | {"method.decoder_dim": 24, "method.decoder_depth": 2, "method.decoder_heads": 3}
_WORDS = {"embed_dim": 8, "depth": 1, "num_heads": 1, "decoder_dim": 8, "decoder_heads": 1, "vocabulary": 64}
BEITV2 = {
    **VIT,
    "encoder.depth": 4,
    "method.hidden_patches": 20,
    "method.early_layers": 3,
    "method.vqkd.teacher": "hog",
    **{f"method.vqkd.{key}": value for key, value in _WORDS.items()},
}

GREENMIM = {"method.decoder_dim": 32, "method.decoder_heads": 4}
MIXMIM = GREENMIM | {"method.decoder_depth": 2, "encoder.depths": [1, 2, 2, 1]}


def file_of(name, folder):
    path = folder / f"{name}.pth"
    torch.save({"model": params(name), "epoch": 99}, path)
    return path


def take_in(name, tmp_path, method, size, settings, recipe=None):
    results = tmp_path / "results"
    file = file_of(name, tmp_path)
    imported, folder = import_checkpoint(
        file, method=method, encoder=size, recipe=recipe, settings=settings, results=results
    )
    print("\n".join(describe_import(imported)))
    assert folder.is_dir()
    return results, sorted((results / "checkpoints").iterdir())[-1].name


def probe(results, which, **settings):
    options = RunOptions(
        tasks=["linear-probe"], recipe="smoke", settings=settings, results=results, checkpoint=which, device="cpu"
    )
    return execute(options).outcome.failures


@pytest.mark.parametrize(
    ("name", "method", "size", "settings", "image_size", "options"),
    [
        ("mae_vit_tiny_rawpix", "mae", "vit-tiny", MAE, 32, {"position": "sincos", "patch_size": 4}),
        ("simmim_swin_tiny", "simmim", "swin-tiny", SWIN, 64, {"window": 4, "mlp_ratio": 4.0}),
        ("greenmim_swin_tiny", "greenmim", "swin-tiny", SWIN | GREENMIM, 96, {"window": 3, "norm_eps": 1e-6}),
        (
            "mixmim_swin_tiny",
            "mixmim",
            "swin-tiny",
            SWIN | MIXMIM,
            96,
            {"window": 6, "shift": False, "position": "sincos-and-relative"},
        ),
        (
            "beit_vit_tiny",
            "beit",
            "vit-small",
            VIT | {"method.hidden_patches": 20, "method.kmeans.vocabulary": 64},
            32,
            {"position": "relative", "layer_scale": 0.1},
        ),
        ("beitv2_vit_tiny", "beitv2", "vit-small", BEITV2, 32, {"position": "relative", "layer_scale": 0.1}),
    ],
)
def test_import_stores_the_whole_method(name, method, size, settings, image_size, options, tmp_path, capsys):
    results, key = take_in(name, tmp_path, method, size, settings)
    out = capsys.readouterr().out
    assert "all found" in out
    checkpoint = find_checkpoint(results, key)
    what = checkpoint.card["what"]
    assert what["image_size"] == image_size
    assert options.items() <= what["encoder"].items()
    assert checkpoint.card["imported"]["left_out"]
    assert checkpoint.rest().keys() >= {"mask_token"}
    official = params(name)
    key = next(key for key in official if key.endswith("patch_embed.proj.weight"))
    assert torch.equal(checkpoint.encoder()["body.patch_embed.proj.weight"], official[key])


def test_tasks_run_on_an_imported_checkpoint_and_on_another_image_size(tmp_path, capsys):
    results, key = take_in("mae_vit_tiny_rawpix", tmp_path, "mae", "vit-tiny", MAE)
    # MNIST is grey, the encoder takes RGB.
    assert not probe(results, key[:6])
    assert not probe(results, str(results / "checkpoints" / key), **{"input.image_size": 16})
    records = read_records(results)
    assert {record.recipe["input"]["image_size"] for record in records} == {16, 32}
    assert {(record.method.name, record.checkpoint.fingerprint) for record in records} == {("mae", key)}
    assert {record.recipe["encoder"]["position"] for record in records} == {"sincos"}
    assert all(record.recipe["imported"]["layout"] == "mae" for record in records)
    assert not any("pretrain" in record.recipe for record in records)
    assert {record.recipe_passed["checkpoint"] for record in records} == {key}
    assert sorted(entry.name for entry in (results / "checkpoints").iterdir()) == [key]
    assert f"using the checkpoint in {results / 'checkpoints' / key}" in capsys.readouterr().err


def test_a_fine_tuned_beit_keeps_the_tables_of_each_block(tmp_path, capsys):
    """As in timm's and the official fine-tuned weights."""
    options = {"patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 4, "position": "relative-per-block"}
    encoder, results = noisy(encoder_of("vit", options, 32)), tmp_path / "results"
    save_file(to_timm(encoder.state_dict()), tmp_path / "beit.safetensors")
    arguments = {"method": "random-init", "encoder": "vit-tiny", "recipe": None, "settings": VIT, "results": results}
    import_checkpoint(tmp_path / "beit.safetensors", **arguments)
    key = next((results / "checkpoints").iterdir()).name
    checkpoint = find_checkpoint(results, key)
    assert checkpoint.card["what"]["encoder"]["position"] == "relative-per-block"
    assert all(torch.equal(value, encoder.state_dict()[name]) for name, value in checkpoint.encoder().items())
    assert not probe(results, key)
    assert read_records(results)[0].recipe["encoder"]["position"] == "relative-per-block"


def test_importing_twice_is_one_checkpoint_and_another_file_is_another(tmp_path):
    settings = VIT | {"method.mask_patch_size": 8}
    results, key = take_in("simmim_vit_tiny", tmp_path, "simmim", "vit-tiny", settings)
    assert take_in("simmim_vit_tiny", tmp_path, "simmim", "vit-tiny", settings) == (results, key)
    take_in("beit_vit_tiny", tmp_path, "simmim", "vit-tiny", settings)
    assert len(list((results / "checkpoints").iterdir())) == 2


def test_export_and_import_again_through_a_recipe(tmp_path, capsys):
    results, out = tmp_path / "results", tmp_path / "out.safetensors"
    options = RunOptions(methods=["random-init"], tasks=["linear-probe"], recipe="smoke", results=results, device="cpu")
    assert not execute(options).outcome.failures
    key = next((results / "checkpoints").iterdir()).name
    export_checkpoint(key, out, results=results)
    assert json.loads(safe_open(out, "pt").metadata()["what"])["encoder"]["name"] == "vit"
    other = tmp_path / "other"
    arguments = {"method": "random-init", "encoder": None, "recipe": "smoke", "settings": {}, "results": other}
    import_checkpoint(out, **arguments)
    mine, theirs = find_checkpoint(results, key), find_checkpoint(other, next((other / "checkpoints").iterdir()).name)
    assert all(torch.equal(value, theirs.encoder()[name]) for name, value in mine.encoder().items())
    assert load_file(out).keys() == {name.removeprefix("body.") for name in mine.encoder()}
    assert not probe(other, theirs.card["fingerprint"])
    a, b = read_records(results)[0], read_records(other)[0]
    # Only the view of images differs: the recipe's there, the importing one's here, and both are the same.
    assert a.metrics == b.metrics


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": None}, "name the encoder with either --encoder SIZE"),
        ({"recipe": "smoke"}, "name the encoder with either --encoder SIZE"),
        ({"encoder": "vit-bas"}, "did you mean 'vit-base'"),
        ({"encoder": "swin-tiny"}, "layout mae, a vit; --encoder swin-tiny is not"),
        ({"encoder": "vit-base", "settings": {}}, "cls_token is 1x1x32 in the file, 1x1x768 here"),
        ({"method": "maee"}, "unknown method 'maee'"),
        ({"settings": VIT | {"encoder.depth": 3}}, "lacks 12 of the encoder's tensors, such as 'body.blocks.2"),
        ({"settings": VIT | {"encoder.depth": 1}}, "no matching parameter for blocks.1"),
        ({"settings": VIT | {"encoder.window": 4}}, "unknown key 'encoder.window'"),
        ({"encoder": None, "recipe": "smoke", "settings": {"method.mask_rato": 1}}, "unknown key 'method.mask_rato'"),
        ({"settings": VIT | {"data.name": "x"}}, "an import takes input, encoder, method settings only"),
        ({"settings": VIT | {"method.name": "beit"}}, "choose the method with --method"),
    ],
)
def test_bad_imports_say_why_and_store_nothing(changes, message, tmp_path):
    arguments = {"method": "mae", "encoder": "vit-tiny", "recipe": None, "settings": VIT, "results": tmp_path / "r"}
    with pytest.raises(InputError, match=message):
        import_checkpoint(file_of("mae_vit_tiny_rawpix", tmp_path), **(arguments | changes))
    assert not (tmp_path / "r" / "checkpoints").exists()


def test_a_folder_that_cannot_be_written_can_still_be_exported_from(tmp_path, monkeypatch):
    results, key = take_in("mae_vit_tiny_rawpix", tmp_path, "mae", "vit-tiny", MAE)
    monkeypatch.setattr("mimbench.store.store.tempfile.TemporaryFile", lambda **_: (results / "none").open())
    with pytest.raises(InputError, match="cannot be written"):
        Store(results)
    assert find_checkpoint(results, key[:6]).card["fingerprint"] == key


def test_a_checkpoint_that_is_not_there_or_not_that(tmp_path):
    results, key = take_in("mae_vit_tiny_rawpix", tmp_path, "mae", "vit-tiny", MAE)
    with pytest.raises(InputError, match="there is no checkpoint 'zzz'"):
        probe(results, "zzz")
    with pytest.raises(InputError, match=r"name it out\.safetensors"):
        export_checkpoint(key, Path("out.pth"), results=results)
    with pytest.raises(InputError, match="does not fit encoder 'vit'"):
        assert not probe(results, key, **{"encoder.depth": 1})
    weights = results / "checkpoints" / key / "encoder.safetensors"
    weights.write_bytes(weights.read_bytes() + b"x")
    with pytest.raises(InputError, match="corrupt"):
        probe(results, key)


def test_the_commands(tmp_path, monkeypatch, capsys):
    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["mimbench", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    monkeypatch.chdir(tmp_path)
    file = str(file_of("mae_vit_tiny_rawpix", tmp_path))
    settings = [word for path, value in MAE.items() for word in ("--set", f"{path}={value}")]
    code, out, _ = command("import", file, "--method", "mae", "--encoder", "vit-tiny", *settings)
    assert code == 0
    assert "all found" in out
    key = out.split("--checkpoint ")[1].split()[0]
    assert (tmp_path / "runs" / "checkpoints" / key).is_dir()
    assert command("export", key, "--output", "out.safetensors")[0] == 0
    assert (tmp_path / "out.safetensors").is_file()
    code, _, err = command("run", "--checkpoint", key, "--task", "linear-probe", "--method", "beit")
    assert (code, err) == (2, "mimbench: the checkpoint is of method 'mae', not of beit: leave --method out\n")
    code, out, err = command("import", file, "--method", "mae", "--encoder", "vit-base")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert command("parity", str(GOLDEN / "beit_vit_tiny.npz"))[0] == 0
    assert command("parity", "none.npz")[0] == 2
