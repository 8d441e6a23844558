"""Processes are killed and frozen while they work; nothing is lost, and the story can be read afterwards."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from ktrdr_zmq import Client, Job
from tests.e2e.house import House, alive, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

FAST = ("--kinds", "rogue,echo,noop")


def test_a_job_outlives_the_broker(house: House, tmp_path: Path) -> None:
    """kill -9 of the broker: the job goes on in the same attempt, and a watching command line ends well."""
    broker = house.broker()
    house.worker("one")
    gate = tmp_path / "gate"
    mark = tmp_path / "mark"
    with Client(house.address) as client:
        job = client.submit("rogue", {"do": "work", "gate": str(gate), "mark": str(mark)})
        eventually(lambda: job.status().state == "running")
        watcher = house.start_cli("jobs", "watch", job.id)
        broker.kill()
        house.broker()
        gate.touch()
        out, err = watcher.communicate(timeout=60)
        assert watcher.returncode == 0, out + err
        assert job.result(timeout=60)["attempt"] == 1
        assert len(mark.read_text().splitlines()) == 1
        assert job.status().attempt == 1


def test_the_children_of_a_killed_agent_die_and_the_job_runs_elsewhere(house: House, tmp_path: Path) -> None:
    house.broker()
    first = house.worker("one")
    gate = tmp_path / "gate"
    mark = tmp_path / "mark"
    with Client(house.address) as client:
        job = client.submit("rogue", {"do": "work", "gate": str(gate), "mark": str(mark)}, reclaim_after=0.1)
        child = int(eventually(lambda: mark.exists() and mark.read_text().split())[1])
        house.worker("two")
        first.kill()
        eventually(lambda: not alive(child))
        gate.touch()
        assert job.result(timeout=90)["attempt"] == 2
    shown = house.cli_json("jobs", "show", job.id)
    assert [(attempt["worker_id"], attempt["reason"]) for attempt in shown["attempts"]] == [
        ("one", "WORKER_LOST"),
        ("two", "COMPLETED"),
    ]


def test_a_killed_child_is_replaced_and_the_agent_never_blinks(house: House, tmp_path: Path) -> None:
    house.broker()
    agent = house.worker("one")
    gate = tmp_path / "gate"
    mark = tmp_path / "mark"
    with Client(house.address) as client:
        job = client.submit("rogue", {"do": "work", "gate": str(gate), "mark": str(mark)})
        child = int(eventually(lambda: mark.exists() and mark.read_text().split())[1])
        connected = client.workers()[0].connected_at
        os.kill(child, signal.SIGKILL)
        eventually(lambda: len(mark.read_text().splitlines()) == 2)
        gate.touch()
        assert job.result(timeout=60)["attempt"] == 2
        info = job.status()
        assert (info.crashes, info.losses) == (1, 0)
        assert agent.process.poll() is None
        assert client.workers()[0].connected_at == connected


def test_a_poison_job_fails_after_its_limit_with_its_history(house: House) -> None:
    house.broker()
    house.worker("one")
    with Client(house.address) as client:
        job = client.submit("rogue", {"do": "segfault"}, max_crashes=2)
        info = job.wait(timeout=90)
        assert (info.state, info.reason, info.crashes) == ("failed", "CRASH_LIMIT", 2)
        assert client.submit("echo", {"still": "here"}).result(timeout=30)["still"] == "here"
    shown = house.cli("jobs", "show", job.id)
    assert shown.stdout.count("SIGSEGV") >= 2, shown.stdout


@pytest.mark.slow
@pytest.mark.parametrize("frozen", ["broker", "worker"])
def test_a_frozen_process_loses_nothing(house: House, tmp_path: Path, frozen: str) -> None:
    """SIGSTOP for 20 s, longer than every limit of liveness."""
    broker = house.broker()
    worker = house.worker("one")
    gate = tmp_path / "gate"
    with Client(house.address) as client:
        job = client.submit("rogue", {"do": "work", "gate": str(gate)})
        eventually(lambda: job.status().state == "running")
        target = broker if frozen == "broker" else worker
        os.kill(target.pid, signal.SIGSTOP)
        signal.sigtimedwait([], 20)
        os.kill(target.pid, signal.SIGCONT)
        gate.touch()
        assert job.result(timeout=60)["attempt"] == 1
        info = job.status()
        assert (info.state, info.attempt, info.losses) == ("done", 1, 0)
        assert [w.state for w in client.workers()] == ["live"]


def test_a_worker_that_is_stopped_hands_its_job_back(house: House, tmp_path: Path) -> None:
    house.broker()
    first = house.worker("one")
    gate = tmp_path / "gate"
    with Client(house.address) as client:
        job = client.submit("rogue", {"do": "work", "gate": str(gate)})
        eventually(lambda: job.status().state == "running")
        house.worker("two")
        first.kill(signal.SIGTERM)
        assert first.process.returncode == 0
        gate.touch()
        assert job.result(timeout=60)["attempt"] == 2
        info = job.status()
        assert (info.crashes, info.losses) == (0, 0)
        assert info.attempts[0].reason == "HANDED_BACK"


def test_a_job_outlives_its_client(house: House, tmp_path: Path) -> None:
    house.broker()
    house.worker("one")
    gate = tmp_path / "gate"
    with Client(house.address) as client:
        job_id = client.submit("rogue", {"do": "work", "gate": str(gate)}).id
    gate.touch()
    with Client(house.address) as other:
        assert other.job(job_id).result(timeout=60)["did"] == "work"


@pytest.mark.science
def test_a_cancelled_training_goes_on_from_where_it_was(house: House) -> None:
    """`jobs resume` on another worker: the first epoch that it tells of is the one after the last of the checkpoint."""
    house.broker()
    first = house.worker("one", kinds="training")
    with Client(house.address) as client:
        endless = {"training.epochs": 4000, "training.early_stopping.patience": 4000}
        job = client.train("neuro_mean_reversion", timeframe="1h", overrides=endless)
        seen = next(update.metrics["epoch"] for update in job.events() if getattr(update, "metrics", {}).get("epoch", 0) >= 3)
        job.cancel()
        assert job.wait(timeout=60).state == "cancelled"
        first.kill(signal.SIGTERM)
        house.worker("two", kinds="training")
        resumed = house.cli_json("jobs", "resume", job.id)
        assert resumed["retry_of"] == job.id
        again = client.job(resumed["job_id"])
        epoch = next(update.metrics["epoch"] for update in again.events() if "epoch" in getattr(update, "metrics", {}))
        assert epoch > seen
        again.cancel()


@pytest.mark.science
def test_a_forecast_that_was_cancelled_resumed_and_drained_ends_as_one_that_was_left_alone(house: House) -> None:
    """A recurrent network for returns, with dropout: each time it goes on elsewhere, and its weights are the same in the end."""
    house.broker()
    workers = [house.worker(name, "--slots", "cpu=1", wait=False, kinds="training") for name in ("one", "two")]
    assert all(worker.ready()["ready"] for worker in workers)
    wanted = {"training.epochs": 50, "training.early_stopping.patience": 50, "model.architecture.hidden_size": 8}

    def told(job: Job, later: float) -> float:
        """The first epoch that a job tells of at or after this one."""
        return next(update.metrics["epoch"] for update in job.events() if getattr(update, "metrics", {}).get("epoch", 0) >= later)

    with Client(house.address) as client:
        alone, job = (client.train("return_forecast", overrides=wanted, start="2017-08-01", end="2017-10-31") for _ in range(2))
        seen = told(job, 3)
        job.cancel()
        assert job.wait(timeout=60).state == "cancelled"
        again = client.job(house.cli_json("jobs", "resume", job.id)["job_id"])
        reached = told(again, 1)
        assert reached > seen, "not from the beginning"
        told(again, reached + 3)
        house.cli_json("workers", "drain", again.status().worker_id, "--stop")
        result, plain = again.result(timeout=120), alone.result(timeout=120)
        info = again.status()
        assert [attempt.reason for attempt in info.attempts] == ["HANDED_BACK", "COMPLETED"]
        assert len({attempt.worker_id for attempt in info.attempts}) == 2
        assert result["epochs_run"] == 50
        assert (result["digest"], result["model_digest"]) == (plain["digest"], plain["model_digest"])
