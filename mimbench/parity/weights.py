"""A golden file's tensors (weights, or gradients and averages of weights) under the names that they have here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from mimbench.contract import Encoder, Golden, Method, OfficialCode
from mimbench.convert import ConvertedWeights, recognise, to_encoder, to_method, to_part
from mimbench.errors import InputError


@dataclass(frozen=True)
class Placed:
    """Tensors by their names in the method's state dict."""

    state: dict[str, Tensor]
    sources: dict[str, tuple[str, ...]]
    """Name here -> the file's arrays that it was made of."""


def load_weights(golden: Golden, code: OfficialCode, method: Method) -> Placed:
    """Give `method` the file's weights.

    Raises:
        InputError: a tensor has another shape or no place here, or the file does not give a parameter.
    """
    placed = place(golden, code, method, {})
    parameters = {name for name, _ in method.named_parameters() if not name.startswith(code.computed)}
    missing = sorted(parameters - set(placed.state))
    if missing:
        raise InputError(f"golden file {golden.path} gives no {missing[0]!r}")
    method.load_state_dict(placed.state, strict=False)
    return placed


def place(golden: Golden, code: OfficialCode, method: Method, values: Mapping[str, Tensor]) -> Placed:
    """The file's weights, some of them replaced by `values`, by their names here.

    So gradients and averages are renamed and reordered exactly as weights are.

    Args:
        values: by the names of the weights' arrays, such as "param/norm.weight".

    Raises:
        InputError: as `load_weights`; or a value has no weight of its name in the file.
    """
    state: dict[str, Tensor] = {}
    sources: dict[str, tuple[str, ...]] = {}
    unknown = sorted(set(values) - set(golden.arrays))
    if unknown:
        raise InputError(f"golden file {golden.path} has values of {unknown[0]!r}, which is no weight there")
    for start, tensors in _networks(golden, code).items():
        changed = {name: values.get(start + name, value) for name, value in tensors.items()}
        try:
            placed = _convert(changed, code.networks[start], code, method)
        except InputError as error:
            raise InputError(f"golden file {golden.path}: {error}") from error
        state |= placed.state
        sources |= {name: tuple(start + key for key in keys) for name, keys in placed.sources.items()}
    return Placed(state, sources)


def place_some(golden: Golden, code: OfficialCode, method: Method, values: Mapping[str, Tensor]) -> Placed:
    """As `place`, but only what is made of `values` alone."""
    placed = place(golden, code, method, values)
    complete = {name: keys for name, keys in placed.sources.items() if set(keys) <= set(values)}
    return Placed({name: placed.state[name] for name in complete}, complete)


def group_weights(golden: Golden, code: OfficialCode, method: Method, start: str, weights: str) -> Placed:
    """The floats of the group `start`, such as "ema/", as weights of the group `weights`, such as "param/"."""
    placed = golden.group(start).items()
    return place_some(
        golden, code, method, {weights + name: value for name, value in placed if value.is_floating_point()}
    )


def load_groups(golden: Golden, code: OfficialCode, method: Method, groups: Mapping[str, str]) -> None:
    """Give `method` the weights of groups: beginnings of their names -> those of the weights that they replace."""
    for start, weights in groups.items():
        method.load_state_dict(group_weights(golden, code, method, start, weights).state, strict=False)


def _networks(golden: Golden, code: OfficialCode) -> dict[str, dict[str, Tensor]]:
    """The tensors of each network, without the beginning of their names that identifies it."""
    placed: dict[str, dict[str, Tensor]] = {start: {} for start in code.networks}
    starts = sorted(code.networks, key=len, reverse=True)
    for name, value in golden.arrays.items():
        start = next((start for start in starts if name.startswith(start)), None)
        if start is not None:
            placed[start][name.removeprefix(start)] = value
    empty = [start for start, tensors in placed.items() if not tensors]
    if empty:
        raise InputError(f"golden file {golden.path} has no arrays {empty[0]}*")
    return placed


def _convert(tensors: Mapping[str, Tensor], place: str, code: OfficialCode, method: Method) -> ConvertedWeights:
    """One network's tensors by names in the method's state dict. Sources are the names in `tensors`."""
    module = method.get_submodule(place.rstrip("."))
    is_alone = place == "" and "encoder." not in code.networks.values()
    if module is method.encoder or is_alone:
        return _whole(to_method(tensors, recognise(tensors), method))
    if isinstance(module, Method) and module is not method:  # a teacher that is a whole method
        return _under(place, _whole(to_method(tensors, recognise(tensors), module)))
    if isinstance(module, Encoder):
        of_encoder = {name: value for name, value in tensors.items() if not name.startswith(tuple(code.names))}
        return _under(place, to_encoder(of_encoder, recognise(of_encoder), module))
    elsewhere = tuple(other for other in code.networks.values() if other.startswith(place) and other != place)
    target = {
        name.removeprefix(place): value
        for name, value in method.state_dict().items()
        if name.startswith(place) and not name.startswith(elsewhere)
    }
    return _under(place, _whole(to_part(tensors, target, code.names)))


def _under(place: str, placed: ConvertedWeights) -> ConvertedWeights:
    state = {place + name: value for name, value in placed.state.items()}
    sources = {place + name: keys for name, keys in placed.sources.items()}
    return ConvertedWeights(state, sources, placed.left_out, placed.changed, placed.missing)


def _whole(placed: ConvertedWeights) -> ConvertedWeights:
    """Raises InputError: a tensor of the method's part did not fit."""
    why = next((reason for reason in placed.left_out.values() if "as a whole" in reason), None)
    if why:
        raise InputError(why.partition("since ")[2])
    return placed
