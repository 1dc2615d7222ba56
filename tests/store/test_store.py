"""The results folder: whole or not there, damaged or named, one process at a time."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import stat
import subprocess
import time
from pathlib import Path

import pytest
import torch

from mimbench.errors import InputError, LeaseLost
from mimbench.files import temporary_prefix, write_atomic
from mimbench.store.reading import FOLDERS, RESULTS
from mimbench.store.record import Checkpoint, Cost, Named, Record, Value, read_record, read_records, write_record
from mimbench.store.sealing import canonical_text, fingerprint
from mimbench.store.store import Store


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "runs")


def save(store: Store, key: str = "abc"):
    return store.save_checkpoint(key, {"w": torch.arange(6.0).view(2, 3)}, {"decoder": torch.ones(2)}, {"seed": 3})


def record(**changes) -> Record:
    cost = Cost(seconds=1.5, device="cpu")
    return Record(
        **{
            "id": "simmim-linear-probe-s0-1",
            "method": Named(name="simmim", version="1"),
            "task": Named(name="linear-probe", version="1"),
            "encoder": Named(name="vit", version="1"),
            "dataset": Named(name="mnist5k", version="f"),
            "protocol": {"layer": -1},
            "protocol_fingerprint": "p",
            "seed": 0,
            "recipe_name": "smoke",
            "recipe_passed": {},
            "recipe": {},
            "checkpoint": Checkpoint(fingerprint="abc", weights_sha256="0", seed=0, cost=cost),
            "pretraining": "p",
            "metrics": {"top1": Value(value=50.0, unit="percent", n=10, low=0, high=100, higher_is_better=True)},
            "chance": 10.0,
            "cost": cost,
            "provenance": {},
        }
        | changes
    )


def test_a_checkpoint_comes_back_as_it_was_saved(store):
    assert store.checkpoint("abc") is None
    save(store)
    checkpoint = store.checkpoint("abc")
    assert torch.equal(checkpoint.encoder()["w"], torch.arange(6.0).view(2, 3))
    assert torch.equal(checkpoint.rest()["decoder"], torch.ones(2))
    assert checkpoint.card["seed"] == 3


@pytest.mark.parametrize("victim", ["encoder.safetensors", "method.safetensors", "checkpoint.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_checkpoint_is_named_and_never_reused(store, victim, damage):
    path = save(store).folder / victim
    content = path.read_bytes()
    if damage == "flip":
        path.write_bytes(content[:-3] + bytes([content[-3] ^ 255]) + content[-2:])
    elif damage == "truncate":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()
    with pytest.raises(InputError, match=r"abc.*corrupt.*delete"):
        store.checkpoint("abc")


@pytest.mark.parametrize("key", ["seed", "fingerprint", "seal"])
def test_a_card_that_was_altered_is_refused_even_where_it_still_reads_well(store, key):
    path = save(store).folder / "checkpoint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: "other"}))
    with pytest.raises(InputError, match=r"abc.*corrupt: the card was altered or damaged; delete"):
        store.checkpoint("abc")


def test_a_card_from_before_cards_were_sealed_is_still_read(store):
    path = save(store).folder / "checkpoint.json"
    card = json.loads(path.read_text())
    del card["seal"]
    path.write_text(json.dumps(card))
    assert store.checkpoint("abc").card["seed"] == 3


def test_a_record_from_before_losses_were_kept_is_still_read(tmp_path):
    body = record().as_json()
    del body["checkpoint"]["loss"]
    (tmp_path / "r.json").write_text(json.dumps({**body, "sha256": fingerprint(body, 64)}))
    assert read_record(tmp_path / "r.json").checkpoint.loss == []


def test_a_lease_that_is_held_is_reported_at_once(store):
    keys = ("k", "k", "other")
    with (
        store.lease_if_free(keys[0], "a") as a,
        store.lease_if_free(keys[1], "b") as b,
        store.lease_if_free(keys[2], "c") as c,
    ):
        assert (a, b, c) == (True, False, True)
    with store.lease_if_free("k", "again") as again:
        assert again


def test_with_a_lease_folders_of_a_network_file_system_are_looked_at_again(store):
    folders = [store.root, *(store.root / name for name in RESULTS)]
    for folder in folders:
        folder.mkdir(exist_ok=True)

    def changed() -> int:
        dates = [folder.stat().st_mtime for folder in folders]
        for folder in folders:
            os.utime(folder, (0, 0))
        return sum(date > 0 for date in dates)

    with store.lease_if_free("k", "train"):
        assert changed() == len(folders)
        with store.lease_if_free("k", "train") as is_held:
            assert not is_held
        assert changed() == 0
    with store.lease("k", "train", lambda: None):
        assert changed() == len(folders)
    assert not [path for path in store.root.rglob("*") if path.is_file()]


def test_a_lease_that_cannot_be_made_is_one_line(store):
    (store.root / "work").write_text("no folder")
    for lease in (store.lease_if_free("k", "train"), store.lease("k", "train", lambda: None)):
        with pytest.raises(InputError, match=r"k\.lease cannot be made .*is a file; delete that"), lease:
            pass


def test_what_was_trained_by_a_process_that_lost_its_lease_is_not_saved(store):
    with store.lease("abc", "train", lambda: None):
        shutil.rmtree(store.root / "work" / "abc.lease")
        (store.root / "work" / "abc").mkdir()
        with pytest.raises(LeaseLost):
            save(store)
        with pytest.raises(LeaseLost):
            store.save_record(record())
        with pytest.raises(LeaseLost):
            store.discard_work("abc")
    assert [path for path in store.root.rglob("*") if path.is_file()] == []
    assert (store.root / "work" / "abc").is_dir()


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_of_the_results_that_is_a_link_is_refused(store, tmp_path, name):
    (tmp_path / "elsewhere").mkdir()
    (store.root / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=rf"{name} is a link to .*elsewhere, and nothing is written through links"):
        Store(store.root)
    Store(store.root, write=False)


def test_pictures_are_never_written_through_links(store, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").write_bytes(b"kept")
    folder = store.root / "artifacts"
    folder.mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="linked is a link"):
        store.save_artifact("linked", "a.png", b"new")
    (folder / "own").mkdir()
    (folder / "own" / "a.png").symlink_to(tmp_path / "elsewhere" / "a.png")
    assert store.save_artifact("own", "a.png", b"new") == "artifacts/own/a.png"
    assert (folder / "own" / "a.png").read_bytes() == b"new"
    assert (tmp_path / "elsewhere" / "a.png").read_bytes() == b"kept"
    (store.root / "work").mkdir()
    (store.root / "work" / "linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="linked is a link"):
        store.work("linked")


def test_what_killed_processes_left_goes_when_the_folder_is_opened(store):
    ended = subprocess.Popen(["true"])
    ended.wait()
    place = temporary_prefix("x").split(".")[2].split("-")[0]
    (store.root / f".x.{place}-{ended.pid}-1.abcdefgh").touch()
    for name in FOLDERS:
        (store.root / name).mkdir()
        (store.root / name / f".x.{place}-{ended.pid}-1.abcdefgh").write_bytes(b"half")
        (store.root / name / f"{temporary_prefix('x')}abcdefgh").write_bytes(b"being written")
    Store(store.root, write=False)
    assert all(len(list((store.root / name).iterdir())) == 2 for name in FOLDERS)
    Store(store.root)
    left = [path.name for name in FOLDERS for path in (store.root / name).iterdir()]
    assert left == [f"{temporary_prefix('x')}abcdefgh"] * len(FOLDERS)
    assert list(store.root.glob(".*")) == []


def test_a_checkpoint_that_finds_no_room_names_its_file_and_leaves_nothing(store, monkeypatch):
    def full(*_):
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("mimbench.store.store.save_file", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*checkpoints/abc/encoder\.safetensors'"):
        save(store)
    assert list((store.root / "checkpoints").iterdir()) == []


def test_a_folder_that_is_only_looked_at_is_not_made(tmp_path):
    assert Store(tmp_path / "none", write=False).record("x") is None
    assert not (tmp_path / "none").exists()


def test_a_checkpoint_under_another_name_is_refused(store):
    save(store).folder.rename(store.root / "checkpoints" / "other")
    with pytest.raises(InputError, match="says that it is 'abc'"):
        store.checkpoint("other")


def test_a_failed_save_leaves_nothing(store):
    with pytest.raises(AttributeError):
        store.save_checkpoint("abc", {"w": "no tensor"}, {}, {})
    assert list((store.root / "checkpoints").iterdir()) == []


def test_what_a_killed_save_left_goes_with_the_next(store):
    for left in (".abc.x1", ".other.x2"):
        (store.root / "checkpoints" / left).mkdir(parents=True)
    save(store)
    assert sorted(path.name for path in (store.root / "checkpoints").iterdir()) == [".other.x2", "abc"]


def test_files_are_readable_by_others(store):
    folder = save(store).folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert stat.S_IMODE((folder / "checkpoint.json").stat().st_mode) == 0o644


def test_a_folder_that_cannot_be_made_is_refused():
    with pytest.raises(InputError, match=r"/proc/mimbench-runs cannot be written.*--results"):
        Store("/proc/mimbench-runs")


def test_a_results_path_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "runs").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        Store(tmp_path / "runs")


def test_a_record_comes_back_as_it_was_written(store):
    path = store.save_record(record())
    assert store.record("simmim-linear-probe-s0-1") == record()
    assert read_records(store.root) == read_records(store.root / "records") == [record()]
    assert json.loads(path.read_text())["schema"] == 1


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text.replace("50.0", "99.0"), "altered or damaged"),
        (lambda text: text[:100], "corrupt"),
        (lambda text: "[]", "corrupt"),
        (lambda text: "", "corrupt"),
    ],
)
def test_a_damaged_record_is_named(store, edit, message):
    path = store.save_record(record())
    path.write_text(edit(path.read_text()))
    with pytest.raises(InputError, match=rf"{path.name}.*{message}"):
        read_records(store.root)


def test_the_record_of_another_cell_under_this_name_is_refused(store):
    store.save_record(record())
    os.replace(store.record_path(record().id), store.record_path("another"))
    with pytest.raises(InputError, match=r"another\.json is that of .*: its file was renamed; restore or delete"):
        store.record("another")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES])
def test_what_cannot_be_read_now_is_not_called_corrupt(store, monkeypatch, number):
    """Advice to delete it would cost a sound file."""
    store.save_record(record())
    save(store)

    def refuse(path, *arguments, **named):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "read_text", refuse)
    for read in (lambda: store.record(record().id), lambda: store.checkpoint("abc")):
        with pytest.raises(InputError, match=r"cannot be read \(.*\); (raise the limit|give this user)") as refused:
            read()
        assert "delete" not in str(refused.value)


def test_a_record_of_another_schema_is_named(tmp_path):
    path = tmp_path / "r.json"
    body = record().as_json() | {"schema": 99}
    path.write_text(json.dumps({**body, "sha256": fingerprint(body, 64)}))
    with pytest.raises(InputError, match="schema 99"):
        read_record(path)


def test_a_metric_that_is_not_finite_is_no_record(tmp_path):
    bad = record(metrics={"top1": Value(value=float("nan"), unit="", n=1, low=0, high=1, higher_is_better=True)})
    with pytest.raises(ValueError, match="Out of range float"):
        write_record(tmp_path / "r.json", bad)
    assert list(tmp_path.iterdir()) == []


def test_equal_data_has_one_hash_in_any_order():
    assert fingerprint({"a": 1, "b": [1.0, None]}) == fingerprint({"b": [1.0, None], "a": 1})
    assert canonical_text({"ä": 0.1}) == '{"ä":0.1}'


def _hold(root, started, released):
    store = Store(root)
    with store.lease("k", "train", lambda: None):
        started.set()
        time.sleep(0.5)
        released.value = time.monotonic()


def test_two_processes_take_turns(store):
    context = multiprocessing.get_context("spawn")
    started, released, waited = context.Event(), context.Value("d", 0.0), []
    other = context.Process(target=_hold, args=(store.root, started, released))
    other.start()
    assert started.wait(60)
    with store.lease("k", "train", lambda: waited.append(True)):
        entered = time.monotonic()
    other.join()
    assert waited == [True]
    assert entered >= released.value > 0


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "f"
    write_atomic(path, b"old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
