"""Files that hold several networks: one is taken by --key or by a stated rule, or the keys are listed."""

import pytest
import torch
from safetensors.torch import save_file

from helpers.checkpoints import VIT, encoder_of
from mimbench.cli.import_ import describe_import
from mimbench.convert import read_weights, recognise, to_encoder, to_timm
from mimbench.errors import InputError
from mimbench.harness.exchange import import_checkpoint
from mimbench.harness.planning.checkpoints import find_checkpoint


@pytest.fixture(scope="module")
def vit():
    return to_timm(encoder_of("vit", VIT, 32).state_dict())


def under(prefix, state):
    return {prefix + name: value for name, value in state.items()}


def plus(state):
    """Another network, which differs in every tensor."""
    return {name: value + 1 for name, value in state.items()}


def saved(folder, content):
    torch.save(content, folder / "file.pth")
    return folder / "file.pth"


OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
DEEP = {"epoch": 3, "optimizer": OPTIMIZER}


@pytest.mark.parametrize(
    ("wrap", "key"),
    [
        (lambda s: s, ""),
        (lambda s: {"state_dict": s}, "state_dict"),
        (lambda s: {"model_ema": s, **DEEP}, "model_ema"),
        (lambda s: {"target_encoder": under("module.", s)}, "target_encoder"),
        (lambda s: {"ckpt": {"module": {"net": under("_orig_mod.", s)}}}, "ckpt.module.net"),
        (lambda s: {"teacher": under("backbone.", s) | {"dino_head.mlp.0.weight": torch.ones(2)}}, "teacher"),
        (lambda s: {"state_dict": under("backbone.vit.", s)}, "state_dict.backbone.vit"),
        (lambda s: {"state_dict": under("model.visual.trunk.", s)}, "state_dict.model.visual.trunk"),
        (lambda s: under("0.module.", s), "0.module"),
        (lambda s: {"model": {"blocks.0._orig_mod.norm1.bias" if n == "blocks.0.norm1.bias" else n: v
                              for n, v in s.items()}}, "model"),
        (lambda s: {"model": under("encoder.", s) | under("decoder.", s)}, "model"),
    ],
)  # fmt: skip
def test_the_only_network_of_a_file_is_read_at_any_depth(wrap, key, vit, tmp_path):
    file = saved(tmp_path, wrap(vit))
    weights = read_weights(file)
    assert (weights.key, weights.others) == (key, ())
    arguments = {"method": "supervised", "encoder": "vit-tiny", "recipe": None, "results": tmp_path / "r"}
    imported, _ = import_checkpoint(file, settings={f"encoder.{k}": v for k, v in VIT.items()}, **arguments)
    assert key == "" or f"weights: {key}" in describe_import(imported)
    stored = find_checkpoint(tmp_path / "r", next((tmp_path / "r" / "checkpoints").iterdir()).name)
    assert all(torch.equal(value, vit[name]) for name, value in to_timm(stored.encoder()).items())


PAIRS = [
    (lambda a, b: {"model": b, "model_ema": a, **DEEP}, "model_ema", "model"),
    (lambda a, b: {"state_dict": b, "state_dict_ema": under("module.", a)}, "state_dict_ema", "state_dict"),
    (lambda a, b: {"student": under("module.backbone.", b), "teacher": under("backbone.", a)}, "teacher", "student"),
    (lambda a, b: {"encoder": under("module.", b), "target_encoder": under("module.", a)}, "target_encoder", "encoder"),
    (
        lambda a, b: {"state_dict": under("backbone.vit.", a) | under("student_backbone.vit.", b)},
        "state_dict.backbone.vit",
        "state_dict.student_backbone.vit",
    ),
    (
        lambda a, b: {"model": under("teacher.backbone.", a) | under("student.backbone.", b)},
        "model.teacher.backbone",
        "model.student.backbone",
    ),
    (
        lambda a, b: {"state_dict": under("module.base_encoder.", a) | under("module.momentum_encoder.", b)},
        "state_dict.module.base_encoder",
        "state_dict.module.momentum_encoder",
    ),
]


@pytest.mark.parametrize(("wrap", "taken", "other"), PAIRS)
def test_of_two_networks_a_rule_prefers_one_and_key_gives_either(wrap, taken, other, vit, tmp_path):
    file = saved(tmp_path, wrap(vit, plus(vit)))
    weights = read_weights(file)
    assert (weights.key, weights.others) == (taken, (other,))
    assert weights.why
    for key, state in ((taken, vit), (other, plus(vit))):
        chosen = read_weights(file, key)
        assert chosen.key == key
        name = next(name for name in chosen.state if name.endswith("patch_embed.proj.bias"))
        assert torch.equal(chosen.state[name], state["patch_embed.proj.bias"])
        assert len(chosen.state) == len(state)


def test_a_part_of_a_key_is_enough_when_it_names_one(vit, tmp_path):
    file = saved(tmp_path, {"model": under("teacher.backbone.", vit) | under("student.backbone.", plus(vit))})
    assert read_weights(file, "student").key == "model.student.backbone"
    with pytest.raises(InputError, match=r"--key backbone names several networks .*: .*student\.backbone, .*teacher"):
        read_weights(file, "backbone")


def test_the_import_says_which_was_taken_and_two_of_one_file_are_two_checkpoints(vit, tmp_path):
    file = saved(tmp_path, {"model": plus(vit), "model_ema": vit})
    arguments = {"method": "supervised", "encoder": "vit-tiny", "recipe": None, "results": tmp_path / "r"}
    arguments["settings"] = {f"encoder.{key}": value for key, value in VIT.items()}
    imported, _ = import_checkpoint(file, **arguments)
    line = next(line for line in describe_import(imported) if line.startswith("weights: "))
    assert line.startswith("weights: model_ema (timm")
    assert line.endswith("also in the file: model; choose with --key")
    imported, _ = import_checkpoint(file, key="model", **arguments)
    assert next(describe_import(imported)).startswith("weights: model (asked for with --key)")
    cards = [find_checkpoint(tmp_path / "r", folder.name).card for folder in (tmp_path / "r/checkpoints").iterdir()]
    assert sorted(card["what"]["imported"]["key"] for card in cards) == ["model", "model_ema"]


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_two_networks_without_a_rule_are_listed(suffix, vit, tmp_path):
    state, path = under("left.", vit) | under("right.", plus(vit)), tmp_path / f"two.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    with pytest.raises(InputError, match=r"holds 2 networks: left, right; choose one with --key, such as --key left"):
        read_weights(path)
    assert read_weights(path, "right").key == "right"


def test_a_wrong_key_lists_what_there_is(vit, tmp_path):
    file = saved(tmp_path, {"model": vit, "model_ema": vit, "scores": {"a": torch.ones(1)}})
    for key in ("modle", "scores", "", "model.model"):
        with pytest.raises(InputError, match=rf"--key {key} names no network .*there are: model, model_ema"):
            read_weights(file, key)
    file = saved(tmp_path, {"scores": {"a": torch.ones(1)}})
    with pytest.raises(InputError, match=r"--key model: .* holds no network .* scores \(1 tensors: a\)"):
        read_weights(file, "model")


def test_weights_of_no_known_layout_are_listed_with_their_keys(tmp_path):
    file = saved(tmp_path, {"clip": {"text.a": torch.ones(1)}, "epoch": 3})
    with pytest.raises(InputError, match=r"no state dict .*clip \(1 tensors: text\.a\)"):
        read_weights(file)
    with pytest.raises(InputError, match=r"but a dict of epoch"):
        read_weights(saved(tmp_path, {"epoch": 3}))


def test_a_file_that_holds_itself_ends(vit, tmp_path):
    content = {"model": vit}
    content["again"] = content
    assert read_weights(saved(tmp_path, content)).key == "model"


@pytest.mark.parametrize("position", ["learned", "sincos"])
def test_a_vit_without_a_class_token_is_imported(position, tmp_path):
    state = to_timm(encoder_of("vit", VIT | {"position": position, "class_token": False}, 32).state_dict())
    settings = {f"encoder.{name}": VIT[name] for name in ("embed_dim", "depth", "num_heads")}
    arguments = {"method": "supervised", "encoder": "vit-tiny", "recipe": None, "results": tmp_path / "r"}
    imported, _ = import_checkpoint(saved(tmp_path, state), settings=settings, **arguments)
    config = imported.method.encoder.config
    assert (config.position, config.class_token, imported.method.encoder.image_size) == (position, False, 32)


@pytest.mark.parametrize(("averaged", "trained"), [("ema_model", "model"), ("params_ema", "params")])
def test_averaged_copies_of_other_codes_are_taken(tmp_path, vit, averaged, trained):
    assert read_weights(saved(tmp_path, {trained: plus(vit), averaged: vit})).key == averaged


def test_quantised_weights_are_refused(tmp_path, vit):
    path = saved(tmp_path, {name: (100 * value).to(torch.int8) for name, value in vit.items()})
    weights = read_weights(path)
    with pytest.raises(InputError, match="holds int8 numbers and no floats"):
        to_encoder(weights.state, recognise(weights.state), encoder_of("vit", VIT, 32))
