"""The five scenarios: work is done by workers or not at all, and the command line says so."""

from __future__ import annotations

import time

import pytest

from tests.e2e.house import House

pytestmark = [pytest.mark.e2e, pytest.mark.science, pytest.mark.timeout(180)]

TRAIN = ("models", "train", "--strategy", "neuro_mean_reversion", "--symbol", "EURUSD", "--timeframe", "1d")
NO_TRAINING = "No training workers available. Start GPU or CPU training workers."
NO_BACKTESTING = "No workers available for backtesting. Start a backtesting worker."


def test_training_and_backtest_with_cpu_workers_succeed(house: House) -> None:
    house.broker()
    house.worker("trainer", kinds="training")
    house.worker("tester", kinds="backtesting")
    model = house.cli_json(*TRAIN)
    assert model["state"] == "done"
    assert (model["worker_id"], model["tag"]) == ("trainer", "cpu")
    backtest = house.cli_json("backtest", "run", "-m", "last")
    assert backtest["state"] == "done"
    assert backtest["worker_id"] == "tester"
    assert backtest["result"]["metrics"]["trades"] > 0
    assert backtest["result"]["in_sample"] is False
    assert backtest["result"]["model_digest"] == model["result"]["model_digest"]


def test_training_prefers_the_gpu_worker(house: House) -> None:
    house.broker()
    house.worker("by-cpu", kinds="training")
    house.worker("by-gpu", "--simulate-gpu", kinds="training")
    model = house.cli_json(*TRAIN)
    assert (model["worker_id"], model["tag"]) == ("by-gpu", "gpu")
    workers = {worker["worker_id"]: worker for worker in house.cli_json("workers", "list")["workers"]}
    assert workers["by-gpu"]["gpu"] is True
    assert workers["by-gpu"]["simulated_gpu"] is True
    assert workers["by-cpu"]["gpu"] is False


def test_training_without_workers_is_refused_at_once(house: House) -> None:
    house.broker()
    begun = time.monotonic()
    done = house.cli(*TRAIN)
    took = time.monotonic() - begun
    assert done.returncode == 3
    assert NO_TRAINING in done.stderr
    assert "Traceback" not in done.stderr
    assert took < 10  # the promise is 2 s; machines that run tests are slow


def test_training_is_refused_when_only_backtesting_workers_are_there(house: House) -> None:
    house.broker()
    house.worker("tester", kinds="backtesting")
    done = house.cli(*TRAIN)
    assert done.returncode == 3
    assert NO_TRAINING in done.stderr


def test_backtest_without_workers_is_refused_at_once(house: House) -> None:
    house.broker()
    trainer = house.worker("trainer", kinds="training")
    house.cli_json(*TRAIN)
    trainer.kill(15)
    done = house.cli("backtest", "run", "-m", "last")
    assert done.returncode == 3
    assert NO_BACKTESTING in done.stderr
