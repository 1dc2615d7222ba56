"""`mimbench bench data`: the loader's rate beside the step's, and which of both waits."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from PIL import Image

from helpers.refusals import refused
from mimbench.cli.bench import verdict
from mimbench.data.sources.folder import FolderSplit
from mimbench.harness.data_rates import DataRates, Rate

SMALL = ("--recipe", "smoke", "--device", "cpu", "--seconds", "0.3")


@pytest.fixture
def folder(tmp_path):
    for part in ("train", "val"):
        for index in range(70):
            path = tmp_path / "images" / part / "ab"[index % 2] / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.linear_gradient("L").rotate(index).resize((40, 30)).save(path)
    return ("--set", "data.name=folder", "--set", f"data.root={tmp_path / 'images'}", "--set", "data.channels=1")


def numbers(line: str) -> list[float]:
    return [float(word.replace(",", "")) for word in line.split()[-2:]]


def check_table(text: str, loader: str) -> dict[str, float]:
    """Rates by row, after a look at the form of the table."""
    head, _, *rows, _ = text.splitlines()
    assert head.split() == ["images/s", "ms", "per", "batch", "of", "64"]
    assert [row.split(" (")[0] for row in rows] == ["loader", "step", "both"]
    assert loader in rows[0]
    for row in rows:
        rate, milliseconds = numbers(row)
        assert milliseconds == pytest.approx(64_000 / rate, rel=0.5, abs=0.1)
    return {row.split(" (")[0]: numbers(row)[0] for row in rows}


def test_the_loader_of_images_in_memory_waits_for_the_step(quick):
    done = quick("bench", "data", *SMALL)
    assert done.returncode == 0, done.stderr
    rates = check_table(done.stdout, "(images in memory)")
    assert rates["loader"] > rates["step"] > 0
    assert done.stdout.splitlines()[-1].startswith("the loader waits for the step: alone it is ")


@pytest.mark.parametrize("workers", [0, 1])
def test_the_step_waits_for_a_slow_folder(quick, folder, monkeypatch, workers):
    read = FolderSplit.__getitem__

    def slow(self, index):
        time.sleep(0.02)
        return read(self, index)

    monkeypatch.setattr(FolderSplit, "__getitem__", slow)
    done = quick("bench", "data", *SMALL, *folder, "--set", f"pretrain.workers={workers}", "--method", "mae")
    assert done.returncode == 0, done.stderr
    rates = check_table(done.stdout, "(1 workers)" if workers else "(no workers)")
    assert rates["loader"] < 50
    assert rates["both"] < 60
    assert rates["step"] > rates["both"]
    last = done.stdout.splitlines()[-1]
    assert last.startswith("the step waits for the loader, which gives ")
    assert last.endswith("; raise pretrain.workers or set data.decode=scaled")


def test_nothing_is_written(quick, tmp_path):
    assert quick("bench", "data", *SMALL).returncode == 0
    assert list(tmp_path.iterdir()) == []


RATES = DataRates(
    batch=10,
    workers=2,
    is_in_memory=False,
    decoding="full",
    device="cpu, 1 threads",
    precision="fp32",
    loader=Rate(100, 1.0),
    step=Rate(100, 1.0),
    together=Rate(100, 1.0),
    waiting=0.0,
)


@pytest.mark.parametrize(
    ("images", "side", "line"),
    [
        (
            50,
            "step",
            "the step waits for the loader, which gives 50% of the images that the step could take; raise ",
        ),
        (98, "neither", "neither waits for the other: loader and step are equally fast"),
        (104, "neither", "neither waits for the other: loader and step are equally fast"),
        (300, "loader", "the loader waits for the step: alone it is 3.0 times as fast"),
    ],
)
def test_the_verdict_follows_the_rates(images, side, line):
    rates = replace(RATES, loader=Rate(images, 1.0))
    assert rates.waiting_side == side
    assert verdict(rates).startswith(line)


def test_advice_fits_the_data():
    slow = replace(RATES, loader=Rate(10, 1.0))
    assert verdict(replace(slow, device="NVIDIA H200")).endswith("raise pretrain.workers or set data.decode=device")
    assert verdict(replace(slow, decoding=None)).endswith("could take; raise pretrain.workers")
    assert verdict(replace(slow, is_in_memory=True, decoding=None)).endswith("the step could take")


def test_what_has_no_step_or_no_decoder_is_refused(quick, folder):
    refused(quick("bench", "data", *SMALL, "--method", "random-init"), "trains nothing")
    no_device = "data.decode=device decodes JPEGs on a CUDA device, and this run is on cpu"
    refused(quick("bench", "data", *SMALL, *folder, "--set", "data.decode=device"), no_device)
    refused(quick("bench", "data", *SMALL, *folder, "--set", "pretrain.batch_size=512"), "pretrain.batch_size")
    refused(quick("bench", "data", *SMALL, "--set", "method.nothing=1"), "nothing")
