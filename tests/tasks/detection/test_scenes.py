"""Scenes as the detectors get them: classes, order, seeds, augmentation, bad files."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.tiny_detection import CLASSES, small_config, write_scenes
from mimbench.contract import InputError, SceneSplit
from mimbench.data.sources.boxes import BoxCount
from mimbench_tasks.detection import scenes as module
from mimbench_tasks.detection.pipeline import test_pipeline as pipeline_of_tests
from mimbench_tasks.detection.pipeline import training_pipeline
from mimbench_tasks.detection.scenes import Draws, Scenes


@pytest.fixture
def split(tmp_path):
    return write_scenes(tmp_path, 5)


def open_scenes(split, training=True, **options) -> Scenes:
    config = small_config(**options)
    pipeline = training_pipeline(config, 1) if training else pipeline_of_tests(config, 1)
    return Scenes(split, pipeline, training=training, keep_empty=config.keep_empty, least_side=config.least_side)


def boxes_of(sample):
    return sample["data_samples"].gt_instances.bboxes.tensor


def test_labels_follow_the_annotation_file_whatever_the_order_of_classes(split):
    turned = SceneSplit(split.annotations, split.images, CLASSES[::-1], len(split))
    scenes = open_scenes(turned)
    assert scenes.classes == CLASSES
    assert scenes.category_ids == [10, 20]
    record = json.loads(split.annotations.read_text())["annotations"][0]
    assert scenes[0, 0]["data_samples"].gt_instances.labels[0] == record["category_id"] // 10 - 1


def test_pixels_and_boxes_are_those_on_disk(split):
    sample = open_scenes(split)[0, 0]
    assert sample["inputs"].dtype == torch.uint8
    assert sample["inputs"].shape == (1, 64, 64)
    for x1, y1, x2, y2 in boxes_of(sample).int().tolist():
        assert sample["inputs"][0, (y1 + y2) // 2, (x1 + x2) // 2] == 220


def test_draws_differ_by_epoch_and_follow_the_seed():
    def epoch(number, seed=0):
        draws = Draws(6, seed)
        draws.set_epoch(number)
        return list(draws)

    assert epoch(0) == epoch(0) != epoch(1)
    assert epoch(0) != epoch(0, seed=1)
    assert sorted(index for index, _ in epoch(3)) == list(range(6))


def test_processes_share_the_draws_of_training(monkeypatch):
    def share(rank, seed=0):
        monkeypatch.setattr(module, "get_rank", lambda: rank)
        monkeypatch.setattr(module, "get_world_size", lambda: 2)
        return [index for index, _ in Draws(5, seed)]

    assert len(share(0)) == len(share(1)) == 3
    assert set(share(0)) | set(share(1)) == set(range(5))


def test_processes_share_the_test_scenes_in_batches_that_do_not_depend_on_them(split, monkeypatch):
    def batches(rank, world):
        monkeypatch.setattr("mimbench.engine.ranks.get_rank", lambda: rank)
        monkeypatch.setattr("mimbench.engine.ranks.get_world_size", lambda: world)
        loader = open_scenes(split, training=False).loader(2, seed=None, workers=0, pin_memory=False)
        return [[sample.img_id for sample in batch["data_samples"]] for batch in loader]

    assert batches(0, 1) == [[1, 2], [3, 4], [5]]
    assert batches(0, 2) == [[1, 2], [5]]
    assert batches(1, 2) == [[3, 4]]


def test_flip_is_drawn_from_the_seed_without_the_global_generators(split):
    scenes = open_scenes(split, flip=0.5)
    plain = open_scenes(split)[0, 0]["inputs"]
    numpy_state, python_state = np.random.get_state()[1].tolist(), random.getstate()
    drawn = [scenes[0, seed]["inputs"] for seed in range(12)]
    flipped = [torch.equal(image, plain.flip(-1)) for image in drawn]
    assert 0 < sum(flipped) < 12
    assert all(torch.equal(image, plain) for image, turned in zip(drawn, flipped, strict=True) if not turned)
    assert torch.equal(scenes[0, 3]["inputs"], drawn[3])
    assert np.random.get_state()[1].tolist() == numpy_state
    assert random.getstate() == python_state


def test_a_flip_moves_boxes_with_their_pixels_and_never_twice(split):
    scenes = open_scenes(split, flip=1.0)
    plain = boxes_of(open_scenes(split)[0, 0])
    for _ in range(2):
        boxes = boxes_of(scenes[0, 0])
        torch.testing.assert_close(boxes[:, 0], 64 - plain[:, 2])


def test_scale_jitter_keeps_boxes_on_their_objects(split):
    scenes = open_scenes(split, detector="mask-rcnn", image_size=64, scale_jitter=(0.5, 2.0))
    shapes = set()
    for seed in range(8):
        sample = scenes[0, seed]
        shapes.add(tuple(sample["inputs"].shape[1:]))
        masks = sample["data_samples"].gt_instances.masks
        for box, mask in zip(boxes_of(sample).int().tolist(), masks.masks, strict=True):
            if (box[2] - box[0]) > 4 and (box[3] - box[1]) > 4:
                assert mask[box[1] : box[3], box[0] : box[2]].mean() > 0.8
    assert len(shapes) > 1
    assert max(max(shape) for shape in shapes) <= 64


def test_scale_jitter_without_a_size_is_refused():
    with pytest.raises(ValueError, match="image_size"):
        small_config(scale_jitter=(0.5, 2.0))


def test_test_scenes_are_resized_and_know_their_factor(split):
    sample = open_scenes(split, training=False, image_size=32)[0, 0]
    assert sample["inputs"].shape == (1, 32, 32)
    assert sample["data_samples"].scale_factor == (0.5, 0.5)


def test_large_sets_are_read_from_disk_each_time(split, monkeypatch):
    in_memory = open_scenes(split)
    monkeypatch.setattr(module, "CACHE_LIMIT", 100)
    streamed = open_scenes(split)
    assert in_memory.in_memory
    assert not streamed.in_memory
    assert torch.equal(streamed[1, 0]["inputs"], in_memory[1, 0]["inputs"])
    batch = next(iter(streamed.loader(2, seed=0, workers=1, pin_memory=False)))
    assert len(batch["inputs"]) == 2


def test_training_skips_scenes_without_objects_and_testing_keeps_them(split):
    document = json.loads(split.annotations.read_text())
    document["annotations"] = [record for record in document["annotations"] if record["image_id"] != 2]
    split.annotations.write_text(json.dumps(document))
    assert len(open_scenes(split)) == 4
    assert len(open_scenes(split, training=False)) == 5


def test_crowds_are_no_objects_to_learn_and_a_file_may_say_nothing_of_them(split):
    document = json.loads(split.annotations.read_text())
    for record in document["annotations"]:
        record.pop("iscrowd", None)
    crowd = next(record for record in document["annotations"] if record["image_id"] == document["images"][0]["id"])
    crowd["iscrowd"] = 1
    split.annotations.write_text(json.dumps(document))
    scenes = open_scenes(split)
    sample = scenes[0, 0]["data_samples"]
    assert (len(sample.gt_instances), len(sample.ignored_instances)) == (1, 1)
    assert {record["iscrowd"] for record in scenes.annotations.dataset["annotations"]} == {0, 1}


def test_bad_annotations_are_named(split):
    absent = SceneSplit(split.annotations, split.images, ("disc", "ball"), 1)
    with pytest.raises(InputError, match=r"annotations\.json has no category 'ball'; it has: box, disc"):
        open_scenes(absent)
    split.annotations.write_text('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "disc"}]}')
    with pytest.raises(InputError, match="no object in any scene"):
        open_scenes(SceneSplit(split.annotations, split.images, ("disc",), 1))
    split.annotations.write_text("{")
    with pytest.raises(InputError, match=r"cannot read .*annotations\.json as COCO"):
        open_scenes(split)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_boxes_are_on_their_objects_if_exif_rotates_images(tmp_path, orientation):
    """As stored if width and height say so, else as EXIF turns them."""
    split = write_scenes(tmp_path, 3, size=(48, 64))
    expected = open_scenes(split)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for path in split.images.iterdir():
        Image.open(path).save(path, exif=exif)
    assert torch.equal(open_scenes(split)[0, 0]["inputs"], expected[0, 0]["inputs"])
    turning = {1: None, 3: None, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[orientation]
    if turning is not None:
        for path in split.images.iterdir():
            Image.open(path).transpose(turning).save(path, exif=exif)
        assert torch.equal(open_scenes(split)[0, 0]["inputs"], expected[0, 0]["inputs"])


def test_an_image_of_another_size_is_refused(split):
    Image.new("L", (32, 32)).save(split.images / "scene 2.png")
    with pytest.raises(InputError, match=r"scene 2\.png is 32 x 32 px, and its annotations are for 64 x 64 px"):
        open_scenes(split)


@pytest.mark.parametrize(
    "box", [[2, 3, 10, 9], [0, 0, 0, 5], [1, 1, 0.9, 5], [64, 3, 5, 5], [-5, 3, 5, 5], [-5, 3, 6, 5]]
)
@pytest.mark.parametrize("area", [0, 0.5, 90])
def test_objects_that_mmdet_drops_are_counted(split, box, area):
    document = json.loads(split.annotations.read_text())
    document["annotations"] = document["annotations"][:1]
    document["annotations"][0].update(bbox=box, area=area)
    split.annotations.write_text(json.dumps(document))
    count = BoxCount()
    count.add(box, area, (64, 64), is_crowd=False)
    if not count.unused:
        assert len(open_scenes(split)[0, 0]["data_samples"].gt_instances) == 1
        return
    with pytest.raises(InputError, match=f"none of its 1 objects can be trained on: {count.reasons}"):
        open_scenes(split)


def test_a_broken_image_is_named(split):
    (split.images / "scene 2.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"cannot read the scene .*scene 2\.png"):
        open_scenes(split)


@pytest.mark.parametrize(
    ("size", "world", "accumulate"), [(s, w, a) for s in (12, 13, 21, 24, 25) for w in (1, 2) for a in (1, 2, 3)]
)
def test_an_epoch_has_as_many_steps_however_a_batch_is_divided(monkeypatch, size, world, accumulate):
    batch = 12
    share = batch // accumulate // world
    seen = []
    for rank in range(world):
        monkeypatch.setattr(f"{Draws.__module__}.get_rank", lambda rank=rank: rank)
        monkeypatch.setattr(f"{Draws.__module__}.get_world_size", lambda: world)
        draws = Draws(size, 0, multiple=share * accumulate if accumulate > 1 else 1)
        micro_batches = -(-len(draws) // share)
        assert micro_batches == -(-size // batch) * accumulate
        seen += [index for index, _ in draws]
    assert set(seen) == set(range(size))
    if accumulate > 1:
        assert len(seen) == -(-size // batch) * batch
