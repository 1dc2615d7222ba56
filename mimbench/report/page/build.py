"""`mimbench report`: writes the page of a results folder, completely or not at all."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

from mimbench.errors import InputError
from mimbench.files import write_atomic, writing
from mimbench.report.page.page_data import collect_page_data
from mimbench.report.page.pictures import EMBEDDED, TYPES, Pictures
from mimbench.report.viewer.render import MADE_BY, render_page
from mimbench.store.failure import read_failures
from mimbench.store.reading import failure_files, read_all, record_files

INDEX, ARTIFACTS = "index.html", "artifacts"
_OURS = re.compile(rf"[0-9a-f]{{16}}({'|'.join(map(re.escape, TYPES))})")


def write_page(results: Path, output: Path, *, embedded: int = EMBEDDED) -> Path:
    """Write the page of the records below `results` into the folder `output`; returns its file.

    Pictures are written first, then the page in one step, so a reader sees the old page or the new one. An earlier page
    is replaced, and pictures that are no longer needed are removed.

    Args:
        embedded: total bytes of pictures embedded in the page; further ones go into `output`/artifacts.

    Raises:
        InputError: no records, a damaged one, or a folder that is not a page of ours or cannot be written.
    """
    _check_output(output)
    pictures = Pictures(embedded)
    page = render_page(read_page_data(results, pictures))
    with writing(f"--output {output}"):
        output.mkdir(parents=True, exist_ok=True)
        for name, source in pictures.files.items():
            if not (output / ARTIFACTS / name).exists():
                write_atomic(output / ARTIFACTS / name, source.read_bytes())
        write_atomic(output / INDEX, page.encode())
        _remove_stale(output / ARTIFACTS, pictures.files)
    return output / INDEX


def read_page_data(results: Path, pictures: Pictures, *, may_be_empty: bool = False) -> dict[str, Any]:
    """The data of the page of the records and failures below `results`.

    Args:
        may_be_empty: without any records, the data of an empty page is returned.

    Raises:
        InputError: no such folder, no records, or a damaged one.
    """
    bodies = [] if may_be_empty and not record_files(results) else read_all(results)
    failures, damaged = read_failures(failure_files(results), {body["id"] for _, body in bodies})
    return collect_page_data(bodies, pictures, Path(results).resolve().name, failures, damaged)


def _check_output(output: Path) -> None:
    """Refuse a folder that holds anything but an earlier page, so that nothing else is overwritten or removed."""
    if not output.exists():
        return
    advice = "choose another folder with --output FOLDER"
    if not output.is_dir():
        raise InputError(f"--output {output} is a file; {advice}")
    foreign = sorted(_foreign_files(output))
    if foreign:
        raise InputError(f"--output {output} holds {foreign[0]}, which is not part of a mimbench report; {advice}")


def _foreign_files(output: Path) -> Iterable[str]:
    for entry in output.iterdir():
        if entry.name == INDEX:
            with entry.open("rb") as stream:
                if MADE_BY.encode() not in stream.read(2048):
                    yield entry.name
        elif entry.name == ARTIFACTS and entry.is_dir():
            yield from (f"{ARTIFACTS}/{file.name}" for file in entry.iterdir() if not _is_ours(file.name))
        elif not entry.name.startswith(f".{INDEX}."):
            yield entry.name


def _is_ours(name: str) -> bool:
    """Whether a file is a picture of a page, or the temporary file of an interrupted write."""
    return bool(_OURS.fullmatch(name) or _OURS.match(name.removeprefix(".")))


def _remove_stale(folder: Path, needed: Container[str]) -> None:
    if folder.is_dir():
        for file in folder.iterdir():
            if file.name not in needed and _is_ours(file.name):
                file.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()
