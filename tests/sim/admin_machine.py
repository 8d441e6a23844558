"""Whoever runs the cluster, in the World: looks at everything, drains, pauses, reprioritises and prunes, whatever happens meanwhile."""

from __future__ import annotations

import random
from typing import Any

from ktrdr_zmq import codec
from ktrdr_zmq import messages as m
from ktrdr_zmq.jobs import SYNC_TOPIC, TERMINAL, WORKER_TOPIC
from ktrdr_zmq.testing import Frames, Subscribe, Timer
from tests.sim.client_machine import Talker
from tests.sim.ledger import Ledger

EVERY = (0.5, 6.0)


class AdminMachine(Talker):
    """Does something at random moments, until it is told to put everything back.

    Attributes
    ----------
    wrong : list of str
        Answers that do not fit what was asked.
    calmed : bool
        Nothing is paused or drained any more, as far as the broker has confirmed.
    """

    def __init__(self, rng: random.Random, ledger: Ledger, workers: list[str], *, meddles: bool) -> None:
        super().__init__("admin", rng)
        self._ledger = ledger
        self._workers = workers
        self._meddles = meddles
        self._calming = False
        self._open: set[str] = set()
        self._seen: dict[bytes, int] = {}
        self.problems: list[str] = []

    def start(self, now: float, wall: int) -> None:
        super().start(now, wall)
        self._seen = {}
        self._out += [Subscribe(WORKER_TOPIC), Subscribe(b"j."), Subscribe(SYNC_TOPIC + b"%x" % self._random.getrandbits(32))]
        self._next()
        if self._calming:
            self._put_back(now)

    def _next(self) -> None:
        self._out.append(Timer(self._random.uniform(*EVERY), "act"))

    def receive(self, port: str, peer: bytes, frames: Frames, now: float, wall: int) -> None:
        if port == "events":
            message, _ = codec.decode(frames, codec.EVENTS)
            if isinstance(message, m.JobEvent):
                self._seen[message.job_id] = max(self._seen.get(message.job_id, 0), message.rev)
        else:
            message, bodies = codec.decode(frames, codec.TO_CLIENT)
            self.session.on_message(message, bodies, now)

    def timer(self, payload: Any, now: float, wall: int) -> None:
        if payload == "calm":
            self._put_back(now)
            return
        self._next()
        self._look(now)
        if self._meddles and not self._calming:
            self._meddle(now)

    def tick(self, now: float, wall: int) -> None:
        self.session.on_tick(now)

    def next_deadline(self) -> float:
        return self.session.next_deadline()

    # ------------------------------------------------------------ what it does

    def _look(self, now: float) -> None:
        ref = self._some_job()
        questions = [
            m.List(0, limit=5), m.List(0, states=["done"], limit=3), m.Snapshot(0, limit=4), m.Workers(0), m.Admin(0, "status"),
            m.ClientPing(0), m.Have(0, list(self._ledger.store.artifacts)[:3]),
        ]  # fmt: skip
        if ref:
            questions += [m.Explain(0, ref), m.Logs(0, ref), m.Status(0, [ref, "last"], details=True), m.ResultGet(0, ref)]
        self.ask(self._random.choice(questions), now, "look")

    def _meddle(self, now: float) -> None:
        worker = self._random.choice(self._workers)
        refs = [ref for ref in (self._some_job(),) if ref]
        stop = self._random.random() < 0.3
        leave = stop and self._random.random() < 0.5
        action, args = self._random.choice(
            (
                ("drain", {"worker_id": worker, "stop": stop, "leave": leave}),
                ("undrain", {"worker_id": worker}),
                ("undrain", {"worker_id": self._random.choice(self._workers)}),
                ("pause", {}),
                ("unpause", {}),
                ("unpause", {}),
                ("priority", {"refs": refs, "priority": self._random.randint(-5, 5)}),
                ("prune", {"before": self._before()}),
                ("rm", {"refs": self._heard_of()}),
            )
        )
        self.ask(m.Admin(0, action, args), now, "meddle")

    def _some_job(self) -> str:
        jobs = self._ledger.store.jobs
        return self._random.choice(sorted(jobs)).hex() if jobs else ""

    def _heard_of(self) -> list[str]:
        """A job whose end its client has heard of."""
        over = sorted(set(self._ledger.results) & set(self._ledger.heard) & set(self._ledger.store.jobs))
        return [self._random.choice(over).hex()] if over else []

    def _before(self) -> int:
        """The end of the first ended job that its client has not heard of."""
        jobs = self._ledger.store.jobs.values()
        return min((job.finished_at for job in jobs if job.state in TERMINAL and job.job_id not in self._ledger.results), default=1)

    # ------------------------------------------------------------ putting things back

    def calm(self, now: float) -> None:
        """Undo everything, and make sure of it."""
        self._calming = True
        self._put_back(now)

    @property
    def calmed(self) -> bool:
        return self._calming and not self._open

    def _put_back(self, now: float) -> None:
        self._open = {"", *self._workers}
        for name in sorted(self._open):
            self.ask(m.Admin(0, "undrain", {"worker_id": name}) if name else m.Admin(0, "unpause"), now, "back", name)

    def answered(self, what: tuple[Any, ...], reply: Any, bodies: list[bytes], now: float) -> None:
        if what[0] == "back":
            if isinstance(reply, m.Nack) and reply.retryable:
                self._out.append(Timer(1.0, "calm"))
            else:
                self._open.discard(what[1])
        elif what[0] == "meddle" and isinstance(reply, m.Nack) and reply.code not in ("BAD_SPEC", "STORAGE"):
            self.problems.append(f"the broker refused an action: {reply.code}: {reply.text}")

    def check(self) -> list[str]:
        return self.problems
