"""SparK's decoder: a UNet that doubles a map up to the image, and adds finer maps on its way."""

from __future__ import annotations

from torch import Tensor, nn

from mimbench.api import InputError, mark_blocks


class UNetDecoder(nn.Module):
    """From maps of an encoder, projected to `widths`, to an image. Initial weights are the official ones.

    Attributes:
        widths: channels of the map at each level. Level 0 has one cell per `stride` px, the last level one per px.
    """

    def __init__(self, dim: int, stride: int, out_channels: int) -> None:
        """
        Args:
            dim: channels at level 0; each doubling of the map halves them.

        Raises:
            InputError: `stride` is no power of two, or `dim` cannot be halved as often.
        """
        super().__init__()
        self.widths = _halved(dim, stride)
        self.blocks = nn.ModuleList(UpBlock(*self.widths[level : level + 2]) for level in range(len(self.widths) - 1))
        mark_blocks(self.blocks)
        self.pixels = nn.Conv2d(self.widths[-1], out_channels, 1)
        self.apply(_init)

    def forward(self, maps: dict[int, Tensor]) -> Tensor:
        """Level -> map [B, widths[level], h, w], level 0 among them -> [B, out_channels, H, W]."""
        x = maps[0]
        for level, block in enumerate(self.blocks):
            x = block(x + maps[level] if level and level in maps else x)
        return self.pixels(x)


class UpBlock(nn.Module):
    """Doubles the map, and brings `dim` channels to `out_dim`."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.up_sample = nn.ConvTranspose2d(dim, dim, 4, stride=2, padding=1)
        self.conv = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1, bias=False), nn.BatchNorm2d(dim), nn.ReLU6(),
            nn.Conv2d(dim, out_dim, 3, padding=1, bias=False), nn.BatchNorm2d(out_dim),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.up_sample(x))


def _halved(dim: int, stride: int) -> list[int]:
    """Channels of the decoder's maps, from one cell per `stride` px to one per pixel."""
    doublings = stride.bit_length() - 1
    if stride != 2**doublings:
        raise InputError(
            f"method 'spark' doubles maps up to the image; the encoder's stride, {stride}, is no power of 2"
        )
    if dim < 2**doublings:
        raise InputError(
            f"method.decoder_dim {dim} is halved {doublings} times, once per doubling; set it to {2**doublings} or more"
        )
    return [dim // 2**level for level in range(doublings + 1)]


def _init(module: nn.Module) -> None:
    """Initial weights of the decoder, keyu-tian/SparK@a63e386f pretrain/decoder.py; norms start at 1 and 0."""
    if isinstance(module, nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
        nn.init.zeros_(module.bias)
