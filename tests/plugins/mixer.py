"""An encoder of one stage and one image size: timm's MLP-Mixer (arXiv:2105.01601), without drop path."""

from __future__ import annotations

from mimbench.api import Config, Encoder, Features, InputError


class MixerConfig(Config):
    patch_size: int = 4
    embed_dim: int = 32
    depth: int = 2


class Mixer(Encoder):
    """timm's MLP-Mixer."""

    kind = "mixer"
    version = "1"
    can = frozenset({"mask-tokens", "separate-patches", "one-grid"})
    Config = MixerConfig

    def __init__(self, config, *, image_size, in_channels):
        from timm.models.mlp_mixer import MlpMixer

        super().__init__(config, image_size=image_size, in_channels=in_channels)
        self.body = MlpMixer(
            num_classes=0,
            img_size=image_size,
            in_chans=in_channels,
            patch_size=config.patch_size,
            num_blocks=config.depth,
            embed_dim=config.embed_dim,
        )

    def set_sizes(self):
        self.embed_dim = self.out_dim = self.config.embed_dim
        self.patch_size = self.stride = self.config.patch_size
        self.num_layers = self.config.depth

    def embed(self, images):
        if images.shape[-1] != self.image_size:
            raise InputError(f"a mixer takes images of {self.image_size} px only, not {tuple(images.shape[-2:])}")
        return self.body.stem(images).unflatten(1, self.grid)

    def forward_layers(self, tokens, layers=None, *, keep=None, final_norm=True):
        self.check_keep(keep)
        x, outputs = tokens.flatten(1, 2), []
        for block in self.body.blocks:
            x = block(x)
            outputs.append(x)
        if final_norm:
            outputs[-1] = self.body.norm(outputs[-1])
        return [self.to_features(outputs[layer]) for layer in self.layer_indices(layers)]

    def to_features(self, x):
        return Features.from_map(x.transpose(1, 2).unflatten(2, self.grid))

    def layer_of(self, parameter):
        name = parameter.removeprefix("body.")
        if name.startswith("stem"):
            return 0
        return int(name.split(".")[1]) + 1 if name.startswith("blocks") else self.num_layers + 1
