"""Planning: what makes a pretraining another one, what does not, and which cells a grid has."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from webdataset import ShardWriter

from mimbench import registry
from mimbench.contract import Config, DataChoice, InputConfig, Method, View
from mimbench.data.pipeline.subsets import training_indices
from mimbench.errors import InputError
from mimbench.harness.planning import cells as cells_module
from mimbench.harness.planning.build import build_method
from mimbench.harness.planning.cells import Request
from mimbench.harness.planning.plan import plan
from mimbench.masks import random_mask
from mimbench.recipe.document import parse_assignments, parse_variations

CPU = torch.device("cpu")
INPUT = InputConfig(image_size=28)
BASE = Request(methods=["simmim"], tasks=["linear-probe"], recipe="smoke")


@pytest.fixture
def cells(cache):
    def expand(request: Request = BASE, *settings: str, vary: tuple[str, ...] = ()):
        request = replace(request, settings=parse_assignments(settings), variations=parse_variations(vary))
        return plan(request, CPU, cache)

    return expand


def prints(cells) -> list[str]:
    return [cell.pretraining.fingerprint for cell in cells]


@pytest.mark.parametrize(
    "setting",
    [
        "method.mask_ratio=0.5",
        "encoder.depth=1",
        "pretrain.epochs=3",
        "pretrain.at_epoch=1",
        "pretrain.base_lr=5e-3",
        "pretrain.schedule.warmup_epochs=0",
        "pretrain.precision=bf16",
        "input.crop_scale=[0.5, 1]",
        "data.train_limit=150",
    ],
)
def test_what_changes_the_weights_pretrains_again(cells, setting):
    assert prints(cells(BASE, setting)) != prints(cells())


@pytest.mark.parametrize(
    "setting",
    [
        "pretrain.workers=3",
        "pretrain.at_epoch=2",
        "pretrain.checkpoint_every=7",
        "pretrain.track=tensorboard",
        "pretrain.monitor=rankme",
        "task.layer=0",
        "tasks.detection.detector=retinanet",
        "methods.mae.pretrain.epochs=9",
        "input.eval_resize=30",
        "pretrain.precision=fp32",
    ],
)
def test_what_does_not_shape_the_weights_reuses_them(cells, setting):
    assert prints(cells(BASE, setting)) == prints(cells())


def test_tasks_share_a_pretraining_and_seeds_do_not(cells):
    planned_cells = cells(replace(BASE, tasks=["linear-probe", "detection"], seeds=[0, 1]))
    assert len(planned_cells) == 4
    assert len(set(prints(planned_cells))) == 2


def test_a_control_depends_on_no_training_option(cells):
    control = replace(BASE, methods=["random-init"])
    assert prints(cells(control)) == prints(cells(control, "pretrain.epochs=9", "input.crop_scale=[0.5, 1]"))
    assert prints(cells(control)) != prints(cells(control, "encoder.depth=1"))


def test_what_is_varied_multiplies_only_what_it_means_something_for(cells):
    both = replace(BASE, methods=["simmim", "random-init"])
    planned_cells = cells(both, vary=("method.mask_ratio=0.3,0.6", "task.pooling=mean,token"))
    assert [(c.pretraining.recipe.method, dict(c.varied)) for c in planned_cells] == [
        ("simmim", {"method.mask_ratio": 0.3, "task.pooling": "mean"}),
        ("simmim", {"method.mask_ratio": 0.3, "task.pooling": "token"}),
        ("simmim", {"method.mask_ratio": 0.6, "task.pooling": "mean"}),
        ("simmim", {"method.mask_ratio": 0.6, "task.pooling": "token"}),
        ("random-init", {"task.pooling": "mean"}),
        ("random-init", {"task.pooling": "token"}),
    ]
    assert len({cell.record_id for cell in planned_cells}) == 6


def test_the_protocol_holds_the_task_its_data_and_how_images_are_shown(cells):
    (cell,) = cells(BASE, "task.layer=0")
    assert cell.protocol["layer"] == 0
    assert cell.protocol["dataset"] == {"name": "mnist5k", "content": cell.dataset.fingerprint()}
    assert "crop_scale" not in cell.protocol["input"]
    (other,) = cells(BASE, "task.layer=0", "input.crop_scale=[0.5, 1]")
    assert other.protocol == cell.protocol
    assert other.record_id != cell.record_id


def test_a_task_takes_its_own_dataset(cells):
    (detection,) = cells(replace(BASE, tasks=["detection"]))
    assert detection.dataset_name == "digit-scenes"
    (probe,) = cells(BASE, "task.dataset=digits", "input.image_size=28")
    assert probe.dataset_name == "digits"
    with pytest.raises(InputError, match="task 'linear-probe' needs images, labels, but dataset 'digit-scenes'"):
        cells(BASE, "task.dataset=digit-scenes")
    with pytest.raises(InputError, match="dataset 'digit-scenes' has no plain images to pretrain on"):
        cells(BASE, "data.name=digit-scenes")


def written(path, pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_a_recipe_s_options_of_scenes_are_not_for_coco(cells, tmp_path):
    objects = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 4, 16, 16], "area": 256, "iscrowd": 0}]
    images = [{"id": 1, "file_name": "a.png", "height": 32, "width": 32}]
    (tmp_path / "annotations").mkdir()
    for part in ("train", "val"):
        written(tmp_path / part / "a.png", np.zeros((32, 32), np.uint8))
        scenes = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "thing"}]}
        (tmp_path / "annotations" / f"instances_{part}.json").write_text(json.dumps(scenes))
    settings = ("task.dataset=coco", f"task.data.root={tmp_path}", "task.train.batch_size=1")
    detection = replace(BASE, tasks=["detection"])
    (cell,) = cells(detection, *settings)
    assert (cell.dataset_name, cell.dataset.split("train").classes) == ("coco", ("thing",))
    (scenes,) = cells(detection)
    assert (scenes.dataset.config.train_scenes, scenes.dataset.config.test_scenes) == (24, 8)
    (fewer,) = cells(detection, "task.data.test_scenes=4")
    assert (fewer.dataset.config.train_scenes, fewer.dataset.config.test_scenes) == (24, 4)
    with pytest.raises(InputError, match=r"unknown key 'task\.data\.train_scenes'"):
        cells(detection, *settings, "task.data.train_scenes=3")


def test_a_recipe_s_options_of_scenes_are_not_for_ade20k(cells, tmp_path):
    labels = (np.arange(1024).reshape(32, 32) % 4).astype(np.uint8)
    for part in ("training", "validation"):
        for index in range(2):
            written(tmp_path / "images" / part / f"{index}.png", np.zeros((32, 32, 3), np.uint8))
            written(tmp_path / "annotations" / part / f"{index}.png", labels)
    settings = ("task.dataset=ade20k", f"task.data.root={tmp_path}", "task.data.classes=3")
    suited = ("task.train.batch_size=2", "task.background_weight=1")
    (cell,) = cells(replace(BASE, tasks=["segmentation"]), *settings, *suited)
    assert (cell.dataset_name, len(cell.dataset.split("train"))) == ("ade20k", 2)


def test_the_dataset_of_the_pretraining_keeps_its_options_in_a_task(cells):
    (cell,) = cells(BASE, "data.train_limit=150", "task.data.test_limit=50")
    assert [len(cell.dataset.split(name)) for name in ("train", "test")] == [150, 50]
    assert len(cell.pretraining.dataset.split("test")) == 100


def test_seeds_give_weights(cells):
    (cell,) = cells()
    recipe = cell.pretraining.recipe
    weights = [build_method(recipe, seed, 1).encoder.body.patch_embed.proj.weight for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_schedule_that_contradicts_its_epochs_is_refused_before_anything_runs(cells):
    with pytest.raises(InputError, match="milestone"):
        cells(BASE, "pretrain.schedule.kind=multistep", "pretrain.schedule.milestones=[700]")


def test_an_unknown_setting_is_refused_only_where_no_chosen_plugin_knows_it(cells):
    both = replace(BASE, methods=["simmim", "random-init"])
    assert cells(both, "method.mask_ratio=0.5")
    with pytest.raises(InputError, match=r"unknown key 'method\.mask_ratio' for method random-init; it has no options"):
        cells(replace(BASE, methods=["random-init"]), "method.mask_ratio=0.5")


def test_a_drop_path_that_reaches_no_block_is_refused(cells):
    with pytest.raises(InputError, match=r"drop_path 0\.1 reaches no block"):
        cells(BASE, "encoder.depth=1", "encoder.drop_path=0.1")
    assert cells(BASE, "encoder.depth=2", "encoder.drop_path=0.1")


def test_a_method_that_learns_from_labels_is_refused_where_there_are_none(cells, tmp_path):
    for number in range(30):
        Image.new("L", (28, 28), number).save(tmp_path / f"{number}.png")
    unlabelled = (f"data.root={tmp_path}", "data.name=folder", "pretrain.batch_size=8")
    with pytest.raises(InputError, match="'supervised' needs labels, but dataset 'folder' has none"):
        cells(replace(BASE, methods=["supervised"], tasks=["detection"]), *unlabelled)
    assert cells(replace(BASE, tasks=["detection"]), *unlabelled)


def test_augmentation_is_only_in_protocols_of_tasks_that_use_it(cells):
    both = replace(BASE, methods=["random-init"], tasks=["linear-probe", "finetune"])
    plain, flipped = cells(both), cells(both, "input.flip=0.5")
    assert prints(plain) == prints(flipped)
    assert [a.record_id == b.record_id for a, b in zip(plain, flipped, strict=True)] == [True, False]


def test_the_number_of_processes_counts_for_what_depends_on_it(cells, monkeypatch):
    """Processes share the steps of a pretraining, except for what says that it depends on their number."""
    mixed = replace(BASE, methods=["mixmim"]), "encoder.name=swin"
    dropout = BASE, "encoder.attention_dropout=0.1"
    before = [cells(*what)[0].pretraining for what in (mixed, dropout)]
    request = replace(BASE, tasks=["knn", "finetune", "detection"])
    alone = cells(request)
    for room in ("engine.device", "harness.planning.plan", "harness.planning.pretraining"):
        monkeypatch.setattr(f"mimbench.{room}.get_world_size", lambda: 2)
    together = cells(request)
    assert together[0].pretraining.fingerprint == alone[0].pretraining.fingerprint
    for one, what in zip(before, (mixed, dropout), strict=True):
        after = cells(*what)[0].pretraining
        assert after.fingerprint != one.fingerprint
        assert after.identity["pretrain"]["processes"] == 2
    monkeypatch.setattr("mimbench.encoders.vit.ViT.depends_on_processes", lambda config: "")
    with pytest.raises(InputError, match="encoder 'vit' has dropout, which each process draws by itself: set its rate"):
        cells(*dropout)
    assert [cell.protocol.get("processes") for cell in together] == [None, None, 2]
    assert all("processes" not in str(cell.pretraining.identity) + str(cell.protocol) for cell in alone)
    with pytest.raises(InputError, match=r"pretrain\.batch_size 33 cannot be shared equally by 2 processes"):
        cells(BASE, "pretrain.batch_size=33")
    with pytest.raises(InputError, match=r"task\.train\.batch_size 33 cannot be shared equally by 2 processes"):
        cells(replace(BASE, tasks=["finetune"]), "task.train.batch_size=33")


class Twice(Method):
    """Holds its encoder in a second module too, as DINO is often written."""

    name, version = "twice", "1"

    def __init__(self, config, encoder):
        super().__init__(config, encoder)
        self.student = nn.Sequential(encoder, nn.Linear(encoder.out_dim, 4))

    def sample_mask(self, batch, generator):
        return random_mask(batch, self.encoder.grid, 0.5, generator)

    def target(self, images):
        raise AssertionError("must not train")

    predict = loss = target


def test_an_encoder_under_two_names_is_refused_before_training(cells, monkeypatch):
    monkeypatch.setitem(registry.methods.replacements, "random-init", Twice)
    with pytest.raises(
        InputError, match=r"holds one tensor under two names, 'encoder\..*' and 'student\.0\..*self\.encoder"
    ):
        cells(replace(BASE, methods=["random-init"]))


def test_a_file_that_an_option_names_counts_by_its_content(cells, tmp_path, monkeypatch):
    class Options(Config):
        teacher: Path

    control = registry.methods.load("random-init")
    monkeypatch.setitem(
        registry.methods.replacements, "distill", type("Distill", (control,), {"name": "distill", "Config": Options})
    )
    distill, teacher = replace(BASE, methods=["distill"]), tmp_path / "t.bin"
    teacher.write_bytes(b"one")
    first = prints(cells(distill, f"method.teacher={teacher}"))
    teacher.write_bytes(b"two")
    assert prints(cells(distill, f"method.teacher={teacher}")) != first
    teacher.rename(tmp_path / "other.bin").write_bytes(b"one")
    assert prints(cells(distill, f"method.teacher={tmp_path / 'other.bin'}")) == first
    with pytest.raises(InputError, match=r"method\.teacher: .*t\.bin cannot be read"):
        cells(distill, f"method.teacher={teacher}")


def views_of(monkeypatch, views):
    cls = type("Views", (registry.methods.load("autoencoder"),), {"name": "views", "views": classmethod(views)})
    monkeypatch.setitem(registry.methods.replacements, "views", cls)


def test_views_that_a_method_asks_for_make_another_pretraining(cells, monkeypatch):
    request = replace(BASE, methods=["views"])
    views_of(monkeypatch, lambda cls, config, input: (input,))
    (plain,) = cells(request)
    assert "views" not in plain.pretraining.identity
    prints_by_blur = set()
    for blur in (0.1, 0.5):
        views_of(monkeypatch, lambda cls, config, input, blur=blur: (input, View.from_input(input, blur=blur)))
        (cell,) = cells(request)
        assert [view.get("blur") for view in cell.pretraining.identity["views"]] == [None, blur]
        assert not any(name.startswith("eval_") for name in cell.pretraining.identity["views"][1])
        prints_by_blur.add(cell.pretraining.fingerprint)
    assert len({*prints_by_blur, plain.pretraining.fingerprint}) == 3


@pytest.mark.parametrize("views", [(), ("two",), (View.from_input(INPUT, mean=(0.1, 0.2)),)])
def test_impossible_views_are_refused_with_the_plugin(cells, monkeypatch, views):
    views_of(monkeypatch, lambda cls, config, input: views)
    with pytest.raises(InputError, match=r"method 'views' of .* views gives|input.mean has 2 values"):
        cells(replace(BASE, methods=["views"]))


@pytest.fixture
def weights(cells, tmp_path):
    """Writes the encoder of the smoke recipe, filled with a constant, and returns the file."""
    (cell,) = cells()
    encoder = build_method(cell.pretraining.recipe, 0, 1).encoder

    def write(name: str, value: float, **changes) -> str:
        state = {key: torch.full_like(tensor, value) for key, tensor in encoder.state_dict().items()}
        save_file({**state, **changes}, tmp_path / name)
        return f"pretrain.start={tmp_path / name}"

    return write


def test_the_content_of_the_starting_weights_shapes_the_pretraining(cells, weights):
    one, moved, other = weights("a.safetensors", 1.0), weights("b.safetensors", 1.0), weights("c.safetensors", 2.0)
    fingerprints = [prints(cells(BASE, *settings))[0] for settings in ((), (one,), (moved,), (other,))]
    assert fingerprints[1] == fingerprints[2]
    assert len(set(fingerprints)) == 3
    (cell,) = cells(BASE, other)
    started = build_method(cell.pretraining.recipe, 0, 1, to_train=True)
    assert all((tensor == 2).all() for tensor in started.encoder.state_dict().values())
    assert not (build_method(cell.pretraining.recipe, 0, 1).encoder.body.patch_embed.proj.weight == 2).any()


def test_a_teacher_starts_from_the_starting_weights_too(cells, weights):
    (cell,) = cells(replace(BASE, methods=["data2vec"]), weights("a.safetensors", 1.5))
    method = build_method(cell.pretraining.recipe, 0, 1, to_train=True)
    assert all((parameter == 1.5).all() for parameter in method.teacher.parameters())


def test_starting_weights_that_do_not_fit_are_refused_while_planning(cells, weights, tmp_path):
    (tmp_path / "text.safetensors").write_text("nothing")
    for setting, words in (
        (weights("more.safetensors", 1.0, extra=torch.zeros(1)), "does not fit the vit encoder"),
        (f"pretrain.start={tmp_path / 'text.safetensors'}", "is no readable safetensors file"),
        (f"pretrain.start={tmp_path / 'none.safetensors'}", r"^pretrain\.start: .*none\.safetensors cannot be read"),
    ):
        with pytest.raises(InputError, match=words):
            cells(BASE, setting)


def test_a_share_of_the_training_images_is_drawn_by_its_own_seed(cells):
    def planned(*settings):
        (cell,) = cells(BASE, *settings)
        return cell.pretraining

    whole, half, other = (
        planned(),
        planned("pretrain.data_share=0.5"),
        planned("pretrain.data_share=0.5", "pretrain.data_seed=1"),
    )
    assert len({one.fingerprint for one in (whole, half, other)}) == 3
    assert len(half.images()) == len(whole.images()) / 2
    assert half.images() is half.images()
    counts = torch.bincount(half.images().labels)
    assert counts.max() - counts.min() <= 1
    assert torch.equal(half.images().images, planned("pretrain.data_share=0.5").images().images)
    assert not torch.equal(half.images().images, other.images().images)
    with pytest.raises(InputError, match="data_seed needs a data_share below 1"):
        planned("pretrain.data_seed=1")


def test_planted_images_enter_the_fingerprint(cells):
    def planned(*settings):
        (cell,) = cells(BASE, *settings)
        return cell.pretraining

    plain = planned()
    once, four_times = (planned("pretrain.plant_count=3", *more) for more in ((), ("pretrain.plant_copies=4",)))
    assert len({one.fingerprint for one in (plain, once, four_times)}) == 3
    assert set(four_times.identity["data"]) - set(plain.identity["data"]) == {
        "plant_count",
        "plant_copies",
        "plant_seed",
    }
    assert len(four_times.images()) == len(plain.images()) + 9
    choice = DataChoice.from_identity(four_times.identity["data"])
    assert choice.content == four_times.dataset.fingerprint()
    indices = training_indices(plain.images().labels, choice)
    assert torch.equal(four_times.images().images, plain.images().images[indices])
    for setting in ("pretrain.plant_copies=4", "pretrain.plant_seed=1"):
        with pytest.raises(InputError, match="plant_copies and plant_seed need a plant_count above 0"):
            planned(setting)
    with pytest.raises(InputError, match=r"plant_count 100000 is more than the \d+ images"):
        planned("pretrain.plant_count=100000")


def test_a_share_is_part_of_the_data_that_stages_are_fitted_on(cells):
    whole, half = (
        cells(BASE, *settings)[0].pretraining.identity["data"] for settings in ((), ("pretrain.data_share=0.5",))
    )
    assert set(half) - set(whole) == {"share", "seed"}


def test_what_the_training_asks_of_the_encoder_is_checked_while_planning(cells, monkeypatch):
    views_of(monkeypatch, lambda cls, config, input: (input, View.from_input(input, image_size=16)))
    with pytest.raises(InputError, match=r"with views of 16 px, needs an encoder that can take images of other sizes"):
        cells(replace(BASE, methods=["views"]), "encoder.position=relative-per-block")


def test_a_view_that_is_not_possible_is_one_line(cells, monkeypatch):
    views_of(monkeypatch, lambda cls, config, input: (View.from_input(input, blur=3.0),))
    with pytest.raises(
        InputError, match=r"method 'views' of .*: a view is not possible: View.blur = 3.0: it must be less"
    ):
        cells(replace(BASE, methods=["views"]))


def test_a_control_that_trains_nothing_takes_no_starting_weights(cells, weights):
    with pytest.raises(InputError, match="method 'random-init' trains nothing and would leave the file out"):
        cells(replace(BASE, methods=["random-init"]), weights("a.safetensors", 1.0))


def test_a_folder_as_starting_weights_is_answered_with_its_file(cells, tmp_path):
    with pytest.raises(InputError, match=r"^pretrain\.start is the folder .*; write .*encoder\.safetensors"):
        cells(BASE, f"pretrain.start={tmp_path}")


def test_an_encoder_is_checked_once_per_shape(cells, monkeypatch):
    checked = []
    monkeypatch.setattr(
        "mimbench.harness.planning.pretraining.check_encoder",
        lambda encoder, name: checked.append((name, encoder.num_layers)),
    )
    cells(replace(BASE, methods=["simmim", "mae"]), vary=("encoder.depth=1,2",))
    assert sorted(checked) == [("vit", 1), ("vit", 2)]


def test_planning_copies_no_images_and_a_drawn_share_is_shared(cells, monkeypatch):
    draw, drawn = cells_module.training_images, []
    monkeypatch.setattr(cells_module, "training_images", lambda *arguments: drawn.append(1) or draw(*arguments))
    planned = cells(
        replace(BASE, tasks=["linear-probe", "knn"]), "pretrain.data_share=0.5", vary=("pretrain.base_lr=1e-3,2e-3",)
    )
    assert len(planned) == 4
    assert drawn == []
    first = planned[0].pretraining
    images = first.images()
    assert len(images) == first.image_count
    assert all(cell.pretraining.images() is images for cell in planned)
    assert len(drawn) == 1
    del images
    assert len(first.images()) == first.image_count
    assert len(drawn) == 2


def test_decoding_enters_the_fingerprint_of_the_training_alone(cells, tmp_path):
    for part in ("train", "val"):
        for index in range(64):
            path = tmp_path / part / "ab"[index % 2] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (28, 28), index).save(path)
    folder = ("data.name=folder", f"data.root={tmp_path}", "data.channels=1")
    plain, full, scaled = (
        cells(BASE, *folder, *more)[0] for more in ((), ("data.decode=full",), ("data.decode=scaled",))
    )
    assert plain.record_id == full.record_id
    assert "decode" not in plain.pretraining.identity["data"]
    assert scaled.pretraining.identity["data"] == plain.pretraining.identity["data"] | {"decode": "scaled"}
    assert scaled.pretraining.fingerprint != plain.pretraining.fingerprint
    assert scaled.protocol == plain.protocol
    with pytest.raises(
        InputError, match=r"data\.decode=device .* this run is on cpu: leave it out, or set data\.decode=scaled"
    ):
        cells(BASE, *folder, "data.decode=device")


def test_the_number_of_open_shards_enters_the_fingerprint_of_the_training_alone(cells, tmp_path):
    for part in ("train", "val"):
        with ShardWriter(str(tmp_path / f"{part}-%d.tar"), maxcount=32, verbose=0) as writer:
            for index in range(64):
                image = io.BytesIO()
                Image.new("L", (28, 28), index).save(image, "PNG")
                writer.write({"__key__": f"{index:03}", "png": image.getvalue(), "cls": str(index % 2)})
    shards = ("data.name=webdataset", f"data.root={tmp_path}", "data.channels=1")
    plain, default, one = (
        cells(BASE, *shards, *more)[0] for more in ((), ("data.open_shards=16",), ("data.open_shards=1",))
    )
    assert plain.record_id == default.record_id
    assert "open_shards" not in plain.pretraining.identity["data"]
    assert one.pretraining.identity["data"] == plain.pretraining.identity["data"] | {"open_shards": 1}
    assert one.pretraining.fingerprint != plain.pretraining.fingerprint
    assert one.protocol == plain.protocol
