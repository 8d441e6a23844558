"""Broker, workers and client as hosts of their own: a demo-like run over addresses. Needs root on Linux."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.network import Network, missing

HOSTS = {"broker": "10.77.0.1", "trainer": "10.77.0.2", "tester": "10.77.0.3", "laptop": "10.77.0.4"}
WHY_NOT = missing()

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.hosts,
    pytest.mark.science,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT),
]


@pytest.fixture
def network() -> Iterator[Network]:
    """A switch and four hosts."""
    with Network(HOSTS) as made:
        yield made


def test_a_training_and_its_backtest_cross_the_network(network: Network, tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("KTRDR_", "XDG_"))} | {
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(tmp_path),
    }

    def start(host: str, *argv: str) -> None:
        network.start(host, list(argv), env, tmp_path / f"{host}.log")

    def ktrdr(*args: str) -> dict[str, object]:
        done = network.run("laptop", ["-m", "ktrdr_cli", "--broker", "10.77.0.1:5555", *args, "--json"], env)
        assert done.returncode == 0, done.stdout + done.stderr
        return dict(json.loads(done.stdout))

    start("broker", "-m", "ktrdr_broker", "--base-port", "5555", "--bind", "10.77.0.1", "--insecure", "--data-dir", str(tmp_path / "b"))
    for host, kind in (("trainer", "training"), ("tester", "backtesting")):
        state = str(tmp_path / host)
        start(host, "-m", "ktrdr_worker", "--broker", "10.77.0.1:5555", "--id", host, "--kinds", kind, "--state-dir", state)
    addresses = {worker["worker_id"]: worker["address"] for worker in ktrdr("workers", "list")["workers"]}  # type: ignore[attr-defined]
    assert addresses == {"trainer": "10.77.0.2", "tester": "10.77.0.3"}
    model = ktrdr("models", "train", "--strategy", "neuro_mean_reversion", "--symbol", "EURUSD", "--timeframe", "1d")
    assert (model["state"], model["worker_id"]) == ("done", "trainer")
    test = ktrdr("backtest", "run", "-m", "last")
    assert (test["state"], test["worker_id"]) == ("done", "tester")
