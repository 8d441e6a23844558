"""Broker, workers and client as hosts of their own: network namespaces with addresses, joined by a bridge. Needs root on Linux."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.house import Daemon

HOSTS = {"broker": "10.77.0.1", "trainer": "10.77.0.2", "tester": "10.77.0.3", "laptop": "10.77.0.4"}
PREFIX = f"kz{os.getpid() % 10_000}"


def ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, capture_output=True, text=True)


def may_make_namespaces() -> bool:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    probe = subprocess.run(["ip", "netns", "add", f"{PREFIX}-probe"], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "del", f"{PREFIX}-probe"], capture_output=True, check=False)
    return probe.returncode == 0


pytestmark = [
    pytest.mark.e2e,
    pytest.mark.hosts,
    pytest.mark.science,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not may_make_namespaces(), reason="needs root and network namespaces"),
]


@pytest.fixture
def network() -> Iterator[None]:
    """One namespace for the bridge, one for each host."""
    hub = f"{PREFIX}-hub"
    names = [hub, *(f"{PREFIX}-{host}" for host in HOSTS)]
    try:
        for name in names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", hub, "link", "add", "br0", "type", "bridge")
        ip("-n", hub, "link", "set", "br0", "up")
        for number, (host, address) in enumerate(HOSTS.items()):
            ip("-n", hub, "link", "add", f"p{number}", "type", "veth", "peer", "name", "eth0", "netns", f"{PREFIX}-{host}")
            ip("-n", hub, "link", "set", f"p{number}", "master", "br0", "up")
            ip("-n", f"{PREFIX}-{host}", "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", f"{PREFIX}-{host}", "link", "set", "eth0", "up")
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def on(host: str, *argv: str) -> list[str]:
    return ["ip", "netns", "exec", f"{PREFIX}-{host}", *argv]


def test_a_training_and_its_backtest_cross_the_network(network: None, tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("KTRDR_", "XDG_"))} | {
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(tmp_path),
    }
    daemons: list[Daemon] = []

    def start(host: str, *argv: str) -> None:
        daemon = Daemon(host, on(host, sys.executable, *argv), env, tmp_path / f"{host}.log")
        daemons.append(daemon)
        daemon.ready()

    def ktrdr(*args: str) -> dict[str, object]:
        done = subprocess.run(
            on("laptop", sys.executable, "-m", "ktrdr_cli", "--broker", "10.77.0.1:5555", *args, "--json"),
            env=env, capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return dict(json.loads(done.stdout))

    try:
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
    finally:
        for daemon in reversed(daemons):
            daemon.process.kill()
            daemon.process.wait()
