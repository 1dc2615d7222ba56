"""Official models to convert."""

import pytest

from helpers.checkpoints import FILES, method_of, params


@pytest.fixture(params=FILES)
def official(request):
    """(golden file's name, official state dict, mimbench's method for it)."""
    return request.param, params(request.param), method_of(request.param)
