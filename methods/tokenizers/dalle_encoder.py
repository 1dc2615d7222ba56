"""The network of OpenAI's DALL-E encoder, its parts named as there: openai/DALL-E@16f02ec6, dall_e/encoder.py."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, layers: int) -> None:
        super().__init__()
        self.gain = layers**-2
        self.id_path = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        hidden = outputs // 4
        shapes = ((inputs, hidden, 3), (hidden, hidden, 3), (hidden, hidden, 3), (hidden, outputs, 1))
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        for index, (before, after, kernel) in enumerate(shapes, start=1):
            parts[f"relu_{index}"] = nn.ReLU()
            parts[f"conv_{index}"] = nn.Conv2d(before, after, kernel, padding=kernel // 2)
        self.res_path = nn.Sequential(parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.id_path(x) + self.gain * self.res_path(x)


def dalle_encoder(width: int, blocks: int, vocabulary: int) -> nn.Sequential:
    """Four groups of `blocks` blocks, each twice as wide as the last, halving the image three times."""
    parts: OrderedDict[str, nn.Module] = OrderedDict(input=nn.Conv2d(3, width, 7, padding=3))
    before = width
    for group in range(4):
        wide = width * 2**group
        inner: OrderedDict[str, nn.Module] = OrderedDict(
            (f"block_{index + 1}", _Block(wide if index else before, wide, 4 * blocks)) for index in range(blocks)
        )
        parts[f"group_{group + 1}"] = nn.Sequential(inner)
        if group < 3:
            parts[f"pool_{group + 1}"] = nn.MaxPool2d(2)
        before = wide
    parts["output"] = nn.Sequential(OrderedDict(relu=nn.ReLU(), conv=nn.Conv2d(before, vocabulary, 1)))
    return nn.Sequential(OrderedDict(blocks=nn.Sequential(parts)))
