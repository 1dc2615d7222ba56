"""The method contract: what a masked-image-modeling method is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mimbench.contract.abilities import require_abilities
from mimbench.contract.config import Config as BaseConfig
from mimbench.contract.encoder import Encoder
from mimbench.contract.input import InputConfig
from mimbench.contract.official import OfficialCode
from mimbench.contract.pretrain_config import PretrainConfig
from mimbench.contract.stage import Stage
from mimbench.contract.training import Batch, PartOptions, StepOutput
from mimbench.errors import InputError, NotSupported

PARTS = ("sample_mask", "target", "predict", "loss")
"""What the default `Method.step` calls."""


class Method(nn.Module):
    """A pretraining method around an encoder.

    A method is its `step`: the loss of one batch. Most methods define the four parts that the default step calls,
    `sample_mask`, `target`, `predict` and `loss`. Others define `step` itself. Everything else has a default.

    A mask is bool [B, Gh, Gw], True = masked, on any grid that tiles the image; `resize_mask` changes the grid.
    A method that takes clips gets [B, C, T, H, W] instead of [B, C, H, W], and its masks are bool [B, Gt, Gh, Gw] then.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    """Raise it whenever the same recipe gives other weights."""
    paper: ClassVar[str] = ""
    reference: ClassVar[str] = ""
    """url@commit of the code that the method follows."""
    encoder_needs: ClassVar[frozenset[str]] = frozenset()
    """What its encoder must be able to do: names from `ABILITIES`. With none, the method takes every encoder."""
    takes_clips: ClassVar[bool] = False
    """Whether it takes clips [B, C, T, H, W], around an encoder with "clips" in `can`."""
    takes_images: ClassVar[bool] = True
    """Whether it takes images. A method of clips alone sets it to False."""
    predicts: ClassVar[str] = ""
    """What it predicts, in a few words for tables, such as "pixels of masked patches"."""
    sees: ClassVar[str] = ""
    """What its encoder sees of an image, such as "visible patches"."""
    networks: ClassVar[tuple[str, ...]] = ()
    """Networks that training has besides the encoder, such as ("decoder", "EMA teacher")."""
    supervision: ClassVar[tuple[str, ...]] = ()
    """What the method learns from besides pixels, e.g. ("labels",); empty for pixels only."""
    pretrains: ClassVar[bool] = True
    """False for a control whose encoder stays as initialised."""
    needs_checkpoint: ClassVar[bool] = False
    """Whether it stands for weights that were trained elsewhere, so that it runs with --checkpoint only."""
    official: ClassVar[OfficialCode | None] = None
    """What relates the method to its official code: names of parameters, options, golden vectors."""
    waivers: ClassVar[Mapping[str, str]] = {}
    """Checks of `mimbench check` that may fail for this plugin: name of the check -> reason."""
    not_stored: ClassVar[tuple[str, ...]] = ()
    """Beginnings of names in the state dict that `__init__` makes again from the config, such as "teacher." for a
    frozen teacher that an option's file gives. They are in no checkpoint and no saved state."""
    Config: ClassVar[type[BaseConfig]] = BaseConfig
    image_size: int
    """Side of the images of the current step, px: that of the encoder, unless `pretrain.image_sizes` changes it."""
    progress: float = 1.0
    """Share of the training before the current step, in [0, 1); 1 outside of a training."""

    def __init__(self, config: BaseConfig, encoder: Encoder) -> None:
        """Build the parts around `encoder`.

        Raises:
            InputError: the config does not fit the encoder or its image size.
        """
        super().__init__()
        require_abilities(f"method {self.name!r}", self.encoder_needs, encoder)
        self.config = config
        self.encoder = encoder
        self.image_size = encoder.image_size
        if self.not_stored:
            self.register_state_dict_post_hook(_leave_out_not_stored)
            self.register_load_state_dict_pre_hook(_add_not_stored)

    @classmethod
    def masks_only(cls, config: Any, encoder: Encoder) -> Method:
        """A method to call `sample_mask` of, and nothing else.

        The default builds all parts. Override it if the parts are slow to import or build.

        Args:
            config: an instance of `Config`.
            encoder: may be one without weights, from `Encoder.sizes_only`.
        """
        return cls(config, encoder)

    def prepare(self, stage: Stage) -> None:
        """Fit what training needs, such as a tokenizer. Called once before training, with the weights on the CPU.

        Keep the result in parameters or buffers, so that a checkpoint holds it.
        """

    @classmethod
    def missing_parts(cls) -> list[str]:
        """The parts of a step that a subclass still has to define; empty if it has a step, or is never trained.

        It is called when the plugin is loaded, and not when the class is made, so that a class may leave parts to its
        subclasses.
        """
        if cls.step is not Method.step or not cls.pretrains:
            return []
        needed = [part for part in PARTS if getattr(cls, part) is getattr(Method, part)]
        # A subclass with its own `forward` may need none of the parts but the mask.
        return [part for part in needed if part == "sample_mask"] if cls.forward is not Method.forward else needed

    @classmethod
    def views(cls, config: Any, input: InputConfig) -> Sequence[InputConfig]:
        """How each view of an image is cropped and augmented. The default asks for one view, as the recipe's [input].

        Every view is drawn anew from the same image. Views may have other sizes. The first one should have
        `input.image_size`, as the encoder was built for it.

        Args:
            config: an instance of `Config`.
            input: the recipe's [input]. `View.from_input(input, crop_scale=(0.05, 0.25))` gives a changed view.
        """
        return (input,)

    @classmethod
    def check_training(cls, config: Any, pretrain: PretrainConfig) -> None:
        """Check that the options fit the recipe's [pretrain]. Called before anything is computed.

        Raises:
            InputError: they do not; the message says why and what to do.
        """

    @classmethod
    def depends_on_processes(cls, config: Any) -> str:
        """Why the same recipe gives other weights on another number of processes; "" if it does not, as by default.

        By default a step on several processes is the step of one process on all their images. For that, a step draws
        per image with the mask functions, `DropPath` and `draw_rows`, once per batch with `draw_once`, and takes means
        over images, or over masked patches with `mean_over_masked` or `mean_over_shares`. `mimbench check method`
        compares. With a reason here, each process draws its own numbers, and the number of processes becomes part of
        the fingerprint.

        Args:
            config: an instance of `Config`.
        """
        return ""

    @property
    def patch_grid(self) -> tuple[int, ...]:
        """(rows, columns) of the encoder's patches at the current `image_size`. `encoder.grid` never changes."""
        return self.encoder.grid_at(self.image_size)

    def set_image_size(self, size: int) -> None:
        """Follow a change of the image size: called while planning, and before each epoch, if they change.

        The default refuses. A method that follows overrides it with `self.image_size = size`, reads `image_size` and
        `patch_grid` at each step, and makes again what it derived from them.

        Args:
            size: side of the first view, px. All other views scale by the same factor.

        Raises:
            InputError: the method, or one of its options, is for one size.
        """
        if size != self.encoder.image_size:
            raise InputError(f"method {self.name!r} trains on images of one size; leave pretrain.image_sizes out")

    def sample_mask(self, batch: int, generator: torch.Generator) -> Any:
        """Masks for a batch: bool [batch, Gh, Gw], of clips [batch, Gt, Gh, Gw], True = masked.

        They are on the generator's device, and have as many axes as the encoder's grid.

        A method that needs another structure, such as lists of indices, returns that and defines `masked_cells`.

        Raises:
            NotSupported: the method has no masks.
        """
        raise NotSupported(f"method {self.name!r} has no masks")

    def masked_cells(self, mask: Any) -> Tensor | None:
        """What `sample_mask` returned, as bool [B, *cells], True = masked, for counts and pictures; None: no grid."""
        axes = 1 + len(self.encoder.grid)
        is_grid = isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.ndim == axes
        return mask if is_grid else None

    def target(self, images: Tensor) -> Tensor:
        """The target of the prediction (pixels, tokens, features) for images [B, C, H, W]. It gets no gradient.

        Raises:
            NotSupported: the method has no target that images alone determine.
        """
        raise NotSupported(f"method {self.name!r} has no target that images alone determine")

    def predict(self, images: Tensor, mask: Any) -> Tensor:
        """The prediction, in the shape that `loss` expects.

        Args:
            images: float [B, C, H, W], normalised. The prediction must depend on visible pixels only.
            mask: what `sample_mask` returned.

        Raises:
            NotSupported: the method predicts nothing from a masked image.
        """
        raise NotSupported(f"method {self.name!r} predicts nothing from a masked image")

    def loss(self, prediction: Tensor, target: Tensor, mask: Any) -> Tensor:
        """Scalar to minimise, from the outputs of `predict` and `target`.

        Raises:
            NotSupported: the method has no loss of a prediction and a target.
        """
        raise NotSupported(f"method {self.name!r} has no loss of a prediction and a target")

    def forward(self, images: Tensor, mask: Any) -> StepOutput:
        """Loss of normalised images float [B, C, H, W] under a mask from `sample_mask`."""
        with torch.no_grad():
            target = self.target(images)
        return StepOutput(self.loss(self.predict(images, mask), target, mask))

    def step(self, batch: Batch, generator: torch.Generator) -> StepOutput:
        """One training step. Override it to use several views, labels or no mask.

        Args:
            batch: the views and, if `supervision` names them, labels; `batch.progress` for temperatures.
            generator: on the images' device, freshly seeded for this step.
        """
        return self(batch.images, self.sample_mask(len(batch.images), generator))

    def reconstruct(self, images: Tensor, mask: Tensor) -> Tensor:
        """Images with the masked part as this method predicts it.

        Args:
            images: float [B, C, H, W], normalised.
            mask: bool [B, Gh, Gw], True = masked.

        Returns:
            float [B, C, H, W], normalised.

        Raises:
            NotSupported: the method does not predict pixels.
        """
        raise NotSupported(f"method {self.name!r} does not predict pixels")

    def sample_masked(
        self, images: Tensor, mask: Tensor, temperature: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Draw the masked part from the predicted distribution, e.g. of tokens. Images are generated with it.

        Args:
            images: float [B, C, H, W], normalised.
            mask: bool [B, Gh, Gw], True = masked.
            temperature: of the distribution; 0 takes the most probable value.
            generator: on the images' device.

        Returns:
            Images as from `reconstruct`, and the log-probability of the drawn values, float [B, h, w] on any grid.

        Raises:
            NotSupported: the method predicts a single image.
        """
        raise NotSupported(f"method {self.name!r} predicts one image, not a distribution of images")

    @property
    def reconstruction_note(self) -> str:
        """One line under pictures: how pixels are predicted, and whether `reconstruct` uses masked pixels too."""
        return ""

    def before_step(self, progress: float) -> None:
        """Called before each micro-batch, when `self.progress` is set, and before its mask is drawn.

        Args:
            progress: share of the training before this step, in [0, 1).
        """

    def before_update(self, progress: float) -> None:
        """Called before each optimizer step, when all gradients are there and clipped, e.g. to cancel some of them.

        Args:
            progress: of the training before this step, in [0, 1).
        """

    def after_step(self, progress: float) -> None:
        """Called after each optimizer step, e.g. to update an EMA teacher; `progress` of the training is in [0, 1]."""

    def no_weight_decay(self) -> set[str]:
        """Names of parameters with two or more dimensions that get no weight decay. 1-D parameters never get any."""
        return {f"encoder.{name}" for name in self.encoder.no_weight_decay()}

    def extra_weight_decay(self) -> set[str]:
        """Names or patterns of parameters of one dimension that are decayed all the same."""
        return set()

    def optimizer_parts(self) -> dict[str, PartOptions]:
        """Options of the optimizer for parts of the method, by the beginning of their names, such as "tokenizer.".

        A key with a * is a shell pattern of whole names, such as "*norm*.weight".
        """
        return {}

    def exported_encoder(self) -> Encoder:
        """The encoder that downstream tasks get: `self.encoder`, or a teacher's copy of it.

        It is called during training too, to save checkpoints, and changes nothing.
        """
        return self.encoder


def _leave_out_not_stored(method: Method, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    for name in [name for name in state if name.startswith(tuple(prefix + part for part in method.not_stored))]:
        del state[name]


def _add_not_stored(method: Method, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Add the current values of what is not stored, so that strict loading succeeds."""
    for path, module in method.named_modules():
        tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        for name, value in tensors:
            whole = f"{path}.{name}" if path else name
            if whole.startswith(method.not_stored) and name not in module._non_persistent_buffers_set:
                state[prefix + whole] = value
