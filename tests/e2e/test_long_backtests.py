"""Backtests of many bars in real processes: they tell how far they are, stop at once, outlive a kill, and always end the same."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from ktrdr_zmq import Client, JobUpdate, ProgressUpdate
from ktrdr_zmq.blocking import Job
from tests.e2e.house import Daemon, House, alive, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.science, pytest.mark.slow, pytest.mark.timeout(400)]

BARS = 300_000
QUICK = {"training.epochs": 2, "model.architecture.hidden_layers": [8]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with minutes of half a year and more."""
    folder = tmp_path_factory.mktemp("bars")
    chance = np.random.default_rng(3)
    close = np.round(30_000 * np.exp(np.cumsum(chance.normal(0, 3e-4, BARS))), 2)
    open_ = np.append(30_000.0, close[:-1])
    times = np.datetime_as_string(np.datetime64("2023-01-01T00:00", "s") + np.arange(BARS) * 60, timezone="UTC").tolist()
    with (folder / "BTCUSD_1m.csv").open("w") as file:
        file.write("timestamp,open,high,low,close,volume\n")
        for time, first, last in zip(times, open_.tolist(), close.tolist(), strict=True):
            file.write(f"{time},{first},{max(first, last) + 1},{min(first, last) - 1},{last},1\n")
    return folder


def child_of(worker: Daemon) -> int:
    """The process that does its jobs."""
    return next(pid for pid in worker.children() if b"ktrdr_worker.child" in Path(f"/proc/{pid}/cmdline").read_bytes())


def until(job: Job, stage: str) -> None:
    """Wait until a job says that it is at a stage."""
    for update in job.events():
        if isinstance(update, ProgressUpdate) and update.stage == stage:
            return
        assert not (isinstance(update, JobUpdate) and update.terminal), f"{stage} was never told: {update}"


def test_a_long_backtest_stops_at_once_and_outlives_its_process(house: House, folder: Path) -> None:
    house.broker()
    worker = house.worker("one", "--slots", "cpu=1", kinds="training,backtesting")
    with Client(house.address, data_dir=folder) as client:
        model = client.train("neuro_mean_reversion", symbol="BTCUSD", timeframe="1m", end="2023-01-03", overrides=QUICK)
        model.result(timeout=120)
        child = child_of(worker)
        for stage in ("inference", "equity"):  # the bars are known here since the training, and there in no time
            job = client.backtest(model=model)
            until(job, stage)
            job.cancel(grace=3000)  # nobody waits for SIGKILL here
            assert job.wait(timeout=60).state == "cancelled"
            assert job.status().artifacts == []
            assert alive(child), "it stopped by itself, and goes on with other jobs"
        job = client.backtest(model=model)
        until(job, "equity")
        assert child_of(worker) == child
        os.kill(child, signal.SIGKILL)
        killed = job.result(timeout=200)
        info = job.status()
        assert (info.attempt, info.crashes, info.fraction) == (2, 1, 1.0)
        shares = []
        again = client.backtest(model=model)
        for update in again.events():
            if isinstance(update, ProgressUpdate):
                shares.append(update.fraction)
        assert shares == sorted(shares)
        assert len({share for share in shares if 0.75 <= share < 1}) > 2, "also within the longest stage"
        assert again.result().digest == killed.digest
        assert killed.window["bars"] > BARS - 4000
        trades = killed.trades.to_frame()
        assert len(trades) == killed.metrics["trades"] > 100
        assert trades["pnl"].sum() == pytest.approx(killed.metrics["equity_final"] - 100_000, abs=1e-6)
        assert str(trades["entry_time"].dt.tz) == "UTC"
        assert len(killed.equity.to_frame()) == killed.window["bars"]


def test_the_same_jobs_have_the_same_digests_whoever_does_them(house: House) -> None:
    """One after the other on one worker; in another order, side by side, on two others."""
    house.broker()
    first = house.worker("one", "--slots", "cpu=1", kinds="training,backtesting")
    options = [{"overrides": {**QUICK, "training.seed": seed}} for seed in range(3)]
    with Client(house.address) as client:

        def digests(order: list[int], *, wait: bool) -> dict[int, tuple[str, str]]:
            models = {}
            for number in order:
                models[number] = client.train("neuro_mean_reversion", symbol="EURUSD", timeframe="1h", **options[number])
                if wait:
                    models[number].result(timeout=120)
            for model in models.values():
                model.result(timeout=120)
            tests = {number: client.backtest(model=models[number]) for number in order}
            return {number: (models[number].result().digest, tests[number].result(timeout=120).digest) for number in sorted(order)}

        alone = digests([0, 1, 2], wait=True)
        first.kill(signal.SIGTERM)
        eventually(lambda: all(worker.state != "live" for worker in client.workers()))
        house.worker("two", "--slots", "cpu=1", kinds="training,backtesting")
        house.worker("three", "--slots", "cpu=1", kinds="training,backtesting")
        assert digests([2, 0, 1], wait=False) == alone
        assert len({digest for pair in alone.values() for digest in pair}) == 6
        ran = {info.worker_id for info in client.jobs(kinds=["backtesting"], limit=6)}
    assert ran == {"one", "two", "three"}


def test_the_tables_of_a_backtest_from_the_command_line(house: House, tmp_path: Path) -> None:
    house.broker()
    house.worker("one", kinds="training,backtesting")
    house.cli_json(
        "models", "train", "--strategy", "neuro_mean_reversion", "--symbol", "EURUSD", "--timeframe", "1d", "--set", "training.epochs=2"
    )
    result = house.cli_json("backtest", "run", "--commission", "0.001", "--slippage-bps", "2")["result"]
    assert (result["commission_bps"], result["slippage_bps"]) == (pytest.approx(10.0), pytest.approx(2.0))
    files = [tmp_path / "trades.csv", tmp_path / "equity.csv"]
    saved = house.cli_json("jobs", "result", "last", "--trades", str(files[0]), "--equity", str(files[1]))
    assert saved["saved"] == [str(file) for file in files]
    lines = [file.read_text().splitlines() for file in files]
    assert [len(rows) - 1 for rows in lines] == [result["metrics"]["trades"], result["window"]["bars"]]
    assert float(lines[1][-1].split(",")[1]) == result["metrics"]["equity_final"]
