"""Files with the value of each metric on each sample."""

from __future__ import annotations

import numpy as np

from mimbench.store.samples import pack_samples, read_samples


def stored(tmp_path, content: bytes):
    (tmp_path / "records").mkdir()
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "samples.npz").write_bytes(content)
    return tmp_path / "records" / "one.json", {"artifacts": {"samples": "artifacts/samples.npz"}, "task": {"name": "x"}}


def test_bits_and_numbers_come_back(tmp_path):
    rng = np.random.default_rng(0)
    hits, shares = rng.random(1003) < 0.7, rng.random(1003)
    record = stored(tmp_path, pack_samples({"top1": hits, "top1_5shot": shares}))
    assert np.array_equal(read_samples(*record, "top1"), hits)
    assert np.allclose(read_samples(*record, "top1_5shot"), shares, atol=1e-6)


def test_fifty_thousand_images_take_a_bit_each():
    hits = np.random.default_rng(0).random(50_000) < 0.5
    assert len(pack_samples({"top1": hits})) < 50_000 / 8 + 700
    assert pack_samples({"top1": hits}) == pack_samples({"top1": hits})
