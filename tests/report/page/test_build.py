"""The page as a file: what is in it, which files belong to it, and what it never overwrites."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageChops, ImageStat

from helpers.page_results import REFERENCE, write_epochs, write_paper, write_results
from mimbench.drawing import animate, image_grid
from mimbench.errors import InputError
from mimbench.files import file_sha256
from mimbench.report.page.ablations import describe_ablations
from mimbench.report.page.build import INDEX, write_page
from mimbench.report.page.leaderboard import build_leaderboard
from mimbench.report.page.page_data import collect_page_data, rerun_command
from mimbench.report.page.pictures import Pictures
from mimbench.report.page.shared_values import SharedValues
from mimbench.report.published.numbers import LAST_EPOCH
from mimbench.report.records.frame import load_records
from mimbench.report.scores.choice import Choice
from mimbench.report.scores.names import NAMES
from mimbench.report.tables.comparison import build_comparison
from mimbench.report.tables.render.numbers import cell_text
from mimbench.report.viewer.render import unpack
from mimbench.store.failure import failure_path, read_failure, write_failure
from mimbench.store.reading import read_all
from mimbench.store.sealing import write_sealed


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("grid")
    write_results(root, methods=("simmim", "random-init"), ratios=(0.3, 0.6), seeds=(0, 1))
    return root


@pytest.fixture(scope="module")
def data(results) -> dict:
    return collect_page_data(read_all(results), Pictures(), "grid")


def read_page(page: Path) -> dict:
    return unpack(page.read_text())


def test_the_page_holds_all_records_and_is_the_same_every_time(results, tmp_path):
    page = write_page(results, tmp_path / "a")
    assert page.read_bytes() == write_page(results, tmp_path / "b").read_bytes()
    content = read_page(page)
    assert {run["id"] for run in content["runs"]} == {body["id"] for _, body in read_all(results)}
    assert all(content["leaderboard"]["rows"][run["row"]]["method"] == run["method"] for run in content["runs"])
    assert [one["id"] for one in content["failures"]] == ["beit-finetune-s0-0123456789ab"]
    assert len(content["published"]["rows"]) > 1000


def test_the_leaderboard_is_the_comparison_table(results, data):
    tidy = load_records(results, earlier_epochs=True)
    table = build_comparison(
        tidy,
        Choice(row_fields=("method", "encoder"), column_fields=("task", "metric"), metrics=tuple(tidy.metric)),
        NAMES,
    )
    board = data["leaderboard"]
    for row, cells in zip(board["rows"], table.rows, strict=True):
        assert row["labels"] == [cell_text(cell) for cell in cells[: len(board["labels"])]]
        for cell, shown in zip(row["cells"], cells[len(board["labels"]) :], strict=True):
            assert (cell["mean"], cell["sd"], cell["n"]) == shown.content.numbers
            assert len(cell["runs"]) == cell["n"]
    assert [column["chance"] for column in board["columns"] if column["metric"] == "top1"] == [10.0]
    assert data["downloads"]["csv"].startswith("method,encoder,method.mask_ratio,")
    assert "\\toprule" in data["downloads"]["latex"]


def test_ablations_compare_only_the_varied_value(data):
    (ablation,) = data["ablations"]
    assert ablation["path"] == "method.mask_ratio"
    curves = [curve for panel in ablation["panels"] for curve in panel["curves"]]
    assert {curve["label"] for curve in curves} == {"SimMIM"}
    assert all([point["x"] for point in curve["points"]] == [0.3, 0.6] for curve in curves)


def test_the_label_of_a_curve_has_shared_settings_as_they_were_passed(record, framed):
    """A frame holds epochs as floats if a method has none. A setting of --set is in the label once, the axis not."""
    records = [
        record(
            "mine",
            50.0 + x,
            varied={"pretrain.epochs": epochs, "method.x": x},
            recipe={"pretrain": {"epochs": epochs}, "method": {"x": x, "y": [1, 2]}},
            recipe_passed={"set": {"method.x": x, "method.y": [1, 2]}},
        )
        for epochs in (2, 4)
        for x in (1, 3)
    ]
    tidy = framed([*records, record("random-init")])
    assert tidy["pretrain.epochs"].dtype == float
    ablations = describe_ablations(build_leaderboard(tidy), {one: index for index, one in enumerate(tidy["id"])}, {})
    labels = {one["path"]: [curve["label"] for curve in one["panels"][0]["curves"]] for one in ablations}
    assert labels == {
        "method.x": [f"mine, Epochs={epochs}, method.y=[1, 2]" for epochs in (2, 4)],
        "pretrain.epochs": [f"mine, method.x={x}, method.y=[1, 2]" for x in (1, 3)],
    }


def test_a_value_outside_of_its_range_is_in_no_chart(record, framed):
    records = [
        record("mine", 1e308 if x == 3 else 50.0, varied={"method.x": x}, recipe={"method": {"x": x}})
        for x in (1, 2, 3)
    ]
    tidy = framed(records)
    (ablations,) = describe_ablations(build_leaderboard(tidy), {one: index for index, one in enumerate(tidy["id"])}, {})
    assert [point["x"] for point in ablations["panels"][0]["curves"][0]["points"]] == [1, 2]


def test_a_published_curve_is_in_the_chart_of_its_protocol_or_in_a_separate_one(data, tmp_path):
    (panel,) = (
        one
        for one in data["ablations"][0]["panels"]
        if data["leaderboard"]["columns"][one["column"]]["primary"]
        and data["leaderboard"]["columns"][one["column"]]["task"] == "linear-probe"
    )
    assert panel["published"] == []
    (figure,) = (data["ablations"][0]["published_figures"][index] for index in panel["figures"])
    assert (figure["title"], figure["y"]) == (
        "Published: SimMIM, Swin-B, finetune on ImageNet-1K",
        "Top-1 accuracy (%)",
    )
    assert figure["note"] == "Published: SimMIM paper (arXiv 2111.09886v2), Table 1."
    of_32 = next(curve for curve in figure["curves"] if curve["label"] == "published: random, mask patch 32")
    assert {"x": 0.5, "y": 83.0} in of_32["points"]
    write_paper(tmp_path)
    (ablation,) = collect_page_data(read_all(tmp_path), Pictures(), "paper")["ablations"]
    (panel,) = (one for one in ablation["panels"] if one["published"])
    (curve,) = panel["published"]
    assert (curve["method"], curve["label"]) == ("mae", "published: random sampling")
    assert {"x": 0.75, "y": 73.5} in curve["points"]
    assert ablation["published_figures"] == []


def test_earlier_epochs_are_described_in_words_and_curves_reach_the_end(tmp_path):
    write_results(tmp_path, methods=("simmim",), ratios=(0.3, 0.6), seeds=(0,))
    write_epochs(tmp_path, epochs=(0, 5))
    content = collect_page_data(read_all(tmp_path), Pictures(), "epochs")
    board = content["leaderboard"]
    assert "Epoch" not in [label["title"] for label in board["labels"]]
    assert sorted(row["epoch"] for row in board["rows"]) == ["", "", "epoch 0 of 26", "epoch 5 of 26"]
    assert [row["pretraining"].endswith(row["epoch"] or ", 26 epochs") for row in board["rows"]] == [True] * 4
    ratio, epochs = content["ablations"]
    assert (ratio["path"], epochs["path"], epochs["title"]) == (
        *("method.mask_ratio", "pretrain.at_epoch"),
        "Epochs pretrained",
    )
    assert {curve["label"] for panel in ratio["panels"] for curve in panel["curves"]} == {"SimMIM"}
    curves = [curve for panel in epochs["panels"] for curve in panel["curves"]]
    assert curves
    assert all([point["x"] for point in curve["points"]] == [0, 5, 26] for curve in curves)


def test_an_early_epoch_is_hidden_only_if_the_same_task_has_a_last_one(tmp_path):
    write_epochs(tmp_path, epochs=(5,))
    hidden = [row["early"] for row in collect_page_data(read_all(tmp_path), Pictures(), "a")["leaderboard"]["rows"]]
    assert hidden == [False]
    write_results(tmp_path, methods=("simmim",), ratios=(0.6,), seeds=(0,))
    for path in (tmp_path / "records").glob("simmim-linear-probe-*"):
        if not json.loads(path.read_text())["recipe"]["pretrain"].get("at_epoch"):
            path.unlink()
    rows = collect_page_data(read_all(tmp_path), Pictures(), "b")["leaderboard"]["rows"]
    assert {(row["epoch"], row["early"]) for row in rows} == {("", False), ("epoch 5 of 26", False)}


def test_downloads_contain_the_leaderboard_and_everything_else_as_csv_only(tmp_path):
    write_results(tmp_path, methods=("simmim",), ratios=(0.6,), seeds=(0,))
    write_epochs(tmp_path)
    downloads = collect_page_data(read_all(tmp_path), Pictures(), "downloads")["downloads"]
    assert sorted(downloads) == ["all", "csv", "latex", "markdown"]
    rows = downloads["latex"].split("\\midrule")[1].split("\\bottomrule")[0]
    assert rows.count("\\\\") == 1
    for text in (downloads["csv"], downloads["latex"], downloads["markdown"]):
        assert "top5" not in text
        assert "AP75" not in text
        assert "AP50" in text
        assert "epoch" not in text.split("\n")[0]
    assert "linear-probe: top5" in downloads["all"]
    assert len(downloads["all"].splitlines()) > len(downloads["csv"].splitlines())


def test_each_picture_of_a_pretraining_is_there_once(tmp_path):
    write_results(tmp_path, methods=("simmim",), ratios=(0.6,), seeds=(0,))
    paths = {path.name: json.loads(path.read_text()) for path in (tmp_path / "records").iterdir()}
    body = next(body for body in paths.values() if body["task"]["name"] == "linear-probe")
    folder = f"artifacts/simmim-s{body['seed']}-{body['checkpoint']['fingerprint']}"
    (tmp_path / folder).mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / folder / "reconstruction.png")
    bodies = read_all(tmp_path)
    for _, one in bodies:  # one record names it, the other does not
        if one["task"]["name"] == "linear-probe":
            one["artifacts"] = {"reconstruction": f"{folder}/reconstruction.png", "samples": f"{folder}/samples.npz"}
    shown = {
        run["task"]: [name for name, *_ in run["pictures"]]
        for run in collect_page_data(bodies, Pictures(), "p")["runs"]
    }
    assert shown == {"linear-probe": ["reconstruction"], "detection": ["predictions", "reconstruction"]}


def test_pairs_are_judged_by_the_quantiles_of_tables(data):
    from scipy.special import stdtrit

    for pairs in (2, 3, 10, 60):
        assert math.isclose(data["quantiles"][pairs - 2], stdtrit(pairs - 1, 0.975), abs_tol=1e-5)


def test_nothing_is_loaded_from_elsewhere_and_the_policy_names_what_may_run(results, tmp_path):
    page = write_page(results, tmp_path / "page").read_text()
    markup = re.sub(r"<script.*?</script>|<style.*?</style>", "", page, flags=re.DOTALL)
    assert set(re.findall(r'(?:src|href)="([^"]*)"', markup)) == {"#main", "data:,"}
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    script = re.search(r'<script type="module">(.*?)</script>', page, re.DOTALL)[1]
    assert not re.search(r"url\(|@import|https?:", style)
    assert set(re.findall(r"https?://[^\s\"'`]+", script)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|Function\(", script)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for name, text in (("style-src", style), ("script-src", script)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}'" in policy


def test_the_command_is_of_this_cell_and_every_word_is_quoted():
    bodies = [json.loads(path.read_text()) for path in REFERENCE.glob("simmim-linear-probe-s2-*")]
    body = next(body for body in bodies if not body["varied"])
    assert rerun_command(body) == (
        "mimbench run --method simmim --task linear-probe --seeds 2 --recipe mnist5k-vit-tiny"
    )
    body["recipe_passed"]["set"] = {"method.mask_ratio": 0.3, "pretrain.epochs": 2, "method.head": "a b"}
    body["varied"] = {"method.mask_ratio": 0.5, "pretrain.compile": True}
    body["method"]["name"] = "x; rm -rf /\n$(reboot)"
    words = shlex.split(rerun_command(body))
    assert words[:4] == ["mimbench", "run", "--method", "x; rm -rf / $(reboot)"]
    assert words[10:] == [
        *("--set", "pretrain.epochs=2", "--set", "method.head=a b"),
        *("--vary", "method.mask_ratio=0.5", "--vary", "pretrain.compile=true"),
    ]
    body["recipe_passed"]["checkpoint"] = "abc"
    assert shlex.split(rerun_command(body))[2:4] == ["--checkpoint", body["checkpoint"]["fingerprint"]]


def test_pictures_are_embedded_in_the_page_up_to_a_limit_and_linked_beyond_it(results, tmp_path):
    whole = read_page(write_page(results, tmp_path / "page"))
    embedded = [one for one in whole["shared"] if isinstance(one, str) and one.startswith("data:image/")]
    smallest = min(len(base64.b64decode(source.split(",")[1])) for source in embedded)
    page = write_page(results, tmp_path / "page", embedded=smallest)
    content = read_page(page)
    indices = [index for run in content["runs"] for _, _, index in run["pictures"]]
    sources = [None if index is None else content["shared"][index] for index in indices]
    within = [source for source in sources if source and source.startswith("data:image/")]
    linked = [source for source in sources if source and source.startswith("artifacts/")]
    assert within
    assert linked
    assert {path.name for path in (page.parent / "artifacts").iterdir()} == {Path(name).name for name in linked}
    assert sources.count(None) == 3  # of seed 1, which has no picture
    write_page(results, tmp_path / "page")
    assert [path.name for path in page.parent.iterdir()] == [INDEX]


def test_the_page_of_the_reference_holds_each_picture_once(tmp_path):
    page = write_page(REFERENCE.parent, tmp_path / "page")
    content = read_page(page)
    pictures = [value for value in content["shared"] if isinstance(value, str) and value.startswith("data:image/")]
    shown = {index for run in content["runs"] for _, _, index in run["pictures"] if index is not None}
    assert len(set(pictures)) == len(pictures) == len(shown) > 50
    assert [file.name for file in page.parent.iterdir()] == [INDEX]
    assert page.stat().st_size < 2_000_000


def test_equal_pictures_of_two_files_are_stored_once(tmp_path):
    picture = next(REFERENCE.parent.glob("artifacts/*/predictions.png"))
    for name in ("a.png", "b.png"):
        shutil.copy(picture, tmp_path / name)
    pictures = Pictures(limit=0)
    sources = {pictures.source([tmp_path], name) for name in ("a.png", "b.png")}
    assert sources == {f"artifacts/{file_sha256(picture)[:16]}.png"}
    assert len(pictures.files) == 1


def test_a_smaller_picture_looks_like_the_stored_one():
    for kind in ("reconstruction", "predictions"):
        path = next(REFERENCE.parent.glob(f"artifacts/*/{kind}.png"))
        source = Pictures().source([path.parent], path.name)
        content = base64.b64decode(source.removeprefix("data:image/webp;base64,"))
        assert len(content) < path.stat().st_size
        with Image.open(io.BytesIO(content)) as small, Image.open(path) as stored:
            assert small.width == min(stored.width, 896)
            reduced = stored.convert("RGB").resize(small.size, Image.Resampling.LANCZOS)
            difference = ImageChops.difference(small.convert("RGB"), reduced)
        # Of 255. Scenes of digits have noise of about this size in each pixel, and WebP smooths it.
        assert max(ImageStat.Stat(difference).mean) < 5


def test_a_moving_picture_goes_on_moving(tmp_path):
    noise = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    frames = [image_grid([[frame, frame, frame]], columns=()) for frame in noise]
    (tmp_path / "moving.png").write_bytes(animate(frames))
    source = Pictures().source([tmp_path], "moving.png")
    content = base64.b64decode(source.removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(content)) as moving:
        assert moving.n_frames == 3


def test_a_picture_outside_of_its_results_folder_is_none(results, tmp_path):
    root = tmp_path / "results"
    root.mkdir()
    (tmp_path / "secret.png").write_bytes(b"secret")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "own.png").write_bytes(b"own")
    (root / "own.html").write_bytes(b"own")
    pictures = Pictures()
    for path in ("../secret.png", str(tmp_path / "secret.png"), "link.png", "own.html", "none.png", "a\0.png"):
        assert pictures.source([root], path) is None, path
    assert pictures.source([root], "own.png") == "data:image/png;base64," + base64.b64encode(b"own").decode()


@pytest.mark.parametrize("has_hash", [True, False])
def test_a_damaged_picture_is_not_shown_and_the_page_says_why(results, tmp_path, has_hash):
    results = shutil.copytree(results, tmp_path / "results")
    record = min((results / "records").glob("*-detection-s0-*.json"))
    body = json.loads(record.read_text())
    body.pop("sha256")
    picture = body["artifacts"]["predictions"]
    if has_hash:
        write_sealed(record, body | {"artifacts_sha256": {"predictions": file_sha256(results / picture)}})
    before = {run["id"]: run for run in read_page(write_page(results, tmp_path / "page"))["runs"]}
    assert before[body["id"]]["pictures"][0][2] is not None
    assert before[body["id"]]["picture_problems"] == {}
    content = (results / picture).read_bytes()
    (results / picture).write_bytes(content[:-30] + bytes([content[-30] ^ 1]) + content[-29:])
    runs = {run["id"]: run for run in read_page(write_page(results, tmp_path / "page"))["runs"]}
    run = runs[body["id"]]
    assert run["pictures"] == [["predictions", picture, None]]
    reason = "does not have the sha256 in the record" if has_hash else "is a damaged picture"
    assert run["picture_problems"][picture].startswith(reason)


def test_each_reason_not_to_show_a_picture_is_given(tmp_path):
    root = tmp_path / "results"
    root.mkdir()
    (root / "link.png").symlink_to("/etc/passwd")
    (root / "empty.png").write_bytes(b"")
    pictures = Pictures()
    for path, reason in {
        "../secret.png": "leads out of the results folder",
        "link.png": "leads out of the results folder",
        "none.png": "is missing",
        "empty.png": "is empty",
        "text.html": "",
    }.items():
        assert pictures.problem([root], path, None) == reason, path


def test_equal_values_are_stored_once():
    shared = SharedValues()
    first = {"a": [1]}
    assert shared.add(first) == shared.add(first) == shared.add({"a": [1]}) == 0
    assert shared.add_tables({"x": {"a": [1]}, "y": 1.5}) == {"x": 0, "y": 1}
    assert shared.values == [{"a": [1]}, 1.5]


def test_a_cell_with_a_later_record_is_no_failure(results, tmp_path):
    known = read_failure(next((results / "failures").glob("*.json")))
    late = known.model_copy(update={"id": read_all(results)[0][1]["id"]})
    write_failure(failure_path(results, late.id), late)
    try:
        page = write_page(results, tmp_path / "page")
        assert [one["id"] for one in read_page(page)["failures"]] == [known.id]
    finally:
        failure_path(results, late.id).unlink()


def test_only_a_page_of_ours_is_overwritten(results, tmp_path):
    output = tmp_path / "page"
    output.mkdir()
    page = write_page(results, output)
    write_page(results, output)
    (output / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds notes\.txt, which is not part of a mimbench report"):
        write_page(results, output)
    (output / "notes.txt").unlink()
    (output / "artifacts").mkdir()
    (output / "artifacts" / "photo.png").write_text("mine")
    with pytest.raises(InputError, match=r"holds artifacts/photo\.png"):
        write_page(results, output)
    (output / "artifacts" / "photo.png").unlink()
    page.write_text("<!doctype html><title>mine</title>")
    with pytest.raises(InputError, match=r"holds index\.html"):
        write_page(results, output)
    assert "mine" in page.read_text()
    with pytest.raises(InputError, match="is a file"):
        write_page(results, page)


def test_what_cannot_be_written_leaves_the_old_page(results, tmp_path, monkeypatch):
    page = write_page(results, tmp_path / "page")
    before = page.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        write_page(results, page.parent, embedded=0)
    assert page.read_bytes() == before
    assert not list(page.parent.rglob(".*"))


@pytest.mark.e2e
def test_the_command(mimbench, quick, tmp_path):
    done = mimbench("report", "--results", str(REFERENCE.parent), "--output", "page")
    assert (done.returncode, done.stdout) == (0, "written: page/index.html\n"), done.stderr
    (tmp_path / "empty").mkdir()
    done = quick("report", "--results", "empty", "--output", "other")
    assert done.returncode == 2
    assert done.stderr == ("mimbench: there are no records in empty; run `mimbench run` first or pass --results DIR\n")
    assert not (tmp_path / "other").exists()


def test_control_characters_of_records_are_shown_on_the_page(tmp_path):
    write_results(tmp_path, methods=("simmim",), ratios=(0.6,), seeds=(0,))
    for path in (tmp_path / "records").glob("*.json"):
        body = json.loads(path.read_text())
        body.pop("sha256")
        body["method"]["name"] = "a\x1b[31m\u202eb"
        write_sealed(path, body)
    content = read_page(write_page(tmp_path, tmp_path / "page"))
    assert {run["method"] for run in content["runs"]} == {"a\\u001b[31m\\u202eb"}


def test_the_page_says_which_epoch_published_numbers_are_of(tmp_path):
    write_results(tmp_path, methods=("simmim",), ratios=(0.6,), seeds=(0,))
    assert LAST_EPOCH in json.dumps(read_page(write_page(tmp_path, tmp_path / "page")), ensure_ascii=False)
