"""Errors of the machine: one line with what failed, where, and what to do."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from mimbench.advice import SizeOptions, advice_on, describe_error
from mimbench.contract import TrainConfig
from mimbench.contract.validation import validate
from mimbench.errors import InputError

OPTIONS = SizeOptions(
    batch_size=["task.train.batch_size"], accumulate=["task.train.accumulate"], workers=["pretrain.workers"]
)
KILLED = "DataLoader worker (pid(s) 4182, 4183) exited unexpectedly"
OUT_OF_SHM = (
    "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of "
    "shared memory. Please try to raise your shared memory limit."
)


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free space on that disk"),
        (errno.EDQUOT, "quota is used up"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EROFS, "make the file system writable"),
        (errno.EACCES, "give this user access"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EIO, "check the disk"),
        (errno.ENOMEM, "memory ran out: raise task.train.accumulate"),
    ],
)
def test_errors_of_files_name_the_path_and_what_to_do(number, advice):
    text = describe_error(OSError(number, os.strerror(number), "/data/runs/x.npy"), OPTIONS)
    assert f"[Errno {number}] {os.strerror(number)}: '/data/runs/x.npy'; " in text
    assert advice in text
    assert "\n" not in text


def real(make):
    with pytest.raises(Exception) as raised:  # noqa: PT011  # the class is what each library chose
        make()
    return raised.value


@pytest.mark.parametrize(
    "error",
    [
        real(lambda: torch.empty(10**15)),
        real(lambda: torch.empty(10**20)),
        real(lambda: torch.empty(10**10, 10**10)),
        real(lambda: np.zeros(10**15)),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_without_memory_the_options_that_need_less_are_named(error):
    advice = advice_on(error, OPTIONS)
    assert advice.startswith("memory ran out")
    assert advice.endswith(
        ": raise task.train.accumulate, or lower task.train.batch_size, or use a smaller encoder or smaller images"
    )
    assert advice_on(error).endswith(": use a smaller encoder or smaller images")


@pytest.mark.parametrize(
    ("error", "size"),
    [
        (real(lambda: torch.empty(10**15)), "3,725,290.3 GiB"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity"),
            "2.00 GiB",
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 512.00 MiB. GPU 3"), "512.00 MiB"),
    ],
)
def test_the_size_that_was_tried_is_named(error, size):
    options = SizeOptions(
        accumulate=["pretrain.accumulate"],
        auto_batch=["pretrain.auto_batch"],
        grad_checkpointing=["pretrain.grad_checkpointing"],
        precision=["pretrain.precision"],
        micro_batch=64,
    )
    assert advice_on(error, options) == (
        f"memory ran out at {size} more, with micro-batches of 64 images: raise pretrain.accumulate, or set "
        "pretrain.auto_batch=true, or set pretrain.grad_checkpointing=true, or set pretrain.precision=bf16, or use a "
        "smaller encoder or smaller images"
    )
    assert "raise" not in advice_on(error, SizeOptions(accumulate=["pretrain.accumulate"], micro_batch=1))


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        (KILLED, "a process that loads images was killed"),
        ("DataLoader worker (pid 12) is killed by signal: Killed. ", "a process that loads images was killed"),
        (OUT_OF_SHM, "/dev/shm"),
        ("unable to write to file </torch_123_4567>: No space left on device (28)", "/dev/shm"),
    ],
)
def test_killed_workers_and_full_shared_memory_name_the_option(text, advice):
    text_shown = describe_error(RuntimeError(text), OPTIONS)
    assert text_shown.startswith(f"RuntimeError: {' '.join(text.split())}; ")
    assert advice in text_shown
    assert "lower pretrain.workers" in text_shown


@pytest.mark.parametrize(
    "error",
    [
        real(lambda: torch.save(torch.zeros(9), "/dev/full")),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
        RuntimeError("[enforce fail at inline_container.cc:783] . PytorchStreamWriter failed writing file data/0"),
    ],
)
def test_weights_that_find_no_room_are_put_down_to_the_disk(error):
    assert "free space" in advice_on(error)


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyError("y"), OSError(errno.ENOENT, "gone"), RuntimeError("sizes")]
)
def test_other_errors_get_no_advice(error):
    assert advice_on(error) is None
    assert describe_error(error) == f"{type(error).__name__}: {error}"


def test_long_texts_are_cut_but_only_with_advice():
    assert len(describe_error(RuntimeError("std::bad_alloc " + "frame " * 500))) < 500
    assert len(describe_error(RuntimeError("frame " * 500))) > 2900


def test_a_refused_option_reads_equally_in_a_table_and_in_a_class():
    values = {"epochs": 1, "batch_size": 1, "base_lr": 1.0, "betas": [0.9, 0.95, 0.99]}
    words = "betas = [0.9, 0.95, 0.99]: tuple should have at most 2 items after validation, not 3"
    with pytest.raises(InputError) as refused:
        validate(TrainConfig, values, "pretrain")
    assert str(refused.value) == f"pretrain.{words}"
    with pytest.raises(ValidationError) as invalid:
        TrainConfig(**values)
    assert describe_error(invalid.value) == f"TrainConfig.{words}"
    with pytest.raises(InputError, match=r"pretrain\.base_lr = 0: it must be greater than 0"):
        validate(TrainConfig, {**values, "betas": (0.9, 0.95), "base_lr": 0}, "pretrain")
