"""What a network, a frozen host and a power cut do to a training and to a stream of backtests: nothing is lost, and nothing is done twice.

Real hosts in network namespaces, real processes, one bridge. Heartbeats are quicker than usual, so that all of it fits in some minutes: a
worker counts as dead after 6 s, and before that nothing of it is given away.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.house import eventually
from tests.hosts.network import Network, missing

HOSTS = {
    "broker": "10.78.0.1", "alpha": "10.78.0.2", "beta": "10.78.0.3", "gamma": "10.78.0.4", "delta": "10.78.0.5", "laptop": "10.78.0.6",
}  # fmt: skip
KINDS = {"alpha": "training", "beta": "training,backtesting", "gamma": "backtesting", "delta": "backtesting"}
BROKER = f"{HOSTS['broker']}:5555"
REPOSITORY = str(Path(__file__).parents[2])
WHY_NOT = missing()

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.hosts,
    pytest.mark.science,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT),
]


class Site:
    """A broker, four workers and a laptop: delta lies behind a line of 50 ms."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network = network
        self.folder = folder
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("KTRDR_", "XDG_"))}
        self.env = keep | {
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
            "PYTHONPATH": REPOSITORY,
            "KTRDR_PING_INTERVAL": "0.3",
            "KTRDR_DEAD_AFTER": "6",
        }

    def broker(self) -> None:
        argv = ["-m", "ktrdr_broker", "--base-port", "5555", "--bind", HOSTS["broker"], "--insecure", "--data-dir", str(self.folder / "b")]
        self.network.start("broker", argv, self.env, self.folder / "broker.log")

    def worker(self, host: str) -> None:
        argv = ["-m", "ktrdr_worker", "--broker", BROKER, "--id", host, "--kinds", KINDS[host], "--slots", "cpu=2"]
        self.network.start(host, [*argv, "--state-dir", str(self.folder / host)], self.env, self.folder / f"{host}.log")

    def ktrdr(self, *args: str) -> dict[str, Any]:
        done = self.network.run("laptop", ["-m", "ktrdr_cli", "--broker", BROKER, *args, "--json"], self.env)
        assert done.returncode == 0, f"{args}\n{done.stdout}\n{done.stderr}"
        return dict(json.loads(done.stdout))

    def train(self, *more: str) -> str:
        return str(self.ktrdr("models", "train", "--strategy", "neuro_mean_reversion", "--timeframe", "1h", "--detach", *more)["job_id"])

    def show(self, job: str) -> dict[str, Any]:
        return self.ktrdr("jobs", "show", job)

    def stream(self, model: str) -> subprocess.Popen[bytes]:
        argv = ["-m", "tests.hosts.stream", BROKER, model, str(self.folder / "ledger"), str(self.folder / "stop")]
        with (self.folder / "stream.log").open("ab") as out:
            return subprocess.Popen(self.network.on("laptop", sys.executable, *argv), env=self.env, stdout=out, stderr=out)

    def ledger(self) -> list[list[Any]]:
        path = self.folder / "ledger"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def flows(self) -> None:
        """Wait until backtests end that were submitted from now on."""
        sent = sum(entry[0] == "sent" for entry in self.ledger())
        eventually(lambda: any(entry[0] == "ended" and entry[1] >= sent for entry in self.ledger()), patience=90)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Network(HOSTS, far={"delta": (50, 15)}) as network:
        made = Site(network, tmp_path)
        made.broker()
        for host in KINDS:
            made.worker(host)
        yield made


def test_a_training_and_a_stream_of_backtests_under_every_fault_of_a_network(site: Site) -> None:
    network = site.network
    long = ("--set", "training.epochs=4000", "--set", "training.early_stopping.patience=5000")
    model = site.ktrdr("models", "train", "--strategy", "neuro_mean_reversion", "--timeframe", "1h", "--set", "training.epochs=3")["job_id"]
    # Both ask for the same. One will lose its host, the other one is left alone on beta, whose cable nobody touches.
    tried, alone = site.train(*long), site.train(*long)
    where = {job: eventually(lambda job=job: site.show(job).get("worker_id")) for job in (tried, alone)}
    assert set(where.values()) == {"alpha", "beta"}
    if where[tried] == "beta":
        tried, alone = alone, tried
    stream = site.stream(str(model))
    try:
        site.flows()
        network.unplug("alpha")  # long enough for both sides to notice, and too short for the training to be given away
        time.sleep(2)
        network.plug("alpha")
        site.flows()
        for host in ("alpha", "broker"):  # everything on it stops, and TCP stays up
            network.freeze(host)
            time.sleep(3)
            network.thaw(host)
            site.flows()
        network.power_cut("broker")
        time.sleep(2)
        network.plug("broker")
        site.broker()
        site.flows()
        assert site.show(tried)["attempt"] == 1
        network.power_cut("alpha")  # the training goes on elsewhere, from its last checkpoint
        eventually(lambda: site.show(tried)["attempt"] == 2, patience=90)
        network.plug("alpha")
        site.worker("alpha")

        for fault in (network.unplug, network.deafen, network.silence, network.freeze):
            fault("gamma")
            time.sleep(8)  # for longer than a worker may be silent
            network.mend("gamma")
            site.flows()
        network.power_cut("gamma")
        site.flows()
        network.plug("gamma")
        site.worker("gamma")
        network.lose("beta", 30)
        network.lose("delta", 30)
        time.sleep(6)
        network.heal()
        site.flows()
        site.ktrdr("jobs", "wait", tried, alone)
    finally:
        (site.folder / "stop").touch()
        try:
            status = stream.wait(120)
        except subprocess.TimeoutExpired:
            stream.kill()
            status = stream.wait()
    assert status == 0, (site.folder / "stream.log").read_text()[-3000:]
    _settle(site.ledger())
    digests = {job: site.ktrdr("jobs", "result", job)["result"]["model_digest"] for job in (tried, alone)}
    assert digests[tried] == digests[alone]
    assert (site.show(tried)["attempt"], site.show(alone)["attempt"]) == (2, 1)


def _settle(entries: list[list[Any]]) -> None:
    """The ledger's sums: what was acknowledged has ended, once, well, and with the same figures."""
    acknowledged = {entry[2] for entry in entries if entry[0] == "acknowledged"}
    ended = Counter(entry[2] for entry in entries if entry[0] == "ended")
    assert acknowledged == {entry[2] for entry in entries if entry[0] == "sent"}
    assert set(ended) == acknowledged
    assert set(ended.values()) == {1}
    assert {entry[3] for entry in entries if entry[0] == "ended"} == {"done"}
    assert len({entry[4] for entry in entries if entry[0] == "ended"}) == 1
    assert len(acknowledged) > 50
    print(f"{len(acknowledged)} backtests acknowledged, {len(ended)} ended, 0 lost, 0 twice")
