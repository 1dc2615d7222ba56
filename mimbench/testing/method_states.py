"""Checks of what a method stores: its state, how it resumes, and the encoder that it exports."""

from __future__ import annotations

import torch
from torch import Tensor

from mimbench.contract import Encoder, Method
from mimbench.testing.checks import Failure, check
from mimbench.testing.method_subject import MethodSubject, make_optimizer
from mimbench.testing.tensors import copy_state

STEPS = 2
"""Training steps before and after an interruption."""


@check("__init__", needs=["builds_around_an_encoder"])
def nothing_is_stored_twice(subject: MethodSubject) -> None:
    """No tensor is in the state under two names, which a checkpoint cannot hold."""
    names: dict[tuple[int, int, torch.Size], str] = {}
    for name, value in subject.build().state_dict(keep_vars=True).items():
        key = (value.untyped_storage().data_ptr(), value.storage_offset(), value.shape)
        if value.numel() and key in names:
            raise Failure(
                f"{names[key]} and {name} are one tensor under two names; keep the encoder as self.encoder only, and "
                "deepcopy what is a copy"
            )
        names[key] = name


@check("step", needs=["step_returns_a_loss"])
def a_step_adds_nothing_to_the_state(subject: MethodSubject) -> None:
    """Parameters and buffers have the same names and shapes before and after a training step."""
    method = subject.build()
    before = {name: value.shape for name, value in method.state_dict().items()}
    subject.train(method, range(1))
    after = {name: value.shape for name, value in method.state_dict().items()}
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    if changed:
        raise Failure(f"a step adds, removes or resizes {', '.join(changed[:3])}; create it in __init__ or prepare")


@check("after_step", needs=["a_step_adds_nothing_to_the_state"])
def after_step_leaves_trained_weights(subject: MethodSubject) -> None:
    """`after_step` changes parameters without gradient and buffers only."""
    method = subject.build()
    subject.train(method, range(1))
    before = {name: one.detach().clone() for name, one in method.named_parameters() if one.requires_grad}
    method.after_step(0.5)
    after = dict(method.named_parameters())
    changed = [name for name, value in before.items() if not torch.equal(value, after[name])]
    if changed:
        raise Failure(
            f"after_step changes the trained parameter {changed[0]}; change teachers and buffers only, and call "
            "requires_grad_(False) on a teacher"
        )


@check("__init__", needs=["equal_seeds_give_equal_losses", "a_step_adds_nothing_to_the_state"])
def a_stored_state_gives_an_equal_loss(subject: MethodSubject) -> None:
    """The state, loaded into another instance that is not prepared, gives the same loss to the last bit."""
    method = subject.build()
    subject.train(method, range(STEPS))
    other = _restored(subject, copy_state(method))
    one, two = (subject.step(each, subject.batch(seed=9), 9).loss.item() for each in (method, other))
    if one != two:
        raise Failure(
            f"the loss {one:.7g} becomes {two:.7g} after storing and loading; keep all that a step uses in parameters "
            "or persistent buffers"
        )


@check("after_step", needs=["a_stored_state_gives_an_equal_loss"])
def resume_is_exact(subject: MethodSubject) -> None:
    """Two steps, storing, loading and two more steps equal four steps, to the last bit."""
    whole = subject.build()
    losses = subject.train(whole, range(2 * STEPS))[STEPS:]
    first = subject.build()
    optimizer = make_optimizer(first)
    subject.train(first, range(STEPS), optimizer)
    second = _restored(subject, copy_state(first))
    resumed = make_optimizer(second)
    resumed.load_state_dict(optimizer.state_dict())
    after = subject.train(second, range(STEPS, 2 * STEPS), resumed)
    different = _differing(whole.state_dict(), second.state_dict())
    if different or losses != after:
        what = different or "the loss"
        raise Failure(
            f"{what} differs between a resumed training and one without interruption; keep counters and schedules in "
            "buffers, or compute them from `progress`"
        )


@check("exported_encoder", needs=["builds_around_an_encoder"])
def exported_encoder_has_its_type(subject: MethodSubject) -> None:
    """The exported encoder has the class of the encoder that the method gets."""
    method = subject.build()
    exported = method.exported_encoder()
    if type(exported) is not type(method.encoder):
        raise Failure(
            f"exported_encoder returns a {type(exported).__name__}, not a {type(method.encoder).__name__}; return "
            "self.encoder or a deepcopy of it"
        )


@check("exported_encoder", needs=["exported_encoder_has_its_type"])
def exporting_changes_nothing(subject: MethodSubject) -> None:
    """Checkpoints are saved during training, so it freezes or releases no parameter, and leaves all weights alone."""
    method = subject.build()
    trained = {name: parameter.requires_grad for name, parameter in method.named_parameters()}
    state = copy_state(method)
    method.exported_encoder()
    for name, parameter in method.named_parameters():
        if parameter.requires_grad != trained.get(name):
            raise Failure(
                f"exported_encoder changes whether {name!r} is trained; return the module as it is, since a checkpoint "
                "is saved during training too"
            )
    if changed := [name for name, value in method.state_dict().items() if not torch.equal(value, state[name])]:
        raise Failure(f"exported_encoder changes {changed[0]!r}; return the module as it is")


@check("exported_encoder", needs=["exported_encoder_has_its_type", "a_step_adds_nothing_to_the_state"])
def exported_encoder_loads_into_a_plain_one(subject: MethodSubject) -> None:
    """Its state fits a new encoder strictly, and gives the same features, to the last bit."""
    method = subject.build()
    if subject.plugin.pretrains:
        subject.train(method, range(1))
    exported, plain = method.exported_encoder(), subject.make_encoder(seed=1)
    try:
        plain.load_state_dict(copy_state(exported), strict=True)
    except RuntimeError as error:
        raise Failure(
            f"the exported weights do not fit a plain {type(plain).__name__}: {' '.join(str(error).split())[:160]}; "
            "leave names and shapes in the encoder as they are"
        ) from error
    features = [_features(encoder, subject.images()) for encoder in (exported, plain)]
    if not torch.equal(*features):
        raise Failure(
            "a plain encoder with the exported weights gives other features; remove hooks and replaced functions from "
            "the encoder, or add them to a copy"
        )


def _restored(subject: MethodSubject, state: dict[str, Tensor]) -> Method:
    """Another instance, with other initial weights, that the state is loaded into."""
    method = subject.build(seed=1, prepared=False)
    method.load_state_dict(state, strict=True)
    return method


def _differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> str:
    """Name of the first tensor that differs; empty if none does."""
    return next((name for name, value in one.items() if not torch.equal(value, other[name])), "")


def _features(encoder: Encoder, images: Tensor) -> Tensor:
    with torch.no_grad():
        return encoder.eval().features(images).dense


STATE_CHECKS = (
    nothing_is_stored_twice,
    a_step_adds_nothing_to_the_state,
    after_step_leaves_trained_weights,
    a_stored_state_gives_an_equal_loss,
    resume_is_exact,
    exported_encoder_has_its_type,
    exporting_changes_nothing,
    exported_encoder_loads_into_a_plain_one,
)
