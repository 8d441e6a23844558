"""Hypothesis plays the World: it chooses what is done to whom and when, and makes a failing story as short as it can."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from ktrdr_zmq.jobs import Device, JobSpec
from ktrdr_zmq.testing import World
from ktrdr_zmq.testing.network import DOWN, UP
from tests.sim.broker_machine import BrokerMachine
from tests.sim.client_machine import ClientMachine, Planned, numbered
from tests.sim.judgement import Truth, disagreements
from tests.sim.ledger import Ledger
from tests.sim.scenario import CONFIG, CONVERGES_S, PORTS
from tests.sim.work import Work
from tests.sim.worker_machine import WorkerMachine

HOSTS = st.sampled_from(["broker", "one", "two", "client"])
WORKERS = st.sampled_from(["one", "two"])
SECONDS = st.sampled_from([0.05, 0.5, 3.0, 7.0, 11.0, 25.0])
MOST_JOBS = 12


class Cluster(RuleBasedStateMachine):
    """A broker, two workers and a client, to whom anything may happen at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.broker = BrokerMachine(CONFIG, random.Random(1))
        self.ledger = Ledger(self.broker.audit)
        self.world = World(1, self.broker)
        self.world.checks.append(self.ledger.check)
        self.world.on_quit = lambda name, code: self.world.later(1.0, lambda: self.world.start(name))
        self.workers = [WorkerMachine("one", {"gpu": 1, "cpu": 1}, random.Random(2), self.ledger)]
        self.workers += [WorkerMachine("two", {"cpu": 2}, random.Random(3), self.ledger)]
        for worker in self.workers:
            self.world.add(worker, PORTS)
        self.client = ClientMachine([], random.Random(4), self.ledger)
        self.world.add(self.client, ["clients", "events", "bulk"])

    # ------------------------------------------------------------ jobs

    @precondition(lambda self: len(self.ledger.expected) < MOST_JOBS)
    @rule(
        seconds=st.sampled_from([0.01, 0.01, 2.0, 30.0]), outcome=st.sampled_from(["done", "done", "fail", "retry"]),
        crashes=st.integers(0, 3), checkpoints=st.booleans(), device=st.sampled_from(list(Device)),
        cancel_after=st.sampled_from([-1.0, -1.0, 0.0, 1.0]),
    )  # fmt: skip
    def submit(self, seconds: float, outcome: str, crashes: int, checkpoints: bool, device: Device, cancel_after: float) -> None:
        job_id = numbered(len(self.ledger.expected))
        work = Work(seconds, crashes, False, b"r", outcome, times=1, checkpoint_every=2.0 if checkpoints and seconds > 2 else 0.0)
        self.ledger.expected[job_id], self.ledger.works[job_id] = b"r", work
        spec = JobSpec("short" if seconds < 1 else "long", device=device, queue=True)
        self.client.add(Planned(0.0, job_id, spec, msgspec.msgpack.encode(work), cancel_after))
        self.world.poke("client", lambda: None)

    # ------------------------------------------------------------ time and trouble

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.world.run(seconds)

    @rule(name=HOSTS)
    def kill(self, name: str) -> None:
        self.world.kill(name)

    @rule(name=HOSTS)
    def start(self, name: str) -> None:
        self.world.start(name)

    @rule(name=HOSTS, seconds=SECONDS, suspend=st.booleans())
    def freeze(self, name: str, seconds: float, suspend: bool) -> None:
        if self.world.is_up(name) and not self.world.is_frozen(name):
            self.world.freeze(name, seconds, suspend=suspend)

    @rule(name=WORKERS, port=st.sampled_from(PORTS))
    def cut(self, name: str, port: str) -> None:
        self.world.cut(name, port)

    @rule(name=WORKERS, ways=st.sampled_from([(UP,), (DOWN,), (UP, DOWN)]), seconds=SECONDS)
    def block(self, name: str, ways: tuple[int, ...], seconds: float) -> None:
        self.world.block(name, "workers", ways, seconds)

    @rule(seconds=st.sampled_from([-3600.0, 3600.0]))
    def set_the_brokers_clock(self, seconds: float) -> None:
        self.world.jump("broker", seconds)

    @rule(full=st.booleans())
    def fill_the_disk(self, full: bool) -> None:
        self.broker.full = full

    @rule(name=WORKERS)
    def stop_worker(self, name: str) -> None:
        worker = next(worker for worker in self.workers if worker.name == name)
        self.world.poke(name, lambda: worker.terminate(self.world.now_of(name)))

    # ------------------------------------------------------------ judgement

    @invariant()
    def every_machine_is_sound(self) -> None:
        assert self.ledger.check() == []
        assert [problem for worker in self.workers if worker.core is not None for problem in worker.check()] == []
        assert self.broker.core is None or self.broker.check() == []

    def teardown(self) -> None:
        """Everything heals; then every promise must have been kept."""
        self.broker.full = False
        self.world.heal()
        self.world.run(CONVERGES_S)
        self._soon(lambda: disagreements(self.broker, self.workers))
        self._soon(Truth(self.broker, self.workers, self.ledger).lies)
        self.world.run(600.0, until=lambda: self.ledger.settled() and all(worker.at_rest for worker in self.workers))
        assert self.ledger.final() == []

    def _soon(self, wrong: object) -> None:
        self.world.run(1.0, until=lambda: not wrong())  # type: ignore[operator]
        assert wrong() == []  # type: ignore[operator]


@pytest.mark.sim
@pytest.mark.timeout(300)
def test_whatever_is_done_to_a_cluster(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--seeds"):
        pytest.skip("--seeds was given")
    few = settings(max_examples=100, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Cluster, settings=few)
