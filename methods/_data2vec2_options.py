"""Options of data2vec 2.0; the defaults are those of facebookresearch/fairseq@3d262bb, base_images_only_task.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mimbench.api import Depth, Encoder, InputError, MaskRatioConfig
from mimbench_methods._chosen_layers import require_layers
from mimbench_methods._conv_decoder import ConvDecoder
from mimbench_methods._slow_teachers import TauConfig


class Data2Vec2Config(MaskRatioConfig, TauConfig):
    """The defaults are those of the official ViT-B."""

    masks: int = Field(16, ge=1)
    """Masks per image. All of them share one pass of the teacher."""
    mask_ratio: float = Field(0.8, gt=0, lt=1)
    """Share of the patches that is masked."""
    mask_block: int = Field(3, ge=1)
    """Side of the blocks of visible patches, in patches; 1: single patches."""
    mask_adjust: float = Field(0.07, ge=0, lt=1)
    """Share of the patches that blocks show in addition; as many single patches are then masked at random."""
    target_layers: int = Field(10, ge=1)
    """How many of the teacher's last layers the target is the mean of."""
    target_output: Literal["mlp", "block"] = "mlp"
    """What of each layer: the output of its MLP, before the residual sum, or that of the whole block."""
    class_weight: float = Field(2.56, ge=0)
    """Weight of the loss of the class token, which predicts the mean of the target over all patches; 0: none."""
    noise_std: float = Field(0.01, ge=0)
    """Standard deviation of the noise that the decoder gets for masked patches."""
    decoder_dim: int = Field(768, ge=1)
    decoder_depth: Depth = Field(6, ge=1)
    decoder_kernel: int = Field(3, ge=1)
    decoder_groups: int = Field(16, ge=1)
    tau_start: float = Field(0.9998, ge=0, le=1)
    """What the teacher keeps of itself at each step, to begin with."""
    tau_end: float = Field(0.99999, ge=0, le=1)
    tau_share: float = Field(100_000 / 375_300, gt=0, le=1)
    """Share of the training over which it goes in a straight line from tau_start to tau_end."""
    export: Literal["student", "teacher"] = "student"
    """Whose encoder the tasks get."""

    def build_decoder(self, encoder: Encoder) -> ConvDecoder:
        sizes = {"depth": self.decoder_depth, "kernel": self.decoder_kernel, "groups": self.decoder_groups}
        return ConvDecoder(encoder.out_dim, self.decoder_dim, **sizes)

    def check_encoder(self, encoder: Encoder) -> None:
        """Raise InputError if the encoder has too few layers, or not the one class token that a loss asks for."""
        require_layers(encoder, "target_layers", self.target_layers)
        if not self.class_weight:
            return
        if "class-token" not in encoder.can:
            raise InputError("method.class_weight needs a class token; set encoder.class_token, or class_weight to 0")
        class_tokens = getattr(encoder, "class_tokens", 1)
        if class_tokens > 1:
            raise InputError(
                f"method.class_weight is for one class token, and the encoder has {class_tokens}; set "
                "encoder.class_tokens to 1, or class_weight to 0"
            )
