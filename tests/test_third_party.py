"""A package that mimbench has never heard of, really installed: listed, run, and contained where it is broken."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent / "third_party_plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> str:
    """PYTHONPATH with the package installed by pip."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for path in PACKAGE.iterdir():
        if path.is_file():
            (source / path.name).write_bytes(path.read_bytes())
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
    done = subprocess.run([*command, str(site), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return str(site)


def test_it_is_listed_with_its_owner_and_the_broken_part_with_its_reason(mimbench, installed):
    done = mimbench("list", PYTHONPATH=installed)
    assert done.returncode == 0
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line.startswith("  ")}
    assert "mimbench-deblur 0.3.0" in rows["deblur"]
    assert "BROKEN" not in rows["deblur"]
    assert "BROKEN" in rows["deblur-broken"]
    assert "needs_what_is_not_there" in rows["deblur-broken"]
    assert "BROKEN" not in rows["simmim"]


@pytest.mark.e2e
def test_it_runs_like_a_built_in(mimbench, installed):
    run = ("run", "--task", "linear-probe", "--recipe", "smoke", "--json")
    done = mimbench(*run, "--method", "deblur", "--set", "method.mask_ratio=0.25", PYTHONPATH=installed)
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    assert record["method"] == {"name": "deblur", "version": "1"}
    assert record["recipe"]["method"] == {"name": "deblur", "mask_ratio": 0.25}
    broken = mimbench(*run, "--method", "deblur-broken", PYTHONPATH=installed)
    assert broken.returncode == 2
    assert "method 'deblur-broken' of mimbench-deblur 0.3.0 is broken" in broken.stderr


def test_the_doctor_finds_the_broken_part(mimbench, installed):
    done = mimbench("doctor", PYTHONPATH=installed)
    assert done.returncode == 1
    assert "deblur-broken" in done.stdout
