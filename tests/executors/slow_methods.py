"""Two methods whose steps are slow until the file that RELEASED names is there. Waiting does not change the results."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import ClassVar

from mimbench_methods.mae import MAE
from mimbench_methods.simmim import SimMIM


def wait(method: str) -> None:
    """Wait for a second, and leave a line that a step was made."""
    released = Path(os.environ["RELEASED"])
    with released.with_name(f"{method}.steps").open("a") as stream:
        stream.write(f"{os.getpid()}\n")
    if not released.exists():
        time.sleep(1.2)


class SlowSimMIM(SimMIM):
    """SimMIM with slow steps."""

    name: ClassVar[str] = "slow-simmim"

    def step(self, batch, generator):
        wait(self.name)
        return super().step(batch, generator)


class SlowMAE(MAE):
    """MAE with slow steps."""

    name: ClassVar[str] = "slow-mae"

    def step(self, batch, generator):
        wait(self.name)
        return super().step(batch, generator)
