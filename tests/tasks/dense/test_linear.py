"""Linear segmentation: the sweep, the choice on held-out images, resolutions, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import jaccard_score

from helpers.tiny_dense import context, folder, linear, run
from helpers.tiny_segmentation import swin, vit, write_folder
from mimbench.contract import InputError, RunError
from mimbench.toolkit.semantic_splits import train_and_test
from mimbench_tasks.dense import training_data
from mimbench_tasks.dense.images import stack
from mimbench_tasks.dense.linear import build_head
from mimbench_tasks.dense.maps import FrozenMaps, slide, upsample, windows
from mimbench_tasks.dense.parallel_heads import ParallelHeads, choose_head


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("pixels")
    return folder(write_folder(root / "a", count=16), root / "cache")


def trained_heads(dataset, factors, workdir, encoder, **options):
    """The weights of each head after a training by the engine."""
    task, (train, _) = linear(lr_factors=factors, train={"checkpoint_every": 1}, **options), train_and_test(dataset)
    maps = FrozenMaps(encoder, task.config, context(workdir).input, torch.device("cpu"))
    images = task._training_images(train, encoder, range(len(train)), seed=0)
    loader, see = training_data.training_batches(maps, images, task.config.train, context(workdir))
    heads = [build_head(sum(maps.dims()), len(train.classes), 0) for _ in factors]
    model = ParallelHeads(see, maps.step, heads, factors, task._loss)
    context(workdir).fit(model, loader, task.config.train, label="heads", images_per_epoch=len(train))
    return [head.state_dict() for head in model.heads]


def test_a_sweep_trains_each_head_as_if_alone(dataset, tmp_path):
    factors = (0.1, 1.0, 10.0)
    together = trained_heads(dataset, factors, tmp_path / "all", vit(4))
    for factor, results in zip(factors, together, strict=True):
        (alone,) = trained_heads(dataset, (factor,), tmp_path / f"{factor}", vit(4))
        for name, value in alone.items():
            torch.testing.assert_close(results[name], value, rtol=1e-5, atol=1e-6, msg=f"{factor} {name}")
    assert not torch.allclose(together[0]["linear.weight"], together[1]["linear.weight"])


def test_maps_that_are_kept_train_as_those_that_are_made_in_each_step(dataset, tmp_path, monkeypatch):
    (stored,) = trained_heads(dataset, (1.0,), tmp_path / "kept", vit(4))
    monkeypatch.setattr(training_data, "KEPT_LIMIT", 0)
    (anew,) = trained_heads(dataset, (1.0,), tmp_path / "anew", vit(4))
    for name, value in stored.items():
        torch.testing.assert_close(anew[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_augmented_images_are_seen_in_each_step(dataset, tmp_path):
    images = linear(augmentation={"flip": 1.0})._training_images(dataset.split("train"), vit(4), range(4), 0)
    assert not training_data.is_fixed(images.config, images.augmentation)
    flipped, plain = images.sample(0), images.without_augmentation().sample(0)
    torch.testing.assert_close(flipped.image, plain.image.flip(-1))


def test_everything_is_augmented_together_and_repeatably(tmp_path):
    """The image shows the label of each pixel, so both must agree after any crop, flip and rotation."""
    data = folder(write_folder(tmp_path / "a", count=4), tmp_path / "cache")
    augmentation = {"scale_jitter": (0.8, 1.6), "flip": 0.5, "rotate": 10.0, "most_of_crop": 0.75, "colour": True}
    task = linear(augmentation=augmentation, image_size=64, keep_aspect=True, crop_size=(48, 48))
    images = task._training_images(data.split("train"), vit(4), range(4), 3)
    for index in range(4):
        one, again = images.sample(index, epoch=2), images.sample(index, epoch=2)
        assert torch.equal(one.image, again.image)
        assert torch.equal(one.target, again.target)
        assert one.image.shape == (1, 48, 48)
        assert one.target.shape == (48, 48)
        for label in (0, 2):  # values 60 and 180, changed in colour by a third at most
            shown = one.image[0][one.target == label].float()
            if len(shown) > 50:
                assert abs(float(shown.median()) - 60 * (label + 1)) < 25 * (label + 1)
    assert stack([images.sample(0), images.sample(1)])[0].shape == (2, 1, 48, 48)
    assert not torch.equal(images.sample(0, epoch=1).image, images.sample(0, epoch=2).image)


def test_the_choice_is_made_on_held_out_training_images(dataset, tmp_path):
    task = linear(lr_factors=(1e-6, 1.0), held_out=0.25, train={"epochs": 6})
    result = run(task, dataset, tmp_path)
    scores = result.details["held_out_mIoU"]
    assert list(scores) == ["1e-08", "0.01"]
    assert result.details["held_out_images"] == 4
    assert result.details["lr"] == max((0.01 * factor for factor in (1e-6, 1.0)), key=lambda lr: scores[f"{lr:g}"])
    assert result.details["lr"] == 0.01, "a head that does not move is not chosen"
    assert result.metrics["mIoU"].value > 1.5 * task.chance(dataset)
    assert len(result.curves["loss"]) == 6
    assert result.artifacts["predictions"].is_file()
    assert result.details["resolution"]["px per feature"] == 4


def test_heads_that_diverge_do_not_end_the_training_of_the_others(dataset, tmp_path):
    result = run(linear(lr_factors=(1e30, 1.0), held_out=0.25), dataset, tmp_path / "one")
    assert (result.details["diverged"], result.details["lr"]) == (["1e+28"], 0.01)
    assert list(result.details["held_out_mIoU"]) == ["0.01"]
    assert np.isfinite(result.curves["loss"]).all()
    with pytest.raises(RunError, match=r"all heads diverged in training; lower task\.train\.base_lr"):
        run(linear(lr_factors=(1e30, 1e31), held_out=0.25), dataset, tmp_path / "all")


def test_a_loss_that_is_not_finite_costs_its_head_only():
    """The gradients of the others are those of a training without it."""
    maps, labels = [torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(0))], torch.zeros(2, 4, 4).long()

    def step(heads):
        model = ParallelHeads(lambda shown: shown, 1, heads, range(len(heads)), torch.nn.functional.cross_entropy)
        output = model.training_step((maps, labels), torch.Generator())
        output.loss.backward()
        model.before_update(0.0)
        return model, output

    lost, sound = build_head(6, 3, 0), build_head(6, 3, 1)
    lost.linear.weight.data[0, 0] = float("inf")
    model, output = step([lost, sound])
    alone, expected = step([build_head(6, 3, 1)])
    assert model.diverged.tolist() == [True, False]
    assert output.loss == expected.loss
    assert all(not parameter.grad.any() for parameter in lost.parameters())
    for one, other in zip(sound.parameters(), alone.heads[0].parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
    assert choose_head([9.0, 3.0, 5.0, float("nan")], [True, False, False, False]) == 2


def test_one_rate_trains_on_all_images(dataset, tmp_path):
    result = run(linear(), dataset, tmp_path)
    assert "held_out_mIoU" not in result.details
    assert result.cost.images_seen == 2 * 16


@pytest.mark.parametrize("size", [None, 16])
def test_scores_are_those_of_scikit_learn_at_the_stated_mask_size(size, dataset, tmp_path):
    task, encoder = linear(mask_size=size), vit(4)
    _, test = train_and_test(dataset)
    maps = FrozenMaps(encoder, task.config, context(tmp_path).input, torch.device("cpu"))
    heads = torch.nn.ModuleList([build_head(16, 3, 0).eval()])
    heads[0].linear.weight.data *= 100
    truths, answers = [], []
    images = task.evaluation_images(test, encoder)
    samples = [images.sample(index) for index in range(len(test))]
    results = task._answers(maps, samples, heads)[0]
    for sample, answer in zip(samples, results, strict=True):
        labels = test.labels(sample.index).numpy()
        if size:
            picture = Image.fromarray(labels).resize((size, size), Image.Resampling.NEAREST)
            labels = np.array(picture)
        assert answer.shape == labels.shape
        truths.append(labels[labels != 255])
        answers.append(answer.numpy()[labels != 255])
    truth, answer = np.concatenate(truths), np.concatenate(answers)
    expected = 100 * jaccard_score(truth, answer, average="macro")
    confusion, _ = task.compare(samples, results, 3, 0)
    assert confusion.scores().mean_iou == pytest.approx(expected)
    assert confusion.counts.sum() == len(truth)


def test_every_resolution_is_part_of_the_protocol(dataset):
    plain = linear().protocol()
    for options in (
        {"image_size": 64},
        {"mask_size": 16},
        {"mask_size": None},
        {"keep_aspect": True, "crop_size": (32, 32)},
        {"crop_size": (16, 16)},
        {"crop_size": (16, 16), "slide": 8},
        {"layers": (0, -1)},
        {"lr_factors": (1.0, 2.0)},
    ):
        assert linear(**options).protocol() != plain, options
    assert linear(batch=3, workers=2, pictures=1).protocol() == plain


def test_windows_cover_every_pixel_as_mmsegmentation_places_them():
    results = list(windows((10, 7), (4, 4), 3))
    assert [rows.start for rows, _ in results[::2]] == [0, 3, 6]
    assert [columns.start for _, columns in results[:2]] == [0, 3]
    assert list(windows((3, 4), (4, 4), 3)) == [(slice(0, 4), slice(0, 4))]


def test_sliding_averages_where_windows_overlap():
    images = torch.arange(8.0).reshape(1, 1, 1, 8)
    (scores,) = slide(lambda part: [part * 0 + part[..., :1]], images, (1, 4), 2)
    assert scores.flatten().tolist() == [0, 0, 1, 1, 3, 3, 4, 4]


def test_upsampling_leaves_out_what_was_padded():
    scores = torch.arange(3.0).reshape(1, 1, 1, 3).expand(1, 1, 3, 3)
    whole = torch.nn.functional.interpolate(scores, (12, 12), mode="bilinear", align_corners=False)
    torch.testing.assert_close(upsample(scores, (10, 9), 4), whole[..., :10, :9])


def test_a_layer_of_a_pyramid_and_a_class_token_join_the_features(dataset, tmp_path):
    result = run(linear(layers=(0, 2), class_token=True), dataset, tmp_path / "vit")
    assert result.details["feature_dim"] == 2 * 2 * 16
    result = run(linear(layers=(0, -1), image_size=40, mask_size=40), dataset, tmp_path / "swin", swin())
    assert result.details["feature_dim"] == 8 + 32


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": (7,)}, r"task\.layers: layer 7 is outside this encoder's 3 layers"),
        ({"crop_size": (30, 32)}, r"task\.crop_size \[30, 32\] px is not whole patches; choose multiples of 4 px"),
        ({"augmentation": {"scale_jitter": (0.5, 2.0)}}, r"several sizes, and a batch has one: set task\.crop_size"),
        ({"lr_factors": (1.0, 2.0), "train": {"clip_grad": 1.0}}, r"task\.train\.clip_grad limits .* all heads"),
        ({"lr_factors": (1.0, 1.0)}, r"task\.lr_factors \[1\.0, 1\.0\] names one factor twice"),
        ({"train": {"batch_size": 99}}, r"task\.train\.batch_size 99 is more than the 16 training images"),
        ({"train": {"layer_decay": 0.5}}, r"the encoder is frozen"),
    ],
)
def test_what_cannot_run_is_refused(options, words, dataset):
    with pytest.raises(InputError, match=words) as caught:
        linear(**options).check(vit(4), dataset)
    assert "\n" not in str(caught.value)


def test_an_image_that_went_bad_is_named(dataset, tmp_path):
    data = folder(write_folder(tmp_path / "a"), tmp_path / "cache")
    (tmp_path / "a" / "images" / "training" / "p 1.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"cannot read the image .*p 1\.png"):
        run(linear(), data, tmp_path / "run")
