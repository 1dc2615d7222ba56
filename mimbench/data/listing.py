"""What lies in an image folder: its layout, its files, and which of them can be read."""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from rich.console import Console
from rich.progress import track

from mimbench.data.cache import writable
from mimbench.data.images import READER_VERSION, is_image, problem
from mimbench.errors import InputError
from mimbench.files import write_atomic

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
class Health:
    """A file's content digest, and why it cannot be decoded (None: it can, or was not tried)."""

    digest: str
    problem: str | None


def image_files(folder: Path, root: Path) -> list[ImageFile]:
    """Image files under `folder`, nested ones included, sorted by name relative to `root`.

    An image is a file with an image's extension or with an image's first bytes. Hidden files are left
    out; links are followed, broken ones are listed (and found unreadable later).

    Raises:
        InputError: a folder cannot be listed.
    """
    prefix = "" if folder == root else folder.relative_to(root).as_posix() + "/"
    return sorted(_walk(str(folder), prefix, frozenset()), key=lambda file: normal(file.name))


def subfolders(folder: Path) -> list[Path]:
    """Visible folders directly in `folder`, links to folders included, sorted by name."""
    return [Path(entry.path) for entry in _visible(folder) if entry.is_dir()]


def has_images(folder: Path) -> bool:
    """Whether images lie directly in `folder`."""
    return any(not entry.is_dir() and _looks_like_image(entry) for entry in _visible(folder))


def normal(name: str) -> str:
    """The name as NFC, so that systems which store accents differently sort and hash alike."""
    return unicodedata.normalize("NFC", name)


def printable(path: str | Path) -> str:
    """The path with undecodable bytes escaped, so that it can be printed anywhere."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def examine(files: Iterable[ImageFile], root: Path, cache: Path, *, decode: bool) -> dict[str, Health]:
    """Digest every file and, with `decode`, try to decode it; unchanged files come from `cache`."""
    name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    store = writable(cache) / f"images-v{READER_VERSION}-{name}.json"
    with FileLock(f"{store}.lock"):
        known = _load(store)
        stale = [file for file in files if not _is_current(known.get(file.name), file, decode)]
        if stale:
            for file, health in zip(stale, _examine_all(stale, root, decode), strict=True):
                known[file.name] = [file.size, file.mtime, decode, health.digest, health.problem]
            write_atomic(store, json.dumps(known).encode())
    return {file.name: Health(*known[file.name][3:]) for file in files}


def _examine_all(files: list[ImageFile], root: Path, decode: bool) -> list[Health]:
    console = Console(stderr=True)
    quiet = not console.is_terminal or len(files) < _SHOW_PROGRESS_FROM
    pool = ThreadPoolExecutor(min(32, 2 * (os.cpu_count() or 1)))
    try:
        results = pool.map(lambda file: _examine(root / file.name, decode), files)
        watched = track(results, "checking images", len(files), console=console, transient=True, disable=quiet)
        return list(watched)
    finally:
        pool.shutdown(cancel_futures=True)


def _examine(path: Path, decode: bool) -> Health:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Health("", "broken link" if path.is_symlink() else "file is gone")
    except OSError as error:
        return Health("", error.strerror or str(error))
    return Health(hashlib.sha256(content).hexdigest(), problem(content) if decode else None)


def _walk(folder: str, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[ImageFile]:
    here = os.stat(folder)
    identity = (here.st_dev, here.st_ino)
    if identity in above:  # a link to a folder that holds it
        return
    for entry in _visible(folder):
        name = prefix + entry.name
        if entry.is_dir():
            yield from _walk(entry.path, name + "/", above | {identity})
        elif _looks_like_image(entry):
            yield ImageFile(name, *_size_and_date(entry))


def _visible(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not entry.name.startswith(".") and entry.name != "__MACOSX"]
    except OSError as error:
        raise InputError(f"cannot list the folder {printable(folder)}: {error.strerror or error}") from error
    return sorted(found, key=lambda entry: entry.name)


def _looks_like_image(entry: os.DirEntry[str]) -> bool:
    named_so = os.path.splitext(entry.name)[1].lower() in EXTENSIONS
    if not entry.is_file():
        return named_so and entry.is_symlink() and not os.path.exists(entry.path)
    return named_so or is_image(Path(entry.path))


def _size_and_date(entry: os.DirEntry[str]) -> tuple[int, int]:
    try:
        stat = entry.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def _is_current(entry: list | None, file: ImageFile, decode: bool) -> bool:
    # A file that could not even be read may have been repaired without a new size or date.
    return entry is not None and entry[:2] == [file.size, file.mtime] and (entry[2] or not decode) and entry[3] != ""


def _load(store: Path) -> dict[str, list]:
    """What is known; nothing where the store is absent or damaged, for it can be made again."""
    try:
        known = json.loads(store.read_text())
    except (OSError, ValueError):
        return {}
    sound = isinstance(known, dict) and all(isinstance(entry, list) and len(entry) == 5 for entry in known.values())
    return known if sound else {}
