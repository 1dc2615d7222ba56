"""An error of one rank among several ends the run. It is noted as the failure of its cells, and no lease is left."""

from __future__ import annotations

import os

import torch

from helpers.two_processes import exit_codes_of_two
from mimbench import rank_watch
from mimbench.distributed import get_rank
from mimbench.harness.run import RunOptions, execute
from mimbench.store.failure import read_failures
from mimbench_methods.simmim import SimMIM

OPTIONS = {"methods": ["simmim", "random-init"], "tasks": ["knn"], "recipe": "smoke", "device": "cpu"}


def fail(rank, port, failing, folder, failures):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MIMBENCH_CACHE": str(folder / "cache")}
    torch.set_num_threads(1)
    rank_watch.PATIENCE = 1.0
    step = SimMIM.step

    def unlucky(self, batch, generator):
        if get_rank() == failing:
            raise ValueError("no luck")
        return step(self, batch, generator)

    SimMIM.step = unlucky
    execute(RunOptions(**OPTIONS, results=folder / "results"))


def test_an_error_of_one_rank_is_a_failure_and_the_next_run_tries_its_cell_last(tmp_path):
    results = tmp_path / "results"
    for recorded, failing in enumerate((1, 0)):
        codes, _ = exit_codes_of_two(fail, failing, tmp_path)
        assert codes == [1, 1]
        (failure,), damaged = read_failures((results / "failures").glob("*.json"))
        assert not damaged
        assert (failure.stage, failure.reason) == ("pretraining", f"rank {failing} failed: ValueError: no luck")
        assert len(list((results / "records").glob("random-init-*.json"))) == recorded
        assert not list((results / "work").glob("*.lease/*"))
