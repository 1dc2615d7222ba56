"""Everything that the page shows, as plain data without markup."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from mimbench._version import __version__
from mimbench.display import describe_method, describe_task
from mimbench.report.page.ablations import describe_ablations
from mimbench.report.page.leaderboard import COLUMNS, ROWS, Leaderboard, build_leaderboard, describe_leaderboard
from mimbench.report.page.pictures import Pictures, find_pretraining_pictures, is_picture
from mimbench.report.page.shared_values import SharedValues
from mimbench.report.page.worst_samples import describe_worst_samples
from mimbench.report.plots.style import method_style
from mimbench.report.published.numbers import LAST_EPOCH, Published, published_rows
from mimbench.report.records.backbones import name_backbone
from mimbench.report.records.frame import build_frame
from mimbench.report.scores.choice import ALL_METRICS, Choice
from mimbench.report.scores.names import KEYS, NAMES
from mimbench.report.scores.score import range_problem
from mimbench.report.scores.statistics import t_quantile
from mimbench.report.tables.comparison import build_comparison, build_table
from mimbench.report.tables.render import render
from mimbench.store.artifacts import results_folders
from mimbench.store.failure import Failure

Bodies = Sequence[tuple[Path, Mapping[str, Any]]]
_PAIRS = 60
"""Most pairs that the page has a quantile of Student's t for; with more pairs it hardly changes."""
_OF_FAILURE = (
    *("id", "label", "stage", "reason", "error", "traceback", "method", "task", "seed", "varied", "checkpoint"),
    "recipe_name",
)


def collect_page_data(
    bodies: Bodies,
    pictures: Pictures,
    title: str,
    failures: Sequence[Failure] = (),
    damaged: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """The data that the viewer's script reads. The same records and failures give the same data, byte for byte.

    Args:
        damaged: {id: what is wrong} of failures that cannot be read.

    Raises:
        InputError: a record that is not valid.
    """
    failed = [*map(_failure, failures), *(_damaged(*note) for note in damaged.items())]
    if not bodies:
        return {**_empty(), "title": title, "failures": failed}
    tidy = build_frame(bodies)
    board = build_leaderboard(tidy)
    numbers = {body["id"]: number for number, (_, body) in enumerate(bodies)}
    shared = SharedValues()
    runs = [_run(file, body, shared, pictures) for file, body in bodies]
    shown = describe_leaderboard(board, numbers)
    for row_number, row in enumerate(shown["rows"]):
        for cell in row["cells"]:
            for number in cell["runs"]:
                runs[number]["row"] = row_number
    return {
        "title": title,
        "version": __version__,
        "newest": max((str(body["provenance"].get("time") or "") for _, body in bodies), default="")[:10],
        "methods": [_style(name) for name in sorted({run["method"] for run in runs})],
        "tasks": {name: describe_task(name).label or name for name in sorted({run["task"] for run in runs})},
        "metrics": _metric_labels(bodies),
        "shared": shared.values,
        "runs": runs,
        "protocols": {key: list(label) for key, label in board.grid.labels.items()},
        "leaderboard": shown,
        "ablations": describe_ablations(board, numbers, {body["id"]: body for _, body in bodies}),
        "failures": failed,
        "published": _published(),
        "downloads": _downloads(tidy, board),
        "quantiles": [round(t_quantile(pairs), 6) for pairs in range(2, _PAIRS + 1)],
    }


def _empty() -> dict[str, Any]:
    """The data of a page without records."""
    lists: dict[str, Any] = {key: [] for key in ("methods", "shared", "runs", "ablations", "quantiles")}
    tables: dict[str, Any] = {key: {} for key in ("tasks", "metrics", "protocols", "downloads")}
    leaderboard: dict[str, Any] = {key: [] for key in ("labels", "columns", "rows", "notes", "remarks")}
    facts = {"version": __version__, "newest": "", "leaderboard": leaderboard, "published": _published()}
    return lists | tables | facts


def _style(method: str) -> list[str]:
    """Name, colour, marker, label."""
    style = method_style(method)
    return [method, style.colour, style.marker, describe_method(method).label or method]


def _metric_labels(bodies: Bodies) -> dict[str, dict[str, str]]:
    """{task: {metric: its name in print}}."""
    names: dict[str, dict[str, str]] = {}
    for _, body in bodies:
        task = body["task"]["name"]
        for metric in body["metrics"]:
            names.setdefault(task, {}).setdefault(metric, NAMES.metric(task, metric))
    return names


def _run(file: Path, body: Mapping[str, Any], shared: SharedValues, pictures: Pictures) -> dict[str, Any]:
    checkpoint, provenance = body["checkpoint"], dict(body["provenance"])
    roots = results_folders(file)
    # Both are shown by themselves, and differ from record to record.
    time, command = provenance.pop("time", None), provenance.pop("command", None)
    shown = [(name, path) for name, path in body["artifacts"].items() if is_picture(path)]
    pretrained = find_pretraining_pictures(roots, body["method"]["name"], checkpoint["seed"], checkpoint["fingerprint"])
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
        "versions": shared.add({part: body[part]["version"] for part in ("method", "encoder", "task", "dataset")}),
        "protocol": body["protocol_fingerprint"],
        "settings": shared.add(body["protocol"]),
        "seed": body["seed"],
        "varied": shared.add(body["varied"]),
        "recipe_name": body["recipe_name"],
        "passed": shared.add(body["recipe_passed"]),
        "recipe": shared.add_tables(body["recipe"]),
        "metrics": shared.add([[name, value["unit"]] for name, value in body["metrics"].items()]),
        "values": [[value["value"], value["n"]] for value in body["metrics"].values()],
        "out_of_range": _out_of_range(body["metrics"]),
        "chance": body["chance"],
        "curves": {name: _rounded(curve) for name, curve in body["curves"].items()},
        "loss": shared.add(_rounded(checkpoint.get("loss", []))),
        "monitored": shared.add({name: list(points) for name, points in checkpoint.get("monitored", {}).items()}),
        "pictures": [[name, path, None if source is None else shared.add(source)] for name, path, source in seen],
        "picture_problems": {path: problem for path, problem in problems.items() if problem},
        "samples": _shared_samples(describe_worst_samples(file, body), shared),
        "details": shared.add(body["details"]),
        "cost": body["cost"],
        "pretraining": {key: checkpoint[key] for key in ("fingerprint", "weights_sha256", "seed")}
        | {"setting": body["pretraining"], "cost": shared.add(checkpoint["cost"])},
        "provenance": shared.add(provenance),
        "time": time,
        "command": command,
        "rerun_command": rerun_command(body),
    }


def _shared_samples(samples: dict[str, Any] | None, shared: SharedValues) -> dict[str, Any] | None:
    if samples is None or "problem" in samples:
        return samples
    return samples | {"columns": shared.add(samples["columns"]), "values": [shared.add(v) for v in samples["values"]]}


def _out_of_range(metrics: Mapping[str, Mapping[str, Any]]) -> list[int]:
    """Positions of the metrics whose value lies outside of its range."""
    return [
        position
        for position, (name, metric) in enumerate(metrics.items())
        if range_problem({"metric": name, **metric}, metric["value"])
    ]


def rerun_command(body: Mapping[str, Any]) -> str:
    """The command that measures this cell again. Every word is quoted, since records are not trusted."""
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
            words += ["--set", f"{path}={_as_argument(value)}"]
    for path, value in varied.items():
        words += ["--vary", f"{path}={_as_argument(value)}"]
    return " ".join(shlex.quote(_printable(word)) for word in words)


def _as_argument(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _printable(text: str) -> str:
    """Text without control characters: some terminals run a pasted line break even within quotes."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def _rounded(curve: Iterable[float]) -> list[float]:
    return [float(f"{value:.6g}") for value in curve]


def _failure(failure: Failure) -> dict[str, Any]:
    fields = failure.model_dump(mode="json", include=set(_OF_FAILURE))
    return fields | {key: failure.provenance.get(key) for key in ("time", "command", "host")}


def _damaged(id: str, why: str) -> dict[str, Any]:
    blank: dict[str, Any] = dict.fromkeys((*_OF_FAILURE, "time", "command", "host"), "")
    return blank | {"id": id, "label": id, "reason": why, "seed": None, "varied": {}}


def _published() -> dict[str, Any]:
    rows = [list(row.values()) for row in published_rows()]
    return {"fields": list(Published.model_fields), "rows": rows, "epochs": LAST_EPOCH}


def _downloads(tidy: pd.DataFrame, board: Leaderboard) -> dict[str, str]:
    """The leaderboard as first shown, in each format; and all metrics and epochs, which fit into a CSV file only."""
    choice = Choice(row_fields=ROWS, column_fields=COLUMNS)
    everything = build_table(board.grid, replace(choice, metrics=ALL_METRICS, epochs=True), KEYS)
    named = build_comparison(tidy, choice, NAMES)
    return {"all": render(everything, "csv"), "csv": render(build_comparison(tidy, choice, KEYS), "csv")} | {
        format: render(named, format) for format in ("latex", "markdown")
    }
