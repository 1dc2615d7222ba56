"""What encoders can do and what methods need of them; what follows from the three functions of an encoder."""

from __future__ import annotations

import pytest
import torch
from plugins.mixer import Mixer, MixerConfig

from mimbench import registry
from mimbench.contract import ABILITIES, Encoder, Method, require_abilities
from mimbench.contract.abilities import describe_needs, find_unknown_ability
from mimbench.errors import InputError
from mimbench.masks import repeat_per_mask, replace_masked


@pytest.fixture
def mixer() -> Mixer:
    torch.manual_seed(0)
    return Mixer(MixerConfig(), image_size=16, in_channels=1).eval()


def test_every_method_and_task_needs_known_abilities_that_some_encoder_has():
    encoders = [registry.encoders.load(name) for name in registry.encoders.names()]
    assert all(encoder.can <= set(ABILITIES) for encoder in encoders)
    needs = {name: registry.methods.load(name).encoder_needs for name in registry.methods.names()}
    assert all(any(need <= encoder.can for encoder in encoders) for need in needs.values())
    assert {name for name, need in needs.items() if not need} == {
        "autoencoder",
        "external",
        "random-init",
        "simmim-pixel",
        "supervised",
    }
    assert needs["mae"] == {"visible-only"}


def test_a_missing_ability_is_one_line_with_what_is_needed(mixer):
    require_abilities("method 'x'", {"mask-tokens"}, mixer)
    message = (
        r"^method 'x' needs an encoder that can drop masked patches and output a class token; this mixer cannot; "
        r"these can: vit, other$"
    )
    with pytest.raises(InputError, match=message):
        require_abilities("method 'x'", {"class-token", "visible-only"}, mixer, others=["vit", "other"])
    assert describe_needs(set()) == ""
    assert find_unknown_ability({"any-size"}) is None
    assert find_unknown_ability({"any-sise"}) == "'any-sise' is not an ability of encoders; did you mean 'any-size'?"


def test_a_method_refuses_an_encoder_that_cannot_serve_it(mixer):
    class Needy(Method):
        name, version, encoder_needs = "needy", "1", frozenset({"pyramid"})

        def step(self, batch, generator):
            raise AssertionError

    with pytest.raises(InputError, match="method 'needy' needs an encoder that can output maps at several strides"):
        Needy(Needy.Config(), mixer)


def test_all_else_follows_from_three_functions(mixer):
    images = torch.randn(2, 1, 16, 16)
    tokens = mixer.embed(images)
    first, last = mixer.forward_layers(tokens)
    assert torch.equal(mixer.encode(tokens), last.dense)
    assert torch.equal(mixer.features(images).pooled, last.pooled)
    assert torch.equal(mixer.features(images, 0).dense, first.dense)
    assert [torch.equal(a.dense, b.dense) for a, b in zip(mixer.layers(images), (first, last), strict=True)] == [
        True
    ] * 2
    assert len(mixer.layers(images, 0)) == 1
    assert torch.equal(mixer.pyramid(images)[0], last.dense)
    assert (mixer.pyramid_strides, mixer.pyramid_dims) == ((4,), (32,))
    assert torch.equal(last.sequence, last.patches)
    assert last.patches.shape == (2, 16, 32)
    assert torch.equal(last.patches[:, 5], last.dense[:, :, 1, 1])
    for wrong in (2, -3):
        with pytest.raises(InputError, match="2 layers"):
            mixer.forward_layers(tokens, (wrong,))
    assert Encoder.__abstractmethods__ == {"embed", "forward_layers", "layer_of"}


def test_mask_tokens_stand_at_masked_patches():
    tokens, token = torch.randn(2, 4, 4, 3, dtype=torch.bfloat16), torch.randn(1, 1, 1, 3)
    mask = torch.zeros(2, 2, 2, dtype=torch.bool)
    mask[1, 0, 1] = True
    replaced = replace_masked(tokens, mask, token)
    assert replaced.dtype == tokens.dtype
    assert torch.equal(replaced[0], tokens[0])
    assert torch.equal(replaced[1, :2, 2:], token.to(tokens.dtype)[0].expand(2, 2, 3))
    assert torch.equal(replaced[1, 2:], tokens[1, 2:])


def test_values_of_an_image_are_repeated_for_its_masks():
    values = torch.arange(3)
    assert repeat_per_mask(values, torch.zeros(6, 2)).tolist() == [0, 0, 1, 1, 2, 2]
    for masks in (7, 2):
        with pytest.raises(InputError, match=f"{masks} masks do not divide among 3 images"):
            repeat_per_mask(values, torch.zeros(masks, 2))
