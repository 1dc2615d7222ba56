"""Computations that mixed precision must not round."""

import pytest
import torch

from mimbench.contract import full_precision


def test_autocast_is_off_within_and_on_after():
    one = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    exact = one @ one
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with full_precision(one.device):
            assert torch.equal(one @ one, exact)
        assert (one @ one).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["meta", "cuda"])
def test_other_devices_need_no_autocast_and_no_hardware(kind):
    with full_precision(torch.device(kind)):
        assert torch.ones(2, device="meta").dtype == torch.float32
