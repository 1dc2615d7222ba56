"""The teacher: it follows parameters and buffers, never trains, and copies what deepcopy cannot."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from mimbench.encoders.vit import ViT
from mimbench.errors import InputError
from mimbench.parts.teacher import Teacher


def student() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.9), nn.Linear(4, 2))


def shake(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += torch.randn(parameter.shape)


def test_it_follows_parameters_and_copies_buffers():
    net = student()
    teacher = Teacher(net)
    start = [p.clone() for p in net.parameters()]
    shake(net)
    net(torch.randn(16, 4) + 5)
    teacher.follow(net, 0.9)
    teacher.follow(net, 0.8)
    for slow, old, new in zip(teacher.module.parameters(), start, net.parameters(), strict=True):
        assert torch.allclose(slow, 0.72 * old + 0.28 * new, atol=1e-6)
    assert torch.equal(teacher.module[1].running_mean, net[1].running_mean)
    assert int(teacher.module[1].num_batches_tracked) == 1
    teacher.follow(net, 0.0)
    assert all(map(torch.equal, teacher.module.state_dict().values(), net.state_dict().values()))


def test_it_stays_in_evaluation_and_has_no_gradient():
    teacher = Teacher(student())
    method = nn.ModuleList([teacher]).train()
    assert not any(module.training for module in teacher.modules())
    x = torch.randn(3, 4, requires_grad=True)
    assert torch.equal(teacher(x), teacher(x))
    assert not teacher(x).requires_grad
    assert not any(p.requires_grad for p in method.parameters())


def test_each_tensor_is_stored_once_and_ties_stay_tied():
    net = student()
    net.append(nn.Linear(2, 4))
    net[4].weight = nn.Parameter(torch.randn(4, 2))
    net.append(nn.Linear(4, 4))
    net[5].weight = net[0].weight
    method = nn.ModuleDict({"encoder": net, "teacher": Teacher(net)})
    stored = {p.data_ptr() for p in net.state_dict().values()}
    assert not stored & {p.data_ptr() for p in method["teacher"].state_dict().values()}
    copied = method["teacher"].module
    assert copied[5].weight is copied[0].weight
    assert len(method["teacher"].state_dict()) == len(net.state_dict())


def test_it_stays_on_the_meta_device():
    with torch.device("meta"):
        encoder = ViT(ViT.Config(patch_size=4, embed_dim=8, depth=1, num_heads=2), image_size=8, in_channels=3)
        teacher = Teacher(encoder)
    teacher.follow(encoder, 0.5)
    assert {t.device.type for t in teacher.state_dict().values()} == {"meta"}


class Owner:
    """It cannot be copied; its bound method is a hook."""

    def __init__(self):
        self.calls = 0

    def __deepcopy__(self, memo):
        raise TypeError("cannot be copied")

    def hook(self, module, inputs, output):
        self.calls += 1
        return output * 2


def test_hooks_act_on_the_copy_and_their_owner_is_not_copied():
    net, owner = student().eval(), Owner()
    net[3].register_forward_hook(owner.hook)
    teacher = Teacher(net)
    x = torch.randn(3, 4)
    assert torch.equal(teacher(x), net(x))
    assert owner.calls == 2


def test_a_weight_that_a_hook_computes_is_copied():
    net = student().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(net[3])
    net(torch.randn(2, 4)).sum().backward()
    teacher = Teacher(net)
    shake(net)
    teacher.follow(net, 0.0)
    x = torch.randn(3, 4)
    assert torch.allclose(teacher(x), net(x))


def compiled_outside(net):
    return torch.compile(net, backend="eager")


def compiled_inside(net):
    net[0] = torch.compile(net[0], backend="eager")
    return net


def compiled_in_place(net):
    net.compile(backend="eager")
    return net


def compiled_forward(net):
    net[3].forward = torch.compile(net[3].forward, backend="eager")
    return net


@pytest.mark.parametrize("compiled", [compiled_outside, compiled_inside, compiled_in_place, compiled_forward])
def test_compiled_parts_are_plain_in_the_copy(compiled):
    plain = student().eval()
    names = list(plain.state_dict())
    net = compiled(plain)
    teacher = Teacher(net)
    x = torch.randn(3, 4)
    before = net(x).clone()
    shake(net)
    assert torch.allclose(teacher(x), before, atol=1e-6)  # it computes with its own weights
    teacher.follow(net, 0.0)
    assert torch.allclose(teacher(x), net(x), atol=1e-6)
    assert list(teacher.module.state_dict()) == names
    assert type(teacher.module) is nn.Sequential


def test_another_student_is_refused():
    teacher = Teacher(student())
    with pytest.raises(InputError, match=r"differs from it in '0\.weight'; call follow\(\) with the module"):
        teacher.follow(nn.Sequential(nn.Linear(5, 4), *list(student())[1:]), 0.9)
    with pytest.raises(InputError, match=r"differs from it in '3\.bias'"):
        teacher.follow(nn.Sequential(*list(student())[:3], nn.Linear(4, 2, bias=False)), 0.9)


def test_a_student_that_holds_its_teacher_is_followed():
    net = student()
    net.add_module("slow", Teacher(net))
    shake(net[0])
    net.slow.follow(net, 0.0)
    assert torch.equal(net.slow.module[0].weight, net[0].weight)
    assert not hasattr(net.slow.module, "slow")
