"""A file's tensors in the common vocabulary, and the rearrangements that bring them to a target's names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mimbench.convert.key_layouts import LEFT_OUT, PREFIX, KeyLayout
from mimbench.errors import InputError

TABLE = "relative_position_bias_table"
_DOWNSAMPLE = re.compile(r"^layers\.(\d+)\.downsample\.")
_STAGE_NORM = re.compile(r"^norm(\d)\.")


@dataclass(frozen=True)
class FileTensor:
    """A tensor, and the keys of the file that it was made of."""

    value: Tensor
    sources: tuple[str, ...]


@dataclass
class FileTensors:
    """Tensors by timm's or the official method's names; with what was left out or changed, and why."""

    tensors: dict[str, FileTensor]
    left_out: dict[str, str] = field(default_factory=dict)
    changed: dict[str, str] = field(default_factory=dict)

    def drop(self, name: str, reason: str) -> None:
        for source in self.tensors.pop(name).sources:
            self.left_out[source] = reason


def rename_tensors(state: Mapping[str, Tensor], layout: KeyLayout) -> FileTensors:
    """Names without prefixes, in timm's order of channels and stages.

    Raises:
        InputError: two keys that mean the same tensor.
    """
    pieces = FileTensors({})
    for key, value in state.items():
        name = layout.rename(PREFIX.sub("", key))
        reason = next((reason for pattern, reason in LEFT_OUT if pattern.search(name)), None)
        if reason:
            pieces.left_out[key] = reason
        elif name in pieces.tensors:
            raise InputError(f"keys {pieces.tensors[name].sources[0]!r} and {key!r} both mean {name!r}; delete one")
        else:
            pieces.tensors[name] = FileTensor(value, (key,))
    if layout.kind == "swin":
        _order_swin(pieces, layout)
    return pieces


def match_forms(pieces: FileTensors, wanted: Set[str]) -> FileTensors:
    """Equivalent forms turned into the one that the target has; `wanted` are its timm names.

    Joint or separate biases of queries, keys and values; a shared table of relative positions or one for
    each block; the two names of LayerScale; the norm of pooled features for the missing final norm.

    Raises:
        InputError: tables that differ between blocks, for an encoder that shares one.
    """
    for name in sorted(wanted - set(pieces.tensors)):
        owner, _, leaf = name.rpartition(".")
        if leaf == "q_bias" and f"{owner}.qkv.bias" in pieces.tensors:
            _split_bias(pieces, owner)
        elif name.endswith("attn.qkv.bias") and f"{owner.removesuffix('.qkv')}.q_bias" in pieces.tensors:
            _join_bias(pieces, owner.removesuffix(".qkv"))
        elif leaf == TABLE:
            _share_table(pieces, name)
        elif leaf in ("gamma_1", "gamma_2"):
            _move(pieces, f"{owner}.ls{leaf[-1]}.gamma", name)
        elif re.search(r"\.ls[12]\.gamma$", name):
            _move(pieces, re.sub(r"ls([12])\.gamma$", r"gamma_\1", name), name)
    _final_norm(pieces, wanted)
    _drop_shared(pieces, wanted)
    return pieces


def _order_swin(pieces: FileTensors, layout: KeyLayout) -> None:
    stages = [int(match[1]) for name in pieces.tensors if (match := re.match(r"layers\.(\d+)\.blocks", name))]
    for name in list(pieces.tensors):
        norm, merging = _STAGE_NORM.match(name), _DOWNSAMPLE.match(name)
        if norm and int(norm[1]) == max(stages):
            _move(pieces, name, f"norm.{name.partition('.')[2]}")
        elif norm:
            pieces.drop(name, "the norm of an inner stage's output, which detectors use")
        elif merging and layout.unfolds:
            piece = pieces.tensors[name]
            pieces.tensors[name] = FileTensor(_from_unfold(piece.value), piece.sources)
            pieces.changed[piece.sources[0]] = "channels reordered from nn.Unfold's order"
    if layout.merges_last:
        mergings = {name: pieces.tensors.pop(name) for name in list(pieces.tensors) if _DOWNSAMPLE.match(name)}
        for name, piece in mergings.items():
            pieces.tensors[_DOWNSAMPLE.sub(lambda match: f"layers.{int(match[1]) + 1}.downsample.", name)] = piece


def _from_unfold(value: Tensor) -> Tensor:
    """[..., C * 2 * 2], rows before columns -> [..., 2 * 2 * C], columns before rows, as timm merges patches."""
    if value.shape[-1] % 4:
        return value
    return value.unflatten(-1, (-1, 2, 2)).movedim(-3, -1).transpose(-3, -2).flatten(-3)


def _move(pieces: FileTensors, old: str, new: str) -> None:
    if old in pieces.tensors:
        pieces.tensors[new] = pieces.tensors.pop(old)


def _split_bias(pieces: FileTensors, owner: str) -> None:
    joint = pieces.tensors.pop(f"{owner}.qkv.bias")
    query, _, value = joint.value.chunk(3)
    pieces.tensors[f"{owner}.q_bias"] = FileTensor(query, joint.sources)
    pieces.tensors[f"{owner}.v_bias"] = FileTensor(value, joint.sources)
    pieces.changed[joint.sources[0]] = "the keys' third left out: the softmax cancels it"


def _join_bias(pieces: FileTensors, owner: str) -> None:
    if f"{owner}.v_bias" not in pieces.tensors:
        return
    query, value = pieces.tensors.pop(f"{owner}.q_bias"), pieces.tensors.pop(f"{owner}.v_bias")
    joint = torch.cat((query.value, torch.zeros_like(query.value), value.value))
    pieces.tensors[f"{owner}.qkv.bias"] = FileTensor(joint, query.sources + value.sources)


def _share_table(pieces: FileTensors, name: str) -> None:
    shared = f"rel_pos_bias.{TABLE}"
    if name != shared:
        if shared in pieces.tensors:
            pieces.tensors[name] = pieces.tensors[shared]
        return
    tables = {key: piece for key, piece in pieces.tensors.items() if key.endswith(f".attn.{TABLE}")}
    if not tables:
        return
    first = next(iter(tables.values()))
    if not all(torch.equal(first.value, piece.value) for piece in tables.values()):
        raise InputError(
            "the file has relative-position tables of each block's own, which this encoder's blocks share; "
            "import the weights from before fine-tuning"
        )
    for key in tables:
        del pieces.tensors[key]
    pieces.tensors[shared] = FileTensor(
        first.value, tuple(source for piece in tables.values() for source in piece.sources)
    )


def _drop_shared(pieces: FileTensors, wanted: Set[str]) -> None:
    """Once every block has its copy, the shared table itself has no place left."""
    shared = f"rel_pos_bias.{TABLE}"
    if shared in pieces.tensors and shared not in wanted and f"blocks.0.attn.{TABLE}" in wanted:
        pieces.changed[pieces.tensors.pop(shared).sources[0]] = "copied to each block"


def _final_norm(pieces: FileTensors, wanted: Set[str]) -> None:
    for leaf in ("weight", "bias"):
        pooled, final = f"fc_norm.{leaf}", f"norm.{leaf}"
        if pooled not in pieces.tensors or pooled in wanted:
            continue
        if final in pieces.tensors or final not in wanted:
            pieces.drop(pooled, "the norm of a classifier on pooled features")
        else:
            pieces.changed[pieces.tensors[pooled].sources[0]] = (
                "stands in for the final norm, which the file lacks: applied to each patch before pooling"
            )
            _move(pieces, pooled, final)
