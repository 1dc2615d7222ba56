"""Which network of a file is taken: files hold averaged copies, teachers and students, in dicts or under prefixes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from mimbench.convert.key_layouts import LAYOUTS, PREFIX
from mimbench.errors import InputError
from mimbench.text import list_first

TOP = "."
"""The key of a network whose names have no prefix, in a file that holds another one under a prefix."""
_INSERTED = re.compile(r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch.compile, FSDP and activation checkpointing put inside of names."""
_FIRST_SIGN = re.compile("|".join(layout.signs[0] for layout in LAYOUTS))
_INSIDE = re.compile(r"(?:^|\.)(?:layers?|stages|blocks)\.\d+\.$")
_NO_ENCODER = {"decoder", "predictor", "target_generator", "d_vae", "tokenizer"}
"""Parts of methods that may look like an encoder."""

_EMA = "timm's scripts evaluate the averaged weights"
_RULES: tuple[tuple[str, str, str], ...] = (
    ("model_ema", "model", _EMA),
    ("state_dict_ema", "state_dict", _EMA),
    ("ema", "model", _EMA),
    ("ema_model", "model", _EMA),
    ("params_ema", "params", _EMA),
    ("teacher", "student", "DINO and iBOT evaluate the teacher"),
    ("teacher_backbone", "student_backbone", "DINO evaluates the teacher"),
    ("backbone", "student_backbone", "lightly's DINO evaluates the teacher, which it calls backbone"),
    ("target_encoder", "encoder", "I-JEPA evaluates the target encoder"),
    ("base_encoder", "momentum_encoder", "MoCo v3 evaluates the trained encoder"),
    ("encoder_q", "encoder_k", "MoCo evaluates the trained encoder"),
    ("backbone", "momentum_backbone", "solo-learn evaluates the trained encoder"),
    ("online_encoder", "target_encoder", "BYOL evaluates the online network"),
    ("online_network", "target_network", "BYOL evaluates the online network"),
    ("", "_ema", "data2vec 2.0 fine-tunes the student"),
    ("encoder", "teacher", "the teacher gave the targets"),
    ("backbone", "teacher", "the teacher gave the targets"),
)
"""(taken, rather than, why): words of two networks' keys; "": the key has no words but those of the other one."""


@dataclass(frozen=True)
class Weights:
    """The state dict of one network in a file."""

    state: Mapping[str, Tensor]
    key: str = ""
    """Where it is in the file; "": the file holds nothing but its names and tensors."""
    others: tuple[str, ...] = ()
    """Keys of the file's other networks."""
    why: str = ""
    """Why this one of several."""
    outside: frozenset[str] = frozenset()
    """Names in `state` that do not stand with the encoder's: parts of the method, such as a decoder or heads."""


@dataclass(frozen=True)
class _Network:
    key: str
    names: Mapping[str, Tensor]
    """All names of the dict that it is in."""
    prefix: str
    rivals: tuple[str, ...] = field(default=())
    """Prefixes of the other networks in that dict."""

    @property
    def words(self) -> list[str]:
        return [] if self.key in ("", TOP) else self.key.split(".")


def choose_network(loaded: Any, key: str | None, where: str) -> Weights | None:
    """The network at `key`, or the one that a rule prefers; None: `loaded` holds no network of a known layout.

    Raises:
        InputError: `key` names none or several, or there are several and no rule for them.
    """
    networks = {network.key: network for network in _networks(loaded)}
    if not networks:
        return None
    if key is None:
        chosen, why = _preferred(list(networks.values()), where)
    else:
        chosen, why = _named(networks, key, where), "asked for with --key"
    others = tuple(other for other in networks if other != chosen.key)
    return _weights(chosen, others, why)


def list_tensors(loaded: Any) -> str:
    """The dicts with tensors in `loaded`, in words, for a message."""
    parts = []
    for path, names in _dicts(loaded):
        some = ", ".join(list(names)[:2])
        parts.append(f"{'.'.join(path) or 'the top level'} ({len(names)} tensors: {some}{', ...' * (len(names) > 2)})")
    return list_first(parts, 6)


def _networks(loaded: Any) -> Iterator[_Network]:
    for path, names in _dicts(loaded):
        prefixes = _prefixes(names)
        for prefix in prefixes:
            # If the dict holds one network behind wrappers' prefixes only, the whole dict belongs to it.
            is_whole_dict = len(prefixes) == 1 and not PREFIX.sub("", prefix)
            key = ".".join(path if is_whole_dict else (*path, *prefix.split(".")[:-1]))
            if not key and len(prefixes) > 1:
                key = TOP
            yield _Network(key, names, prefix, tuple(other for other in prefixes if other != prefix))


def _dicts(loaded: Any) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Every dict that has tensors by name, with the keys that lead there; each is looked into once."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), loaded)]
    seen: set[int] = set()
    while waiting:
        path, value = waiting.pop(0)
        if not isinstance(value, Mapping):
            continue
        named = {key: inner for key, inner in value.items() if isinstance(key, str)}
        tensors = {_INSERTED.sub("", key): inner.detach() for key, inner in named.items() if isinstance(inner, Tensor)}
        if tensors:
            yield path, tensors
        if id(value) not in seen:
            waiting += [((*path, key), inner) for key, inner in named.items()]
        seen.add(id(value))


def _prefixes(names: Mapping[str, Tensor]) -> list[str]:
    """What stands before the names of a known layout, once for each network."""
    starts = {name[: dot + 1] for name in names for dot in _dots(name) if _FIRST_SIGN.match(name[dot + 1 :])}
    return [prefix for prefix in sorted(starts) if _is_network(prefix, names)]


def _dots(name: str) -> list[int]:
    return [-1, *(match.start() for match in re.finditer(r"\.", name))]


def _is_network(prefix: str, names: Mapping[str, Tensor]) -> bool:
    if _INSIDE.search(prefix) or _NO_ENCODER & set(prefix.split(".")):
        return False
    below = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    return any(all(any(re.search(sign, name) for name in below) for sign in layout.signs) for layout in LAYOUTS)


def _preferred(networks: Sequence[_Network], where: str) -> tuple[_Network, str]:
    if len(networks) == 1:
        return networks[0], ""
    for one in networks:
        reasons = [_reason(one, other) for other in networks if other is not one]
        if all(reasons):
            return one, "; ".join(dict.fromkeys(reasons))
    raise InputError(
        f"{where} holds {len(networks)} networks: {_keys(networks)}; choose one with --key, such as "
        f"--key {networks[0].key}"
    )


def _reason(one: _Network, other: _Network) -> str:
    """Why `one` is taken rather than `other`; "": no rule says so."""
    mine, theirs = set(one.words) - set(other.words), set(other.words) - set(one.words)
    taken_from = mine or {""}
    return next((why for taken, passed, why in _RULES if taken in taken_from and passed in theirs), "")


def _named(networks: Mapping[str, _Network], key: str, where: str) -> _Network:
    if key in networks:
        return networks[key]
    words = key.strip(".").split(".")
    matches = [network for network in networks.values() if network.words[: len(words)] == words]
    if not matches:
        matches = [network for network in networks.values() if _holds(network.words, words)]
    if len(matches) == 1:
        return matches[0]
    problem = "names several networks" if matches else "names no network that mimbench knows"
    keys = _keys(matches or list(networks.values()))
    raise InputError(f"--key {key} {problem} in {where}; there {'are' if ', ' in keys else 'is'}: {keys}")


def _holds(words: list[str], part: list[str]) -> bool:
    return any(words[start : start + len(part)] == part for start in range(len(words)))


def _keys(networks: Sequence[_Network]) -> str:
    return ", ".join(network.key or f"the top level ({TOP})" for network in networks)


def _weights(chosen: _Network, others: tuple[str, ...], why: str) -> Weights:
    """The chosen network's tensors, and those of its dict that belong to no other network.

    A prefix that is more than a wrapper's (`PREFIX`) is removed from the names.
    """
    prefix, rivals = chosen.prefix, tuple(rival for rival in chosen.rivals if not chosen.prefix.startswith(rival))
    stripped = prefix if PREFIX.sub("", prefix) else ""
    encoder: dict[str, Tensor] = {}
    outside: dict[str, Tensor] = {}
    for name, value in chosen.names.items():
        if name.startswith(rivals):
            continue  # a part of another network
        if name.startswith(prefix):
            encoder[name.removeprefix(stripped)] = value
        else:
            outside[name] = value
    # A name that the encoder has too, behind a wrapper's prefix, is not a part of the method.
    taken = {PREFIX.sub("", name) for name in encoder}
    outside = {name: value for name, value in outside.items() if PREFIX.sub("", name) not in taken}
    return Weights({**encoder, **outside}, chosen.key, others, why, frozenset(outside))
