"""Shards of samples: plain tar files, in which files of one name and several endings are one sample (WebDataset).

A shard is read once from start to end, headers only. From then on each image is read from its place in the shard.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mimbench.data.files.cache import folder_entries, is_current, write_derived
from mimbench.data.files.listing import EXTENSIONS
from mimbench.errors import InputError
from mimbench.files import FileState, file_sha256
from mimbench.text import printable

SHARDS_VERSION = "1"
"""Raised whenever the same shard would give other samples."""
_META = re.compile(r"__[^/]*__($|/)")
"""Names that WebDataset leaves out."""
_MOST_OPEN = 64
"""Shards that a process has open at the same time."""
Place = tuple[int, int]
"""Where a file lies in a shard: its first byte, and its size in bytes."""
Group = Callable[[Iterable[Mapping[str, Any]]], Iterator[Mapping[str, Any]]]
"""`webdataset.tariterators.group_by_keys`: files of a shard -> samples, by its rules for names."""


class ShardSample(NamedTuple):
    """One sample, as plain data."""

    key: str
    """Name without endings."""
    ending: str
    """Of the image."""
    offset: int
    size: int
    """Of the image, bytes."""
    label: int | str | None


class ShardContent(NamedTuple):
    """A whole shard."""

    samples: list[ShardSample]
    digest: str
    """SHA-256 of the file; "" if it was not asked for."""


def read_shards(
    shards: Sequence[Path], root: Path, cache: Path, group: Group, *, image: str, label: str, digest: bool
) -> list[ShardContent]:
    """The samples of each shard. Those of unchanged shards come from `cache`.

    Args:
        image: ending of the image in each sample; "auto": the one file with an image's ending.
        label: see `ShardLabels`.
        digest: hash each shard.

    Raises:
        InputError: a shard cannot be read, is cut short or compressed, holds two files of one name, or has a sample
            without image or label.
    """
    options = hashlib.sha256(repr((image, label)).encode()).hexdigest()[:16]
    with folder_entries(cache, f"shards-v{SHARDS_VERSION}-{options}", root) as (store, entries):
        is_changed = False
        contents = []
        for shard in shards:
            name, state = shard.relative_to(root).as_posix(), FileState.if_there(shard)
            entry = entries.get(name)
            if entry and is_current(FileState(*entry[0]), entry[1], state) and (entry[2] or not digest):
                contents.append(ShardContent([ShardSample(*sample) for sample in entry[3]], entry[2]))
                continue
            examined = time.time_ns()
            state = FileState.if_there(shard)
            content = ShardContent(_read_shard(shard, group, image, label), file_sha256(shard) if digest else "")
            contents.append(content)
            entries[name] = [state, examined, content.digest, content.samples]
            is_changed = True
        if is_changed:
            write_derived(store, entries)
    return contents


def _read_shard(shard: Path, group: Group, image: str, label: str) -> list[ShardSample]:
    try:
        with shard.open("rb") as stream:
            try:
                with tarfile.open(fileobj=stream, mode="r:") as tar:
                    samples = list(group(_files(tar)))
                    _check_end(stream.fileno(), tar.offset)
            except (tarfile.TarError, EOFError) as error:
                raise InputError(f"the shard {printable(shard)} {_problem(stream, error)}") from error
            return [_sample(sample, stream.fileno(), image, label) for sample in samples]
    except ValueError as error:
        raise InputError(f"the shard {printable(shard)}: {error}") from error
    except OSError as error:
        raise InputError(f"the shard {printable(shard)} cannot be read: {error.strerror or error}") from error


def _files(tar: tarfile.TarFile) -> Iterator[dict[str, Any]]:
    """The files of a shard in the form that WebDataset groups, with their places as content.

    Raises:
        ValueError: two files have one name. WebDataset ignores the case of endings.
    """
    names: set[str] = set()
    for member in tar:
        if member.isreg() and not _META.match(member.name):
            folder, slash, file = member.name.rpartition("/")
            stem, dot, ending = file.partition(".")
            name = f"{folder}{slash}{stem}{dot}{ending.lower()}"
            if name in names:
                raise ValueError(f"it holds the file {printable(name)} more than once: make it again")
            names.add(name)
            yield {"fname": member.name, "data": (member.offset_data, member.size), "__url__": ""}


def _check_end(handle: int, end: int) -> None:
    """Raise tarfile.ReadError unless the end mark lies at byte `end`, where tarfile found no further file."""
    mark = os.pread(handle, tarfile.BLOCKSIZE, end)
    if mark != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it has no end mark")


def _problem(stream: Any, error: Exception) -> str:
    stream.seek(0)
    start = stream.read(4)
    if start[:2] == b"\x1f\x8b" or start in (b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"BZh9", b"\xfd7zX"):
        return "is compressed, and images are read from their places: decompress it (JPEGs gain nothing from it)"
    if not start:
        return "is empty: make it again"
    return f"is no whole tar file ({error}): copy or make it again"


def _sample(sample: Mapping[str, Any], handle: int, image: str, label: str) -> ShardSample:
    """Raises ValueError, which names the sample."""
    key = sample["__key__"]
    files: dict[str, Place] = {name: value for name, value in sample.items() if not name.startswith("__")}
    endings = [name for name in files if name == image or (image == "auto" and _is_image(name))]
    if len(endings) != 1:
        has = f"it has {', '.join(sorted(files))}"
        what = f"no file .{image}" if image != "auto" else "no image" if not endings else "several images"
        raise ValueError(f"sample {printable(key)} has {what} ({has}): name its ending with --set data.image=ENDING")
    try:
        value = _label_of(files, handle, label)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"sample {printable(key)} has no label as data.label={label} says ({error})") from error
    return ShardSample(key, endings[0], *files[endings[0]], value)


def _is_image(ending: str) -> bool:
    return "." + ending.rpartition(".")[2] in EXTENSIONS


def _label_of(files: Mapping[str, Place], handle: int, label: str) -> int | str | None:
    """auto: the file .cls, or else "label" in the file .json if there is one, or else none."""
    if label == "none":
        return None
    if label == "auto":
        if "cls" not in files and "json" not in files:
            return None
        label = "cls" if "cls" in files else "json:label"
    ending, _, field = label.partition(":")
    if ending not in files:
        raise ValueError(f"it has no file .{ending}")
    offset, size = files[ending]
    text = os.pread(handle, size, offset).decode()
    value = json.loads(text)[field] if field else text.strip()
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{value!r} is neither a number nor a name")
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value):
        return int(value)
    return value


class OpenShards:
    """Files that stay open while they are read from. Forks share them; a copy for a new process opens them anew."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self._handles: OrderedDict[int, Any] = OrderedDict()

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """Raises OSError, or EOFError if the shard has become shorter."""
        stream = self._handles.pop(shard, None) or self.paths[shard].open("rb", buffering=0)
        self._handles[shard] = stream
        if len(self._handles) > _MOST_OPEN:
            self._handles.popitem(last=False)[1].close()
        data = os.pread(stream.fileno(), size, offset)  # without a position, which forks would share
        while 0 < len(data) < size and (more := os.pread(stream.fileno(), size - len(data), offset + len(data))):
            data += more
        if len(data) < size:
            raise EOFError("the shard is shorter than when it was first read")
        return data

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths, "_handles": OrderedDict()}
