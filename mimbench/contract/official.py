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
from mimbench.contract.training import TrainConfig
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

    def mask(self, name: str = "input/mask") -> Tensor:
        """bool [B, Gh, Gw], True = masked; the file has it so, or flat over a square grid, or once for the batch."""
        mask, batch = self.tensor(name).bool(), len(self.images())
        if mask.ndim == 2 and len(mask) == batch and isqrt(mask.shape[1]) ** 2 == mask.shape[1]:
            mask = mask.view(batch, isqrt(mask.shape[1]), -1)
        elif mask.ndim == 2:
            mask = mask.expand(batch, -1, -1)
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
    """Official code of parts of the method that have golden files of their own, such as a tokenizer."""
    names: ClassVar[Mapping[str, str | None]] = {}
    """Parameters of the method that have other names here: beginning there -> beginning here; None: computed here.

    Parameters of encoders need no entry, since they are recognised; see mimbench.convert.
    """
    networks: ClassVar[Mapping[str, str]] = {"param/": ""}
    """Where the tensors of each official network belong: beginning there -> beginning here. The longest one counts.

    For example {"param/encoder.": "encoder.", "param/target.": "teacher.module."}. `names` applies to the rest of a
    name. Names of encoders, at any place, are converted into those of the encoder here.
    """
    computed: ClassVar[tuple[str, ...]] = ()
    """Beginnings of parameters here that no file gives and that stay as initialised.

    For example a tokenizer whose output is in the file, or a final norm that pretraining does not use.
    """
    trained: ClassVar[str] = ""
    """What is missing before the names of gradients, such as "student."."""
    followed: ClassVar[Mapping[str, str]] = {}
    """Groups of weights that the method gets before `update` -> groups of `networks`, such as
    {"after/student/": "param/"}: so a teacher's update does not depend on our optimizer's rounding."""
    states: ClassVar[Mapping[str, str]] = {}
    """Groups that hold weights after `update` -> groups of `networks`, such as {"ema/": "param/"}."""
    trajectory_states: ClassVar[Mapping[str, str]] = {"traj/param_after.": "param/"}
    """Groups that hold weights after the steps of `traj/` -> groups of `networks`."""
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
