"""data2vec: predict what a slowly moving copy of the encoder makes of the whole image, at masked patches."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.api import (
    Encoder,
    OfficialCode,
    StepOutput,
    Teacher,
    at_least_float32,
    block_mask,
    full_precision,
    init_truncated,
    mean_over_masked,
)
from mimbench_methods._chosen_layers import require_layers
from mimbench_methods._data2vec_options import Data2VecConfig
from mimbench_methods._masked_patches import count_masked
from mimbench_methods._slow_teachers import EncoderTeacher, variance_logs
from mimbench_methods.official.data2vec import OfficialData2Vec


class Data2Vec(EncoderTeacher):
    """Baevski et al., data2vec: A General Framework for Self-supervised Learning (ICML 2022, arXiv:2202.03555).

    Reference code: CC-BY-NC 4.0, parts MIT; not used here.
    """

    name: ClassVar[str] = "data2vec"
    version: ClassVar[str] = "2"
    predicts: ClassVar[str] = "teacher's features at masked patches"
    sees: ClassVar[str] = "all patches, masked ones as a token"
    networks: ClassVar[tuple[str, ...]] = ("linear head", "EMA teacher")
    paper: ClassVar[str] = "https://arxiv.org/abs/2202.03555"
    reference: ClassVar[str] = (
        "https://github.com/facebookresearch/data2vec_vision@6146726a0123d536201b500d7f80b476dcbf6e42"
    )
    official: ClassVar[OfficialCode | None] = OfficialData2Vec()
    encoder_needs: ClassVar[frozenset[str]] = frozenset({"mask-tokens", "separate-patches", "one-grid"})
    Config = Data2VecConfig
    config: Data2VecConfig

    def __init__(self, config: Data2VecConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.sample_mask(1, torch.Generator())  # an impossible mask is refused now, not at the first step
        require_layers(encoder, "target_layers", config.target_layers)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 1, encoder.embed_dim))
        self.head = nn.Linear(encoder.out_dim, encoder.out_dim)
        init_truncated(self)
        self.teacher = Teacher(encoder)

    def set_image_size(self, size: int) -> None:
        self.image_size = size

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        count = count_masked(self, self.config.hidden_patches)
        return block_mask(batch, self.patch_grid, count, generator, min_block=self.config.min_block)

    @torch.no_grad()
    def target(self, images: Tensor) -> Tensor:
        """[B, h, w, D] from the whole images. As officially, the teacher runs in float32 under autocast too."""
        with full_precision(images.device):
            layers = self.teacher.module.layers(at_least_float32(images), final_norm=False)[
                -self.config.target_layers :
            ]
            outputs = [layer.dense.permute(0, 2, 3, 1) for layer in layers]
            if self.config.norm_layers:
                outputs = [_normalised(output) for output in outputs]
            mean = torch.stack(outputs).mean(0)
            return _normalised(mean) if self.config.norm_target else mean

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        return self.head(self.encoder.encode_masked(images, mask, self.mask_token).permute(0, 2, 3, 1))

    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Smooth L1, mean over all masked patches of the batch together; 0 if none is masked."""
        error = F.smooth_l1_loss(at_least_float32(prediction), target, reduction="none", beta=self.config.beta).mean(-1)
        return mean_over_masked(error, mask)

    def forward(self, images: Tensor, mask: Tensor) -> StepOutput:
        """Logs the variance over the patches of the batch, mean over channels: near 0 if training has collapsed."""
        target = self.target(images)
        prediction = self.predict(images, mask)
        logs = variance_logs(target, prediction)
        return StepOutput(self.loss(prediction, target, mask), logs)

    def after_step(self, progress: float) -> None:
        """Move the teacher's parameters towards the student's, with the tau of the progress before the step."""
        self.teacher.follow(self.encoder, self.tau(self.progress))

    def tau(self, progress: float) -> float:
        """What the teacher keeps of itself in the step that begins at `progress`, in [0, 1].

        The official loop holds the last value before tau_end until the epoch ends. Here tau_end follows at once.
        """
        return self.config.tau_at(progress)


def _normalised(patches: Tensor) -> Tensor:
    return F.layer_norm(patches, patches.shape[-1:])
