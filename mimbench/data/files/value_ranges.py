"""The range of stored values that a whole set of images is shown with, and what to note about it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mimbench.data.files.image_inspection import Inspection
from mimbench.data.files.image_reading import DEEP_CMYK, NO_RANGE_OF_CMYK, PixelPolicy, Range, is_within
from mimbench.errors import InputError
from mimbench.text import printable

SMALL_PART = 1 / 3
"""A set that spreads over less than this of its range gets a note: 14 bits in 16 are a quarter."""


@dataclass(frozen=True)
class RangeChoice:
    """How a set of images is read."""

    policy: PixelPolicy
    notes: tuple[str, ...] = ()
    record: Mapping[str, Any] | None = None
    """What records say about it: for each kind of stored values how many images, their extremes and the range."""
    shapes_floats: bool = False
    """Some float image lies in another range than it would by itself."""


@dataclass(frozen=True)
class _ImagesOfKind:
    """All images of one kind."""

    name: str
    images: Mapping[str, Inspection]

    @property
    def low(self) -> float:
        return min(image.low for image in self.images.values())

    @property
    def high(self) -> float:
        return max(image.high for image in self.images.values())

    @property
    def spread(self) -> tuple[float, float]:
        """The range of nine of ten images, without 0.1 % of their values: a single bright pixel says nothing."""
        dark = np.quantile([image.dark for image in self.images.values()], 0.1, method="nearest")
        bright = np.quantile([image.bright for image in self.images.values()], 0.9, method="nearest")
        return float(dark), float(bright)

    def is_narrow(self, scale: Range) -> bool:
        dark, bright = self.spread
        return bright - dark < SMALL_PART * (scale[1] - scale[0])

    def among(self, names: Container[str]) -> _ImagesOfKind:
        """Those of them that `names` holds."""
        return _ImagesOfKind(self.name, {name: image for name, image in self.images.items() if name in names})

    def outside(self, scale: Range) -> list[str]:
        return [name for name, image in self.images.items() if not is_within(image.low, image.high, scale, self.name)]


def choose_range(
    policy: PixelPolicy,
    splits: Mapping[str, Mapping[str, Inspection]],
    root: str,
    option: str | None = "data.range",
) -> RangeChoice:
    """The policy with the range of float images, from all images of all splits together.

    policy: as the options say. splits: images by split and file name. option: what sets a range; None: nothing does.

    Raises:
        InputError: values leave the range that their format implies, and no range is given.
    """
    images = {name: image for split in splits.values() for name, image in split.items()}
    kinds = _kinds(images)
    floats = next((kind for kind in kinds if kind.name == "float"), None)
    if floats and policy.range is None:
        policy = replace(policy, float_range=_float_range(floats, root, option))
    notes = []
    for kind in kinds:
        if kind.name == DEEP_CMYK and policy.range:
            raise InputError(
                f"{NO_RANGE_OF_CMYK}, which {len(kind.images)} images under {root} are, such as "
                f"{printable(min(kind.images))}: leave data.range out, or save them as RGB"
            )
        scale = policy.range_for(kind.name)
        outside = kind.outside(scale)
        if outside and policy.range is None:
            raise InputError(_needs_range(kind, outside, f"taken to lie in {scale[0]:g} to {scale[1]:g}", root, option))
        if outside:
            notes.append(
                f"{len(outside)} of {len(kind.images)} {kind.name} images under {root} hold values outside of "
                f"data.range = {_written(scale)} (all together {kind.low:g} to {kind.high:g}), which are clipped"
            )
        if kind.is_narrow(scale):
            notes.append(_small_part(kind, scale, f"under {root}", option))
        else:
            parts = {split: kind.among(members) for split, members in splits.items()}
            notes += [
                _small_part(part, scale, f"of the {split} split under {root}", option)
                for split, part in parts.items()
                if part.images and part.is_narrow(scale)
            ]
    if policy.range and len(kinds) > 1:
        counts = " and ".join(f"{len(kind.images)} {kind.name}" for kind in kinds)
        notes.append(f"data.range = {_written(policy.range)} is applied to images of several kinds ({counts})")
    notes += _other_notes(policy, list(images.values()), root)
    differ = _differing(policy, floats)
    if differ and policy.float_range == (0, 255):
        notes.append(
            f"{len(differ)} of {len(images)} images under {root} are float images without values above 1, such as "
            f"{printable(differ[0])}, while others go beyond: all are taken to lie in 0 to 255, so that these are "
            "nearly black; save all of them in one range"
        )
    record = {
        kind.name: {
            "images": len(kind.images),
            "values": [kind.low, kind.high],
            "range": list(map(float, policy.range_for(kind.name))),
        }
        for kind in kinds
    }
    return RangeChoice(policy, tuple(notes), record, bool(differ))


def _kinds(images: Mapping[str, Inspection]) -> list[_ImagesOfKind]:
    by_kind: dict[str, dict[str, Inspection]] = defaultdict(dict)
    for name, image in images.items():
        if image.kind:
            by_kind[image.kind][name] = image
    return [_ImagesOfKind(name, members) for name, members in sorted(by_kind.items())]


def _float_range(floats: _ImagesOfKind, root: str, option: str | None) -> Range:
    for scale in ((0.0, 1.0), (0.0, 255.0)):
        if is_within(floats.low, floats.high, scale, "float"):
            return scale
    outside = floats.outside((0, 255))
    raise InputError(_needs_range(floats, outside, "taken to lie in 0 to 1, or all of them in 0 to 255", root, option))


def _differing(policy: PixelPolicy, floats: _ImagesOfKind | None) -> list[str]:
    """Float images that lie in another range than by their own values: earlier fingerprints rest on those."""
    if floats is None or policy.float_range is None:
        return []
    unit = policy.float_range[1] == 1
    return [name for name, image in floats.images.items() if (image.high <= 1) != unit]


def _needs_range(kind: _ImagesOfKind, outside: Sequence[str], otherwise: str, root: str, option: str | None) -> str:
    example = (kind.low, kind.high) if kind.low < kind.high else (kind.low, kind.low + 1)
    return (
        f"{len(outside)} of {len(kind.images)} {kind.name} images under {root} hold values from {kind.low:g} to "
        f"{kind.high:g}, such as {printable(outside[0])}; "
        f"{'without a range ' if option else ''}they are {otherwise}: "
        + (
            f"pass the values that become black and white, e.g. --set {option}={_written(example)}"
            if option
            else "save them with 8 bits"
        )
    )


def _small_part(kind: _ImagesOfKind, scale: Range, where: str, option: str | None) -> str:
    dark, bright = kind.spread
    if kind.low == kind.high:
        return f"{len(kind.images)} {kind.name} images {where} hold the one value {kind.low:g} alone: all look the same"
    levels = max(1, round(256 * (bright - dark) / (scale[1] - scale[0])))
    return (
        f"{len(kind.images)} {kind.name} images {where} use a small part of the range of values, {scale[0]:g} to "
        f"{scale[1]:g}: about {levels} of 256 grey levels ({kind.low:g} to {kind.high:g}, nearly all of them {dark:g} "
        f"to {bright:g}); if they are meant to be darker or flatter than others, ignore this, else "
        + (f"pass e.g. --set {option}={_written(_suggested(kind))}" if option else "save them with 8 bits, brighter")
    )


def _suggested(kind: _ImagesOfKind) -> Range:
    """0 to a whole number of bits if the values start near 0."""
    dark, bright = kind.spread
    if dark == bright:
        dark, bright = kind.low, kind.high
    if kind.name == "float" or dark < 0 or dark > bright / 4:
        return dark, bright
    return 0, 2 ** max(1, int(bright)).bit_length() - 1


def _written(scale: Range) -> str:
    return f"[{scale[0]:g},{scale[1]:g}]"


def _other_notes(policy: PixelPolicy, images: Sequence[Inspection], root: str) -> list[str]:
    notes = []
    transparent = [image for image in images if image.transparent]
    if transparent and policy.transparency == "white":
        whole = sum(image.transparent == "whole" for image in transparent)
        notes.append(
            f"{len(transparent)} of {len(images)} images under {root} are transparent in part, {whole} of them as a "
            "whole: what is transparent shows white; --set data.transparency=drop shows the colours beneath"
        )
    paged = sum(image.pages > 1 for image in images)
    if paged:
        notes.append(f"{paged} of {len(images)} images under {root} are TIFFs of several pages: only the first is read")
    extra = sum(image.extra_bands for image in images)
    if extra:
        notes.append(f"{extra} of {len(images)} images under {root} have bands beyond their colours, which are dropped")
    return notes
