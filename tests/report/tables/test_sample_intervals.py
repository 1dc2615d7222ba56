"""Tables whose intervals cover test images: from files beside the records."""

from __future__ import annotations

import re

import numpy as np
import pytest

from mimbench.errors import InputError
from mimbench.files import file_sha256
from mimbench.report.scores.average_precision import ResampledPrecision
from mimbench.report.scores.baseline import Baseline
from mimbench.report.scores.choice import Choice
from mimbench.report.scores.pixel_scores import ResampledPixels
from mimbench.report.tables.command import table_command
from mimbench.store.record import write_record
from mimbench.store.samples import Detections, Pixels, pack_samples

IMAGES = 200


@pytest.fixture
def results(record, tmp_path):
    """Writes records of hits, by method and seed, and returns their folder."""

    def write(hits_of: dict[tuple[str, int], np.ndarray], **changes):
        for (method, seed), hits in hits_of.items():
            relative = f"artifacts/{method}-{seed}/samples.npz"
            file = tmp_path / "runs" / relative
            file.parent.mkdir(parents=True)
            file.write_bytes(pack_samples({"top1": hits}))
            mean = float(hits.mean()) * (100 if hits.dtype == bool else 1)
            artifacts = {"artifacts": {"samples": relative}, "artifacts_sha256": {"samples": file_sha256(file)}}
            made = record(method, mean, seed, **{**artifacts, **changes})
            path = tmp_path / "runs" / "records" / f"{made.id}.json"
            path.parent.mkdir(exist_ok=True)
            write_record(path, made)
        return tmp_path / "runs"

    return write


def hits(share: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(IMAGES) < share * IMAGES


def detections(seed: int, skill: float) -> dict[str, np.ndarray]:
    """Of two classes on 40 images: an object of each, detected with probability `skill`, and a wrong box."""
    rng = np.random.default_rng(seed)
    images, classes = np.repeat(np.arange(40), 4), np.tile([0, 1, 0, 1], 40)
    is_object = np.tile([True, True, False, False], 40)
    hits = (is_object & (rng.random(160) < skill))[:, None] & np.array([True, False])
    return {
        "images": images,
        "classes": classes,
        "scores": rng.random(160) * np.where(is_object, 1.5, 1.0),
        "hits": hits,
        "ignored": np.zeros((160, 2), bool),
        "objects": np.ones((40, 2), int),
        "metrics": {"AP50": (0,)},
    }


def test_an_average_precision_has_an_interval_over_images(record, tmp_path):
    for method, skill in (("mae", 0.8), ("simmim", 0.6)):
        for seed in range(2):
            one = detections(seed, skill)
            stored = Detections(**{name: value for name, value in one.items() if name != "metrics"}, thresholds=(0,))
            relative = f"artifacts/{method}-{seed}/samples.npz"
            (tmp_path / "runs" / relative).parent.mkdir(parents=True)
            (tmp_path / "runs" / relative).write_bytes(pack_samples({}, [one]))
            value = ResampledPrecision(stored, [0])(np.ones(40))
            made = record(method, value, seed, metric="AP50", artifacts={"samples": relative})
            (tmp_path / "runs" / "records").mkdir(exist_ok=True)
            write_record(tmp_path / "runs" / "records" / f"{made.id}.json", made)
    shown = table(tmp_path / "runs", ("images",), "simmim")
    assert table(tmp_path / "runs", ("images",), "simmim") == shown
    mae = next(line for line in shown.splitlines() if line.startswith("MAE"))
    numbers = list(map(float, re.findall(r"[\d.]+", re.sub(r"\(n=\d\)", "", mae))))
    mean, low, high, difference, least, most = numbers[:6]
    assert 4 < high - low < 25
    assert low < mean < high
    assert least < difference < most
    assert most - least < high - low  # paired by image
    assert "for other test images" in shown


def pixels(seed: int, skill: float, classes: int = 3) -> dict[str, np.ndarray]:
    """Of 50 images of 100 pixels, each right with a probability that varies by image."""
    rng = np.random.default_rng(seed)
    truth = np.random.default_rng(0).multinomial(100, [0.7, 0.2, 0.1], 50)
    hits = rng.binomial(truth, np.clip(skill + rng.normal(0, 0.15, (50, 1)), 0, 1))
    wrong = np.stack([rng.multinomial(100 - each.sum(), [1 / classes] * classes) for each in hits])
    predicted = hits + wrong
    return {"hits": hits, "truth": truth, "predicted": predicted, "metrics": {"mIoU": "iou", "aAcc": "accuracy"}}


def put(record, folder, method, seed, metric, value, content):
    relative = f"artifacts/{method}-{seed}/samples.npz"
    (folder / relative).parent.mkdir(parents=True)
    (folder / relative).write_bytes(content)
    made = record(method, value, seed, metric=metric, artifacts={"samples": relative})
    (folder / "records").mkdir(exist_ok=True)
    write_record(folder / "records" / f"{made.id}.json", made)


def test_an_miou_has_an_interval_over_images_by_a_bootstrap(record, tmp_path):
    folder = tmp_path / "runs"
    for method, skill in (("mae", 0.8), ("simmim", 0.7)):
        for seed in range(2):
            one = pixels(seed, skill)
            hits, truth, predicted = (one[name].sum(0) for name in ("hits", "truth", "predicted"))
            value = 100 * float((hits / (truth + predicted - hits)).mean())
            put(record, folder, method, seed, "mIoU", value, pack_samples({}, pixels=one))
    shown = table(folder, ("images",), "simmim")
    mae = next(line for line in shown.splitlines() if line.startswith("MAE"))
    mean, low, high, difference, least, most = list(map(float, re.findall(r"[\d.]+", re.sub(r"\(n=\d\)", "", mae))))[:6]
    draws = np.random.default_rng(1).multinomial(50, [1 / 50] * 50, 1000)
    ious = []
    for seed in range(2):
        one = pixels(seed, 0.8)
        hits, truth, predicted = (draws @ one[name] for name in ("hits", "truth", "predicted"))
        ious.append((100 * hits / (truth + predicted - hits)).mean(1))
    assert (high - low) / 2 == pytest.approx(1.972 * np.std(np.mean(ious, 0)), rel=0.15)
    assert low < mean < high
    assert least < difference < most


def test_pixels_give_each_score_as_it_is_defined():
    one = pixels(0, 0.8)
    counts = [one[name] for name in ("hits", "truth", "predicted")]
    times = np.ones(50)
    hits, truth, predicted = (each.sum(0) for each in counts)
    assert ResampledPixels(Pixels(*counts, score="accuracy"))(times) == pytest.approx(100 * hits.sum() / truth.sum())
    assert ResampledPixels(Pixels(*counts, score="class-accuracy"))(times) == pytest.approx(100 * (hits / truth).mean())
    empty = [np.hstack([each, np.zeros((50, 1), int)]) for each in counts]
    assert ResampledPixels(Pixels(*empty, score="iou"))(times) == pytest.approx(
        100 * (hits / (truth + predicted - hits)).mean()
    )


def test_a_mean_over_sets_draws_the_images_of_each_set(record, tmp_path):
    folder = tmp_path / "runs"
    values = np.array([True] * 30 + [False] * 10 + [True, False] * 80)
    groups = np.repeat([0, 1], [40, 160])
    put(record, folder, "mae", 0, "top1", 62.5, pack_samples({"top1": values}, groups={"top1": groups}))
    half = 1.996 * 100 * np.sqrt(0.75 * 0.25 / 39 + 0.25 / 159) / 2  # t at 66.9 degrees of freedom (Welch)
    assert f"62.5 [{62.5 - half:.1f}, {62.5 + half:.1f}]" in table(folder, ("images",))


def table(folder, covers, baseline=None, format="text") -> str:
    choice = Choice(interval=covers, baseline=Baseline.parse(baseline) if baseline else None)
    return table_command(choice, results=folder, format=format, layout=None)


def test_each_kind_of_interval_says_what_it_covers(results):
    folder = results({("mae", seed): hits(0.5 + 0.02 * seed, seed) for seed in range(3)})
    for covers, note in (
        (("seeds",), "[ ]: 95 % interval of the mean for other seeds, with the test images as they are (Student's t)"),
        (("images",), "[ ]: 95 % interval of the mean for other test images, with the seeds as they are"),
        (("seeds", "images"), "[ ]: 95 % interval of the mean for other seeds and other test images"),
    ):
        shown = table(folder, covers)
        assert note in shown
        assert "±" not in shown
    assert "52.0 [47.0, 57.0]" in table(folder, ("seeds",))  # 4.303 * 2 / sqrt(3)


def test_one_seed_has_an_interval_over_images_only(results):
    folder = results({("mae", 0): hits(0.5, 0)})
    assert "50.0 [43.0, 57.0]" in table(folder, ("images",))  # 1.972 * 50 / sqrt(199)
    both = table(folder, ("seeds", "images"))
    assert "without [ ]: one seed" in both
    assert "50.0 [" not in both


def test_csv_has_the_limits(results):
    folder = results({("mae", 0): hits(0.5, 0)})
    head, row = table(folder, ("images",), format="csv").splitlines()[:2]
    assert head.split(",")[1:] == [f"linear-probe: top1{part}" for part in ("", " low", " high", " n")]
    mean, low, high, n = map(float, row.split(",")[1:])
    assert (mean, n) == (50, 1)
    assert (low, high) == pytest.approx((43.01, 56.99), abs=0.01)


def test_differences_are_paired_by_image_and_one_seed_has_mcnemar_s_test(results):
    base = hits(0.5, 0)
    better = base | (np.arange(IMAGES) % 20 == 0)
    more = int(better.sum() - base.sum())
    shown = table(results({("mae", 0): better, ("simmim", 0): base}), ("images",), "simmim")
    assert "paired by seed and by image" in shown
    assert f"{more} images are right here only, 0 with" in shown
    assert f"McNemar's exact test: p = {2 * 0.5**more:.2g}" in shown


def test_real_values_are_in_the_unit_of_the_metric(results):
    values = np.linspace(20, 60, IMAGES)
    assert "40.0 [38.4, 41.6]" in table(results({("mae", 0): values}), ("images",))


def test_records_without_samples_are_named_in_one_line(results):
    folder = results({("mae", 0): hits(0.5, 0)}, artifacts={}, artifacts_sha256={})
    with pytest.raises(InputError, match=r"record .* has no values of top1 on single samples: .* use --interval seeds"):
        table(folder, ("images",))
    assert "50.0" in table(folder, ("seeds",))


def test_a_missing_or_damaged_file_is_named(results):
    folder = results({("mae", 0): hits(0.5, 0)})
    (file,) = folder.rglob("samples.npz")
    file.write_bytes(b"")
    with pytest.raises(InputError, match=r"samples\.npz, the samples of record .*, does not have the sha256"):
        table(folder, ("images",))
    file.unlink()
    with pytest.raises(InputError, match="is missing; copy `artifacts` with the records"):
        table(folder, ("images",))


def test_other_numbers_of_images_cannot_be_paired(results):
    folder = results({("mae", 0): hits(0.5, 0), ("simmim", 0): hits(0.5, 1)[:100]})
    with pytest.raises(InputError, match="tested on 200 and 100 samples, which cannot be paired"):
        table(folder, ("images",), "simmim")


def test_the_option_takes_seeds_and_images_only(quick):
    for wrong in ("--interval=pixels", "--interval=,"):
        done = quick("table", wrong)
        assert done.returncode == 2
        assert "choose seeds, images, or seeds,images" in done.stderr
    assert "leave --spread out" in quick("table", "--interval=seeds", "--spread=se").stderr
