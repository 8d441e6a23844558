"""One seed is one story: machines, a plan of jobs, faults, healing, and the final account."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import fields, replace
from typing import NamedTuple

import msgspec

from ktrdr_broker.config import BrokerConfig
from ktrdr_broker.store import MemoryStore
from ktrdr_zmq.jobs import Device, JobSpec
from ktrdr_zmq.testing import Faults, Violation, World
from ktrdr_zmq.testing.network import draw
from tests.sim.admin_machine import AdminMachine
from tests.sim.audit import Coverage
from tests.sim.broker_machine import BrokerMachine
from tests.sim.client_machine import NEVER, ClientMachine, Planned, numbered
from tests.sim.judgement import Truth, disagreements
from tests.sim.ledger import Ledger
from tests.sim.trace import describe
from tests.sim.work import Work
from tests.sim.worker_machine import WorkerMachine

HEALING_S = 900.0
CONFIG = BrokerConfig(reclaim_max=30.0, reject_pause=5.0, artifact_grace=30.0, max_retries=3)
CONVERGES_S = (CONFIG.backoff_cap + 5 * CONFIG.ping_interval) * 1.02
"""The back-off cap and five intervals, on a clock that may run a little slow."""
ENDLESS = 1e6
PORTS = ["workers", "bulk"]
OPERATIONS = ("full", "stop broker", "stop worker", "copy", "twin", "restore")
KINDS_OF_FAULT = (*(field.name for field in fields(Faults) if not field.name.endswith(("_for", "_by", "delay"))), "fragile", *OPERATIONS)
"""What can be left out of a story, to see whether it is needed for a violation."""


class Story(NamedTuple):
    """What a seed went through."""

    steps: int
    simulated_s: float
    seen: Counter[str]
    outcomes: Counter[str]
    coverage: Coverage


def faults_of(rng: random.Random, without: Collection[str]) -> Faults:
    """Some seeds are calm in one respect and wild in another."""
    slow = rng.random() < 0.3  # whatever stops, stops for longer than any limit
    faults = Faults(
        drop=rng.choice((0.0, 0.0, 0.01, 0.05)),
        duplicate=rng.choice((0.0, 0.02, 0.1)),
        delay=rng.choice((0.001, 0.001, 0.005, 0.05, 0.2)),
        cut=rng.choice((0.0, 0.05, 0.2)),
        block=rng.choice((0.0, 0.02, 0.1)),
        block_for=(8.0, 60.0) if slow else (0.2, 60.0),
        kill=rng.choice((0.0, 0.03, 0.15)),
        down_for=(8.0, 60.0) if slow else (0.1, 40.0),
        freeze=rng.choice((0.0, 0.02, 0.1)),
        freeze_for=(8.0, 60.0) if slow else (0.1, 150.0),
        jump=rng.choice((0.0, 0.0, 0.05)),
        drift=rng.choice((0.0, 0.01)),
    )
    return replace(faults, **{name: 0.0 for name in without if name in faults.__dataclass_fields__})


class Plan:
    """The jobs of one story."""

    def __init__(self, rng: random.Random, ledger: Ledger, trouble_s: float) -> None:
        self._rng = rng
        self._ledger = ledger
        self._trouble_s = trouble_s
        self.jobs: list[Planned] = []

    def make(self, count: int) -> list[Planned]:
        """Jobs of every sort."""
        for number in range(count):
            self._job(number)
        return self.jobs

    def _job(self, number: int) -> None:
        rng = self._rng
        sort = rng.choices(("short", "long", "training", "endless", "nobody's"), (50, 30, 10, 8, 2))[0]
        seconds = {"short": rng.uniform(0.001, 0.1), "training": rng.uniform(30.0, 90.0), "endless": ENDLESS}.get(
            sort, rng.uniform(1.1, 25.0)
        )
        work = Work(
            seconds, rng.choice((0, 0, 0, 0, 1, 2, 5)), rng.random() < 0.2, b"result %d" % number,
            outcome=rng.choices(("done", "fail", "too large", "limit", "unstorable", "retry"), (80, 5, 2, 2, 2, 6))[0],
            times=rng.choice((1, 2, 9)), checkpoint_every=rng.uniform(2.0, 6.0) if sort in ("training", "endless") else 0.0,
            progress_every=3.0 if sort == "training" else 0.0, product=rng.random() < 0.2, log=rng.random() < 0.3,
            starts_badly=rng.choice((0,) * 12 + (1,)),
        )  # fmt: skip
        cancels = sort == "endless" or rng.random() < 0.1
        inputs = tuple((f"data{n}", hashlib.sha256(b"input %d" % n).digest()) for n in range(rng.choice((0, 0, 0, 1, 2))))
        device = rng.choice((Device.AUTO, Device.AUTO, Device.CPU, Device.GPU if sort != "nobody's" else Device.CPU))
        spec = JobSpec(
            "short" if sort == "short" else "rare" if sort == "nobody's" else "long", device=device, gpu_wait=rng.choice((0.0, 0.0, 3.0)),
            priority=rng.choice((0, 0, 5)), submitter=rng.choice(("a", "b")), queue=sort == "nobody's" or rng.random() < 0.8, max_crashes=3,
            max_losses=rng.choice((50, 50, 0, 1)), reclaim_after=rng.choice((0.0, 0.0, 0.5, 25.0)), inputs=inputs,
            run_timeout=rng.choice((0.0,) * 5 + (4.0,)), queue_timeout=rng.choice((0.0,) * 8 + (6.0,)) if sort != "nobody's" else 0.0,
        )  # fmt: skip
        job_id = self._enter(number, work, unending=sort == "nobody's" and not cancels)
        then, then_id = "", b""
        if sort != "nobody's" and rng.random() < 0.2:
            then, then_id = rng.choice(("retry", "resume")), self._enter(number + 500, work)
        at = rng.uniform(0.0, self._trouble_s * 0.7)
        cancel = rng.uniform(0.0, 20.0) if cancels else -1.0
        body = msgspec.msgpack.encode(work)
        self.jobs.append(Planned(at, job_id, spec, body, cancel, then, then_id))
        if then:
            self.jobs.append(Planned(NEVER, then_id, spec, body, cancel))

    def _enter(self, number: int, work: Work, *, unending: bool = False) -> bytes:
        job_id = numbered(number)
        self._ledger.expected[job_id], self._ledger.works[job_id] = work.result, work
        if unending:
            self._ledger.unending.add(job_id)
        return job_id


class Stage:
    """The World of one story, and what happens in it beyond the random faults."""

    def __init__(self, seed: int, trace: Callable[[str], None] | None, without: Collection[str], jobs: int | None) -> None:
        rng = self.rng = random.Random(seed)
        self.without = without
        fragility = rng.choice((0.0, 0.0, 0.02, 0.1))
        self.broker = BrokerMachine(CONFIG, random.Random(seed + 1), 0.0 if "fragile" in without else fragility)
        self.ledger = Ledger(self.broker.audit)
        self.sent_away: list[str] = []
        self.trouble_s = draw(rng, (30.0, 150.0))
        self.world = World(seed, self.broker, faults_of(rng, without), trace, describe)
        self.world.checks.append(self.ledger.check)
        self.world.on_quit = self._on_quit
        self.workers: list[WorkerMachine] = []
        self._add("by-gpu", {"gpu": 1, "cpu": 1}, probing=2.0)
        self._add("by-cpu-0", {"cpu": rng.randint(1, 3)})
        self._add("by-cpu-1", {"cpu": rng.randint(1, 3)}, forgetful=rng.random() < 0.1)
        self.admin = AdminMachine(random.Random(seed + 8), self.ledger, [w.name for w in self.workers], meddles=rng.random() < 0.5)
        self.world.add(self.admin, ["clients", "events"])
        count = rng.randint(5, 30)
        plan = Plan(rng, self.ledger, self.trouble_s).make(count if jobs is None else min(jobs, count))
        self.world.add(ClientMachine(plan, random.Random(seed + 9), self.ledger), ["clients", "events", "bulk"])
        self.copied: MemoryStore | None = None
        for operation in OPERATIONS:
            if rng.random() < (0.25 if operation != "restore" else 0.15) and operation not in without:
                self.world.later(rng.uniform(5.0, self.trouble_s), lambda operation=operation: self._operate(operation))

    def _add(self, name: str, slots: dict[str, int], **about: object) -> None:
        worker = WorkerMachine(name, slots, random.Random(self.rng.random()), self.ledger, **about)  # type: ignore[arg-type]
        self.workers.append(worker)
        self.world.add(worker, PORTS)

    def _operate(self, operation: str) -> None:
        """Somebody does something that is none of the World's own faults."""
        world, broker = self.world, self.broker
        worker = self.rng.choice(self.workers[:3])
        world.note(operation if operation != "stop worker" else f"SIGTERM to {worker.name}")
        world.seen[operation] += 1
        if operation == "restore":
            self.copied = broker.audit.copy()
        elif operation == "full":
            broker.full = True
            world.later(draw(self.rng, (0.3, 90.0)), lambda: setattr(broker, "full", False))
        elif operation == "stop broker":
            world.poke("broker", lambda: broker.terminate(world.now_of("broker"), world.wall_of("broker")))
        elif operation == "stop worker":
            world.poke(worker.name, lambda: worker.terminate(world.now_of(worker.name)))
        else:
            self.ledger.shared_ids = True
            host = worker.name if operation == "twin" else "elsewhere"
            self._add(f"{operation}-of-{worker.name}", dict(worker.slots), worker_id=worker.name, host=host)

    def _on_quit(self, name: str, code: int) -> None:
        if code:
            if name != "broker":
                self.sent_away.append(name)
                self.world.retire(name)
        else:
            self.world.later(draw(self.rng, (0.2, 10.0)), lambda: self.world.start(name))

    # ------------------------------------------------------------ the acts

    def play(self) -> None:
        """Trouble, healing, the truth, and the end."""
        world, ledger = self.world, self.ledger
        world.run(self.trouble_s)
        self.broker.fragility, self.broker.full = 0.0, False
        lost = self.rng.choice(((), (), ("by-cpu-1",)))
        world.heal(lost)
        if self.copied is not None:
            self._older_copy(self.copied)
        world.run(CONVERGES_S)
        self._soon(lambda: disagreements(self.broker, self.workers), "the views do not converge")
        truth = Truth(self.broker, self.workers, ledger)
        self._soon(truth.lies, "explain")
        world.poke("admin", lambda: self.admin.calm(world.now_of("admin")))
        world.run(HEALING_S, until=lambda: ledger.settled() and self.admin.calmed and all(w.at_rest for w in self.workers if w.core))
        wrong = ledger.final()
        if not wrong:
            wrong = [f"{w.name} does not come to rest" for w in self.workers if w.core and not w.at_rest]
        wrong += self._sent_away(lost)
        if wrong:
            raise Violation("in the end: " + "; ".join(wrong))
        self._soon(truth.lies, "explain, in the end")

    def _older_copy(self, copy: MemoryStore) -> None:
        """A broker is started on a copy of its disk, and must refuse if a worker has seen more; then the right disk is put back."""
        world, broker, ledger = self.world, self.broker, self.ledger
        world.run(self.rng.uniform(0.0, 5.0))
        ledger.forked = ledger.shared_ids = True  # what happens now is in no book, and what is acknowledged now is lost again
        seen = {w.name: w.seen for w in self.workers}
        steady = {w.name for w in self.workers if w.core and w.core.info.store_id and not w.core.leaving}
        for name in ("client", "admin"):
            world.freeze(name, CONVERGES_S + 1.0)
        world.kill("broker", "restored")
        broker.restore(copy)
        before, token = copy.epoch, copy.token
        world.start("broker")
        wiser = {name for name, (epoch, last) in seen.items() if last > token or epoch > before}
        # Two starts have one number if the clock was set back between them; then nobody need notice.
        must = wiser & steady if all(epoch != copy.epoch for epoch, _ in seen.values()) else set()
        world.run(CONVERGES_S)
        if (must and not broker.fatal) or (broker.fatal and not wiser):
            raise Violation(f"an older copy: {sorted(wiser)} know more than it, and the broker says {broker.fatal}")
        broker.fatal.clear()
        world.kill("broker", "restored")
        broker.restore(None)
        broker.audit.renew()  # --restored: some workers may have worked for the copy meanwhile
        world.start("broker")
        ledger.forked = False

    def _soon(self, wrong: Callable[[], list[str]], what: str) -> None:
        """Something must be right at some moment of the next second: what is on its way may have arrived by then."""
        for _ in range(20):
            if not wrong():
                return
            self.world.run(0.1)
        problems = wrong()
        if problems:
            raise Violation(f"{what}: " + "; ".join(problems))

    def _sent_away(self, lost: Collection[str]) -> list[str]:
        """Nobody ends with a refusal but one of two that share a worker_id."""
        wrong = ["the broker gave up: " + text for text in self.broker.fatal]
        for worker_id in {worker.worker_id for worker in self.workers}:
            names = [worker.name for worker in self.workers if worker.worker_id == worker_id]
            away = [name for name in names if name in self.sent_away]
            if len(away) >= len(names) and not set(names) & set(lost):
                wrong.append(f"{' and '.join(away)}: everybody was sent away")
        return wrong


def run_story(seed: int, trace: Callable[[str], None] | None = None, *, without: Collection[str] = (), jobs: int | None = None) -> Story:
    """Play one seed to its end.

    Parameters
    ----------
    without : collection of str
        Of `KINDS_OF_FAULT`: what shall not happen.
    jobs : int, optional
        At most so many jobs (those that follow from others apart).

    Raises
    ------
    Violation
        When a promise was broken; the message ends with the command that plays the seed again.
    """
    options = "".join(f" --without '{name}'" for name in without) + (f" --jobs {jobs}" if jobs is not None else "")
    stage = None
    try:
        stage = Stage(seed, trace, without, jobs)
        stage.play()
    except Exception as error:  # a core that raises has broken a promise as well
        command = f"python -m tests.sim.run --seed {seed}{options} --trace"
        what = error if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
        raise Violation(f"seed {seed}, {what}\nPlay it again with: {command}") from error
    outcomes = Counter(str(state) for state, _ in stage.broker.audit.outcomes.values())
    return Story(stage.world.steps, stage.world.now, stage.world.seen, outcomes, stage.broker.coverage)
