"""An encoder: a patch stem and a few residual convolutions at one resolution."""

from collections.abc import Sequence

from torch import Tensor, nn

from mimbench.api import Config, Encoder, Features, InputError


class PlainCNNConfig(Config):
    patch_size: int = 4
    embed_dim: int = 32
    depth: int = 2


class PlainCNN(Encoder):
    """`depth` residual 3 x 3 convolutions on a grid of patches; it has no class token."""

    kind = "plain-cnn"
    can = frozenset({"mask-tokens", "separate-patches", "one-grid", "any-size"})
    version = "1"
    Config = PlainCNNConfig
    config: PlainCNNConfig

    def __init__(self, config: PlainCNNConfig, *, image_size: int, in_channels: int) -> None:
        super().__init__(config, image_size=image_size, in_channels=in_channels)
        if image_size % config.patch_size:
            raise InputError(f"image size {image_size} px is not a multiple of encoder.patch_size, {config.patch_size}")
        self.embed_dim = self.out_dim = config.embed_dim
        self.patch_size = self.stride = config.patch_size
        self.num_layers = config.depth
        self.stem = nn.Conv2d(in_channels, config.embed_dim, config.patch_size, config.patch_size)
        self.blocks = nn.ModuleList(self.make_block(config.embed_dim) for _ in range(config.depth))
        self.norm = nn.GroupNorm(1, config.embed_dim)

    def make_block(self, dim: int) -> nn.Sequential:
        return nn.Sequential(nn.GroupNorm(1, dim), nn.Conv2d(dim, dim, 3, padding=1), nn.GELU())

    def embed(self, images: Tensor) -> Tensor:
        return self.stem(images).permute(0, 2, 3, 1)

    def forward_layers(
        self,
        tokens: Tensor,
        layers: Sequence[int] | None = None,
        *,
        keep: Tensor | None = None,
        final_norm: bool = True,
    ) -> list[Features]:
        self.check_keep(keep)
        layers = self.layer_indices(layers)
        x, outputs = tokens.permute(0, 3, 1, 2), []
        for block in self.blocks[: max(layers) + 1]:
            x = x + block(x)
            outputs.append(x)
        if final_norm and len(outputs) == self.num_layers:
            outputs[-1] = self.norm(outputs[-1])
        return [Features.from_map(outputs[layer]) for layer in layers]

    def layer_of(self, parameter: str) -> int:
        """0 for the stem, i + 1 for block i, depth + 1 for the final norm."""
        if parameter.startswith("stem."):
            return 0
        if parameter.startswith("blocks."):
            return int(parameter.split(".")[1]) + 1
        return self.num_layers + 1
