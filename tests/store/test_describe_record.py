"""A record in words."""

from __future__ import annotations

from pathlib import Path

from mimbench.store.describe_record import describe_record
from mimbench.store.record import read_record

RECORDS = Path(__file__).parents[2] / "results" / "reference" / "records"


def test_each_plugin_has_a_line():
    path = sorted(RECORDS.glob("*.json"))[0]
    record = read_record(path)
    plugins = {"method": {"name": "mae", "version": "1"}, "task": {"name": "knn", "version": "2"}}
    with_code = record.model_copy(update={"provenance": {"host": "h", "plugins": plugins}})
    lines = describe_record(path, with_code).splitlines()
    start = lines.index("code of the plugins:")
    assert lines[start - 1] == "host: h"
    assert lines[start + 1 : start + 4] == ["  method: name mae, version 1", "  task: name knn, version 2", ""]
    without_code = record.model_copy(update={"provenance": {"host": "h"}})
    assert "code of the plugins" not in describe_record(path, without_code)
