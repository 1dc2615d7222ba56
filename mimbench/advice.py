"""What to do about errors of the machine: a full disk, no memory, a killed process."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mimbench.files import error_number


@dataclass(frozen=True)
class SizeOptions:
    """Paths of the settings that reduce memory or processes, as `--set` takes them."""

    batch_size: Sequence[str] = ()
    accumulate: Sequence[str] = ()
    grad_checkpointing: Sequence[str] = ()
    """Those that are off."""
    auto_batch: Sequence[str] = ()
    """Those that are off."""
    precision: Sequence[str] = ()
    """Those that are not bf16."""
    workers: Sequence[str] = ()
    micro_batch: int | None = None
    """Images per forward pass that were tried; None: not known, or nothing is trained."""


NO_OPTIONS = SizeOptions()
_OTHER_FOLDER = "or choose another folder (--results; MIMBENCH_CACHE for derived data; TMPDIR for temporary files)"
_DISK = {
    errno.ENOSPC: f"free space on that disk, {_OTHER_FOLDER}",
    errno.EDQUOT: f"the disk quota is used up: delete files or ask for more, {_OTHER_FOLDER}",
    errno.EFBIG: "raise the limit on the size of a file (`ulimit -f`), or use a file system that allows larger files",
    errno.EROFS: f"make the file system writable, {_OTHER_FOLDER}",
    errno.EACCES: f"give this user access to it, {_OTHER_FOLDER}",
    errno.EPERM: f"give this user access to it, {_OTHER_FOLDER}",
    errno.EIO: "check the disk, or the network that leads to it",
    errno.ESTALE: "check the network file system",
    errno.EMFILE: "raise the limit on open files (`ulimit -n`)",
    errno.ENFILE: "close other programs: the whole machine is at its limit of open files",
}
_SHARED_MEMORY = re.compile(r"</torch_\w+>|insufficient shared memory|out of shared memory|killed by signal: Bus error")
_TORCH_WRITER = re.compile(r"PytorchStreamWriter failed|inline_container\.cc.*unexpected pos|iostream error")
_WORKER_KILLED = re.compile(r"DataLoader worker \(pid\S* [\d, ]+\) (?:exited unexpectedly|is killed by signal)")
_MEMORY = re.compile(
    r"CUDA out of memory|CUDA error: out of memory|CU\w+_STATUS_ALLOC_FAILED|enforce fail at alloc_cpu|"
    r"DefaultCPUAllocator|std::bad_alloc|Cannot allocate memory|Storage size calculation overflowed|"
    r"Overflow when unpacking long|integer multiplication overflow"
)
_TRIED = re.compile(r"[Tt]ried to allocate (\d+(?:\.\d+)? [KMGT]i?B)")
_TRIED_BYTES = re.compile(r"tried to allocate (\d+) bytes")
_LONGEST = 300
"""Characters of an error's text in a reason; torch appends its own stack to some."""


def describe_error(error: BaseException, options: SizeOptions = NO_OPTIONS) -> str:
    """One line for an unforeseen error: its class, its text, and what to do if that is known."""
    if invalid := describe_invalid(error):
        return invalid
    advice = advice_on(error, options)
    text = short_text(error) if advice else " ".join(str(error).split())
    return f"{type(error).__name__}: {text}{f'; {advice}' if advice else ''}"


def describe_invalid(error: BaseException) -> str | None:
    """The first option that pydantic refused, such as "View.blur = 3.0: it must be less than or equal to 1".

    None for any other error. Errors of pydantic are known by their parts: importing it takes time.
    """
    if type(error).__name__ != "ValidationError" or not hasattr(error, "errors") or not hasattr(error, "title"):
        return None
    first = error.errors(include_url=False)[0]
    path = ".".join(map(str, (error.title, *first["loc"])))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"{path}: there is no such option"
    if first["type"] == "missing":
        return f"{path} is missing"
    if first["type"] == "value_error":
        return f"{path}: {message}"
    return describe_refused(path, first["input"], first["msg"])


def describe_refused(path: str, value: object, message: str) -> str:
    """One line for a value that pydantic refused, such as "train.lr = 0: it must be greater than 0".

    Args:
        path: of the option.
        value: that was refused.
        message: of pydantic, such as "Input should be greater than 0" or "Tuple should have at most 2 items".
    """
    start = "Input should be "
    if message.startswith(start):
        reason = f"it must be {message.removeprefix(start)}"
    else:
        reason = message[:1].lower() + message[1:]
    return f"{path} = {short_text(repr(value))}: {reason}"


def short_text(error: object) -> str:
    """An error's text in one line that is not too long to read."""
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory, of the CPU or a GPU, is too small; also if a size is beyond what can be requested."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return bool(_MEMORY.search(str(error)))


def advice_on(error: BaseException, options: SizeOptions = NO_OPTIONS) -> str | None:
    """What to do about an error of disk, memory or a killed process; None for any other error."""
    text = str(error)
    if _SHARED_MEMORY.search(text):
        return f"/dev/shm, the memory that processes share, is full: {_fewer_workers(options)}, or enlarge it"
    if _WORKER_KILLED.search(text):
        return (
            "a process that loads images was killed, most often because memory ran out: free memory or "
            f"{_fewer_workers(options)}, then run the same command again"
        )
    number = error_number(error)
    if number == errno.ENOMEM or is_out_of_memory(error):
        return f"memory ran out{_attempt(text, options)}: {_less_memory(options)}"
    if number in _DISK:
        return _DISK[number]
    if _TORCH_WRITER.search(text):
        return f"most likely the disk is full: {_DISK[errno.ENOSPC]}"
    return None


def _attempt(text: str, options: SizeOptions) -> str:
    """What did not fit, such as " at 2.0 GiB more, with micro-batches of 64 images"; "" if it is not known."""
    parts = []
    if match := _TRIED_BYTES.search(text):
        size, unit = (2**30, "GiB") if int(match[1]) >= 2**30 else (2**20, "MiB")
        parts.append(f"at {int(match[1]) / size:,.1f} {unit} more")
    elif match := _TRIED.search(text):
        parts.append(f"at {match[1]} more")
    if options.micro_batch:
        parts.append(f"with micro-batches of {options.micro_batch} images")
    return f" {', '.join(parts)}" if parts else ""


def _less_memory(options: SizeOptions) -> str:
    """What to change: first what leaves the results as they are, or nearly."""
    ways = [f"raise {' or '.join(options.accumulate)}"] if options.accumulate and options.micro_batch != 1 else []
    ways += [f"set {path}=true" for path in (*options.auto_batch, *options.grad_checkpointing)]
    ways += [f"set {path}=bf16" for path in options.precision]
    ways += [f"lower {' or '.join(options.batch_size)}"] if options.batch_size else []
    return ", or ".join([*ways, "use a smaller encoder or smaller images"])


def _fewer_workers(options: SizeOptions) -> str:
    return f"lower {' or '.join(options.workers or ['the number of workers'])} (0: the main process loads the images)"
