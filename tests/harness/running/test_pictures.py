"""The picture of what a method reconstructs, the weights it is drawn with, and tasks that need the whole method."""

from __future__ import annotations

import io
import json
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from mimbench.contract import Method, NotSupported
from mimbench.data.pipeline.subsets import subset
from mimbench.drawing import image_grid, shade_masked
from mimbench.errors import UNFINISHED, InputError, LeaseLost
from mimbench.harness.planning.build import build_method
from mimbench.harness.planning.cells import Request
from mimbench.harness.planning.plan import plan
from mimbench.harness.planning.weights import non_encoder_state, restore, restore_encoder
from mimbench.harness.running.pictures import draw_moving, draw_still, reconstruct_examples
from mimbench.recipe.document import parse_assignments
from mimbench.store.store import Store

CPU = torch.device("cpu")
PANEL, GAP, LEFT, TOP = 112, 4, 14, 14 + 24 + 22
"""Of the smoke recipe's pictures: 28 px images, four times enlarged, under a title and a row of headings."""


def planned(cache, method: str, *settings: str, task: str = "linear-probe", recipe: str = "smoke", checkpoint=None):
    request = Request([method], [task], recipe, settings=parse_assignments(settings), checkpoint=checkpoint)
    (cell,) = plan(request, CPU, cache)
    return cell.pretraining


def built(pretraining, seed: int = 0) -> Method:
    return build_method(pretraining.recipe, seed, pretraining.channels).eval()


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture)


def picture_of(method: Method, pretraining) -> bytes:
    return draw_still(reconstruct_examples(method, pretraining))


def panel(png: bytes, row: int, column: int) -> np.ndarray:
    left, top = LEFT + column * (PANEL + GAP), TOP + row * (PANEL + GAP)
    return pixels(png)[top : top + PANEL, left : left + PANEL]


@pytest.mark.parametrize("method", ["simmim", "simmim-pixel", "mae", "beit", "autoencoder"])
def test_columns_are_the_image_what_is_seen_of_it_and_what_becomes_of_that(cache, method):
    pretraining = planned(cache, method)
    png = picture_of(built(pretraining), pretraining)
    assert pixels(png).shape[1] == 2 * LEFT + 3 * PANEL + 2 * GAP
    assert pixels(png).shape[0] >= TOP + 8 * (PANEL + GAP)
    test = pretraining.dataset.split("test")
    chosen = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[:8]
    for row, index in enumerate(chosen.tolist()):
        original, masked, rebuilt = (panel(png, row, column) for column in range(3))
        crisp = test.images[index, 0].numpy().repeat(4, 0).repeat(4, 1)
        assert np.array_equal(original, np.repeat(crisp[..., None], 3, 2))
        hidden = (masked != original).any(-1)
        if method == "autoencoder":
            assert not hidden.any()
            continue
        assert 0.25 < hidden.mean() < 0.8
        assert np.array_equal(rebuilt[~hidden], original[~hidden])
    assert not np.array_equal(pixels(png)[:, LEFT + PANEL + GAP :], pixels(png)[:, : -(PANEL + GAP)])
    assert picture_of(built(pretraining), pretraining) == png


def test_a_moving_picture_shows_each_frame_of_clips(cache):
    few = "data.train_clips=64", "data.test_clips=8"
    pretraining = planned(cache, "videomae", *few, recipe="moving-digits-vit-tiny")
    examples = reconstruct_examples(built(pretraining), pretraining)
    moving = draw_moving(examples)
    assert len(moving) < 150_000
    side, clips = 96, 3
    with Image.open(io.BytesIO(moving)) as picture:
        assert (picture.format, picture.n_frames, picture.info["loop"]) == ("PNG", 8, 0)
        for time in range(8):
            picture.seek(time)
            panels = np.asarray(picture.convert("RGB"))[-LEFT - clips * (side + GAP) : -LEFT]
            for clip in range(clips):
                image, hidden = examples.images[clip, 0, time], examples.masked[clip, time]
                rows = panels[clip * (side + GAP) :][:side:3]
                original, masked, rebuilt = (rows[:, LEFT + column * (side + 5) :][:, :side:3] for column in range(3))
                as_bytes = (image * 255).round().byte().numpy()
                assert np.array_equal(original[..., 0], as_bytes)
                assert np.array_equal((masked != original).any(-1), hidden.numpy())
                assert np.array_equal(rebuilt[~hidden.numpy()], original[~hidden.numpy()])
                assert not np.array_equal(rebuilt[hidden.numpy()], original[hidden.numpy()])


def test_what_a_reconstruction_owes_to_the_truth_is_written_below(cache):
    plain, normalised = (planned(cache, "mae", f"method.norm_pixels={value}") for value in ("false", "true"))
    assert built(plain).reconstruction_note == ""
    assert "true" in built(normalised).reconstruction_note
    heights = [pixels(picture_of(built(pretraining), pretraining)).shape[0] for pretraining in (plain, normalised)]
    assert heights[1] > heights[0]
    assert "kmeans" in built(planned(cache, "beit")).reconstruction_note


@pytest.mark.parametrize(("channels", "side"), [(1, 10), (3, 28), (3, 300), (2, 28), (4, 28), (7, 10)])
def test_panels_are_enlarged_by_whole_numbers_or_reduced(channels, side):
    images = torch.rand(2, channels, side, side, generator=torch.Generator().manual_seed(0))
    sheet = pixels(image_grid([[images[0], None, images[1]]], columns=[]))
    enlarged = {10: 100, 28: 112, 300: 256}[side]
    assert sheet.shape == (2 * 14 + enlarged + 4, 2 * 14 + 3 * enlarged + 2 * 4, 3)
    shown = sheet[14 : 14 + enlarged, 14 : 14 + enlarged]
    if side < 300:
        seen = images[0, :3] if channels >= 3 else images[0, :1].expand(3, -1, -1)
        exact = (seen * 255).round().byte().permute(1, 2, 0).numpy()
        assert np.array_equal(shown, exact.repeat(enlarged // side, 0).repeat(enlarged // side, 1))
    assert (sheet[:, 14 + enlarged + 4 : 14 + 2 * enlarged] == 255).all()


def test_a_long_footnote_stays_within_the_picture():
    image = torch.zeros(1, 28, 28)
    short, long = (pixels(image_grid([[image]], columns=["x"], footnote="word " * n)) for n in (1, 60))
    assert short.shape[1] == long.shape[1]
    assert long.shape[0] > short.shape[0] + 100
    assert (long[:, -10:] == 255).all()


def test_what_is_hidden_is_shaded_in_a_colour():
    hidden = torch.zeros(4, 4, dtype=torch.bool)
    hidden[0] = True
    shaded = shade_masked(torch.full((1, 4, 4), 0.2), hidden)
    assert (shaded[:, 1:] == 0.2).all()
    assert len(shaded[:, 0, 0].unique()) == 3
    assert torch.equal(shade_masked(torch.full((5, 4, 4), 0.2), hidden), shaded)


def test_a_subset_keeps_order_labels_and_kind(cache):
    test = planned(cache, "simmim").dataset.split("test")
    few = subset(test, [5, 2])
    assert torch.equal(few[0][0], test[5][0])
    assert [few[index][1] for index in range(2)] == test.labels[[5, 2]].tolist() == few.labels.tolist()

    class NotInMemory(type(test).__base__):
        labels, classes = test.labels, test.classes

        def __len__(self):
            return len(test)

        def __getitem__(self, index):
            return test[index]

    other = subset(NotInMemory(), [5, 2])
    assert len(other) == 2
    assert torch.equal(other[1][0], test[2][0])
    assert other.labels.tolist() == few.labels.tolist()


def stored(store: Store, pretraining, method: Method, *, drop: str = "", **what):
    rest = {key: value for key, value in non_encoder_state(method).items() if not (drop and key.startswith(drop))}
    card = {"what": {**pretraining.identity, **what}, "recipe": pretraining.recipe.as_tables(), "seed": 0}
    return store.save_checkpoint(f"{pretraining.recipe.method}{drop}", method.encoder.state_dict(), rest, card)


@pytest.mark.parametrize("method", ["simmim", "mae", "beit", "data2vec"])
def test_the_whole_method_comes_back_bit_for_bit(cache, tmp_path, method):
    pretraining = planned(cache, method)
    trained, fresh = built(pretraining, seed=0), built(pretraining, seed=1).train()
    restored = restore(fresh, stored(Store(tmp_path), pretraining, trained))
    assert restored is fresh
    assert not restored.training
    state = trained.state_dict()
    assert state.keys() == restored.state_dict().keys()
    assert all(torch.equal(value, state[key]) for key, value in restored.state_dict().items())


def test_weights_that_are_not_there_are_named(cache, tmp_path):
    pretraining, store = planned(cache, "simmim"), Store(tmp_path)
    headless = stored(
        store, pretraining, built(pretraining), drop="decoder", imported={"sha256": "0", "layout": "official"}
    )
    with pytest.raises(InputError, match=r"imported without 2 tensors of method 'simmim', such as 'decoder\.0"):
        restore(built(pretraining), headless)
    encoder, same = restore_encoder(built(pretraining, seed=1), headless), built(pretraining).encoder
    assert [p.requires_grad for p in encoder.parameters()] == [p.requires_grad for p in same.parameters()]
    assert all(torch.equal(value, same.state_dict()[key]) for key, value in encoder.state_dict().items())
    damaged = stored(store, pretraining, built(pretraining), drop="mask_token")
    with pytest.raises(InputError, match="does not fit method 'simmim'"):
        restore(built(pretraining), damaged)


def test_an_imported_encoder_without_a_method_is_refused_while_planning(cache, tmp_path):
    pretraining, store = planned(cache, "simmim"), Store(tmp_path)
    imported = {"imported": {"sha256": "0", "layout": "official"}}
    whole = stored(store, pretraining, built(pretraining), **imported)
    planned(cache, "simmim", task="reconstruction", checkpoint=whole)
    headless = stored(store, pretraining, built(pretraining), drop="decoder", **imported)
    planned(cache, "simmim", checkpoint=headless)
    with pytest.raises(InputError, match="imported without"):
        planned(cache, "simmim", task="reconstruction", checkpoint=headless)


@pytest.mark.parametrize("method", ["random-init", "maskfeat", "data2vec", "supervised"])
def test_methods_that_cannot_reconstruct_are_refused_while_planning(cache, method):
    with pytest.raises(InputError, match=f"'reconstruction' needs a method that reconstructs images.*'{method}'"):
        planned(cache, method, task="reconstruction")
    pretraining = planned(cache, method)
    with pytest.raises(NotSupported):
        built(pretraining).reconstruct(torch.zeros(1, 1, 28, 28), torch.ones(1, 7, 7, dtype=torch.bool))


def test_a_part_that_cannot_decode_is_found_while_planning(cache, monkeypatch):
    def decode(self, tokens):
        raise NotSupported("this tokenizer cannot turn words back into pixels")

    planned(cache, "beit", task="reconstruction")
    monkeypatch.setattr("mimbench_methods.tokenizers.kmeans.KMeansTokenizer.decode", decode)
    with pytest.raises(InputError, match="cannot turn words back into pixels"):
        planned(cache, "beit", task="reconstruction")


@pytest.fixture
def mimbench_run(quick):
    """`mimbench run` with the smallest pretraining, in this process."""

    def run(method: str, task: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        small = ("data.train_limit=64", "data.test_limit=20", *arguments)
        options = [option for setting in small for option in ("--set", setting)]
        return quick("run", "--method", method, "--task", task, "--recipe", "smoke", *options)

    return run


def records(tmp_path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(tmp_path.glob("runs/records/*.json"))]


def test_every_pretraining_leaves_one_picture(mimbench_run, tmp_path):
    done = mimbench_run("simmim,random-init", "linear-probe")
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("runs/artifacts/*/reconstruction.png")
    assert path.parent.name.startswith("simmim-s0-")
    control, simmim = records(tmp_path)
    assert set(control["artifacts"]) == {"samples", "scores"}
    assert set(simmim["artifacts"]) == {"reconstruction", "samples", "scores"}
    assert simmim["artifacts"]["reconstruction"] == str(path.relative_to(tmp_path / "runs"))
    assert f"reconstruction: runs/{simmim['artifacts']['reconstruction']}" in done.stderr
    drawn = path.read_bytes()
    assert len(np.unique(pixels(drawn))) > 10

    path.unlink()
    done = mimbench_run("simmim", "linear-probe", "task.layer=0")
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == drawn


def test_a_run_whose_lease_was_taken_ends_at_its_picture(mimbench_run, monkeypatch):
    def lose(*_):
        raise LeaseLost("process 7 has taken over")

    monkeypatch.setattr("mimbench.store.store.Store.save_artifact", lose)
    done = mimbench_run("simmim", "linear-probe")
    assert done.returncode == UNFINISHED, done.stderr
    assert "process 7 has taken over" in done.stderr
    assert "running linear-probe" not in done.stderr


def test_a_picture_that_cannot_be_drawn_loses_nothing_else(mimbench_run, tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError("no room")

    monkeypatch.setattr("mimbench.harness.running.pictures.reconstruct_examples", fail)
    done = mimbench_run("simmim", "linear-probe")
    assert done.returncode == 0, done.stderr
    assert "no reconstruction picture of simmim seed 0: no room" in done.stderr
    (record,) = records(tmp_path)
    assert set(record["artifacts"]) == {"samples", "scores"}
    assert list(tmp_path.glob("runs/checkpoints/*/method.safetensors"))


def test_reconstruction_runs_from_end_to_end(mimbench_run, tmp_path):
    done = mimbench_run("beit", "reconstruction", "task.generated=8", "task.ratios=[0.3,0.6]")
    assert done.returncode == 0, done.stderr
    (record,) = records(tmp_path)
    assert set(record["metrics"]) == {"psnr", "ssim", "hidden_mae", "hidden_mse", "frechet"}
    assert next(iter(record["metrics"])) == "psnr"
    assert record["metrics"]["frechet"]["n"] == 8
    assert set(record["artifacts"]) == {"reconstruction", "rebuilt", "generated"}
    assert all((tmp_path / "runs" / path).is_file() for path in record["artifacts"].values())
    assert 5 < record["chance"] < 20

    refused = mimbench_run("random-init", "reconstruction")
    assert refused.returncode == 2
    assert refused.stderr.strip() == (
        "mimbench: task 'reconstruction' needs a method that reconstructs images: "
        "method 'random-init' does not predict pixels"
    )
