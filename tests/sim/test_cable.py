"""A cable is pulled for 30 s and for 120 s under short and long jobs: what goes on, what runs again elsewhere, and when. Default intervals.

docs/reliability.md states these answers to people; a change of theirs is a change of that page.
"""

from __future__ import annotations

import random

import msgspec
import pytest

from ktrdr_broker.config import BrokerConfig
from ktrdr_zmq.jobs import Attempt, JobSpec, JobState
from ktrdr_zmq.testing import World
from tests.sim.broker_machine import BrokerMachine
from tests.sim.client_machine import ClientMachine, Planned, numbered
from tests.sim.ledger import Ledger
from tests.sim.work import Work
from tests.sim.worker_machine import WorkerMachine

pytestmark = [pytest.mark.sim]

CONFIG = BrokerConfig()
RETURN_S = CONFIG.backoff_cap + 5.0
"""What a worker may need, once its cable is back, to say HELLO: the longest pause, and a HELLO that was lost in the cut."""
SEEDS = range(3)


def pulled(seed: int, work_s: float, ran_s: float, cut_s: float) -> tuple[list[Attempt], float]:
    """Run a job on one of two workers, pull that worker's cable when it has run for a while; the attempts, and the moment of the cut."""
    work = Work(work_s, 0, False, b"r", checkpoint_every=20.0 if work_s > 60 else 0.0)
    broker = BrokerMachine(CONFIG, random.Random(seed))
    ledger = Ledger(broker.audit)
    world = World(seed, broker)
    job_id = numbered(1)
    ledger.expected[job_id], ledger.works[job_id] = work.result, work
    workers = [WorkerMachine(name, {"cpu": 1}, random.Random(f"{name} {seed}"), ledger) for name in ("one", "two")]
    for worker in workers:
        world.add(worker, ["workers", "bulk"])
    plan = [Planned(1.0, job_id, JobSpec("long", queue=True), msgspec.msgpack.encode(work), -1.0)]
    world.add(ClientMachine(plan, random.Random(seed), ledger), ["clients", "events", "bulk"])
    world.checks.append(ledger.check)
    assert world.run(60.0, until=lambda: any(worker.core.duties.jobs for worker in workers))
    owner = next(worker.name for worker in workers if worker.core.duties.jobs)
    world.run(ran_s)
    cut_at = world.now
    for port in ("workers", "bulk"):
        world.block(owner, port, (0, 1), cut_s)
    assert world.run(2 * work_s + cut_s + 1000.0, until=ledger.settled)
    world.run(60.0)
    assert ledger.final() == []
    job = broker.audit.jobs[job_id]
    assert job.state is JobState.DONE
    origin = world.wall / 1e6 - world.now
    return job.attempts, cut_at + origin


def reclaimed_after(ran_s: float) -> float:
    """Silence after which a job that has run so long is given to another worker."""
    return min(max(ran_s / 4, CONFIG.dead_after), CONFIG.reclaim_max)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "work_s, ran_s, cut_s",
    [
        pytest.param(10.0, 5.0, 30.0, id="ten seconds, 30 s"),
        pytest.param(10.0, 5.0, 120.0, id="ten seconds, 120 s"),
        pytest.param(120.0, 60.0, 30.0, id="two minutes, 30 s"),
        pytest.param(120.0, 60.0, 120.0, id="two minutes, 120 s"),
        pytest.param(3600.0, 240.0, 120.0, id="four minutes of an hour, 120 s"),
    ],
)
def test_a_job_that_has_not_run_for_long_is_done_again_elsewhere(seed: int, work_s: float, ran_s: float, cut_s: float) -> None:
    attempts, cut_at = pulled(seed, work_s, ran_s, cut_s)
    assert [attempt.reason for attempt in attempts] == ["WORKER_LOST", "COMPLETED"]
    assert attempts[0].worker_id != attempts[1].worker_id
    waited = attempts[1].leased_at / 1e6 - cut_at
    # Silence is counted from the last word before the cut, which is up to an interval older.
    assert reclaimed_after(ran_s) - CONFIG.ping_interval - 0.5 <= waited <= reclaimed_after(ran_s) + 1.5


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ran_s, cut_s", [(4 * (30.0 + RETURN_S) + 10, 30.0), (4 * (120.0 + RETURN_S) + 10, 120.0), (1800.0, 120.0)])
def test_a_training_that_has_run_for_long_goes_on(seed: int, ran_s: float, cut_s: float) -> None:
    attempts, _ = pulled(seed, 3600.0, ran_s, cut_s)
    assert [attempt.reason for attempt in attempts] == ["COMPLETED"]
    assert attempts[0].ended_at - attempts[0].leased_at == pytest.approx(3600.0e6, abs=3.0e6), "it lost no time either"
