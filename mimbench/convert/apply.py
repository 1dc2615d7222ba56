"""From a foreign state dict to an encoder's or a whole method's own, every tensor checked by name and shape."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

import torch
from torch import Tensor

from mimbench.contract import Encoder, Method
from mimbench.convert.file_tensors import FileTensor, FileTensors, match_forms, rename_tensors
from mimbench.convert.key_layouts import METHOD_PART, KeyLayout
from mimbench.encoders.position_tables import TABLE, resample_positions
from mimbench.errors import InputError

BODY = "body."
"""Where an encoder keeps the timm model that it wraps."""
SHARED_TABLE = f"{BODY}rel_pos_bias.{TABLE}"


@dataclass(frozen=True)
class ConvertedWeights:
    """A state dict in the target's own names, and what happened to all other tensors."""

    state: dict[str, Tensor]
    sources: dict[str, tuple[str, ...]]
    """The file's keys that each entry of `state` was made of."""
    left_out: dict[str, str]
    """Keys of the file that the target does not get, and why."""
    changed: dict[str, str]
    """Keys that arrive in another form (resized, reordered, copied), and how."""
    missing: tuple[str, ...]
    """Names of the target that the file does not give."""


def to_encoder(state: Mapping[str, Tensor], layout: KeyLayout, encoder: Encoder) -> ConvertedWeights:
    """What `state` holds for `encoder`, in the names of encoder.state_dict().

    Raises:
        InputError: another kind of encoder, a tensor of another shape, not finite, or without a place.
    """
    tensors = _file_tensors(state, layout, encoder)
    for name in [name for name in tensors.tensors if METHOD_PART.match(name)]:
        tensors.drop(name, "belongs to the pretraining method, not to the encoder")
    return _convert_encoder_part(tensors, _names(encoder), encoder)


def to_method(
    state: Mapping[str, Tensor], layout: KeyLayout, method: Method, outside: Set[str] = frozenset()
) -> ConvertedWeights:
    """What `state` holds for `method` and its encoder, in the names of method.state_dict().

    The method's own part is left out as a whole, with the reason, if one of its tensors does not fit.
    outside: keys that do not belong to the encoder; those that the method does not know are left out.

    Raises:
        InputError: as `to_encoder`, for the encoder's tensors.
    """
    tensors = _file_tensors(state, layout, method.encoder)
    names = [name for name in tensors.tensors if _belongs_to_method(name, method)]
    method_tensors = FileTensors({name: tensors.tensors.pop(name) for name in names})
    for name in [name for name, tensor in tensors.tensors.items() if outside >= set(tensor.sources)]:
        tensors.drop(name, "lies outside of the encoder's part of the file")
    encoder = _convert_encoder_part(tensors, _names(method.encoder), method.encoder)
    target = {name: value for name, value in method.state_dict().items() if not name.startswith("encoder.")}
    rest = _convert_part(method_tensors, target, official_names(method), f"method {method.name!r}")
    return ConvertedWeights(
        {f"encoder.{name}": value for name, value in encoder.state.items()} | rest.state,
        {f"encoder.{name}": keys for name, keys in encoder.sources.items()} | rest.sources,
        encoder.left_out | rest.left_out,
        encoder.changed | rest.changed,
        tuple(f"encoder.{name}" for name in encoder.missing) + rest.missing,
    )


def to_part(
    state: Mapping[str, Tensor], target: Mapping[str, Tensor], names: Mapping[str, str | None]
) -> ConvertedWeights:
    """What `state` holds for a module that is no encoder, such as a decoder or a head, in the names of `target`.

    All is left out, with the reason, if one tensor does not fit.

    Args:
        target: the module's state dict.
        names: beginnings of names in `state` -> those in `target`; None: computed here.
    """
    tensors = FileTensors({name: FileTensor(value, (name,)) for name, value in state.items()})
    return _convert_part(tensors, target, names, "it")


def official_names(method: Method) -> Mapping[str, str | None]:
    """Official beginnings of names of the method's parameters -> those here."""
    return method.official.names if method.official else {}


def resize_positions(state: Mapping[str, Tensor], encoder: Encoder) -> dict[str, Tensor]:
    """An encoder's own state dict for the same encoder at another image size or with position tables in each block.

    Tables are resampled, and a shared one is copied to every block that has its own table. A tensor that does
    not fit for another reason stays as it is, and load_state_dict reports it.
    """
    target = encoder.state_dict()
    fitted = dict(state)
    block_tables = [name for name in target if name.endswith(f".attn.{TABLE}") and name not in state]
    if block_tables and SHARED_TABLE in fitted and SHARED_TABLE not in target:
        fitted |= dict.fromkeys(block_tables, fitted.pop(SHARED_TABLE))
    for name in set(target) & set(fitted):
        if fitted[name].shape != target[name].shape:
            value = resample_positions(encoder, name, fitted[name], target[name])
            fitted[name] = fitted[name] if value is None else value
    return fitted


def _file_tensors(state: Mapping[str, Tensor], layout: KeyLayout, encoder: Encoder) -> FileTensors:
    if layout.kind != encoder.kind:
        raise InputError(f"the file is of layout {layout.name}, a {layout.kind}; the encoder is a {encoder.kind}")
    return match_forms(rename_tensors(state, layout), set(_names(encoder)))


def _names(encoder: Encoder) -> dict[str, str]:
    """timm's name -> the encoder's own."""
    return {name.removeprefix(BODY): name for name in encoder.state_dict()}


def _belongs_to_method(name: str, method: Method) -> bool:
    return bool(METHOD_PART.match(name)) or name.startswith(tuple(official_names(method)))


def _convert_encoder_part(tensors: FileTensors, names: Mapping[str, str], encoder: Encoder) -> ConvertedWeights:
    target = encoder.state_dict()
    state, sources, wrong, unplaced = {}, {}, [], []
    for name, tensor in tensors.tensors.items():
        if name not in names:
            unplaced.append(tensor.sources[0])
            continue
        target_name = names[name]
        value = _fitted(tensor, target[target_name], encoder, target_name, tensors)
        if value is None:
            wrong.append(
                f"{tensor.sources[0]} is {_shape(tensor.value)} in the file, {_shape(target[target_name])} here"
            )
        else:
            state[target_name], sources[target_name] = value, tensor.sources
    if wrong:
        raise InputError(f"{_some(wrong, '; ')}; the encoder is of another size or patch")
    if unplaced:
        raise InputError(
            f"the encoder has no matching parameter for {_some(unplaced, ', ')}; it is of another size or form"
        )
    _check_finite(state, sources)
    return ConvertedWeights(state, sources, tensors.left_out, tensors.changed, tuple(set(target) - set(state)))


def _fitted(tensor: FileTensor, target: Tensor, encoder: Encoder, name: str, tensors: FileTensors) -> Tensor | None:
    """The file's tensor as the encoder's parameter `name` takes it; None if its shape cannot be brought there."""
    value = tensor.value
    _require_floats(value, target, tensor.sources[0])
    if value.shape != target.shape:
        resampled = resample_positions(encoder, name, value, target)
        if resampled is None:
            return None
        tensors.changed[tensor.sources[0]] = f"resized from {_shape(value)} to {_shape(resampled)}"
        value = resampled
    return _cast(value, target)


def _convert_part(
    tensors: FileTensors, target: Mapping[str, Tensor], names: Mapping[str, str | None], owner: str
) -> ConvertedWeights:
    """As `to_part`; `owner` is named in messages."""
    renamed: dict[str, FileTensor] = {}
    left_out: dict[str, str] = {}
    for name, tensor in tensors.tensors.items():
        target_name = _renamed(name, names)
        if target_name is None:
            left_out |= dict.fromkeys(tensor.sources, "fixed, so the method computes it itself")
        else:
            renamed[target_name] = tensor
    state, sources, trouble = {}, {}, ""
    for name, tensor in match_forms(FileTensors(renamed), set(target)).tensors.items():
        if name not in target:
            trouble = trouble or f"{owner} has no {name!r}"
        elif _core(tensor.value) != _core(target[name]):
            trouble = trouble or (
                f"{tensor.sources[0]} is {_shape(tensor.value)}, here {name} is {_shape(target[name])}"
            )
        else:
            _require_floats(tensor.value, target[name], tensor.sources[0])
            state[name] = _cast(tensor.value.reshape(target[name].shape), target[name])
            sources[name] = tensor.sources
    if trouble:
        keys = [key for tensor in tensors.tensors.values() for key in tensor.sources]
        reason = f"the method's own part is left out as a whole, since {trouble}"
        return ConvertedWeights({}, {}, dict.fromkeys(keys, reason), {}, tuple(target))
    _check_finite(state, sources)
    return ConvertedWeights(state, sources, left_out, {}, tuple(set(target) - set(state)))


def _renamed(official: str, names: Mapping[str, str | None]) -> str | None:
    prefix = max((prefix for prefix in names if official.startswith(prefix)), key=len, default=None)
    if prefix is None:
        return official
    target_name = names[prefix]
    return None if target_name is None else target_name + official.removeprefix(prefix)


def _cast(value: Tensor, target: Tensor) -> Tensor:
    return value.to(target.dtype).contiguous().clone()


def _core(value: Tensor) -> list[int]:
    """The shape without axes of length 1, in which codes differ ([1, 1, D] or [1, 1, 1, D])."""
    return [side for side in value.shape if side != 1]


def _require_floats(value: Tensor, target: Tensor, key: str) -> None:
    if target.is_floating_point() and not value.is_floating_point():
        kind = str(value.dtype).removeprefix("torch.")
        raise InputError(
            f"{key} holds {kind} numbers and no floats: the file is quantised; import the original weights"
        )


def _check_finite(state: Mapping[str, Tensor], sources: Mapping[str, tuple[str, ...]]) -> None:
    bad = [sources[name][0] for name, value in state.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise InputError(f"{_some(bad, ', ')} holds values that are not finite: the file is damaged")


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "a number"


def _some(items: list[str], separator: str) -> str:
    return separator.join(items[:3]) + (f"{separator}and {len(items) - 3} more" if len(items) > 3 else "")
