"""One seed is one story: machines, a plan of jobs, faults, healing, and the final account."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from ktrdr_broker.config import BrokerConfig
from ktrdr_zmq.jobs import Device, JobSpec
from ktrdr_zmq.testing import Faults, Violation, World
from tests.sim.broker_machine import BrokerMachine
from tests.sim.client_machine import LANE, ClientMachine, Planned
from tests.sim.ledger import Ledger
from tests.sim.worker_machine import Work, WorkerMachine

TROUBLE_S = 60.0
HEALING_S = 400.0
CONFIG = BrokerConfig(reclaim_max=30.0, reject_pause=5.0)
ENDLESS = 1e6


class Story(NamedTuple):
    """What a seed went through."""

    steps: int
    simulated_s: float
    seen: Counter[str]
    outcomes: Counter[str]


def faults_of(rng: random.Random) -> Faults:
    """Some seeds are calm in one respect and wild in another."""
    return Faults(
        drop=rng.choice((0.0, 0.0, 0.01, 0.05)),
        duplicate=rng.choice((0.0, 0.02, 0.1)),
        delay=rng.choice((0.001, 0.005, 0.05)),
        cut=rng.choice((0.0, 0.05, 0.2)),
        block=rng.choice((0.0, 0.02, 0.1)),
        block_for=(0.5, 25.0),
        kill=rng.choice((0.0, 0.03, 0.15)),
        down_for=(0.1, 15.0),
        freeze=rng.choice((0.0, 0.02, 0.1)),
        freeze_for=(0.5, 25.0),
    )


def plan_of(rng: random.Random, ledger: Ledger) -> list[Planned]:
    """Between a handful and some dozens of jobs of every sort."""
    plan = []
    for number in range(rng.randint(5, 30)):
        job_id = number.to_bytes(10, "big") + LANE
        short = rng.random() < 0.6
        seconds = rng.uniform(0.001, 0.1) if short else rng.uniform(1.1, 25.0)
        cancel = rng.uniform(0.0, 20.0) if rng.random() < 0.15 else -1.0
        if cancel >= 0 and rng.random() < 0.5:
            seconds, short = ENDLESS, False
        crashes = rng.choice((0, 0, 0, 0, 1, 2, 5))
        result = f"result {number}".encode()
        work = Work(seconds, crashes, rng.random() < 0.2, result)
        spec = JobSpec(
            "short" if short else "long", device=rng.choice((Device.AUTO, Device.AUTO, Device.CPU)), gpu_wait=rng.choice((0.0, 0.0, 3.0)),
            priority=rng.choice((0, 0, 5)), submitter=rng.choice(("a", "b")), queue=True, max_crashes=3, max_losses=50,
            reclaim_after=rng.choice((0.0, 0.0, 0.5)),
        )  # fmt: skip
        ledger.expected[job_id] = result
        plan.append(Planned(rng.uniform(0.0, TROUBLE_S * 0.7), job_id, spec, msgspec.msgpack.encode(work), cancel))
    return plan


def run_story(seed: int, trace: Callable[[str], None] | None = None) -> Story:
    """Play one seed to its end.

    Raises
    ------
    Violation
        When a promise was broken; the message ends with the command that plays the seed again.
    """
    rng = random.Random(seed)
    broker = BrokerMachine(CONFIG, random.Random(seed + 1), fragility=rng.choice((0.0, 0.0, 0.02, 0.1)))
    ledger = Ledger(broker.store)
    world = World(seed, broker, faults_of(rng), trace)
    world.checks.append(ledger.check)
    workers = [WorkerMachine("by-gpu", {"gpu": 1, "cpu": 1}, random.Random(seed + 2), ledger)]
    workers += [WorkerMachine(f"by-cpu-{n}", {"cpu": rng.randint(1, 3)}, random.Random(seed + 3 + n), ledger) for n in range(2)]
    try:
        for worker in workers:
            world.add(worker, ["workers"])
        world.add(ClientMachine(plan_of(rng, ledger), random.Random(seed + 9), ledger), ["clients", "events"])
        world.run(TROUBLE_S)
        broker.fragility = 0.0
        lost = rng.choice(((), (), ("by-cpu-1",)))
        world.heal(lost)
        workers = [worker for worker in workers if worker.name not in lost]
        idle = world.run(HEALING_S, until=lambda: ledger.settled() and all(at_rest(worker) for worker in workers))
        wrong = ledger.final()
        if not idle and not wrong:
            wrong = [f"{worker.name} does not come to rest" for worker in workers if not at_rest(worker)]
        wrong += [f"{worker.name} was sent away" for worker in workers if worker.exited]
        if wrong:
            raise Violation("in the end: " + "; ".join(wrong))
    except AssertionError as violation:
        raise Violation(f"seed {seed}, {violation}\nPlay it again with: python -m tests.sim.run --seed {seed} --trace") from violation
    return Story(world.steps, world.now, world.seen, Counter(state for state, _ in broker.store.outcomes.values()))


def at_rest(worker: WorkerMachine) -> bool:
    """Nothing runs here, and the broker has acknowledged everything."""
    return worker.core is not None and not worker.core.duties.jobs and not worker.core.outbox.finished
