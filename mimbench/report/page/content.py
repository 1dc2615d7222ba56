"""All that the page shows, as plain data: nothing of it is markup."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from mimbench._version import __version__
from mimbench.report.page.ablations import ablations
from mimbench.report.page.board import COLUMNS, ROWS, Board, board_of, leaderboard
from mimbench.report.page.pictures import Pictures, pictures_of_pretraining
from mimbench.report.page.pool import Pool
from mimbench.report.plots.style import method_style
from mimbench.report.published.numbers import LAST_EPOCH, Published, load_published
from mimbench.report.records.backbones import name_backbone
from mimbench.report.records.frame import build_frame, to_rows
from mimbench.report.scores.choice import Choice
from mimbench.report.scores.score import range_problem
from mimbench.report.scores.statistics import t_interval
from mimbench.report.tables.comparison import build_comparison
from mimbench.report.tables.render import render
from mimbench.store.artifacts import results_folders
from mimbench.store.failure import Failure

Bodies = Sequence[tuple[Path, Mapping[str, Any]]]
_PAIRS = 60
"""Student's quantiles are told up to so many pairs; beyond they hardly change."""
_OF_FAILURE = (
    *("id", "label", "stage", "reason", "error", "traceback", "method", "task", "seed", "varied", "checkpoint"),
    "recipe_name",
)


def content(
    bodies: Bodies,
    pictures: Pictures,
    title: str,
    failures: Sequence[Failure] = (),
    damaged: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """What page.js reads. The same records and failures give the same content, byte for byte.

    Args:
        damaged: {id: what is wrong} of failures that cannot be read.

    Raises:
        InputError: a record that is not valid.
    """
    tidy = build_frame(bodies)
    board = board_of(tidy)
    numbers = {body["id"]: number for number, (_, body) in enumerate(bodies)}
    pool = Pool()
    runs = [_run(file, body, pool, pictures) for file, body in bodies]
    shown = leaderboard(board, numbers)
    for row_number, row in enumerate(shown["rows"]):
        for cell in row["cells"]:
            for number in cell["runs"]:
                runs[number]["row"] = row_number
    return {
        "title": title,
        "version": __version__,
        "newest": max((str(body["provenance"].get("time") or "") for _, body in bodies), default="")[:10],
        "methods": [_style(name) for name in sorted({run["method"] for run in runs})],
        "shared": pool.values,
        "runs": runs,
        "protocols": {key: list(label) for key, label in board.labels.items()},
        "leaderboard": shown,
        "ablations": ablations(board, numbers, {body["id"]: body for _, body in bodies}),
        "failures": [*map(_failure, failures), *(_damaged(*note) for note in damaged.items())],
        "published": _published(),
        "downloads": _downloads(tidy, board),
        "quantiles": [_quantile(pairs) for pairs in range(2, _PAIRS + 1)],
    }


def _style(method: str) -> list[str]:
    style = method_style(method)
    return [method, style.colour, style.marker]


def _run(file: Path, body: Mapping[str, Any], pool: Pool, pictures: Pictures) -> dict[str, Any]:
    checkpoint, made = body["checkpoint"], dict(body["provenance"])
    roots = results_folders(file)
    time, command = made.pop("time", None), made.pop("command", None)
    shown = list(body["artifacts"].items())
    pretrained = pictures_of_pretraining(roots, body["method"]["name"], checkpoint["seed"], checkpoint["fingerprint"])
    named = set(body["artifacts"].values())
    shown += [(Path(path).stem, path) for path in pretrained if path not in named]
    hashes = {body["artifacts"].get(name): sha256 for name, sha256 in body.get("artifacts_sha256", {}).items()}
    problems = {path: pictures.problem(roots, path, hashes.get(path)) for _, path in shown}
    seen = [(name, path, None if problems[path] else pictures.source(roots, path)) for name, path in shown]
    return {
        "id": body["id"],
        "method": body["method"]["name"],
        "encoder": name_backbone(body["encoder"]["name"], body["recipe"].get("encoder", {})),
        "task": body["task"]["name"],
        "dataset": body["dataset"]["name"],
        "versions": pool.add({part: body[part]["version"] for part in ("method", "encoder", "task", "dataset")}),
        "protocol": body["protocol_fingerprint"],
        "settings": pool.add(body["protocol"]),
        "seed": body["seed"],
        "varied": pool.add(body["varied"]),
        "recipe_name": body["recipe_name"],
        "passed": pool.add(body["recipe_passed"]),
        "recipe": pool.tables(body["recipe"]),
        "metrics": pool.add([[name, value["unit"]] for name, value in body["metrics"].items()]),
        "values": [[value["value"], value["n"]] for value in body["metrics"].values()],
        "out_of_range": _out_of_range(body["metrics"]),
        "chance": body["chance"],
        "curves": {name: _rounded(curve) for name, curve in body["curves"].items()},
        "loss": pool.add(_rounded(checkpoint.get("loss", []))),
        "pictures": [[name, path, source] for name, path, source in seen],
        "picture_problems": {path: problem for path, problem in problems.items() if problem},
        "details": pool.add(body["details"]),
        "cost": body["cost"],
        "pretraining": {key: checkpoint[key] for key in ("fingerprint", "weights_sha256", "seed")}
        | {"setting": body["pretraining"], "cost": pool.add(checkpoint["cost"])},
        "provenance": pool.add(made),
        "time": time,
        "command": command,
        "rerun_command": command_of(body),
    }


def _out_of_range(metrics: Mapping[str, Mapping[str, Any]]) -> list[int]:
    """Positions of the metrics whose value lies outside of its range."""
    return [
        position
        for position, (name, metric) in enumerate(metrics.items())
        if range_problem({"metric": name, **metric}, metric["value"])
    ]


def command_of(body: Mapping[str, Any]) -> str:
    """The command that measures this one cell again. Every word is quoted: a record is not to be trusted."""
    passed = body["recipe_passed"]
    words = ["mimbench", "run"]
    if passed.get("checkpoint"):
        words += ["--checkpoint", body["checkpoint"]["fingerprint"]]
    else:
        words += ["--method", body["method"]["name"]]
    words += ["--task", body["task"]["name"], "--seeds", str(body["seed"])]
    words += ["--recipe", str(passed.get("recipe") or body["recipe_name"])]
    varied = body["varied"]
    for path, value in passed.get("set", {}).items():
        if path not in varied:
            words += ["--set", f"{path}={_as_given(value)}"]
    for path, value in varied.items():
        words += ["--vary", f"{path}={_as_given(value)}"]
    return " ".join(shlex.quote(_printable(word)) for word in words)


def _as_given(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _printable(text: str) -> str:
    """A line break within quotes would still be run by some terminals as it is pasted."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def _rounded(curve: Iterable[float]) -> list[float]:
    return [float(f"{value:.6g}") for value in curve]


def _failure(failure: Failure) -> dict[str, Any]:
    kept = failure.model_dump(mode="json", include=set(_OF_FAILURE))
    return kept | {key: failure.provenance.get(key) for key in ("time", "command", "host")}


def _damaged(id: str, why: str) -> dict[str, Any]:
    blank: dict[str, Any] = dict.fromkeys((*_OF_FAILURE, "time", "command", "host"), "")
    return blank | {"id": id, "label": id, "reason": why, "seed": None, "varied": {}}


def _published() -> dict[str, Any]:
    rows = [list(row.values()) for row in to_rows(load_published())]
    return {"fields": list(Published.model_fields), "rows": rows, "epochs": LAST_EPOCH}


def _downloads(tidy: pd.DataFrame, board: Board) -> dict[str, str]:
    """What the leaderboard shows at first, in each format; all metrics and epochs are too wide for any but CSV."""
    table = build_comparison(tidy, Choice(row_fields=ROWS, column_fields=COLUMNS))
    return {"all": render(board.table, "csv")} | {
        format: render(table, format) for format in ("csv", "latex", "markdown")
    }


def _quantile(pairs: int) -> float:
    """Student's t for a two-sided interval of a mean over so many: the one that tables use."""
    values = [0.0] * (pairs - 1) + [1.0]
    interval = t_interval(values)
    assert interval is not None
    mean = 1 / pairs
    sd = math.sqrt(sum((value - mean) ** 2 for value in values) / (pairs - 1))
    return round((interval.high - interval.low) / 2 * math.sqrt(pairs) / sd, 6)
