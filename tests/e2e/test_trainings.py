"""Trainings through real processes: killed, in another order, beside others, on another worker, with another number of workers."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np
import pytest

from ktrdr_zmq import Client
from tests.e2e.house import House, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.science, pytest.mark.slow, pytest.mark.timeout(600)]

EPOCHS = 140
WINDOW = {"start": "2017-03-01", "end": "2017-09-30"}
RECURRENT: dict[str, Any] = {
    "model": {"type": "gru", "architecture": {"hidden_size": 8, "sequence_length": 12, "dropout": 0.2}},
    "training": {"epochs": EPOCHS, "batch_size": 128, "optimizer": "adamw", "scheduler": "plateau", "scheduler_patience": 2},
}
KILLS = 5


def outcome(result: Any) -> tuple[str, str]:
    return result["digest"], result["model_digest"]


def killed_at(client: Client, job: Any, worker: Any, epochs: list[int]) -> None:
    """kill -9 of the process that trains, each time it has told of an epoch at or after the next of these."""
    waiting = list(epochs)
    for update in job.events():
        if waiting and getattr(update, "metrics", {}).get("epoch", 0) >= waiting[0]:
            waiting.pop(0)
            attempt = job.status().attempt
            for child in worker.children():
                os.kill(child, signal.SIGKILL)
            eventually(lambda before=attempt: job.status().attempt > before)
    assert not waiting, "it was killed as often as it should have been"


def test_a_training_that_is_killed_five_times_and_one_among_others_elsewhere_come_to_the_same(house: House) -> None:
    house.broker()
    hurried = ("--handlers", "training=hurried:handler")
    first = house.worker("one", "--slots", "cpu=1", *hurried, kinds="training")
    chance = np.random.default_rng(11)
    with Client(house.address) as client:

        def submit(**changes: Any) -> Any:
            return client.train("neuro_mean_reversion", timeframe="1h", overrides={**RECURRENT, **changes}, **WINDOW)

        plain = submit().result(timeout=240)
        job = client.train("neuro_mean_reversion", timeframe="1h", overrides=RECURRENT, **WINDOW)
        killed_at(client, job, first, sorted(chance.choice(np.arange(3, EPOCHS - 40), KILLS, replace=False).tolist()))
        assert outcome(job.result(timeout=240)) == outcome(plain)
        assert job.status().attempt == KILLS + 1
        house.worker("two", "--slots", "cpu=2", kinds="training")
        other = [submit(**{"training.seed": seed}) for seed in (1, 2)]
        among = [submit() for _ in range(2)]
        assert {outcome(each.result(timeout=240)) for each in reversed(among)} == {outcome(plain)}
        different = {outcome(each.result(timeout=240)) for each in other}
        assert len(different | {outcome(plain)}) == 3
        assert "two" in {each.status().worker_id for each in (*among, *other)}
