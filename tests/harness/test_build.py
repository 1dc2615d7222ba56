"""Models are built from a seed, or refused in one line when no memory holds them."""

from __future__ import annotations

import pytest
from refusals import refused


@pytest.mark.parametrize("embed_dim", [10**13, 10**21])
def test_a_model_that_no_memory_holds_is_refused_before_anything_runs(quick, tmp_path, embed_dim):
    settings = ("--set", f"encoder.embed_dim={embed_dim}", "--set", "encoder.num_heads=1")
    done = quick("run", "--method", "simmim", "--task", "knn", "--recipe", "smoke", *settings)
    refused(done, "does not fit into the memory of this machine", "lower the sizes in [encoder]")
    assert list(tmp_path.iterdir()) == []
