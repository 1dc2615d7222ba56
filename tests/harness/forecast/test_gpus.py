"""GPUs by name."""

from __future__ import annotations

import pytest

from mimbench.errors import InputError
from mimbench.harness.forecast.gpus import CARDS, GIB, parse_gpus


@pytest.mark.parametrize(
    ("text", "count", "name"),
    [
        ("8xH100", 8, "H100"),
        ("H100", 1, "H100"),
        ("4x8xa100", 32, "A100"),
        (" 2 x RTX 4090 ", 2, "RTX4090"),
        ("8xA100-40GB", 8, "A100-40GB"),
        ("1xNVIDIA H100-PCIe", 1, "H100-PCIe"),
    ],
)
def test_a_number_and_a_card(text, count, name):
    assert parse_gpus(text, None) == (count, CARDS[name])


def test_memory_that_is_given_replaces_that_of_the_card():
    assert parse_gpus("2xH100", "96GB")[1].memory == 96
    count, card = parse_gpus("16xFOO", "48 GiB")
    assert (count, card.name, card.memory, card.rate("bf16")) == (16, "FOO", 48, None)
    assert card.usable < 47 * GIB


@pytest.mark.parametrize("text", ["", "8x", "0xH100", "8", "-1xH100"])
def test_what_is_no_number_and_card_is_refused(text):
    with pytest.raises(InputError, match="write a number and a card, such as 8xH100"):
        parse_gpus(text, None)


def test_an_unknown_card_needs_its_memory():
    with pytest.raises(InputError, match=r"unknown card 'H10'; did you mean .*'H100'.*; or give its --memory"):
        parse_gpus("8xH10", None)
    for memory in ("much", "0", "-3GB", "1GB"):
        with pytest.raises(InputError, match="write the memory of one GPU"):
            parse_gpus("8xH10", memory)


def test_every_card_has_a_source_and_rates_that_rise_with_less_precision():
    for card in CARDS.values():
        assert card.source
        assert card.rate("fp32")
        assert card.is_ampere == (card.rate("bf16") is not None)
        if card.is_ampere:
            assert card.rate("bf16") > card.rate("tf32") >= card.rate("fp32")
