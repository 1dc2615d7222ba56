"""An encoder as dense tasks fine-tune it: weights kept, positions resampled, options changed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mimbench.contract import Encoder, InputError
from mimbench.encoders.convnet import ConvNeXt, ConvNeXtConfig
from mimbench.encoders.swin import Swin, SwinConfig
from mimbench.encoders.vit import ViT, ViTConfig
from mimbench.toolkit.fine_tuning import adapt_encoder, without_weights

PLAIN = {"window": 0, "global_blocks": ()}


def vit(position: str = "relative", **options) -> ViT:
    torch.manual_seed(0)
    config = ViTConfig(patch_size=4, embed_dim=16, depth=3, num_heads=2, position=position, **options)
    made = ViT(config, image_size=16, in_channels=1)
    for name, parameter in made.named_parameters():
        if "table" in name:
            torch.nn.init.normal_(parameter)
    return made.eval()


def tables(encoder: Encoder) -> dict[str, Tensor]:
    return {name: value for name, value in encoder.named_parameters() if "relative_position_bias_table" in name}


def rates(encoder: Encoder) -> list[float]:
    return [module.drop_prob for module in encoder.modules() if hasattr(module, "drop_prob")]


def test_nothing_to_change_leaves_the_encoder_itself():
    pretrained = vit()
    assert adapt_encoder(pretrained, drop_path=None, **PLAIN) is pretrained


def test_a_changed_drop_path_keeps_weights_and_the_global_generator():
    pretrained = vit(drop_path=0.1)
    before = torch.random.get_rng_state()
    changed = adapt_encoder(pretrained, drop_path=0.3, **PLAIN)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert max(rates(changed)) == pytest.approx(0.3)
    for name, value in pretrained.state_dict().items():
        assert torch.equal(changed.state_dict()[name], value)


def test_attention_dropout_of_pretraining_is_turned_off():
    pretrained = vit(attention_dropout=0.2)
    changed = adapt_encoder(pretrained, drop_path=None, **PLAIN)
    assert {block.attn.attn_drop.p for block in pretrained.body.blocks} == {0.2}
    assert {block.attn.attn_drop.p for block in changed.body.blocks} == {0.0}


def test_an_encoder_option_that_is_missing_is_named_unless_it_is_off():
    bare = ConvNeXt(ConvNeXtConfig(patch_size=4, dims=(8, 16), depths=(1, 1)), image_size=32, in_channels=1)
    with pytest.raises(InputError, match=r"task\.position 'learned' is not for this convnet encoder"):
        adapt_encoder(bare, drop_path=None, **PLAIN, position="learned")
    swin = Swin(SwinConfig(embed_dim=8, depths=(1,), num_heads=(1,), window=2), image_size=16, in_channels=1)
    with pytest.raises(InputError, match=r"task\.layer_scale 1\.0 is not for this swin encoder"):
        adapt_encoder(swin, drop_path=None, **PLAIN, layer_scale=1.0)
    assert adapt_encoder(swin, drop_path=None, **PLAIN, train_positions=True) is swin


@pytest.mark.parametrize(
    ("pretrained_position", "position", "instead"),
    [
        ("relative", "learned", "relative-per-block"),
        ("relative", "learned-and-relative", "relative-per-block"),
        ("sincos", "relative-per-block", "learned"),
        ("learned", "relative-per-block", "learned"),
    ],
)
def test_positions_that_cannot_start_from_the_pretrained_ones_are_named(pretrained_position, position, instead):
    with pytest.raises(
        InputError, match=rf'task\.position "{position}" starts from.*"{pretrained_position}"\); use "{instead}"'
    ) as error:
        adapt_encoder(
            without_weights(vit(pretrained_position)), drop_path=None, **PLAIN, position=position, image_size=32
        )
    assert "\n" not in str(error.value)


def test_one_shared_table_becomes_one_for_each_block_resampled_once():
    pretrained = vit(drop_path=0.1)
    changed = adapt_encoder(pretrained, drop_path=0.1, **PLAIN, position="relative-per-block", image_size=32)
    assert list(tables(changed)) == [f"body.blocks.{i}.attn.relative_position_bias_table" for i in range(3)]
    first, *others = tables(changed).values()
    assert first.shape == (15 * 15 + 3, 2)
    assert all(torch.equal(each, first) for each in others)
    assert torch.equal(first[-3:], pretrained.body.rel_pos_bias.relative_position_bias_table[-3:])
    same = adapt_encoder(pretrained, drop_path=0.1, **PLAIN, position="relative-per-block", image_size=16).eval()
    images = torch.randn(2, 1, 16, 16)
    torch.testing.assert_close(same.encode(same.embed(images)), pretrained.encode(pretrained.embed(images)))


@pytest.mark.parametrize("pretrained_position", ["sincos", "learned"])
def test_absolute_positions_are_trained_and_added_relative_ones_start_at_zero(pretrained_position):
    pretrained = vit(pretrained_position)
    changed = adapt_encoder(
        pretrained, drop_path=None, **PLAIN, position="learned-and-relative", layer_scale=1.0, image_size=16
    ).eval()
    assert len(tables(changed)) == 3
    assert not any(table.any() for table in tables(changed).values())
    gammas = [value for name, value in changed.named_parameters() if name.endswith("gamma")]
    assert len(gammas) == 6
    assert all(bool((gamma == 1).all()) for gamma in gammas)
    assert changed.body.pos_embed.requires_grad
    images = torch.randn(2, 1, 16, 16)
    torch.testing.assert_close(changed.encode(changed.embed(images)), pretrained.encode(pretrained.embed(images)))
    with torch.no_grad():
        tables(changed)["body.blocks.1.attn.rel_pos_bias.relative_position_bias_table"].normal_()
    assert not torch.allclose(changed.encode(changed.embed(images)), pretrained.encode(pretrained.embed(images)))
    assert [changed.layer_of(name) for name in tables(changed)] == [1, 2, 3]
    with pytest.raises(InputError, match=r'another size than 16 px is not for encoder\.position "learned-and'):
        changed.pyramid(torch.randn(1, 1, 32, 32))


def test_train_positions_applies_to_fixed_positions_only():
    assert adapt_encoder(vit("sincos"), drop_path=None, **PLAIN, train_positions=True).body.pos_embed.requires_grad
    relative = vit()
    assert adapt_encoder(relative, drop_path=None, **PLAIN, train_positions=True) is relative


def test_it_costs_nothing_on_the_meta_device():
    options = {"position": "learned-and-relative", "layer_scale": 1.0, "image_size": 32}
    changed = adapt_encoder(without_weights(vit("sincos")), drop_path=0.3, **PLAIN, **options)
    assert {parameter.device.type for parameter in changed.parameters()} == {"meta"}
    changed = adapt_encoder(
        without_weights(vit()), drop_path=0.3, **PLAIN, position="relative-per-block", image_size=32
    )
    assert {parameter.device.type for parameter in changed.parameters()} == {"meta"}
