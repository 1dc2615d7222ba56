"""The tensors of a checkpoint file under common names, and how they are rearranged to fit the target encoder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from math import isqrt

import torch
from torch import Tensor

from mimbench.convert.key_layouts import LEFT_OUT, PREFIX, KeyLayout
from mimbench.encoders.position_tables import TABLE
from mimbench.errors import InputError

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
    tensors = FileTensors({})
    names = _count_on({key: layout.rename(PREFIX.sub("", key)) for key in state}, layout.first_blocks)
    for key, value in state.items():
        name = names[key]
        reason = next((reason for pattern, reason in LEFT_OUT if pattern.search(name)), None)
        if reason:
            tensors.left_out[key] = reason
        elif name in tensors.tensors:
            raise InputError(f"keys {tensors.tensors[name].sources[0]!r} and {key!r} both mean {name!r}; delete one")
        else:
            tensors.tensors[name] = FileTensor(value, (key,))
    if layout.kind == "vit":
        _give_class_token_a_position(tensors)
    if layout.kind == "swin":
        _order_swin(tensors, layout)
    if layout.kind == "convnet":
        _shape_convnet(tensors)
    return tensors


def _count_on(names: Mapping[str, str], first: str) -> Mapping[str, str]:
    """Blocks whose names begin with `first` become the first ones of `blocks.`; the others count on from them."""
    if not first:
        return names
    blocks = [int(match[1]) for name in names.values() if (match := re.match(rf"{first}blocks\.(\d+)\.", name))]
    count = max(blocks, default=-1) + 1

    def joined(name: str) -> str:
        counted = re.sub(r"^blocks\.(\d+)\.", lambda match: f"blocks.{int(match[1]) + count}.", name)
        return name.removeprefix(first) if name.startswith(f"{first}blocks.") else counted

    return {key: joined(name) for key, name in names.items()}


def _give_class_token_a_position(tensors: FileTensors) -> None:
    """Put zeros before absolute positions of the patches alone, if there is a class token."""
    token, positions = tensors.tensors.get("cls_token"), tensors.tensors.get("pos_embed")
    if token is None or positions is None or positions.value.ndim != 3 or "reg_token" in tensors.tensors:
        return
    if isqrt(positions.value.shape[1]) ** 2 == positions.value.shape[1]:
        value = torch.cat((torch.zeros_like(positions.value[:, :1]), positions.value), 1)
        tensors.tensors["pos_embed"] = FileTensor(value, positions.sources)
        tensors.changed[positions.sources[0]] = "the class token, which has no position there, gets zeros"


def match_forms(tensors: FileTensors, target_names: Set[str]) -> FileTensors:
    """Equivalent forms turned into the one that the target has; `target_names` are its names in timm.

    Joint or separate weights and biases of queries, keys and values; a shared table of relative positions or one for
    each block; the two names of LayerScale; the norm of pooled features for the missing final norm.

    Raises:
        InputError: tables that differ between blocks, for an encoder that shares one.
    """
    for name in sorted(target_names - set(tensors.tensors)):
        owner, _, leaf = name.rpartition(".")
        if leaf == "q_bias" and f"{owner}.qkv.bias" in tensors.tensors:
            _split_bias(tensors, owner)
        elif name.endswith("attn.qkv.bias") and f"{owner.removesuffix('.qkv')}.q_bias" in tensors.tensors:
            _join_bias(tensors, owner.removesuffix(".qkv"))
        elif name.endswith("attn.qkv.weight") and f"{owner.removesuffix('qkv')}q_proj.weight" in tensors.tensors:
            _join_weights(tensors, owner.removesuffix(".qkv"))
        elif leaf == TABLE:
            _share_table(tensors, name)
        elif leaf in ("gamma_1", "gamma_2"):
            _move(tensors, f"{owner}.ls{leaf[-1]}.gamma", name)
        elif re.search(r"\.ls[12]\.gamma$", name):
            _move(tensors, re.sub(r"ls([12])\.gamma$", r"gamma_\1", name), name)
    _final_norm(tensors, target_names)
    _drop_shared(tensors, target_names)
    return tensors


def _order_swin(tensors: FileTensors, layout: KeyLayout) -> None:
    stages = [int(match[1]) for name in tensors.tensors if (match := re.match(r"layers\.(\d+)\.blocks", name))]
    for name in list(tensors.tensors):
        norm, merging = _STAGE_NORM.match(name), _DOWNSAMPLE.match(name)
        if norm and int(norm[1]) == max(stages):
            _move(tensors, name, f"norm.{name.partition('.')[2]}")
        elif norm:
            tensors.drop(name, "the norm of an inner stage's output, which detectors use")
        elif merging and layout.unfolds:
            tensor = tensors.tensors[name]
            tensors.tensors[name] = FileTensor(_from_unfold(tensor.value), tensor.sources)
            tensors.changed[tensor.sources[0]] = "channels reordered from nn.Unfold's order"
    if layout.merges_last:
        mergings = {name: tensors.tensors.pop(name) for name in list(tensors.tensors) if _DOWNSAMPLE.match(name)}
        for name, tensor in mergings.items():
            tensors.tensors[_DOWNSAMPLE.sub(lambda match: f"layers.{int(match[1]) + 1}.downsample.", name)] = tensor


def _shape_convnet(tensors: FileTensors) -> None:
    """The forms of ConvNeXt V2: kernels of MinkowskiEngine become convolutions, vectors lose their axes of length 1."""
    for name, tensor in tensors.tensors.items():
        (source, *_), value = tensor.sources, tensor.value
        if source.endswith(".kernel"):
            tensors.tensors[name] = FileTensor(_from_sparse_kernel(value), tensor.sources)
            tensors.changed[source] = "a kernel of sparse convolution, reordered"
        elif name.endswith((".bias", ".grn.weight")):
            tensors.tensors[name] = FileTensor(value.flatten(), tensor.sources)


def _from_sparse_kernel(value: Tensor) -> Tensor:
    """[k * k, C] of a depthwise convolution, or [k * k, C, D] -> [C, 1, k, k] or [D, C, k, k].

    The k * k places go column by column: facebookresearch/ConvNeXt-V2@25538957 utils.py, remap_checkpoint_keys.
    """
    side = isqrt(len(value))
    places = value.unflatten(0, (side, side)).transpose(0, 1)
    return (places.unsqueeze(2) if value.ndim == 2 else places).permute(3, 2, 0, 1)


def _from_unfold(value: Tensor) -> Tensor:
    """[..., C * 2 * 2], rows before columns -> [..., 2 * 2 * C], columns before rows, as timm merges patches."""
    if value.shape[-1] % 4:
        return value
    return value.unflatten(-1, (-1, 2, 2)).movedim(-3, -1).transpose(-3, -2).flatten(-3)


def _move(tensors: FileTensors, old: str, new: str) -> None:
    if old in tensors.tensors:
        tensors.tensors[new] = tensors.tensors.pop(old)


def _split_bias(tensors: FileTensors, owner: str) -> None:
    joint = tensors.tensors.pop(f"{owner}.qkv.bias")
    query, _, value = joint.value.chunk(3)
    tensors.tensors[f"{owner}.q_bias"] = FileTensor(query, joint.sources)
    tensors.tensors[f"{owner}.v_bias"] = FileTensor(value, joint.sources)
    tensors.changed[joint.sources[0]] = "the keys' third left out: the softmax cancels it"


def _join_weights(tensors: FileTensors, owner: str) -> None:
    names = [f"{owner}.{part}_proj.weight" for part in "qkv"]
    if all(name in tensors.tensors for name in names):
        parts = [tensors.tensors.pop(name) for name in names]
        sources = tuple(source for part in parts for source in part.sources)
        tensors.tensors[f"{owner}.qkv.weight"] = FileTensor(torch.cat([part.value for part in parts]), sources)


def _join_bias(tensors: FileTensors, owner: str) -> None:
    if f"{owner}.v_bias" not in tensors.tensors:
        return
    query, value = tensors.tensors.pop(f"{owner}.q_bias"), tensors.tensors.pop(f"{owner}.v_bias")
    joint = torch.cat((query.value, torch.zeros_like(query.value), value.value))
    tensors.tensors[f"{owner}.qkv.bias"] = FileTensor(joint, query.sources + value.sources)


def _share_table(tensors: FileTensors, name: str) -> None:
    shared = f"rel_pos_bias.{TABLE}"
    if name != shared:
        if shared in tensors.tensors:
            tensors.tensors[name] = tensors.tensors[shared]
        return
    tables = {key: tensor for key, tensor in tensors.tensors.items() if key.endswith(f".attn.{TABLE}")}
    if not tables:
        return
    first = next(iter(tables.values()))
    if not all(torch.equal(first.value, tensor.value) for tensor in tables.values()):
        raise InputError(
            "the file has relative-position tables of each block's own, which this encoder's blocks share; "
            "import the weights from before fine-tuning"
        )
    for key in tables:
        del tensors.tensors[key]
    tensors.tensors[shared] = FileTensor(
        first.value, tuple(source for tensor in tables.values() for source in tensor.sources)
    )


def _drop_shared(tensors: FileTensors, target_names: Set[str]) -> None:
    """Drop the shared table once every block has a copy of it."""
    shared = f"rel_pos_bias.{TABLE}"
    if shared in tensors.tensors and shared not in target_names and f"blocks.0.attn.{TABLE}" in target_names:
        tensors.changed[tensors.tensors.pop(shared).sources[0]] = "copied to each block"


def _final_norm(tensors: FileTensors, target_names: Set[str]) -> None:
    for leaf in ("weight", "bias"):
        pooled, final = f"fc_norm.{leaf}", f"norm.{leaf}"
        if pooled not in tensors.tensors or pooled in target_names:
            continue
        if final in tensors.tensors or final not in target_names:
            tensors.drop(pooled, "the norm of a classifier on pooled features")
        else:
            tensors.changed[tensors.tensors[pooled].sources[0]] = (
                "stands in for the final norm, which the file lacks: applied to each patch before pooling"
            )
            _move(tensors, pooled, final)
