"""Numbers that no recipe means, and sizes that no machine has: refused by a plan, before anything is made."""

from __future__ import annotations

import pytest
import torch

from helpers.refusals import refused
from mimbench.harness.planning.size import memory_of

RUN = ("run", "--method", "mae", "--task", "knn", "--recipe", "smoke", "--dry-run")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("pretrain.epochs=1e23", ("pretrain.epochs", "too large")),
        ("pretrain.epochs=99999999999999999999999", ("pretrain.epochs", "too large")),
        ("pretrain.epochs=true", ("pretrain.epochs: true is not a number",)),
        ("pretrain.base_lr=true", ("pretrain.base_lr: true is not a number",)),
        ("pretrain.betas=[true, 0.9]", ("pretrain.betas: true is not a number",)),
        ("method.mask_ratio=false", ("method.mask_ratio: false is not a number",)),
        ("data.train_limit=true", ("data.train_limit: true is not a number",)),
        ("pretrain.workers=100000", ("pretrain.workers", "1024")),
        ("encoder.embed_dim=1000000000", ("does not fit into the memory of this machine", "[encoder]")),
        ("encoder.embed_dim=200000", ("GiB at least", "[encoder]")),
        ("encoder.depth=1000000000", ("encoder.depth", "1000")),
        ("encoder.mlp_ratio=1e12", ("GiB at least",)),
        ("method.decoder_dim=1000000000", ("does not fit into the memory of this machine",)),
        ("method.decoder_depth=100000", ("method.decoder_depth", "1000")),
        ("input.image_size=1000000", ("1000000 px", "GiB at least", "input.image_size")),
        ("input.image_size=1e300", ("input.image_size", "too large")),
        ("pretrain..epochs=1", ("'pretrain..epochs' is no path of a key",)),
        ("x." * 5000 + "y=1", ("unknown key",)),
        ("pretrain." + "x." * 5000 + "y=1", ("is no path of a key",)),
        ("pretrain.epochs=" + "[" * 5000 + "]" * 5000, ("pretrain.epochs",)),
    ],
)
def test_one_line_each(setting, words, quick):
    refused(quick(*RUN, "--set", setting), *words)


def test_a_results_folder_that_is_a_file_is_refused(quick, tmp_path):
    (tmp_path / "file").write_text("")
    for dry in ((), ("--dry-run",)):
        refused(quick(*RUN[:-1], "--results", "file", *dry), "--results file is a file")


def test_the_memory_of_this_machine():
    assert memory_of(torch.device("cpu")) > 2**28
