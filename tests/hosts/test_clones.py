"""A container that was cloned with its worker's id: the original keeps its job, the clone is told what to do. Needs root on Linux."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.house import HERE, eventually
from tests.hosts.network import Network, missing

BROKER = "10.79.0.1:5555"
HOSTS = {"broker": "10.79.0.1", "original": "10.79.0.2", "clone": "10.79.0.3"}
WHY_NOT = missing()

pytestmark = [pytest.mark.e2e, pytest.mark.hosts, pytest.mark.timeout(120), pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]


@pytest.fixture
def network() -> Iterator[Network]:
    with Network(HOSTS) as made:
        yield made


def test_a_cloned_worker_id_is_refused(network: Network, tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("KTRDR_", "XDG_"))}
    env |= {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "PYTHONPATH": str(HERE)}

    def ktrdr(*args: str) -> dict[str, object]:
        done = network.run("broker", ["-m", "ktrdr_cli", "--broker", BROKER, *args, "--json"], env)
        assert done.returncode == 0, done.stdout + done.stderr
        return dict(json.loads(done.stdout))

    def worker(host: str) -> list[str]:
        handlers = ["--kinds", "rogue", "--handlers", "rogue=rogue:handler"]
        return ["-m", "ktrdr_worker", "--broker", BROKER, "--id", "gpu-1", *handlers, "--state-dir", str(tmp_path / host)]

    serve = ["-m", "ktrdr_broker", "--base-port", "5555", "--bind", HOSTS["broker"], "--insecure", "--data-dir", str(tmp_path / "b")]
    network.start("broker", serve, env, tmp_path / "broker.log")
    network.start("original", worker("original"), env, tmp_path / "original.log")
    gate = tmp_path / "gate"
    submit = "import sys\nfrom ktrdr_zmq import Client\nprint(Client(sys.argv[1]).submit('rogue', {'do': 'work', 'gate': sys.argv[2]}).id)"
    job = network.run("broker", ["-c", submit, BROKER, str(gate)], env).stdout.strip()
    eventually(lambda: ktrdr("jobs", "show", job)["state"] == "running")
    clone = subprocess.run(
        network.on("clone", sys.executable, *worker("clone")), env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert clone.returncode == 3, clone.stderr
    assert f"Worker gpu-1 is already connected from {HOSTS['original']}" in clone.stderr
    assert "--id or KTRDR_WORKER_ID" in clone.stderr
    gate.touch()
    eventually(lambda: ktrdr("jobs", "show", job)["state"] == "done")
    shown = ktrdr("jobs", "show", job)
    assert (shown["attempt"], shown["losses"]) == (1, 0)
