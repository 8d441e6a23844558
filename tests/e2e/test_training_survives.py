"""A training that is killed ten times at random moments ends with the very weights of one that was left alone."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable

import pytest

from ktrdr_zmq import Client, Job
from tests.e2e.house import Daemon, House, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.science, pytest.mark.slow, pytest.mark.timeout(600)]

EPOCHS = 5000
KILLS = ["child"] * 4 + ["agent"] * 3 + ["broker"] * 3
WORKER = ("--handlers", "training=quick_training:handler", "--slots", "cpu=1")


def train(client: Client) -> Job:
    endless = {"training.epochs": EPOCHS, "training.early_stopping.patience": EPOCHS}
    return client.train("neuro_mean_reversion", symbol="EURUSD", timeframe="1d", overrides=endless, max_crashes=20)


def epoch(job: Job, attempt: int) -> float:
    """The epoch that this attempt told of last; 0 if it does not run, or told of none."""
    info = job.status()
    assert not info.terminal, f"it ended too early to be killed: {info.state} {info.failure}"
    return info.metrics.get("epoch", 0.0) if (info.state, info.attempt) == ("running", attempt) else 0.0


def runs_jobs(daemon: Daemon) -> list[int]:
    """Those of its children that run jobs."""
    found = []
    for pid in daemon.children():
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            if b"ktrdr_worker.child" in file.read():
                found.append(pid)
    return found


def test_a_training_killed_ten_times_ends_with_the_same_weights(house: House) -> None:
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}")
    chance = random.Random(seed)
    kills = chance.sample(KILLS, len(KILLS))
    house.broker()
    worker = house.worker("one", *WORKER, kinds="training")
    with Client(house.address) as client:
        alone = train(client).result(timeout=200)
        job = train(client)
        reached, attempt = 0.0, 1
        for kill in kills:
            reached = eventually(beyond(job, attempt, reached))  # it got on since the last time
            attempt += kill != "broker"
            signal.sigtimedwait([], chance.uniform(0.0, 0.3))
            if kill == "child":
                for pid in runs_jobs(worker):
                    os.kill(pid, signal.SIGKILL)
            elif kill == "agent":
                worker.kill()
                worker = house.worker("one", *WORKER, kinds="training")
            else:
                house.kill_broker()
                house.broker()
            assert not job.status().terminal, f"it ended before the kill of its {kill}"
        result = job.result(timeout=200)
        info = job.status()
        assert info.attempt == attempt == 8, kills
        assert result["epochs_run"] == alone["epochs_run"] == EPOCHS
        assert result["model_digest"] == alone["model_digest"]
        assert result["test"] == alone["test"]


def beyond(job: Job, attempt: int, reached: float) -> Callable[[], float]:
    """The epoch of an attempt once it is later than what an earlier one had reached."""
    return lambda: now if (now := epoch(job, attempt)) > reached else 0.0
