"""The task as the harness runs it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from PIL import Image

from helpers.tiny_segmentation import PlainFit, context, settings, swin, vit, write_folder
from mimbench import registry
from mimbench.contract import ArraySplit, Dataset, InputError
from mimbench.data import open_dataset
from mimbench.optim import Schedule
from mimbench_tasks.segmentation.task import Segmentation


@pytest.fixture(scope="module")
def pixels(tmp_path_factory):
    root = tmp_path_factory.mktemp("pixels")
    return open_dataset("ade20k", {"root": str(write_folder(root / "a")), "channels": 1}, root / "cache")


def run(dataset, workdir, *, encoder=None, fit=None, **options):
    return Segmentation(settings(**options)).run(encoder or vit(), dataset, context(workdir, fit))


def test_the_entry_point_finds_it():
    assert registry.tasks.load("segmentation") is Segmentation


def test_importing_it_does_not_import_mmseg():
    code = "import sys, mimbench_tasks.segmentation.task; assert not {'mmseg', 'mmcv', 'mmengine'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_result_is_declared_and_in_range(pixels, tmp_path):
    result = run(pixels, tmp_path, pictures=2)
    assert list(result.metrics) == [metric.name for metric in Segmentation.metrics] == ["mIoU", "mAcc", "aAcc"]
    for measured in result.metrics.values():
        assert 0 <= measured.value <= 100
        assert measured.n == 2, "test images"
    rows = result.details["per_class"]
    assert list(rows) == ["kind 0", "kind 1", "kind 2"]
    assert sum(row["pixels"] for row in rows.values()) == result.details["pixels"]
    assert result.details["pixels"] == int(pixels.split("test").counts().sum()) < 2 * 40 * 56, "0 is not scored"
    known = [row["IoU"] for row in rows.values() if row["IoU"] is not None]
    assert result.metrics["mIoU"].value == pytest.approx(sum(known) / len(known))
    assert result.curves["loss"] == result.cost.loss
    path = result.artifacts["predictions"]
    assert path.parent == tmp_path
    with Image.open(path) as picture:
        assert picture.format == "PNG"


def test_it_learns_what_is_easy(tmp_path):
    """Brightness gives the class away."""
    root = write_folder(tmp_path / "a", count=16)
    dataset = open_dataset("ade20k", {"root": str(root), "channels": 1}, tmp_path / "cache")
    options = {"train": {"epochs": 12, "batch_size": 4, "base_lr": 1e-2}, "strides": (2, 4), "flip": 0.5}
    result = run(dataset, tmp_path, encoder=vit(4), **options)
    assert result.metrics["mIoU"].value > 2 * Segmentation(settings()).chance(dataset)
    assert result.metrics["mIoU"].value > 60


def test_chance_is_the_most_frequent_class(pixels):
    counts = pixels.split("test").counts()
    best = int(pixels.split("train").counts().argmax())
    expected = 100 * (counts[best] / counts.sum()) / (counts > 0).sum()
    assert Segmentation(settings()).chance(pixels) == pytest.approx(float(expected))


def test_batch_size_and_workers_do_not_change_what_is_found(pixels, tmp_path):
    results = [
        run(pixels, tmp_path, fit=PlainFit(epochs=0), train={"batch_size": size, "workers": size}) for size in (1, 2)
    ]
    values = [{name: measured.value for name, measured in result.metrics.items()} for result in results]
    assert values[0] == pytest.approx(values[1])
    assert results[0].details == results[1].details


def test_the_engine_gets_what_it_needs(pixels, tmp_path):
    fit, encoder = PlainFit(), vit()
    weights = {name: value.clone() for name, value in encoder.state_dict().items()}
    run(pixels, tmp_path, fit=fit, encoder=encoder, train={"batch_size": 4, "accumulate": 2}, drop_path=0.2)
    assert fit.arguments["label"] == "segmentation (simple-pyramid)"
    assert fit.arguments["images_per_epoch"] == 4
    assert fit.arguments["batches"] == 2, "the loader yields micro-batches"
    for name, value in weights.items():
        assert torch.equal(fit.before[name], value), "pretrained weights reach the first step"
    rates = [module.drop_prob for module in fit.arguments["model"].encoder.modules() if hasattr(module, "drop_prob")]
    assert max(rates) == pytest.approx(0.2)


@pytest.mark.parametrize(("encoder", "windows"), [(vit, 2), (swin, None)])
def test_windows_reach_a_plain_encoder_only(encoder, windows, pixels, tmp_path):
    built = encoder()
    run(pixels, tmp_path, encoder=built, window=2, global_blocks=(1,))
    assert getattr(getattr(built, "windows", None), "size", None) == windows


def check(dataset, encoder=None, **options):
    Segmentation(settings(**options)).check(encoder or vit(), dataset)


@pytest.mark.parametrize(
    ("encoder", "options", "words"),
    [
        (vit, {"strides": (6, 12)}, r"task\.strides \[6, 12\] must rise, each a power of two times or parts of.*8 px"),
        (vit, {"strides": (16, 8)}, r"task\.strides \[16, 8\] must rise"),
        (swin, {"strides": (8, 16, 32)}, r"task\.strides \[8, 16, 32\] are not those of this encoder's maps"),
        (swin, {"layers": (0, 1, 2)}, r"task\.layers is for encoders with one map"),
        (vit, {"strides": (8, 16), "layers": (0, 1, 2)}, r"task\.layers names 3 layers and the pyramid has 2 strides"),
        (
            vit,
            {"strides": (8, 16), "layers": (0, 1)},
            r"task\.layers \[0, 1\] must end with the encoder's last layer",
        ),
        (vit, {"strides": (8, 16), "layers": (9, -1)}, r"layer 9 is outside this encoder's 3 layers"),
        (vit, {"crop_size": 40}, r"task\.crop_size 40 px is not a multiple of 16 px"),
        (vit, {"window": 2, "global_blocks": (7,)}, r"global_blocks \[7\] are outside this encoder's 3 blocks"),
        (vit, {"background_weight": 0.1}, r"task\.background_weight: dataset 'ade20k' has no background class"),
        (vit, {"train": {"batch_size": 9}}, r"task\.train\.batch_size 9 is more than the 4 training images"),
        (vit, {"head": "upernet", "train": {"accumulate": 2}}, r"upernet normalises .* must be 2 or more"),
        (vit, {"train": {"schedule": {"kind": "multistep"}}}, r"needs schedule\.milestones"),
    ],
)
def test_what_cannot_work_is_refused_while_planning(encoder, options, words, pixels):
    with pytest.raises(InputError, match=words) as caught:
        check(pixels, encoder(), **options)
    assert "\n" not in str(caught.value)


def test_checking_leaves_the_encoder_as_it_was(pixels):
    encoder = vit()
    check(pixels, encoder, window=2, drop_path=0.1, strides=(4, 8), crop_size=32, slide=16)
    assert encoder.windows is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"head": "upernt"}, "unknown head 'upernt'; did you mean 'upernet'"),
        ({"scale_jitter": (2.0, 0.5), "image_size": 64}, "rising"),
        ({"scale_jitter": (0.5, 2.0)}, "needs an image_size"),
        ({"slide": 16}, "slide needs a crop_size"),
        ({"slide": 65, "crop_size": 64}, "leaves gaps"),
        ({"most_of_crop": 0.7}, "needs a crop_size"),
        ({"layers": (1, 2), "window": 4}, "leave window at 0"),
    ],
)
def test_bad_options_are_named(options, words):
    with pytest.raises(ValueError if "head" not in options else InputError, match=words):
        settings(**options)


class Other(Dataset):
    name = "other"
    channels = 1

    def __init__(self, train, test, provides):
        self.splits, self.provides = {"train": train, "test": test}, provides

    def fingerprint(self):
        return "other"

    def split(self, name):
        return self.splits[name]


def test_datasets_that_do_not_fit_are_named(pixels, cache):
    labelled = ArraySplit(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.zeros(1).long(), ("a",))
    with pytest.raises(InputError, match="dataset 'other' has no masks, and the task needs a class per pixel"):
        check(Other(labelled, labelled, {"images"}))
    scenes = open_dataset("digit-scenes", {"train_scenes": 6, "test_scenes": 4, "size": 64}, cache)
    with pytest.raises(InputError, match="dataset 'other' has no masks"):
        check(Other(scenes.split("train"), scenes.split("test"), {"boxes"}))
    with pytest.raises(InputError, match="list different classes"):
        check(Other(scenes.split("train"), pixels.split("test"), {"masks"}))
    check(scenes)


def test_protocols_are_complete_and_every_value_has_a_source():
    assert set(Segmentation.protocols) == {"default", "beit-upernet", "mae-upernet"}
    for name, protocol in Segmentation.protocols.items():
        config = Segmentation.Config.model_validate({"protocol": name, **protocol.options})
        assert Segmentation(config).protocol()["head"] == protocol.options["head"]
        for path in leaves(protocol.options):
            prefixes = [".".join(path[:end]) for end in range(1, len(path) + 1)]
            assert any(prefix in protocol.sources for prefix in prefixes), (name, path)
    train = Segmentation.Config.model_validate(Segmentation.protocols["beit-upernet"].options).train
    steps = train.epochs * (20210 // 16)
    assert 160_000 <= steps < 160_000 + 20210 // 16
    assert train.schedule.warmup_epochs * (20210 // 16) == pytest.approx(1500, abs=1)


@pytest.mark.parametrize(("name", "peak"), [("beit-upernet", 7e-4), ("mae-upernet", 1e-4)])
def test_the_official_rates_are_a_line_up_and_a_line_down(name, peak):
    train = Segmentation.Config.model_validate(Segmentation.protocols[name].options).train
    schedule = Schedule(train, steps_per_epoch=20210 // 16)
    assert schedule.lr(0) == pytest.approx(1e-6 * peak)
    assert schedule.lr(750) == pytest.approx(peak / 2, rel=1e-3)
    assert schedule.lr(1500) == pytest.approx(peak, rel=1e-3)
    half = (1500 + schedule.steps) // 2
    assert schedule.lr(half) == pytest.approx(peak / 2, rel=1e-3)
    assert schedule.lr(schedule.steps - 1) == pytest.approx(0, abs=1e-5 * peak)
    assert schedule.lr(half, 0.65) == pytest.approx(0.65 * schedule.lr(half))


def leaves(table, above=()):
    for key, value in table.items():
        if isinstance(value, dict):
            yield from leaves(value, (*above, key))
        else:
            yield (*above, key)


def test_pictures_and_workers_do_not_change_the_protocol():
    changed = settings(pictures=9, train={"workers": 3})
    assert Segmentation(changed).protocol() == Segmentation(settings()).protocol()


def test_from_end_to_end(mimbench, tmp_path):
    done = mimbench("run", "--method", "random-init", "--task", "segmentation", "--recipe", "smoke", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "OneDL" not in done.stdout + done.stderr
    record = json.loads(next(tmp_path.rglob("records/*.json")).read_text())
    assert record["metrics"]["mIoU"]["n"] == 8
    assert 5 < record["chance"] < 12
    assert record["dataset"]["name"] == "digit-scenes"
    assert next(tmp_path.rglob("predictions.png")).is_file()


def test_segmentation_and_detection_share_a_process():
    """mmseg meets mmcv without compiled ops first, and detection, which supplies some, all the same."""
    code = (
        "import mimbench_tasks.segmentation.fine_tuning, mimbench_tasks.detection, mmcv.ops, torch;"
        "import mimbench_tasks.detection.fine_tuning;"
        "print(len(mmcv.ops.nms(torch.tensor([[0., 0, 1, 1]] * 2), torch.tensor([0.9, 0.8]), 0.5)[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("1")
