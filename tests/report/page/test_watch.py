"""`mimbench report --watch` over HTTP: what is served, to whom, and that nothing is written."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote

import pytest

from helpers.page_results import REFERENCE, write_epochs, write_results
from mimbench.errors import InputError
from mimbench.leases import hold_lease
from mimbench.report.page.watch import HOST, LivePage, WatchServer
from mimbench.report.viewer.render import unpack
from mimbench.store.progress import PROGRESS, TrainingProgress, write_progress

NOTE = TrainingProgress("simmim, seed 0", "epoch", 1.5, 4, [(0.5, 0.9), (1.5, 0.4)], {}, 120.0, 30.4)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def results(tmp_path) -> Path:
    write_results(tmp_path / "results", methods=("simmim", "random-init"), ratios=(0.6,))
    return tmp_path / "results"


@pytest.fixture
def ask(results):
    """Serves the results, with each page built again at once; ask(path) is (status, body)."""
    live = LivePage(results)
    live._not_before = 0.0
    server = WatchServer(live, 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def get(path: str, host: str | None = None, token: str | None = None) -> tuple[int, bytes]:
        """token: what comes before the path in place of the server's token."""
        live._not_before = 0.0
        path = f"/{server.token}{path}" if token is None else quote(f"{token}{path}") or "/"
        connection = HTTPConnection(HOST, server.server_port, timeout=30)
        connection.request("GET", path, headers={"Host": host} if host else {})
        answer = connection.getresponse()
        return answer.status, answer.read()

    yield get
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_page_and_runs_in_progress_are_served_and_nothing_is_written(ask, results):
    write_progress(results / "work" / "aaaa" / PROGRESS, NOTE)
    before = files(results)
    assert json.loads(ask("/live.json")[1])["running"] == []
    page = ask("/")[1].decode()
    assert len(unpack(page)["runs"]) == len(list((results / "records").iterdir()))
    with hold_lease(results / "work" / "aaaa", "pretrain simmim"):
        (running,) = json.loads(ask("/live.json")[1])["running"]
    assert running["what"] == "pretrain simmim"
    assert running["trainings"][0]["loss"] == [[0.5, 0.9], [1.5, 0.4]]
    assert files(results) == before


def test_new_records_give_a_new_page_and_a_damaged_one_leaves_the_last(ask, results, capfd):
    first = json.loads(ask("/live.json")[1])
    assert first["stamp"] == unpack(ask("/")[1].decode())["live"]["stamp"]
    write_epochs(results)
    second = json.loads(ask("/live.json")[1])
    page = unpack(ask("/")[1].decode())
    assert second["stamp"] == page["live"]["stamp"] != first["stamp"]
    record = sorted((results / "records").iterdir())[0]
    content = record.read_bytes()
    record.write_bytes(content[:100])
    damaged = json.loads(ask("/live.json")[1])
    assert record.name in damaged["problem"]
    assert damaged["stamp"] == second["stamp"]
    assert unpack(ask("/")[1].decode()) == page
    assert capfd.readouterr().err.count(record.name) == 1
    record.write_bytes(content)
    assert json.loads(ask("/live.json")[1])["problem"] == ""


@pytest.mark.parametrize(
    "path", ["/index.html", "/artifacts/", "/../records", "/artifacts/../../etc/passwd", "/%2e%2e/"]
)
def test_nothing_else_is_served(ask, path):
    assert ask(path)[0] == 404


@pytest.mark.parametrize("path", ["/", "/live.json", "/wrong/live.json", ""])
def test_without_the_token_nothing_is_served(ask, path):
    assert ask(path, token="")[0] == 404
    assert ask(path, token="/ä")[0] == 404


def test_each_start_draws_another_token(results):
    live = LivePage(results)
    with WatchServer(live, 0) as one, WatchServer(live, 0) as other:
        assert one.address.endswith(f"/{one.token}/")
        assert one.token != other.token
        assert len(one.token) > 20


def test_a_page_of_another_name_gets_nothing(ask):
    assert ask("/live.json", host="example.org")[0] == 403


def test_a_folder_without_records_is_watched_from_the_start(tmp_path):
    (tmp_path / "work").mkdir()
    live = LivePage(tmp_path)
    assert unpack(live.page())["runs"] == []
    assert live.state()["running"] == []


def test_what_cannot_be_served_is_one_line(tmp_path, results):
    with pytest.raises(InputError, match="does not exist"):
        LivePage(tmp_path / "nowhere")
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=f"--port {port} cannot be used .*leave it out"):
            WatchServer(LivePage(results), port)
    next((results / "records").iterdir()).write_text("{")
    with pytest.raises(InputError, match="record"):
        LivePage(results)


def test_ctrl_c_ends_it_without_an_error():
    command = [sys.executable, "-m", "mimbench", "report", "--watch", "--results", str(REFERENCE.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"http://{HOST}:")
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "ended\n", "")


@pytest.mark.parametrize(
    ("options", "message"), [(["--port", "8000"], "add --watch"), (["--watch", "--output", "x"], "nothing is written")]
)
def test_options_that_exclude_each_other_are_refused(options, message):
    command = [sys.executable, "-m", "mimbench", "report", *options, "--results", str(REFERENCE.parent)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1
