"""`mimbench verify`: every record and checkpoint is held against its hashes; what is damaged is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mimbench.errors import InputError
from mimbench.files import file_sha256
from mimbench.store.failure import Failure, failure_path, write_failure
from mimbench.store.features import FeatureFile
from mimbench.store.record import read_record, write_record
from mimbench.store.sealing import fingerprint, write_sealed
from mimbench.store.stages import write_stage
from mimbench.store.store import Store
from mimbench.store.verify import verify

REFERENCE = Path(__file__).parents[2] / "results" / "reference" / "records"


@pytest.fixture
def results(tmp_path) -> Path:
    """A probe's and a detector's record of one pretraining, without their pictures, and one checkpoint."""
    (tmp_path / "r" / "records").mkdir(parents=True)
    (detector,) = map(read_record, REFERENCE.glob("simmim-detection-s0-*.json"))
    probes = map(read_record, REFERENCE.glob("simmim-linear-probe-s0-*.json"))
    (probe,) = (record for record in probes if record.checkpoint == detector.checkpoint)
    for record in (probe, detector):
        write_record(tmp_path / "r" / "records" / f"{record.id}.json", record.model_copy(update={"artifacts": {}}))
    Store(tmp_path / "r").save_checkpoint("abc", {"w": torch.ones(3)}, {"v": torch.zeros(2)}, {"what": {}})
    return tmp_path / "r"


def one(results: Path) -> Path:
    return next((results / "records").glob("simmim-linear-probe-s0-*.json"))


def test_all_sound(results, tmp_path):
    for root in (results, tmp_path, results / "records"):
        result = verify(root)
        assert (result.records, result.damage) == (len(list((results / "records").iterdir())), [])
    assert verify(results).checkpoints == 1
    assert verify(results / "checkpoints").records == 0


def test_damaged_records_are_named(results):
    path = one(results)
    path.write_text(path.read_text().replace('"n": 1000', '"n": 1001'))
    (line,) = verify(results).damage
    assert str(path) in line
    assert "does not match its own sha256" in line
    path.write_text("{")
    (line,) = verify(results).damage
    assert f"{path} is corrupt" in line


@pytest.mark.parametrize("text", ["{}", '{"a": 1}', "[1]", "3"])
def test_json_of_another_origin_is_listed_separately(results, text):
    path = results / "records" / "notes.json"
    path.write_text(text)
    assert verify(results).damage == [f"{path} is no mimbench record; move it out of the folder of records"]


def test_missing_pictures_are_reported_but_damage_no_record(results):
    path = one(results)
    record = read_record(path)
    names = {f"picture{index}": f"artifacts/{index}.png" for index in range(12)}
    write_record(path, record.model_copy(update={"artifacts": names}))
    (results / "artifacts").mkdir()
    for file in names.values():
        Image.new("L", (2, 2)).save(results / file)
    assert verify(results).missing == []
    (results / "artifacts" / "3.png").unlink()
    result = verify(results / "records")
    assert (result.damage, result.missing) == ([], [f"artifacts/3.png, the picture3 of record {path}"])
    assert result.lines()[-1] == f"{result.records} records, 0 checkpoints: all sound; 1 file that records name missing"
    shutil.rmtree(results / "artifacts")
    lines = verify(results).lines()
    assert len(lines) == 12
    assert lines[-2] == "missing: and 2 more"
    assert lines[-1].endswith("all sound; 12 files that records name missing")


def test_sealed_nonsense_is_still_found(results):
    path = one(results)
    record = read_record(path)
    value = next(iter(record.metrics.values()))
    write_record(
        path,
        record.model_copy(
            update={"protocol": {"a": 1}, "metrics": {"top1": value.model_copy(update={"value": 123.0})}}
        ),
    )
    damage = verify(results).damage
    assert [line.split(": ", 1)[1] for line in damage] == [
        f"its protocol does not have the fingerprint {record.protocol_fingerprint}",
        "top1 is 123.0 percent, outside 0.0 to 100.0",
    ]


def test_a_record_of_another_schema_is_found(results):
    path = one(results)
    body = read_record(path).as_json()
    for change, message in (({"schema": 9}, "has schema 9"), ({"seed": "x"}, "is not a valid record: seed: ")):
        changed = {**body, **change}
        write_sealed(path, changed)
        (line,) = verify(results).damage
        assert message in line


def test_renamed_and_conflicting_records_are_found(results):
    path = one(results)
    path.rename(path.with_name("other.json"))
    (line,) = verify(results).damage
    assert "its file was renamed" in line
    record = read_record(path.with_name("other.json"))
    assert not path.exists()
    write_record(path, record.model_copy(update={"chance": 1.0}))
    assert len(verify(results).damage) == 2
    assert any("chance): both measured the same cell" in line for line in verify(results).damage)


@pytest.mark.parametrize("name", ["encoder.safetensors", "method.safetensors", "checkpoint.json"])
def test_damaged_checkpoints_are_named(results, name):
    path = results / "checkpoints" / "abc" / name
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    (line,) = verify(results).damage
    assert "checkpoints/abc" in line
    assert "is corrupt" in line
    path.unlink()
    assert len(verify(results).damage) == 1


def test_a_record_and_its_checkpoint_must_go_together(results):
    name = read_record(one(results)).checkpoint.fingerprint
    Store(results).save_checkpoint(name, {"w": torch.ones(3)}, {"v": torch.zeros(2)}, {"what": {}})
    (results / "checkpoints" / "abc").rename(results / "checkpoints" / "xyz")
    damage = verify(results).damage
    assert "checkpoints/xyz says that it is 'abc': its folder was renamed" in damage[0]
    assert len(damage) == 3  # two records stand on that checkpoint: a probe's and a detector's
    assert all(f"made with other weights than checkpoint {name}" in line for line in damage[1:])


def test_what_is_being_written_is_passed_over(results):
    shutil.copytree(results / "checkpoints" / "abc", results / "checkpoints" / ".abc.tmp")
    (results / "checkpoints" / ".abc.tmp" / "encoder.safetensors").write_bytes(b"half")
    (results / "records" / ".half.json.tmp").write_text("{")
    assert verify(results).damage == []


def test_nothing_to_verify(tmp_path):
    with pytest.raises(InputError, match="no records and no checkpoints below"):
        verify(tmp_path)
    with pytest.raises(InputError, match="there is no folder"):
        verify(tmp_path / "none")


def test_no_line_holds_what_a_terminal_obeys(results):
    path = one(results)
    body = read_record(path).as_json() | {"artifacts": {"\x1b[31mred": "a\nb\u202e.png"}}
    write_sealed(path.with_name("\x1b]0;x.json"), body)
    result = verify(results)
    assert len(result.damage) == 2
    assert len(result.missing) == 1
    text = "\n".join(result.lines())
    assert not set(text) & {"\x1b", "\u202e"}
    assert len(text.splitlines()) == len(result.lines()) == 4
    assert "\\u001b]0;x.json" in text


DAMAGES = {
    "half": lambda content: content[: len(content) // 2],
    "one bit": lambda content: content[:-20] + bytes([content[-20] ^ 1]) + content[-19:],
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
}


@pytest.fixture
def pictured(results):
    """A record with a picture of which it notes the hash, and a text of which it notes none."""
    path = one(results)
    (results / "artifacts").mkdir()
    Image.radial_gradient("L").save(results / "artifacts" / "a.png")
    (results / "artifacts" / "a.txt").write_text("a text that is long enough to be damaged")
    write_record(
        path,
        read_record(path).model_copy(
            update={
                "artifacts": {"picture": "artifacts/a.png", "text": "artifacts/a.txt"},
                "artifacts_sha256": {"picture": file_sha256(results / "artifacts" / "a.png")},
            }
        ),
    )
    return path


@pytest.mark.parametrize("has_hash", [True, False])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_pictures_are_named(results, pictured, damage, has_hash):
    picture = results / "artifacts" / "a.png"
    if not has_hash:
        write_record(pictured, read_record(pictured).model_copy(update={"artifacts_sha256": {}}))
    assert verify(results).damage == []
    picture.write_bytes(DAMAGES[damage](picture.read_bytes()))
    (line,) = verify(results).damage
    assert line.startswith(f"artifacts/a.png, the picture of record {pictured}, ")
    assert line.endswith("; its numbers stand; the report leaves the file out")


def test_another_sound_picture_in_the_place_of_one_is_seen(results, pictured):
    Image.linear_gradient("L").save(results / "artifacts" / "a.png")
    (line,) = verify(results).damage
    assert "does not have the sha256 in the record" in line


def test_files_without_a_hash_are_counted(results, pictured):
    lines = verify(results).lines()
    assert lines[0] == "not checked: 1 files, whose records note no hash"
    assert lines[-1].endswith("all sound")
    (results / "artifacts" / "a.txt").write_text("")
    (line,) = verify(results).damage
    assert "is empty" in line


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "artifacts/out.png", "artifacts/loop.png"])
def test_paths_that_lead_out_of_the_folder_are_damage(results, pictured, path):
    (results / "artifacts" / "out.png").symlink_to("/etc/passwd")
    (results / "artifacts" / "loop.png").symlink_to("loop.png")
    write_record(pictured, read_record(pictured).model_copy(update={"artifacts": {"picture": path}}))
    (line,) = verify(results).damage
    assert line == f"{path} leads out of the results folder: the picture of record {pictured}"


def test_a_link_in_the_place_of_a_folder_is_damage(results, pictured, tmp_path):
    (results / "artifacts").rename(tmp_path / "elsewhere")
    (results / "artifacts").symlink_to(tmp_path / "elsewhere")
    damage = verify(results).damage
    assert f"{results / 'artifacts'} is a link, and mimbench writes through none; replace it by a folder" in damage
    assert sum("leads out of the results folder" in line for line in damage) == 2


def stage(results):
    what = {"stage": {"name": "kmeans"}, "seed": 0}
    weights = results / "stages" / f"{fingerprint(what)}.safetensors"
    write_stage(weights, bytes(range(100)), what, {"time": "now"})
    return weights


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("victim", [".safetensors", ".json"])
def test_damaged_stages_are_named(results, victim, damage):
    path = stage(results).with_suffix(victim)
    assert verify(results).damage == []
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    (line,) = verify(results).damage
    assert str(path.with_suffix("")) in line
    assert "delete both files" in line


@pytest.mark.parametrize("position", range(0, 220, 9))
def test_any_flipped_bit_of_a_stage_card_is_seen(results, position):
    path = stage(results).with_suffix(".json")
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 2
    path.write_bytes(content)
    assert len(verify(results).damage) == 1


def test_a_stage_without_its_weights_is_damage_and_without_its_card_unfinished(results):
    weights = stage(results)
    card = weights.with_suffix(".json").read_bytes()
    weights.with_suffix(".json").unlink()
    result = verify(results)
    assert (result.damage, result.unfinished) == ([], [f"{weights} has no {weights.stem}.json"])
    weights.with_suffix(".json").write_bytes(card)
    weights.unlink()
    assert len(verify(results).damage) == 1
    weights.with_suffix(".json").rename(weights.with_name("other.json"))
    assert len(verify(results).damage) == 1


def features(results):
    file = FeatureFile(results / "features" / "a.npy", 50)
    file.add(file.filled, np.ones((50, 4), np.float32))
    file.finish()
    return results / "features" / "a.npy"


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("victim", [".npy", ".seal"])
def test_damaged_features_are_named(results, victim, damage):
    path = features(results)
    assert verify(results).damage == []
    victim = path.with_suffix(victim)
    victim.write_bytes(DAMAGES[damage](victim.read_bytes()))
    assert verify(results).damage == [f"features {path} do not match a.seal; the next run makes them again"]


def test_features_without_a_seal_are_unfinished(results):
    path = features(results)
    path.with_suffix(".seal").unlink()
    result = verify(results)
    assert (result.damage, result.unfinished) == ([], [f"{path} has no a.seal"])


def test_interrupted_features_are_unfinished(results):
    file = FeatureFile(results / "features" / "a.npy", 50)
    file.add(0, np.ones((20, 4), np.float32))
    file.close()
    result, part = verify(results), results / "features" / "a.part"
    assert result.damage == []
    assert result.unfinished == [f"{part} holds the first features of a split; the next run adds the others"]


def failure(results, **changes):
    texts = dict.fromkeys(("label", "reason", "error", "method", "task", "checkpoint", "recipe_name"), "x")
    fields = texts | {"id": "f", "stage": "task", "seed": 0, "recipe_passed": {}, "provenance": {}} | changes
    noted = Failure(**fields)
    write_failure(failure_path(results, "f"), noted)
    return failure_path(results, "f")


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_notes_of_failures_are_named(results, damage):
    path = failure(results)
    assert verify(results).damage == []
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    (line,) = verify(results).damage
    assert line.startswith(f"failure {path} ")
    assert line.endswith("delete it")


def test_a_failure_whose_traceback_leads_out_is_named(results):
    path = failure(results, traceback="../../../etc/passwd")
    (line,) = verify(results).damage
    assert line.startswith("../../../etc/passwd leads out of the results folder: the traceback of failure")
    failure(results, id="g")
    assert verify(results).damage == [f"failure {path} is that of g: its file was renamed"]


def test_a_folder_with_only_failures_can_be_verified(tmp_path):
    failure(tmp_path)
    assert verify(tmp_path).lines() == ["0 records, 0 checkpoints, 1 other file: all sound"]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("victim", [".pth", ".json"])
def test_damaged_states_of_unfinished_trainings_are_named(results, victim, damage):
    state = results / "work" / "abc" / "training" / "step_12.pth"
    state.parent.mkdir(parents=True)
    state.write_bytes(bytes(range(100)))
    write_sealed(state.with_suffix(".json"), {"steps": 12, "epochs": 1.5, "file_sha256": file_sha256(state)})
    assert verify(results).damage == []
    path = state.with_suffix(victim)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    (line,) = verify(results).damage
    assert str(state.with_suffix("")) in line
