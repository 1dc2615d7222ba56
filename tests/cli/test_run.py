"""`mimbench run`: what it runs, reuses and prints, and each kind of bad input in one clear line."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from helpers.refusals import refused

SMOKE = ("--recipe", "smoke")
PROBE = [sys.executable, "-m", "mimbench", "run", "--method", "simmim", "--task", "linear-probe", *SMOKE]


def run_probe(mimbench, *arguments: str, method: str = "simmim", task: str = "linear-probe"):
    return mimbench("run", "--method", method, "--task", task, *SMOKE, *arguments)


@pytest.mark.e2e
def test_a_run_records_reuses_and_prints(mimbench, tmp_path):
    first = run_probe(mimbench)
    assert first.returncode == 0, first.stderr
    assert "pretraining simmim seed 0 on 200 images" in first.stderr
    assert "Linear probe top-1" in first.stdout

    again = run_probe(mimbench, "--json")
    assert "already recorded: linear-probe of simmim seed 0" in again.stderr
    (record,) = json.loads(again.stdout)
    assert record["metrics"]["top1"]["unit"] == "percent"
    assert record["metrics"]["top1"]["n"] == 100
    assert 0 <= record["metrics"]["top1"]["value"] <= 100
    assert record["recipe"]["pretrain"]["epochs"] == 2
    assert record["provenance"]["packages"]["torch"]

    other = run_probe(mimbench, "--set", "task.pooling=token")
    assert "reusing pretraining of simmim seed 0" in other.stderr
    assert "pretraining simmim" not in other.stderr.replace("reusing pretraining", "")
    table = mimbench("table", "--format", "csv")
    assert table.returncode == 0
    header, row = table.stdout.splitlines()
    assert header.startswith("method,linear-probe: top1 (cached-lbfgs),")
    assert '"linear-probe: top1 (cached-lbfgs, pooling=token)"' in header
    assert row.startswith("simmim,")


@pytest.mark.e2e
def test_detection_from_end_to_end(mimbench, tmp_path):
    done = run_probe(mimbench, "--json", task="detection,linear-probe")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("pretraining simmim seed 0 on") == 1
    detection, probe = json.loads(done.stdout)
    assert list(detection["metrics"])[:3] == ["AP", "AP50", "AP75"]
    assert all(metric["unit"] == "percent" and metric["n"] > 0 for metric in detection["metrics"].values())
    assert detection["checkpoint"]["weights_sha256"] == probe["checkpoint"]["weights_sha256"]
    assert detection["protocol"]["dataset"]["name"] == "digit-scenes"
    assert detection["cost"]["images_seen"] == 24
    with Image.open(tmp_path / "runs" / detection["artifacts"]["predictions"]) as picture:
        assert picture.width > 500


@pytest.mark.e2e
def test_a_grid_pretrains_each_distinct_method_once(mimbench):
    done = run_probe(
        mimbench, "--seeds", "0,1", "--vary", "method.mask_ratio=0.4,0.6", "--json", method="simmim,random-init"
    )
    assert done.returncode == 0, done.stderr
    records = json.loads(done.stdout)
    cells = sorted((r["method"]["name"], r["seed"], r["varied"].get("method.mask_ratio", 0)) for r in records)
    assert cells == [
        ("random-init", 0, 0), ("random-init", 1, 0),
        ("simmim", 0, 0.4), ("simmim", 0, 0.6), ("simmim", 1, 0.4), ("simmim", 1, 0.6),
    ]  # fmt: skip
    table = mimbench("table", "--format", "markdown").stdout
    assert "| Method      | Mask ratio | Linear probe top-1" in table
    assert "| SimMIM      | 0.4        | " in table
    assert "n = 2 throughout" in table


@pytest.mark.e2e
def test_what_fails_does_not_stop_the_rest(mimbench, tmp_path):
    done = run_probe(mimbench, "--vary", "pretrain.base_lr=1e30,1e-3", "--set", "pretrain.clip_grad=1e30", "--json")
    assert done.returncode == 1, done.stderr
    assert len(json.loads(done.stdout)) == 1
    assert "failed: linear-probe of simmim seed 0 pretrain.base_lr=1e+30" in done.stderr
    assert "the loss is" in done.stderr or "a weight is not finite" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.e2e
def test_killed_in_the_middle_it_goes_on(mimbench, tmp_path):
    """SIGKILL while pretraining; the same command resumes and ends as an unbroken run does, bit for bit."""
    settings = ("--set", "pretrain.epochs=25", "--set", "pretrain.batch_size=16")
    command = [*PROBE, *settings]
    running = subprocess.Popen([*command, "--results", "killed"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    work = tmp_path / "killed" / "work"
    deadline = time.monotonic() + 120
    while not list(work.glob("*/step_*.json")):
        assert running.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not list(tmp_path.glob("killed/checkpoints/*"))
    hashes = []
    for results in ("killed", "whole"):
        done = run_probe(mimbench, *settings, "--results", results, "--json")
        assert done.returncode == 0, done.stderr
        (record,) = json.loads(done.stdout)
        hashes.append(record["checkpoint"]["weights_sha256"])
    assert hashes[0] == hashes[1]


@pytest.mark.e2e
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGUSR1, 75)])
def test_a_stop_saves_the_step_and_says_where_it_goes_on(mimbench, tmp_path, number, exit_code):
    """No checkpoint is due before the end, so that only the signal can have made one."""
    settings = ("--set", "pretrain.epochs=40", "--set", "pretrain.checkpoint_every=1000")
    command = [*PROBE, *settings]
    # A shell that runs this suite in the background has SIGINT ignored, which children inherit.
    listen = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    running = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=listen)
    said = ""
    while "pretraining simmim seed 0 on" not in said:
        line = running.stderr.readline()
        assert line, said
        said += line
    time.sleep(1.0)
    running.send_signal(number)
    said += running.communicate(timeout=60)[1]
    assert running.returncode == exit_code, said
    last = said.rstrip().splitlines()[-1]
    assert re.fullmatch(
        rf"mimbench: stopped by {number.name}; pretrain simmim seed 0: saved after "
        r"(epoch \d+ of 40|step \d+ of \d+ in epoch \d+ of 40)\. The same command continues from there\.",
        last,
    )
    assert "Traceback" not in said
    hashes = []
    for results in ("runs", "whole"):
        done = run_probe(mimbench, *settings, "--results", results, "--json")
        assert done.returncode == 0, done.stderr
        if results == "runs":
            assert f"pretrain simmim seed 0: resumes {last.split(': saved ')[1].split('. ')[0]}" in done.stderr
        hashes.append(json.loads(done.stdout)[0]["checkpoint"]["weights_sha256"])
    assert hashes[0] == hashes[1]


def test_two_processes_pretrain_once(tmp_path):
    command = PROBE
    both = [
        subprocess.Popen(
            [*command, "--set", f"task.pooling={pooling}"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
        )
        for pooling in ("mean", "token")
    ]
    said = "".join(process.communicate(timeout=240)[1] for process in both)
    assert [process.returncode for process in both] == [0, 0], said
    assert said.count("pretraining simmim seed 0 on") == 1
    assert said.count("reusing pretraining of simmim seed 0") == 1
    assert len(list(tmp_path.glob("runs/checkpoints/*"))) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--method", "simim", "--task", "linear-probe"), ("unknown method 'simim'", "did you mean 'simmim'")),
        (("--method", "simmim", "--task", "detecton"), ("unknown task 'detecton'", "did you mean 'detection'")),
        (("--method", "simmim", "--task", "linear-probe", "--recipe", "smok"), ("unknown recipe 'smok'", "'smoke'")),
        (
            ("--method", "simmim", "--task", "linear-probe", "--set", "data.name=mnist5"),
            ("unknown dataset", "'mnist5k'"),
        ),
        (
            ("--method", "simmim", "--task", "linear-probe", "--set", "pretrain.epoch=3"),
            ("'pretrain.epoch'", "'epochs'"),
        ),
        (
            ("--method", "simmim", "--task", "linear-probe", "--set", "method.mask_rato=0.3"),
            ("mask_rato", "'mask_ratio'"),
        ),
        (("--method", "simmim", "--task", "linear-probe", "--set", "task.poolin=mean"), ("task.poolin", "'pooling'")),
        (
            ("--method", "simmim", "--task", "linear-probe", "--set", "method.mask_ratio=1.0"),
            ("mask_ratio", "less than 1"),
        ),
        (
            ("--method", "simmim", "--task", "linear-probe", "--set", "method.mask_ratio=0"),
            ("mask_ratio", "greater than 0"),
        ),
        (
            ("--method", "simmim", "--task", "linear-probe", "--set", "input.image_size=30"),
            ("30 px", "patch size 4 px"),
        ),
        (
            ("--method", "simmim", "--task", "linear-probe", "--set", "method.mask_patch_size=3"),
            ("mask_patch_size 3 px",),
        ),
        (("--method", "simmim", "--task", "linear-probe", "--set", "data.name=folder"), ("data.root",)),
        (("--method", "simmim", "--task", "linear-probe", "--device", "tpu"), ("unknown device 'tpu'",)),
        (("--method", "simmim", "--task", "linear-probe", "--seeds", "a"), ("--seeds 'a'", "0,1,2")),
        (("--method", "simmim", "--task", "linear-probe", "--results", "/proc/x"), ("/proc/x cannot be written",)),
        (("--method", "simmim", "--task", "linear-probe", "--set", "nonsense"), ("--set", "no '='")),
        (("--method", "", "--task", "linear-probe"), ("--method is empty",)),
        (("--method", "simmim", "--task", "linear-probe", "--seeds", ","), ("--seeds", "0,1,2")),
        (("--method", "simmim", "--task", "linear-probe", "--seeds", "-1"), ("--seeds", "0,1,2")),
        (("--method", "simmim", "--task", "linear-probe", "--set", "pretrain.base_lr=inf"), ("pretrain.base_lr",)),
        (("--method", "simmim", "--task", "linear-probe", "--set", "input.mean=[nan]"), ("input.mean",)),
        (("--method", "simmim", "--task", "linear-probe", "--set", "input.std=[0.0]"), ("input", "above 0")),
        (("--method", "random-init", "--task", "knn", "--set", "input.mean=[0, 0]"), ("mean has 2", "1 channel")),
        (
            ("--method", "mae", "--task", "knn", "--set", "pretrain.epochs=1", "--vary", "pretrain.epochs=2,3"),
            ("pretrain.epochs is both set and varied in the command line",),
        ),
        (("--method", "simmim", "--task", "linear-probe", "--set", "pretrain.betas=[2, 3]"), ("betas", "[0, 1)")),
        (("--method", "simmim", "--task", "linear-probe", "--set", "pretrain.layer_decay=0.7"), ("layer_decay",)),
        (("--method", "simmim", "--task", "linear-probe", "--set", "task.layer=9"), ("task.layer 9", "2 layers")),
        (("--method", "simmim", "--task", "linear-probe", "--set", "encoders.vit=3"), ("encoders.vit",)),
        (("--method", "simmim", "--task", "linear-probe", "--set", "methods.smimim.pretrain.epochs=3"), ("'simmim'",)),
        (
            ("--method", "simmim", "--task", "linear-probe", "--set", "methods.simmim.pretrian.epochs=3"),
            ("'pretrain'",),
        ),
        (("--method", "simmim", "--task", "linear-probe", "--set", "pretrain.batch_size=4000"), ("4000", "200")),
    ],
)
def test_bad_input_is_one_clear_line(quick, arguments, words):
    recipe = () if "--recipe" in arguments else SMOKE
    refused(quick("run", *arguments, *recipe), *words)


def test_cuda_is_refused_where_there_is_none(quick, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    refused(run_probe(quick, "--device", "cuda"), "--device cuda", "--device cpu")


def test_unreadable_images_are_counted_and_can_be_skipped(quick, tmp_path):
    folder = tmp_path / "images"
    for part in ("train", "val"):
        for label in ("a", "b"):
            (folder / part / label).mkdir(parents=True)
            for index in range(70):
                Image.new("L", (30, 30), index * 3).save(folder / part / label / f"{index}.png")
    (folder / "train" / "a" / "broken.png").write_bytes(b"no image")
    options = ("--set", "data.name=folder", "--set", f"data.root={folder}", "--set", "data.channels=1")
    refused(run_probe(quick, *options), "broken.png", "1 ", "data.on_bad_image=skip")
    done = run_probe(quick, *options, "--set", "data.on_bad_image=skip")
    assert done.returncode == 0, done.stderr
    refused(run_probe(quick, "--set", "data.name=folder", "--set", f"data.root={tmp_path / 'none'}"), "none")
    (tmp_path / "empty").mkdir()
    refused(run_probe(quick, "--set", "data.name=folder", "--set", f"data.root={tmp_path / 'empty'}"), "no images")


def test_corrupt_files_are_named_and_not_reused(quick, tmp_path):
    assert run_probe(quick).returncode == 0
    (weights,) = tmp_path.glob("runs/checkpoints/*/encoder.safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 255]))
    done = run_probe(quick, "--set", "task.pooling=token")
    assert done.returncode == 1
    assert f"checkpoints/{weights.parent.name}/encoder.safetensors is corrupt" in done.stderr
    assert f"delete runs/checkpoints/{weights.parent.name} to pretrain it again" in done.stderr
    card = weights.parent / "checkpoint.json"
    weights.write_bytes(weights.read_bytes()[:-1] + whole[-1:])
    card.write_text(card.read_text().replace('"mask_ratio": 0.6', '"mask_ratio": 0.7', 1))
    done = run_probe(quick, "--set", "task.pooling=token")
    assert done.returncode == 1
    assert "checkpoint.json is corrupt: the card was altered or damaged; delete" in done.stderr
    (record,) = tmp_path.glob("runs/records/*.json")
    record.write_text(record.read_text().replace('"seed": 0', '"seed": 7'))
    refused(quick("table"), record.name, "altered or damaged")
    done = run_probe(quick)
    assert done.returncode == 1
    assert f"record runs/records/{record.name} does not match" in done.stderr


def test_the_same_folder_from_elsewhere(quick, tmp_path):
    """Records and checkpoints are found wherever the results folder has been copied."""
    assert run_probe(quick).returncode == 0
    Path(tmp_path / "runs").rename(tmp_path / "moved")
    done = run_probe(quick, "--results", "moved", "--set", "task.pooling=token")
    assert "reusing pretraining" in done.stderr
    assert os.path.exists(tmp_path / "moved" / "records")
