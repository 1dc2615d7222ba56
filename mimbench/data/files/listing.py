"""What lies in an image folder: its layout, its files, and which of them can be read."""

from __future__ import annotations

import hashlib
import os
import time
import unicodedata
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import track

from mimbench.data.files.cache import READERS, folder_entries, is_current, write_derived
from mimbench.data.files.image_inspection import INSPECTION_VERSION, Inspection, inspect_image
from mimbench.data.files.image_reading import DEFAULT_POLICY, PixelPolicy, is_image
from mimbench.errors import InputError
from mimbench.files import FileState
from mimbench.text import printable

_ENDINGS = "avif bmp gif heic heif ico j2k jfif jp2 jpe jpeg jpg pbm pgm png pnm ppm tga tif tiff webp"
EXTENSIONS = frozenset("." + ending for ending in _ENDINGS.split(" "))
_SHOW_PROGRESS_FROM = 2000


@dataclass(frozen=True)
class ImageFile:
    """A file under a root: name relative to it (with /), size in bytes, mtime in ns."""

    name: str
    size: int
    mtime: int


@dataclass(frozen=True)
class FileCheck:
    """A file's content digest, and why it cannot be decoded (None: it can, or was not tried)."""

    digest: str
    problem: str | None
    inspection: Inspection


class _Entry(NamedTuple):
    """What is kept of a file, as plain data."""

    state: FileState
    examined: int
    """When, ns."""
    is_decoded: bool
    digest: str
    inspection: Inspection

    @classmethod
    def from_json(cls, data: list) -> _Entry:
        state, examined, is_decoded, digest, inspection = data
        return cls(FileState(*state), examined, is_decoded, digest, Inspection(*inspection))

    def is_current(self, state: FileState | None, decode: bool, max_pixels: int) -> bool:
        is_decided = not decode or (self.is_decoded and self.inspection.holds_at(max_pixels))
        return bool(self.digest) and is_decided and is_current(self.state, self.examined, state)


def image_files(folder: Path, root: Path, left_out: list[str] | None = None) -> list[ImageFile]:
    """Image files under `folder`, nested ones included, sorted by name relative to `root`.

    An image is a file with an image's extension or with an image's first bytes. Hidden files are left
    out; links are followed, broken ones are listed (and found unreadable later).

    left_out: gets the names of what is not read: hidden files and folders, and files that are no images.

    Raises:
        InputError: a folder cannot be listed.
    """
    prefix = "" if folder == root else folder.relative_to(root).as_posix() + "/"
    left_out = [] if left_out is None else left_out
    return sorted(_walk(str(folder), prefix, frozenset(), left_out), key=lambda file: normalize_name(file.name))


def subfolders(folder: Path, left_out: list[str] | None = None) -> list[Path]:
    """Visible folders directly in `folder`, links to folders included, sorted by name.

    left_out: gets the names of hidden files and folders.
    """
    return [Path(entry.path) for entry in _visible(folder, left_out) if _is_folder(entry)]


def visible_names(folder: Path, prefix: str = "") -> Iterator[str]:
    """`prefix` and the name of each visible file and folder below `folder`, in no order; links are followed.

    Raises:
        InputError: a folder cannot be listed.
    """
    yield from _visible_names(str(folder), prefix, frozenset())


def _visible_names(folder: str, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    identity = _identity(folder)
    if identity in above:  # a link to a folder that holds it
        return
    for entry in _visible(folder):
        name = prefix + entry.name
        yield name
        if _is_folder(entry):
            yield from _visible_names(entry.path, name + "/", above | {identity})


def has_images(folder: Path) -> bool:
    """Whether images lie directly in `folder`."""
    return any(not _is_folder(entry) and _looks_like_image(entry) for entry in _visible(folder))


def normalize_name(name: str) -> str:
    """The name as NFC, so that names sort and hash in the same way on every system."""
    return unicodedata.normalize("NFC", name)


def check_files(
    files: Iterable[ImageFile], root: Path, cache: Path, *, decode: bool, policy: PixelPolicy = DEFAULT_POLICY
) -> dict[str, FileCheck]:
    """Digest every file and, with `decode`, try to decode it; unchanged files come from `cache`."""
    names = [file.name for file in files]
    with folder_entries(cache, f"images-v{INSPECTION_VERSION}", root) as (store, entries):
        known = {name: _Entry.from_json(entry) for name, entry in entries.items()}
        stale = [
            name
            for name in names
            if name not in known
            or not known[name].is_current(FileState.if_there(root / name), decode, policy.max_pixels)
        ]
        if stale:
            known |= zip(stale, _examine_all(stale, root, decode, policy.max_pixels), strict=True)
            write_derived(store, known)
    return {
        name: FileCheck(known[name].digest, known[name].inspection.problem_with(policy), known[name].inspection)
        for name in names
    }


def _examine_all(names: list[str], root: Path, decode: bool, max_pixels: int) -> list[_Entry]:
    console = Console(stderr=True)
    quiet = not console.is_terminal or len(names) < _SHOW_PROGRESS_FROM
    pool = ThreadPoolExecutor(READERS)
    try:
        results = pool.map(lambda name: _examine(root / name, decode, max_pixels), names)
        watched = track(results, "checking images", len(names), console=console, transient=True, disable=quiet)
        return list(watched)
    finally:
        pool.shutdown(cancel_futures=True)


def _examine(path: Path, decode: bool, max_pixels: int) -> _Entry:
    # The clock and the state are read first: a change that comes later makes the entry stale.
    examined, state = time.time_ns(), FileState.if_there(path)
    problem = ""
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            stream.seek(0)
            inspection = inspect_image(stream, max_pixels) if decode else Inspection()
        if state is not None:
            return _Entry(state, examined, decode, digest, inspection)
    except FileNotFoundError:
        problem = "broken link" if path.is_symlink() else "file is gone"
    except OSError as error:
        problem = error.strerror or str(error)
    # Without a digest it is never current: it may be repaired without a new size or date.
    return _Entry(FileState(0, 0, 0, 0, 0), examined, decode, "", Inspection(problem or "file is gone"))


def _walk(folder: str, prefix: str, above: frozenset[tuple[int, int]], left_out: list[str]) -> Iterator[ImageFile]:
    identity = _identity(folder)
    if identity in above:  # a link to a folder that holds it
        return
    for entry in _visible(folder, left_out, prefix):
        name = prefix + entry.name
        if _is_folder(entry):
            yield from _walk(entry.path, name + "/", above | {identity}, left_out)
        elif _looks_like_image(entry):
            yield ImageFile(name, *_size_and_date(entry))
        else:
            left_out.append(name)


def _identity(folder: str) -> tuple[int, int]:
    stat = os.stat(folder)
    return stat.st_dev, stat.st_ino


def _visible(folder: str | Path, left_out: list[str] | None = None, prefix: str = "") -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            entries_by_name = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"cannot list the folder {printable(folder)}: {error.strerror or error}") from error
    hidden = [entry for entry in entries_by_name if entry.name.startswith(".") or entry.name == "__MACOSX"]
    if left_out is not None:
        left_out += [prefix + entry.name for entry in hidden]
    return [entry for entry in entries_by_name if entry not in hidden] if hidden else entries_by_name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # here too
        return False


def _looks_like_image(entry: os.DirEntry[str]) -> bool:
    named_so = os.path.splitext(entry.name)[1].lower() in EXTENSIONS
    if not _is_file(entry):
        return named_so and entry.is_symlink() and not os.path.exists(entry.path)
    return named_so or is_image(Path(entry.path))


def _size_and_date(entry: os.DirEntry[str]) -> tuple[int, int]:
    try:
        stat = entry.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns
