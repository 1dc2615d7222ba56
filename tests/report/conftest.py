"""Records made up for tables: only what a table reads differs from one to the next."""

from __future__ import annotations

import hashlib

import pytest

from mimbench.report.records.frame import build_frame
from mimbench.store.record import Checkpoint, Cost, Named, Record, Value


def make_record(method="simmim", value=50.0, seed=0, metric="top1", **changes) -> Record:
    cost = Cost(seconds=1.0, device="cpu")
    metrics = changes.pop("metrics", {metric: value})
    protocol = changes.pop("protocol", {"layer": -1, "pooling": "mean"})
    unit, higher = changes.pop("unit", "percent"), changes.pop("higher", True)
    task = changes.pop("task", "linear-probe")
    varied = changes.get("varied", {})
    what = repr((method, task, seed, value, protocol, varied, changes))
    return Record(
        **{
            "id": f"{method}-{task}-s{seed}-{hashlib.sha256(what.encode()).hexdigest()[:12]}",
            "method": Named(name=method, version="1"),
            "task": Named(name=task, version="1"),
            "encoder": Named(name="vit", version="1"),
            "dataset": Named(name="mnist5k", version="f"),
            "protocol": protocol,
            "protocol_fingerprint": hashlib.sha256(repr(protocol).encode()).hexdigest()[:16],
            "seed": seed,
            "recipe_name": "smoke",
            "recipe_passed": {},
            "recipe": {},
            "checkpoint": Checkpoint(fingerprint="abc", weights_sha256="0", seed=seed, cost=cost),
            "pretraining": f"{method}{varied}",
            "metrics": {
                name: Value(value=v, unit=unit, n=10, low=0, high=100, higher_is_better=higher)
                for name, v in metrics.items()
            },
            "chance": 10.0,
            "cost": cost,
            "provenance": {"host": "a"},
        }
        | changes
    )


@pytest.fixture(scope="session")
def record():
    """The maker of records."""
    return make_record


@pytest.fixture(scope="session")
def framed():
    """Records as `load_records` gives them."""
    return lambda records, paths=(): build_frame([(None, record.as_json()) for record in records], paths)
