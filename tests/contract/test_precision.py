"""Computations that mixed precision must not round."""

import pytest
import torch

from mimbench.contract import at_least_float32, full_precision


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


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_half_precision_becomes_float32_and_more_stays(dtype, expected):
    values = torch.tensor([0.5, -3.0], dtype=dtype, requires_grad=True)
    raised = at_least_float32(values)
    assert raised.dtype == expected
    assert raised.tolist() == [0.5, -3.0]
    raised.sum().backward()
    assert values.grad.tolist() == [1.0, 1.0]
