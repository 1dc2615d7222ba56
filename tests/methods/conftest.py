"""What the tests of several methods share."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mimbench.masks import resize_mask


@pytest.fixture
def sees_only_the_visible():
    """Check that see(images) depends on what `mask` leaves visible, and on nothing else."""

    def check(see, images, mask):
        masked = resize_mask(mask, images.shape[-2:]).unsqueeze(1)
        with torch.no_grad():
            expected = see(images)
            assert torch.equal(see(torch.where(masked, 9.0, images)), expected)
            assert not torch.allclose(see(torch.where(masked, images, 9.0)), expected)

    return check


@pytest.fixture
def reaches_every_parameter():
    """Check that the gradient of method(images, mask) reaches all that is trained."""

    def check(method, images, mask):
        method.zero_grad(set_to_none=True)
        loss = method(images, mask).loss
        loss.backward()
        trained = {name: p for name, p in method.named_parameters() if p.requires_grad}
        assert [name for name, p in trained.items() if p.grad is None or not p.grad.abs().sum() > 0] == []
        assert loss.isfinite()

    return check


@pytest.fixture
def trains_in_bf16():
    """Check that under autocast the loss is float32, nearly as without, and has gradients."""

    def check(method, images, mask):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = method(images, mask).loss
        loss.backward()
        assert loss.dtype == torch.float32
        assert abs(loss.item() / method(images, mask).loss.item() - 1) < 0.02
        assert method.mask_token.grad.abs().sum() > 0

    return check


@pytest.fixture
def trains_without_values():
    """Check a whole step on the meta device: make() builds the method; it must hold no tensor elsewhere."""

    def check(make, *shapes):
        with torch.device("meta"):
            method = make()
            images, mask = torch.zeros(shapes[0]), torch.zeros(shapes[1], dtype=torch.bool)
        loss = method(images, mask).loss
        loss.backward()
        method.after_step(0.5)
        assert loss.device.type == "meta"

    return check


@pytest.fixture
def on_fake_cuda():
    """Run method(*inputs) with everything on a CUDA device that need not exist: mixing devices raises."""

    def run(method, *inputs):
        state = {name: t.detach() for name, t in [*method.named_parameters(), *method.named_buffers()]}
        with FakeTensorMode() as mode:
            moved = {name: mode.from_tensor(tensor).to("cuda") for name, tensor in state.items()}
            return torch.func.functional_call(method, moved, tuple(mode.from_tensor(t).to("cuda") for t in inputs))

    return run
