"""How a method relates to its official code: its names, its options, and its computation on golden vectors.

Golden vectors are what the official code computed, in an .npz file. Its arrays have names in groups: `param/` is the
official state dict, `input/` what the model saw, `out/` and `aux/` what it computed, `grad/` gradients, `after/` and
`ema/` weights after an update, `traj/` several optimizer steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from mimbench.contract.setup import ModelSetup
from mimbench.contract.train_config import TrainConfig
from mimbench.errors import InputError, NotSupported

if TYPE_CHECKING:
    from mimbench.contract.method import Method


@dataclass(frozen=True)
class Golden:
    """A file of golden vectors.

    Attributes:
        meta: what the file says of the model: `repo`, `config`, and often `method`.
        arrays: by name; text is not among them.
        texts: arrays of text, such as `grad_norm_names`.
    """

    path: Path
    meta: Mapping[str, Any]
    arrays: Mapping[str, Tensor]
    texts: Mapping[str, tuple[str, ...]]

    @property
    def config(self) -> Mapping[str, Any]:
        """Arguments of the official model."""
        return self.meta["config"]

    def tensor(self, name: str) -> Tensor:
        """Raises InputError: the file has no array `name`."""
        if name not in self.arrays:
            raise InputError(f"golden file {self.path} has no {name!r}")
        return self.arrays[name]

    def group(self, prefix: str) -> dict[str, Tensor]:
        """The arrays whose names begin with `prefix`, such as "param/", without it."""
        return {name.removeprefix(prefix): value for name, value in self.arrays.items() if name.startswith(prefix)}

    def images(self) -> Tensor:
        """float [B, C, H, W], normalised."""
        return self.tensor("input/image")

    def mask(self, name: str = "input/mask", *, shared: bool = False) -> Tensor:
        """bool [B, Gh, Gw], True = masked. The file has it so, or flat over a square grid.

        shared: the file has one mask [Gh, Gw] for the whole batch.
        """
        mask, batch = self.tensor(name).bool(), len(self.images())
        if shared:
            mask = mask.expand(batch, *mask.shape)
        elif mask.ndim == 2 and isqrt(mask.shape[1]) ** 2 == mask.shape[1]:
            mask = mask.view(len(mask), isqrt(mask.shape[1]), -1)
        if mask.ndim != 3 or len(mask) != batch:
            raise InputError(f"golden file {self.path}: {name!r} is shaped {list(mask.shape)}, not one grid per image")
        return mask

    def to(self, dtype: torch.dtype) -> Golden:
        """The same numbers, all floats in another precision."""
        arrays = {n: value.to(dtype) if value.is_floating_point() else value for n, value in self.arrays.items()}
        return replace(self, arrays=arrays)


class OfficialCode:
    """What relates a method to the official code that it follows.

    The class attributes say where each official tensor belongs. `replay` computes what the official code computed. The
    base class fits a method of the usual four parts, whose state dict is one flat set of names. Subclasses say what is
    different.
    """

    methods: ClassVar[tuple[str, ...]] = ()
    """What golden files call the method in `meta.method`."""
    repository: ClassVar[str] = ""
    """Part of the official repository's name that identifies it in `meta.repo`, if a file names no method."""
    parts: ClassVar[tuple[OfficialCode, ...]] = ()
    """Official code of parts of the method that have separate golden files, such as a tokenizer."""
    names: ClassVar[Mapping[str, str | None]] = {}
    """How official names of the method's parameters begin -> how ours do. None: computed here, and not loaded.

    {"decoder_pred": "head"} loads the official `decoder_pred.weight` into `head.weight`. Parameters of encoders need no
    entry: mimbench.convert recognises them.
    """
    networks: ClassVar[Mapping[str, str]] = {"param/": ""}
    """How arrays of each official network begin -> how its parameters begin in our state dict. The longest one counts.

    {"param/encoder.": "encoder.", "param/target.": "teacher.module."} loads `param/target.norm.weight` into
    `teacher.module.norm.weight`. `names` applies to the rest of a name.
    """
    computed: ClassVar[tuple[str, ...]] = ()
    """Beginnings of parameters here that no file gives and that stay as initialised.

    For example a tokenizer whose output is in the file, or a final norm that pretraining does not use.
    """
    trained: ClassVar[str] = ""
    """Prefix that names of gradients lack: "student." if `grad/norm.weight` is of `param/student.norm.weight`."""
    followed: ClassVar[Mapping[str, str]] = {}
    """Weights to load before `update`: group -> the group of `networks` that it replaces.

    {"after/student/": "param/"} gives the student the weights that the official optimizer left. So the comparison of a
    teacher's update does not depend on the rounding of our optimizer.
    """
    states: ClassVar[Mapping[str, str]] = {}
    """Weights to compare after `update`: group -> the group of `networks` with the same names: {"ema/": "param/"}."""
    trajectory_states: ClassVar[Mapping[str, str]] = {"traj/param_after.": "param/"}
    """Weights to compare after the steps of `traj/`, as in `states`."""
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Groups that hold what the same weights give with other options of the method, such as {"fixed/": {...}}."""
    tolerances: ClassVar[Mapping[str, float]] = {}
    """Patterns of quantities -> largest relative error, if it is not the usual one. Say why beside it."""
    not_compared: ClassVar[Mapping[str, str]] = {}
    """Patterns of arrays that are not compared -> why."""

    def setup(self, config: Mapping[str, Any], meta: Mapping[str, Any]) -> ModelSetup:
        """The same model in mimbench's options.

        Args:
            config: arguments of the official model.
            meta: everything that the file says.

        Raises:
            InputError: the model has a part that mimbench lacks.
            KeyError, TypeError, ValueError: the config is incomplete.
        """
        raise NotSupported("this method does not read golden files of other codes; give meta.setup")

    def complete(self, golden: Golden, method: Method) -> None:
        """Add to `method`, before it gets the file's weights, what it has only while `prepare` fits it: a decoder."""

    def replay(self, golden: Golden, method: Method) -> dict[str, Tensor]:
        """What the official code computed, by the names of the file's arrays.

        Args:
            golden: in the precision of `method`.
            method: with the file's weights, in training mode.

        Returns:
            "out/loss", with a gradient, and the other arrays of `out/` and `aux/` that are compared.
        """
        images, mask = golden.images(), golden.mask()
        with torch.no_grad():
            target = method.target(images)
        prediction = method.predict(images, mask)
        loss = method.loss(prediction, target, mask)
        return {"out/loss": loss, "out/prediction": prediction, "aux/target_all": target}

    def update(self, golden: Golden, method: Method) -> None:
        """What follows the backward pass, such as the update of a teacher; then `states` are compared."""

    def training(self, golden: Golden) -> TrainConfig:
        """The optimizer of `traj/`; its rates and decays are those that the file holds for each step."""
        raise NotSupported("no trajectory is described")

    def begin(self, golden: Golden, method: Method) -> None:
        """What precedes the first step of `traj/`, such as making the teacher a copy of the student."""

    def step_loss(self, golden: Golden, method: Method, step: int) -> Tensor:
        """The loss of one step of `traj/`, with the mask that the file holds for it."""
        raise NotSupported("no trajectory is described")

    def after_step(self, golden: Golden, method: Method, step: int) -> None:
        """What follows the optimizer's step, such as the update of a teacher."""

    def after_all_steps(self, golden: Golden, method: Method) -> dict[str, Tensor]:
        """What the method holds after the last step of `traj/` besides weights, by the names of the file's arrays."""
        return {}
