"""Options of dBOT."""

from __future__ import annotations

from pydantic import Field

from mimbench.api import Depth, Encoder, MaskRatioConfig, Predictor


class DBOTConfig(MaskRatioConfig):
    """The defaults are those of the official ViT-B, whose own encoder is the teacher."""

    mask_ratio: float = Field(0.75, gt=0, lt=1)
    """Share of the patches that is masked."""
    stages: int = Field(2, ge=1)
    """Equal shares of the training. Each one begins with the student as the new teacher, and with a fresh student."""
    norm_target: bool = True
    """Normalise the features of each patch by their own mean and variance."""
    final_norm: bool = False
    """The target has passed the teacher's final norm."""
    beta: float = Field(2.0, ge=0)
    """Error at which the smooth L1 loss goes from square to straight; 0: L1."""
    decoder_dim: int = Field(512, ge=4)
    decoder_depth: Depth = Field(8, ge=1)
    decoder_heads: int = Field(16, ge=1)
    decoder_mlp_ratio: float = Field(4.0, gt=0)
    decoder_drop_path: float = Field(0.2, ge=0, lt=1)
    """Rate of the decoder's last block; that of the encoder is encoder.drop_path."""

    def build_decoder(self, encoder: Encoder) -> Predictor:
        return Predictor(
            encoder.out_dim,
            encoder.out_dim,
            dim=self.decoder_dim,
            depth=self.decoder_depth,
            num_heads=self.decoder_heads,
            mlp_ratio=self.decoder_mlp_ratio,
            drop_path=self.decoder_drop_path,
            grid=encoder.grid,
        )
