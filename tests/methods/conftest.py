"""What the tests of several methods share."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode


@pytest.fixture
def on_fake_cuda():
    """Run method(*inputs) with everything on a CUDA device that need not exist: mixing devices raises."""

    def run(method, *inputs):
        state = {name: t.detach() for name, t in [*method.named_parameters(), *method.named_buffers()]}
        with FakeTensorMode() as mode:
            moved = {name: mode.from_tensor(tensor).to("cuda") for name, tensor in state.items()}
            return torch.func.functional_call(method, moved, tuple(mode.from_tensor(t).to("cuda") for t in inputs))

    return run
