"""MAE-ST: encode the visible cubes of random masks in space and time; predict one frame of each masked cube."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from mimbench.api import (
    Encoder,
    InputError,
    at_least_float32,
    init_xavier,
    patchify,
    random_mask,
    unpatchify,
)
from mimbench_methods._cube_autoencoder import CubeAutoencoder, CubeAutoencoderConfig


class MAESTConfig(CubeAutoencoderConfig):
    """The defaults are those of the official ViT on Kinetics-400."""

    predicted_frames: int = Field(1, ge=1)
    """Frames per cube that are predicted; the official 8 of 16 frames are one for each cube of 2."""
    decoder_dim: int = Field(512, ge=2)
    decoder_heads: int = Field(16, ge=1)


class MAEST(CubeAutoencoder):
    """Feichtenhofer et al., Masked Autoencoders As Spatiotemporal Learners (NeurIPS 2022, arXiv:2205.09113).

    Reference code: CC-BY-NC 4.0; not used here.
    """

    name: ClassVar[str] = "mae-st"
    version: ClassVar[str] = "1"
    predicts: ClassVar[str] = "normalised pixels of frames of masked cubes"
    paper: ClassVar[str] = "https://arxiv.org/abs/2205.09113"
    reference: ClassVar[str] = "https://github.com/facebookresearch/mae_st@27edea1326a8c0655ac0a339afed7effae2b8ba1"
    Config = MAESTConfig
    config: MAESTConfig
    frames: Tensor

    def __init__(self, config: MAESTConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.sample_mask(1, torch.Generator())  # an impossible ratio is refused here
        if encoder.tubelet % config.predicted_frames:
            raise InputError(
                f"method.predicted_frames {config.predicted_frames} must divide the encoder's cubes of "
                f"{encoder.tubelet} frames"
            )
        dim, (time, *space) = config.decoder_dim, encoder.grid
        self.project = nn.Linear(encoder.out_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.spatial_positions = nn.Parameter(torch.zeros(1, space[0] * space[1], dim))
        self.temporal_positions = nn.Parameter(torch.zeros(1, time, dim))
        self.class_position = nn.Parameter(torch.zeros(1, 1, dim))
        self.build_blocks()
        self.head = nn.Linear(dim, config.predicted_frames * encoder.patch_size**2 * encoder.in_channels)
        # From the first frame to the last at equal distances, rounded down.
        chosen = torch.linspace(0, encoder.frames - 1, time * config.predicted_frames).long()
        self.register_buffer("frames", chosen, persistent=False)
        init_xavier(self)
        for part in (self.class_token, self.spatial_positions, self.temporal_positions, self.class_position):
            nn.init.trunc_normal_(part, std=0.02)

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        """Cubes anywhere in the clip, as many in each."""
        return random_mask(batch, self.encoder.grid, self.config.mask_ratio, generator, rounding="mae")

    def decode(self, tokens: Tensor) -> Tensor:
        """The decoder has its own class token, which takes part in attention and is then left out."""
        positions = (self.temporal_positions.unsqueeze(2) + self.spatial_positions.unsqueeze(1)).flatten(1, 2)
        first = (self.class_token + self.class_position).to(tokens.dtype).expand(len(tokens), -1, -1)
        return self.blocks(torch.cat((first, tokens + positions), 1))[:, 1:]

    def no_weight_decay(self) -> set[str]:
        return super().no_weight_decay() | {"spatial_positions", "temporal_positions"}

    @property
    def reconstruction_note(self) -> str:
        repeated = "Frames that are not predicted repeat one that is."
        note = super().reconstruction_note
        return f"{note} {repeated}".strip() if len(self.frames) < self.encoder.frames else note

    def cubes(self, images: Tensor) -> Tensor:
        """Pixels of each cube's predicted frames, [B, T', h, w, predicted_frames * size * size * C]."""
        chosen = at_least_float32(images)[:, :, self.frames]
        return patchify(chosen, self.encoder.patch_size, self.config.predicted_frames)

    def moments(self, cubes: Tensor) -> tuple[Tensor, Tensor]:
        """Over all pixels and colours of a cube, [..., 1]; epsilon is added to the variance."""
        return cubes.mean(-1, keepdim=True), (cubes.var(-1, keepdim=True) + 1e-6).sqrt()

    def clips_of(self, cubes: Tensor) -> Tensor:
        """Frames of a cube that are not predicted repeat one that is."""
        clips = unpatchify(cubes, self.encoder.patch_size, self.config.predicted_frames)
        return clips.repeat_interleave(self.encoder.tubelet // self.config.predicted_frames, 2)
