"""The examples work as they stand: a client that has nothing of ours, and a package with a handler of its own."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ktrdr_zmq import Client, JobCancelled, JobFailed, LocalCluster, ProgressUpdate
from tests.e2e.house import House, eventually

EXAMPLES = Path(__file__).parents[2] / "examples"
BARE = EXAMPLES / "bare_client.py"


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster([{"id": "one", "kinds": ["echo"], "slots": "cpu=1"}]) as cluster:
        yield cluster


def bare(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(BARE), *args], capture_output=True, text=True, timeout=50, check=False)


# ---------------------------------------------------------------- the bare client


def test_the_bare_client_imports_nothing_of_ours() -> None:
    tree = ast.parse(BARE.read_text(encoding="utf-8"))
    roots = {alias.name.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    roots |= {str(node.module).partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert roots - sys.stdlib_module_names == {"msgpack", "zmq"}


@pytest.mark.e2e
def test_the_bare_client_gets_its_result(cluster: LocalCluster) -> None:
    done = bare(cluster.broker, "echo", '{"hello": ["world", 1.5, null]}')
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"schema": 1, "hello": ["world", 1.5, None]}


@pytest.mark.e2e
def test_the_bare_client_waits_for_a_job_that_takes_a_while(cluster: LocalCluster) -> None:
    done = bare(cluster.broker, "echo", '{"seconds": 1}')
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.e2e
def test_the_bare_client_tells_a_refusal_and_a_failure_apart(cluster: LocalCluster) -> None:
    refused = bare(cluster.broker, "training", "{}")
    assert refused.returncode == 3
    assert refused.stderr == "refused: NO_CAPABLE_WORKER: No training workers available. Start GPU or CPU training workers.\n"
    failed = bare(cluster.broker, "echo", '{"seconds": "many"}')
    assert failed.returncode == 1
    assert "HANDLER_ERROR" in failed.stderr
    assert "ValueError" in failed.stderr


@pytest.mark.e2e
def test_the_bare_client_outlives_a_killed_broker(tmp_path: Path) -> None:
    """The new process knows neither the connection nor the client: HELLO_REQUIRED, HELLO, and everything goes on."""
    house = House(tmp_path)
    try:
        broker = house.broker()
        house.worker("one")
        body = {"do": "work", "gate": str(tmp_path / "gate")}
        waiting = subprocess.Popen(
            [sys.executable, str(BARE), house.address, "rogue", json.dumps(body)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        with Client(house.address) as client:
            (job,) = eventually(lambda: client.jobs(states=["running"]))
            broker.kill()
            house.broker()
            (tmp_path / "gate").touch()
            out, err = waiting.communicate(timeout=40)
            assert (waiting.returncode, err) == (0, "")
            assert json.loads(out)["attempt"] == 1, "the job went on in the same attempt"
            assert client.job(job.id).status().attempt == 1
    finally:
        house.close()


# ---------------------------------------------------------------- the custom handler


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example package, built and unpacked as pip does it; nothing is downloaded and the environment stays as it is."""
    pytest.importorskip("hatchling", reason="the example is built with hatchling")
    source = shutil.copytree(EXAMPLES / "custom_handler", tmp_path_factory.mktemp("source") / "custom_handler")
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "--target", str(target), str(source)], capture_output=True, text=True, timeout=55, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.mark.e2e
def test_a_worker_takes_jobs_of_an_installed_kind(installed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The client does not have the package; its name for the kind is enough."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(installed), os.environ.get("PYTHONPATH", "")))))
    with LocalCluster([{"id": "one", "kinds": ["bootstrap"], "slots": "cpu=1"}]) as cluster, cluster.client() as client:
        assert client.workers()[0].kinds == {"bootstrap": (1, 1)}
        job = client.submit("bootstrap", {"returns": [0.02, -0.01, 0.03, -0.04] * 50, "draws": 20_000, "seed": 1})
        heard: list[object] = []
        result = job.result(timeout=40, progress=heard.append)
        assert result["draws"] == 20_000
        assert 0 < result["drawdown"]["0.05"] < result["drawdown"]["0.95"] < 1
        assert [update.stage for update in heard if isinstance(update, ProgressUpdate)][:1] == ["draw"]
        table = job.artifact("drawdowns", tmp_path / "drawdowns.csv").read_text()
        assert table.count("\n") == 20_001

        with pytest.raises(JobFailed, match="returns must be a list") as failure:
            client.submit("bootstrap", {}).result(timeout=20)
        assert failure.value.traceback == "", "the submitter's mistake, not the handler's"
        assert "0.01" in failure.value.hint

        endless = client.submit("bootstrap", {"returns": [0.01, -0.01] * 500, "draws": 1_000_000})
        next(update for update in endless.events() if isinstance(update, ProgressUpdate))
        endless.cancel()
        with pytest.raises(JobCancelled):
            endless.result(timeout=20)


def test_the_tests_of_the_example_pass(tmp_path: Path) -> None:
    """In a process of its own: it is another project, with settings of its own."""
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--basetemp={tmp_path / 'base'}",
        str(EXAMPLES / "custom_handler"),
    ]
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=50, check=False, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
