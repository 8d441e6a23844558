"""Mistakes of setting up: each ends with its own exit code and a text that says what to do, never with a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.house import House

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def said(done: subprocess.CompletedProcess[str]) -> str:
    text = done.stdout + done.stderr
    assert "Traceback" not in text, text
    return text


def run(house: House, *argv: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *argv], env=house.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
    )


def test_no_broker_named(house: House) -> None:
    for command in (("jobs", "list"), ("worker", "run")):
        done = house.cli(*command)
        assert done.returncode == 2
        assert "KTRDR_BROKER is required. Example: KTRDR_BROKER=tcp://192.168.1.100:5555" in said(done)
        assert "ktrdr up" in said(done)


def test_a_broker_that_is_not_there(house: House) -> None:
    done = house.cli("--broker", "127.0.0.1:1", "jobs", "list")
    assert done.returncode == 4
    assert "127.0.0.1:1" in said(done)


@pytest.mark.parametrize("address", ["localhost:5555", "tcp://broker.example:5555", "tcp://*:5555", "127.0.0.1:99999", "ftp://127.0.0.1"])
def test_addresses_that_are_none(house: House, address: str) -> None:
    done = house.cli("--broker", address, "jobs", "list")
    assert done.returncode == 2
    assert address.partition("://")[2].partition(":")[0] in said(done) or address in said(done)


def test_localhost_is_told_its_number(house: House) -> None:
    assert "127.0.0.1" in said(house.cli("--broker", "localhost", "jobs", "list"))


def test_two_brokers_on_one_folder(house: House, tmp_path: Path) -> None:
    broker = house.broker()
    done = run(house, "-m", "ktrdr_broker", "--base-port", "0", "--data-dir", str(tmp_path / "broker"))
    assert done.returncode == 3
    assert str(tmp_path / "broker") in said(done)
    assert str(broker.pid) in said(done)


def test_a_port_in_use(house: House, tmp_path: Path) -> None:
    house.broker()
    done = run(house, "-m", "ktrdr_broker", "--base-port", str(house.port), "--data-dir", str(tmp_path / "other"))
    assert done.returncode == 3
    assert str(house.port) in said(done)


def test_a_bind_beyond_loopback_needs_the_flag(house: House, tmp_path: Path) -> None:
    for bind in ("0.0.0.0", "192.0.2.7"):
        done = run(house, "-m", "ktrdr_broker", "--base-port", "0", "--bind", bind, "--data-dir", str(tmp_path / "b"))
        assert done.returncode == 2
        assert "--insecure" in said(done)
    done = run(house, "-m", "ktrdr_broker", "--base-port", "0", "--bind", "localhost", "--data-dir", str(tmp_path / "b"))
    assert done.returncode == 2
    assert "127.0.0.1" in said(done)


def test_a_folder_that_cannot_be_written(house: House) -> None:
    done = run(house, "-m", "ktrdr_broker", "--base-port", "0", "--data-dir", "/proc/none")
    assert done.returncode in (2, 3)
    assert "/proc/none" in said(done)


def test_two_workers_on_one_host_without_options(house: House) -> None:
    house.broker()
    for name in ("first", "second"):
        argv = [sys.executable, "-m", "ktrdr_worker", "--kinds", "echo"]
        daemon = house.start(name, argv)
        daemon.ready()
    workers = house.cli_json("workers", "list")["workers"]
    assert len({worker["worker_id"] for worker in workers}) == 2
    assert [worker["state"] for worker in workers] == ["live", "live"]


def test_a_strategy_with_many_mistakes_shows_all_of_them(house: House, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    good = house.cli("strategies", "show", "neuro_mean_reversion").stdout
    bad.write_text(good.replace("training:", "trainning:").replace("indicators:", "indicatorz:"))
    done = house.cli("strategies", "validate", str(bad))
    assert done.returncode == 2
    text = said(done)
    assert "trainning" in text
    assert "indicatorz" in text
    assert "bad.yaml:" in text


def test_unknown_things(house: House) -> None:
    house.broker()
    house.worker("trainer", kinds="training,echo")
    train = ("models", "train", "--symbol", "EURUSD", "--timeframe", "1d", "--strategy")
    for args in (
        (*train, "no_such_strategy"),
        ("models", "train", "--strategy", "neuro_mean_reversion", "--symbol", "NOSUCH", "--timeframe", "1d"),
        ("models", "train", "--strategy", "neuro_mean_reversion", "--symbol", "EURUSD", "--timeframe", "7x"),
        (*train, "neuro_mean_reversion", "--set", "training.epochz=5"),
        (*train, "neuro_mean_reversion", "--start", "yesterday-ish"),
        ("jobs", "show", "deadbeef"),
        ("jobs", "show", "x!"),
        ("backtest", "run", "-m", "last"),
    ):
        done = house.cli(*args)
        assert done.returncode == 2, (args, done.returncode, said(done))
        assert said(done).strip(), args


def test_old_variables_are_explained(house: House, tmp_path: Path) -> None:
    house.env["USE_TRAINING_HOST_SERVICE"] = "true"
    house.broker()
    assert "USE_TRAINING_HOST_SERVICE" in (tmp_path / "broker.log").read_text()


def test_a_healthy_start_logs_no_warning(house: House, tmp_path: Path) -> None:
    broker = house.broker()
    worker = house.worker("one", kinds="echo")
    assert house.cli("status").returncode == 0
    worker.kill(15)
    broker.kill(15)
    assert (worker.process.returncode, broker.process.returncode) == (0, 0)
    for name in ("broker", "one"):
        text = (tmp_path / f"{name}.log").read_text().upper()
        assert "WARN" not in text, text
        assert "ERROR" not in text, text
