"""`mimbench verify`: every record and checkpoint is held against its hashes; what is damaged is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from mimbench.errors import InputError
from mimbench.store.files import write_sealed
from mimbench.store.record import read_record, write_record
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
        found = verify(root)
        assert (found.records, found.damage) == (len(list((results / "records").iterdir())), [])
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
def test_json_of_another_origin_is_told_apart(results, text):
    path = results / "records" / "notes.json"
    path.write_text(text)
    assert verify(results).damage == [f"{path} is no mimbench record; move it out of the folder of records"]


def test_missing_pictures_are_told_but_damage_no_record(results):
    path = one(results)
    record = read_record(path)
    names = {f"picture{index}": f"artifacts/{index}.png" for index in range(12)}
    write_record(path, record.model_copy(update={"artifacts": names}))
    (results / "artifacts").mkdir()
    for file in names.values():
        Image.new("L", (2, 2)).save(results / file)
    assert verify(results).missing == []
    (results / "artifacts" / "3.png").unlink()
    found = verify(results / "records")
    assert (found.damage, found.missing) == ([], [f"artifacts/3.png, the picture3 of record {path}"])
    assert found.lines()[-1] == f"{found.records} records, 0 checkpoints: all sound; 1 file that records name missing"
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
    for change, told in (({"schema": 9}, "has schema 9"), ({"seed": "x"}, "is not a valid record: seed: ")):
        changed = {**body, **change}
        write_sealed(path, changed)
        (line,) = verify(results).damage
        assert told in line


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
