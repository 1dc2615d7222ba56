"""Pictures of records: embedded in the page up to a total size, in files next to it beyond that."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from mimbench.files import file_sha256
from mimbench.store.artifacts import OutsideError, damage_of, find_artifact, path_within

EMBEDDED = 4_000_000
"""Total bytes of pictures embedded in the page; further ones go to FOLDER/artifacts."""
_WORTH_IT = 4096
"""Bytes from which a picture is made smaller."""
_WIDEST = 896
"""Pixels across; wider pictures are reduced, since the page shows them in a column. The file is in the results."""
_COLOURS = 16
_VISIBLE = 1.5
"""Mean change of a channel, of 255, that fewer colours may cause."""
_QUALITY = 40
"""Of WebP, 0 to 100, for pictures that need more colours: noise is smoothed, boxes and words stay sharp."""
TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".svg": "image/svg+xml",
}


def is_picture(relative: str) -> bool:
    """Whether the name of an artifact is that of a picture."""
    return Path(relative).suffix.lower() in TYPES


class Pictures:
    """Finds the pictures of records, and how the page refers to them."""

    def __init__(self, limit: int = EMBEDDED) -> None:
        self.files: dict[str, Path] = {}
        """{name in FOLDER/artifacts: the file to copy there}; names are hashes of the content."""
        self._left = limit
        self._by_path: dict[Path, str] = {}
        self._by_content: dict[str, str] = {}
        self._problems: dict[tuple[Path, str | None], str] = {}

    def source(self, roots: Sequence[Path], relative: str) -> str | None:
        """What an img element's src is to be; None if no results folder has that picture.

        Records are not trusted: a path that leads out of its results folder has no picture.
        """
        path, _ = self._locate(roots, relative)
        if path is None:
            return None
        if path not in self._by_path:
            content = file_sha256(path)
            if content not in self._by_content:
                self._by_content[content] = self._embed_or_copy(path, content)
            self._by_path[path] = self._by_content[content]
        return self._by_path[path]

    def problem(self, roots: Sequence[Path], relative: str, sha256: str | None) -> str:
        """Why a picture is not shown, such as "is missing"; "" if nothing is wrong with it.

        sha256: the hash in the record; None in older records.
        """
        path, problem = self._locate(roots, relative)
        if path is None:
            return problem
        key = path, sha256
        if key not in self._problems:
            self._problems[key] = damage_of(path, sha256)
        return self._problems[key]

    @staticmethod
    def _locate(roots: Sequence[Path], relative: str) -> tuple[Path | None, str]:
        """The file of a picture, or why there is none; "" if it is no picture."""
        if not is_picture(relative):
            return None, ""
        try:
            path = find_artifact(roots, relative)
        except OutsideError:
            return None, "leads out of the results folder"
        return path, "" if path else "is missing"

    def _embed_or_copy(self, path: Path, sha256: str) -> str:
        kind, content = _compact(path)
        if len(content) <= self._left:
            self._left -= len(content)
            return f"data:{kind};base64,{base64.b64encode(content).decode()}"
        name = sha256[:16] + path.suffix.lower()
        self.files[name] = path
        return f"artifacts/{name}"


def _compact(path: Path) -> tuple[str, bytes]:
    """Type and content of a picture: a PNG as WebP if that is smaller, with few colours if that changes little.

    Large ones are reduced. Animated ones stay as they are.
    """
    from PIL import Image, ImageChops, ImageStat

    kind, content = TYPES[path.suffix.lower()], path.read_bytes()
    if kind != "image/png" or len(content) < _WORTH_IT:
        return kind, content
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as file:
            if getattr(file, "is_animated", False):
                return kind, content
            picture = file.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return kind, content
    if picture.width > _WIDEST:
        height = round(picture.height * _WIDEST / picture.width)
        picture = picture.resize((_WIDEST, max(1, height)), Image.Resampling.LANCZOS)
    few = picture.quantize(_COLOURS, dither=Image.Dither.NONE).convert("RGB")
    error = max(ImageStat.Stat(ImageChops.difference(picture, few)).mean)
    buffer = io.BytesIO()
    if error <= _VISIBLE:
        few.save(buffer, "WEBP", lossless=True, quality=75, method=6)
    else:
        picture.save(buffer, "WEBP", quality=_QUALITY, method=6)
    smaller = buffer.getvalue()
    return ("image/webp", smaller) if len(smaller) < len(content) else (kind, content)


def find_pretraining_pictures(roots: Sequence[Path], method: str, seed: int, fingerprint: str) -> list[str]:
    """Paths of the pictures of a pretraining (reconstructions), relative to the first results folder that has any."""
    relative = f"artifacts/{method}-s{seed}-{fingerprint}"
    for root in roots:
        folder = path_within(root, relative)
        if folder is not None and folder.is_dir():
            paths = sorted(path for path in folder.iterdir() if is_picture(path.name))
            return [f"{relative}/{path.name}" for path in paths]
    return []
