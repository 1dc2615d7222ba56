"""Text files that any editor or operating system may have written."""

from __future__ import annotations

import codecs
from pathlib import Path

from mimbench.errors import InputError
from mimbench.text import printable

_WIDE_MARKS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

_PACKED = {b"\x1f\x8b": "gzip", b"PK\3\4": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
"""First bytes of compressed files."""


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without its byte-order mark if it has one.

    Raises:
        InputError: the file cannot be read, or has another encoding.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe or device might never end
            raise InputError(f"{printable(path)} is a folder, pipe or device, not a text file")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {printable(path)}: {error.strerror or error}") from error
    packer = next((name for start, name in _PACKED.items() if content.startswith(start)), None)
    if packer:
        raise InputError(f"{printable(path)} is compressed ({packer}); unpack it")
    # UTF-16 without a mark has a zero byte beside each ASCII character.
    if content.startswith(_WIDE_MARKS) or b"\0" in content[:4]:
        raise InputError(f"{printable(path)} is UTF-16 or UTF-32 text; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{printable(path)} is not UTF-8 text (byte {error.start} is {content[error.start]:#04x}); save it as UTF-8"
        ) from error
