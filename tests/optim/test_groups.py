"""Parameter groups, name by name, against the official optimizers."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from mimbench.contract import PartOptions, TrainConfig
from mimbench.errors import InputError
from mimbench.optim import build_optimizer, encoder_layers, param_groups, swin_layer, vit_layer

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "layer_decay.json").read_text())
DEPTHS = (2, 2, 2, 1)

NO_DECAY = {
    "simmim_finetune_vit": {"cls_token"},
    "simmim_pretrain_vit": {"cls_token"},
    "simmim_finetune_swin": {"relative_position_bias_table"},
    "simmim_pretrain_swin": {"mask_token"},
    "mae_finetune_vit_global_pool": {"cls_token", "pos_embed"},
    "mae_finetune_vit_cls_token": {"cls_token", "pos_embed"},
    "mae_pretrain_vit": set(),
    "beit_finetune_vit": {"cls_token"},
    "beit_finetune_vit_disable_wd_on_rel_pos_bias": {"cls_token", "relative_position_bias_table"},
    "beit_pretrain_vit": {"cls_token"},
}
"""What each official recipe exempts besides biases and parameters of one dimension."""


def train(**changes):
    return TrainConfig(epochs=1, batch_size=8, base_lr=1e-3, **changes)


def model_of(shapes, frozen=()):
    """A module with parameters of these (dotted) names and shapes."""
    model = nn.Module()
    for name, shape in shapes.items():
        *path, last = name.split(".")
        module = model
        for owner in path:
            if not hasattr(module, owner):
                module.add_module(owner, nn.Module())
            module = getattr(module, owner)
        module.register_parameter(last, nn.Parameter(torch.zeros(shape), requires_grad=name not in frozen))
    return model


def one_dimensional(name):
    last = name.rpartition(".")[2]
    return last in ("bias", "q_bias", "v_bias", "gamma_1", "gamma_2") or ("norm" in name and last == "weight")


def official_model(case):
    names = [*case["decay"], *case["no_decay"], *case.get("not_optimised", ())]
    shapes = {name: (2,) if one_dimensional(name) else (1, 2) for name in names}
    return model_of(shapes, frozen=case.get("not_optimised", ()))


def by_name(groups, key):
    return {name: group[key] for group in groups for name in group["names"]}


@pytest.mark.parametrize("recipe", GOLDEN)
def test_decayed_parameters_are_the_official_ones(recipe):
    case = GOLDEN[recipe]
    groups = param_groups(official_model(case), train(weight_decay=0.05), no_decay=NO_DECAY[recipe])
    decays = by_name(groups, "weight_decay")
    assert {name for name, value in decays.items() if value == 0.05} == set(case["decay"])
    assert {name for name, value in decays.items() if value == 0} == set(case["no_decay"])


@pytest.mark.parametrize("recipe", [name for name, case in GOLDEN.items() if "lr_scale" in case])
def test_layers_and_scales_are_the_official_ones(recipe):
    case, swin = GOLDEN[recipe], "swin" in recipe
    num_layers = sum(DEPTHS) if swin else 2

    def layer_of(name):
        return swin_layer(name, DEPTHS) if swin else vit_layer(name, num_layers)

    assert {name: layer_of(name) for name in case["layer_id"]} == case["layer_id"]
    groups = param_groups(
        official_model(case),
        train(layer_decay=case["layer_decay"]),
        layer_of=layer_of,
        num_layers=num_layers,
        no_decay=NO_DECAY[recipe],
    )
    assert by_name(groups, "lr_scale") == pytest.approx(case["lr_scale"], rel=1e-12)
    assert len(groups) == len({(case["lr_scale"][n], n in case["decay"]) for n in case["lr_scale"]})


def test_shared_position_table_comes_after_the_blocks():
    assert vit_layer("rel_pos_bias.relative_position_bias_table", 12) == 13


def test_timm_merges_patches_at_the_start_of_a_stage():
    """The same module is layers.0.downsample in the official Swin and layers.1.downsample in timm's."""
    official = swin_layer("layers.0.downsample.reduction.weight", DEPTHS)
    assert swin_layer("layers.1.downsample.reduction.weight", DEPTHS, downsample="start") == official == 2


class Encoder(nn.Module):
    num_layers = 2

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(2))

    def layer_of(self, name):
        return vit_layer(name, self.num_layers)


def test_encoder_layers_find_the_encoder_inside_a_model():
    encoder = Encoder()
    model = nn.ModuleDict({"body": nn.Sequential(nn.Identity(), encoder), "head": nn.Linear(2, 2)})
    layer_of = encoder_layers(model, encoder)
    assert [layer_of(name) for name, _ in model.named_parameters()] == [1, 1, 2, 2, 3, 3]
    assert encoder_layers(encoder, encoder)("blocks.1.weight") == 2
    with pytest.raises(ValueError, match="no part"):
        encoder_layers(model, Encoder())


@pytest.mark.parametrize(
    ("changes", "kind", "expected"),
    [
        ({"optimizer": "adamw", "betas": (0.9, 0.95), "eps": 1e-6}, torch.optim.AdamW, {"betas": (0.9, 0.95)}),
        ({"optimizer": "sgd", "momentum": 0.8}, torch.optim.SGD, {"momentum": 0.8}),
    ],
)
def test_optimizer_keeps_scales_and_takes_a_step(changes, kind, expected):
    model = Encoder()
    frozen = model.blocks[0].bias.requires_grad_(False)
    config = train(weight_decay=0.1, layer_decay=0.5, **changes)
    optimizer = build_optimizer(model, config, layer_of=model.layer_of, num_layers=2)
    assert isinstance(optimizer, kind)
    assert [(g["names"], g["lr_scale"], g["weight_decay"]) for g in optimizer.param_groups] == [
        (["blocks.0.weight"], 0.25, 0.1),
        (["blocks.1.bias"], 0.5, 0.0),
        (["blocks.1.weight"], 0.5, 0.1),
    ]
    for group in optimizer.param_groups:
        assert group["lr"] == config.lr
        assert expected.items() <= group.items()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    sum(parameter.sum() for parameter in model.parameters() if parameter is not frozen).backward()
    optimizer.step()
    moved = [not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
    assert moved == [True, False, True, True]
    optimizer.load_state_dict(optimizer.state_dict())


def test_no_decay_takes_names_parts_and_patterns():
    model = model_of(dict.fromkeys(("a.token", "a.big_token", "b.table"), (2, 2)))
    for patterns, undecayed in [
        ({"token"}, {"a.token"}),
        ({"a.token"}, {"a.token"}),
        ({"*token"}, {"a.token", "a.big_token"}),
        ({"a.*", "table"}, {"a.token", "a.big_token", "b.table"}),
    ]:
        decays = by_name(param_groups(model, train(), no_decay=patterns), "weight_decay")
        assert {name for name, value in decays.items() if value == 0} == undecayed


def test_vectors_are_decayed_if_they_are_named():
    model = model_of({"a.grn.weight": (3,), "a.grn.bias": (3,), "a.norm.weight": (3,), "a.norm.bias": (3,)})
    decays = by_name(param_groups(model, train(weight_decay=0.05), decay={"grn.*"}), "weight_decay")
    assert decays == {"a.grn.weight": 0.05, "a.grn.bias": 0.05, "a.norm.weight": 0.0, "a.norm.bias": 0.0}
    with pytest.raises(InputError, match=r"^decay name 'gnr' matches no parameter"):
        param_groups(model, train(), decay={"gnr"})


def test_a_no_decay_name_that_matches_nothing_is_refused():
    with pytest.raises(InputError, match="'cls_tokn' matches no parameter; did you mean 'cls_token'"):
        param_groups(model_of({"encoder.cls_token": (1, 1, 2)}), train(), no_decay={"cls_tokn"})


def test_a_layer_decay_without_effect_is_refused():
    model = nn.ModuleDict({"encoder": Encoder(), "head": nn.Linear(2, 2)})
    with pytest.raises(InputError, match=r"layer_decay 0\.5 needs an encoder"):
        param_groups(model, train(layer_decay=0.5))
    layer_of = encoder_layers(model, model["encoder"])
    model["encoder"].requires_grad_(False)
    with pytest.raises(InputError, match=r"layer_decay 0\.5 reaches no trainable parameter"):
        param_groups(model, train(layer_decay=0.5), layer_of=layer_of, num_layers=2)
    with pytest.raises(ValueError, match="outside 0 to 2"):
        param_groups(model, train(layer_decay=0.5), layer_of=layer_of, num_layers=1)


def test_a_frozen_model_is_refused():
    with pytest.raises(InputError, match="every parameter is frozen"):
        build_optimizer(Encoder().requires_grad_(False), train())


def test_a_part_has_options_as_if_it_had_an_optimizer_to_itself():
    shapes = {"encoder.weight": (2, 2), "encoder.bias": (2,), "tokenizer.weight": (2, 2), "tokenizer.bias": (2,)}
    options = PartOptions(lr_scale=0.1, weight_decay=0.3, betas=(0.5, 0.6))
    torch.manual_seed(0)
    together, split_model = model_of(shapes), model_of(shapes)
    split_model.load_state_dict(together.state_dict())
    one = build_optimizer(together, train(weight_decay=0.1), parts={"tokenizer.": options})
    tokenizer = [p for name, p in split_model.named_parameters() if name.startswith("tokenizer")]
    encoder = [p for name, p in split_model.named_parameters() if name.startswith("encoder")]
    two = [
        torch.optim.AdamW(
            [{"params": encoder[:1], "weight_decay": 0.1}, {"params": encoder[1:], "weight_decay": 0.0}], 1e-3
        ),
        torch.optim.AdamW(
            [{"params": tokenizer[:1], "weight_decay": 0.3}, {"params": tokenizer[1:], "weight_decay": 0.0}],
            1e-4,
            betas=(0.5, 0.6),
        ),
    ]
    for group in one.param_groups:
        group["lr"] *= group["lr_scale"]
    for step in range(3):
        for model in (together, split_model):
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, 0.5 + step) * parameter.detach().sign()
        for optimizer in (one, *two):
            optimizer.step()
    for name, value in together.named_parameters():
        torch.testing.assert_close(value, dict(split_model.named_parameters())[name])
    fixed = {name: group.get("fixed_decay", False) for group in one.param_groups for name in group["names"]}
    assert fixed == {name: name.startswith("tokenizer") for name in shapes}


def test_a_part_may_be_a_pattern_and_the_first_that_matches_counts():
    model = model_of({"a.norm.weight": (2,), "a.norm.bias": (2,), "b.norm.weight": (2,), "b.weight": (2, 2)})
    parts = {"b.": PartOptions(0.5), "*norm*.weight": PartOptions(weight_decay=0.01)}
    groups = param_groups(model, train(weight_decay=0.1), decay={"*norm*.weight"}, parts=parts)
    values = {name: (group["lr_scale"], group["weight_decay"]) for group in groups for name in group["names"]}
    assert values == {
        "a.norm.weight": (1.0, 0.01),
        "a.norm.bias": (1.0, 0.0),
        "b.norm.weight": (0.5, 0.1),
        "b.weight": (0.5, 0.1),
    }


@pytest.mark.parametrize(
    ("parts", "optimizer", "words"),
    [
        ({"tokeniser.": PartOptions()}, "adamw", "part 'tokeniser.' matches no parameter; did you mean 'tokenizer'"),
        ({"*norm*": PartOptions()}, "adamw", r"part '\*norm\*' matches no parameter"),
        ({"tokenizer.": PartOptions(betas=(0.1, 0.2))}, "sgd", "has betas, which sgd does not use"),
    ],
)
def test_a_part_without_effect_is_refused(parts, optimizer, words):
    model = model_of({"tokenizer.weight": (2, 2)})
    with pytest.raises(InputError, match=words):
        build_optimizer(model, train(optimizer=optimizer), parts=parts)
