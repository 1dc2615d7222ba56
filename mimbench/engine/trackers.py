"""The trackers by name, and whether they can start here. Nothing heavy is imported, so that plans check them."""

from __future__ import annotations

import netrc
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlparse

from mimbench.errors import InputError, nearest

OFFLINE = ("offline", "disabled", "dryrun")
"""Values of WANDB_MODE with which wandb sends nothing and needs no login."""


@dataclass(frozen=True)
class Tracker:
    """A tracker: what it needs."""

    package: str
    """That `import` needs, and the name of the extra of mimbench that installs it."""
    problem: Callable[[], str] = lambda: ""
    """What keeps it from starting here, with the remedy; "" if nothing does."""


def _wandb_problem() -> str:
    """Without a login, wandb would ask for one in the middle of a run."""
    known = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
    if os.environ.get("WANDB_MODE") in OFFLINE or any(os.environ.get(name) for name in known):
        return ""
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        entries = netrc.netrc(os.environ.get("NETRC") or str(Path.home() / ".netrc"))
    except (OSError, netrc.NetrcParseError):
        entries = None
    if entries and entries.authenticators(host):
        return ""
    return "is not logged in; run `wandb login`, set WANDB_API_KEY, or set WANDB_MODE=offline"


TRACKERS: Mapping[str, Tracker] = {
    "tensorboard": Tracker("tensorboard"),
    "wandb": Tracker("wandb", _wandb_problem),
    "mlflow": Tracker("mlflow"),
    "aim": Tracker("aim"),
}


def how_to_install(name: str) -> str:
    """The command that installs a tracker."""
    return f'pip install "mimbench[{TRACKERS[name].package}]"'


def check_trackers(names: Sequence[str], where: str) -> None:
    """Raise InputError for a tracker that is unknown, not installed, or cannot start.

    Args:
        where: path of the table that names them, such as "pretrain".
    """
    for name in names:
        if name not in TRACKERS:
            raise InputError(f"{where}.track: unknown tracker {name!r}{nearest(name, TRACKERS)}")
        if find_spec(TRACKERS[name].package) is None:
            raise InputError(f"{where}.track: {name} is not installed; {how_to_install(name)}, or leave it out")
        if problem := TRACKERS[name].problem():
            raise InputError(f"{where}.track: {name} {problem}")
