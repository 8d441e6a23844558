"""The broker as a pure machine: messages and ticks go in, saves and sends come out. No sockets, no disk, no clock.

The order of one turn, which the shell keeps: every input of the turn, then `drain`, then one commit of the saves, then the sends in
their order. Nothing is acknowledged, dispatched or published before it is durable. The desks decide, the ledger keeps the book.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

from ktrdr_broker.clientdesk import ClientDesk, lookup_for
from ktrdr_broker.config import BrokerConfig
from ktrdr_broker.intake import Intake
from ktrdr_broker.leases import Leases
from ktrdr_broker.ledger import Ledger
from ktrdr_broker.model import Found, Job, Loaded, Lookup, Saves, Send
from ktrdr_broker.queues import Queues
from ktrdr_broker.registry import Liveness, Registry
from ktrdr_broker.workerdesk import WorkerDesk
from ktrdr_zmq import messages as m
from ktrdr_zmq.errors import ProtocolError
from ktrdr_zmq.jobs import HELD, SYNC_TOPIC, TERMINAL, JobState

NOTHING: Final = Found()


class Port(Enum):
    """Which of the broker's ROUTERs a message came through."""

    WORKER = "worker"
    CLIENT = "client"


class Broker:
    """The whole broker but for its effects.

    Parameters
    ----------
    config : BrokerConfig
    loaded : Loaded
        What the store had, with this process's epoch already committed.
    now : float
        Monotonic seconds; every decision about time uses this clock.
    wall : int
        UTC microseconds; written and shown, never compared.
    """

    def __init__(self, config: BrokerConfig, loaded: Loaded, now: float, wall: int, version: str = "") -> None:
        self.config = config
        self.ledger = Ledger(config, loaded, now, wall)
        self.registry = Registry(config)
        self.queues = Queues(config, self.registry)
        self.leases = Leases(self.ledger, self.registry, self.queues)
        self.intake = Intake(self.ledger, self.registry, self.queues)
        self.workers = WorkerDesk(self.ledger, self.registry, self.queues, self.leases, version)
        self.clients = ClientDesk(self.ledger, self.registry, self.queues, self.leases, self.intake, version, wall)
        self.leases.restore()
        self._grace_until = now + config.grace
        self._tick = config.ping_interval / 2
        self._last_tick = now
        self._next_prune = now + 60.0

    # ------------------------------------------------------------ inputs

    @property
    def jobs(self) -> dict[bytes, Job]:
        """Jobs that are not over, and those that ended since the last commit."""
        return self.ledger.jobs

    @property
    def fatal(self) -> str:
        """Why the broker must stop; empty while it need not."""
        return self.workers.fatal

    def lookup(self, port: Port, message: m.Message) -> Lookup | None:
        """What the shell must fetch from the store before it hands this message in."""
        return lookup_for(message) if port is Port.CLIENT else None

    def on_message(
        self, port: Port, peer: bytes, message: Any, bodies: list[bytes], now: float, wall: int, found: Found = NOTHING, address: str = ""
    ) -> None:
        """Take in one message."""
        self._clock(now, wall)
        if isinstance(message, m.Nack):
            return
        if port is Port.CLIENT:
            self.clients.message(peer, message, bodies, found)
        elif isinstance(message, m.WorkerHello):
            self.workers.hello(peer, message, address)
        else:
            self.workers.message(peer, message, bodies)

    def on_bad_message(self, port: Port, peer: bytes, error: ProtocolError, now: float) -> None:
        """Answer what cannot be understood; but never a NACK."""
        self.ledger.now = now
        if error.verb == m.VERBS[m.Nack] or not self.ledger.may_answer_stranger():
            return
        nack = m.Nack(code=error.code, verb=error.verb, epoch=self.ledger.epoch, text=error.message, versions=[m.MAJOR])
        if port is Port.WORKER:
            self.ledger.to_worker(peer, nack, urgent=True)
        else:
            self.ledger.to_client(peer, nack, urgent=True)

    def on_subscribe(self, topic: bytes) -> None:
        """Answer a join barrier: everything published after this reaches the subscriber."""
        if topic.startswith(SYNC_TOPIC) and len(topic) <= 80:
            self.ledger.publish(topic, m.SyncEvent(self.ledger.epoch, topic[len(SYNC_TOPIC) :]))

    def on_unreachable(self, port: Port, peer: bytes, now: float, wall: int) -> None:
        """A send found no such connection."""
        self._clock(now, wall)
        if port is Port.WORKER:
            self.workers.unreachable(peer)

    def on_artifact_stored(self, digest: bytes, size: int, now: float, wall: int) -> None:
        """The bulk thread has a file on disk, synced."""
        self._clock(now, wall)
        self.ledger.stored(digest, size)

    def on_storage(self, ok: bool, text: str = "") -> None:
        """A commit failed, or works again: meanwhile nothing new is accepted."""
        self.intake.storage_trouble = "" if ok else text or "the disk cannot be written"

    def on_prunable(self, jobs: list[Job], now: float, wall: int) -> None:
        """Retention: ended jobs older than the limit."""
        self._clock(now, wall)
        self.clients.prune(jobs, keep_models=True)

    def wants_prune(self, now: float, wall: int) -> Lookup | None:
        """Now and then: which ended jobs the shell should fetch for `on_prunable`."""
        if now < self._next_prune:
            return None
        self._next_prune = now + 60.0
        return Lookup(prune_before=wall - int(self.config.retention * 1e6))

    def on_tick(self, now: float, wall: int) -> None:
        """Let time act. The shell has drained its inbox before: nobody is expired with a message in the letter-box."""
        self._clock(now, wall)
        stall = now - self._last_tick - 2 * self._tick
        if stall > 0:
            self.workers.excuse(stall)
            self._grace_until += stall
        self._last_tick = now
        self.workers.watch(now, now >= self._grace_until)
        for job in self.queues.overdue(now):
            self.leases.queue_timeout(job)
        self.clients.forget_silent()
        if not self.intake.storage_trouble:  # or an upload would be acknowledged whose row was never written
            self.ledger.collect_garbage()

    def next_deadline(self) -> float:
        """When `on_tick` is due at the latest."""
        tick = self._last_tick + self._tick
        wake = self.queues.next_wake(self.ledger.now)
        return tick if wake is None else min(tick, wake)

    def shutdown(self, now: float, wall: int) -> None:
        """Say good-bye to the workers: they go on and come back."""
        self._clock(now, wall)
        self.intake.closing = True
        self.queues.paused = True
        for worker in self.registry:
            if worker.state in (Liveness.LIVE, Liveness.SUSPECT):
                self.ledger.to_worker(worker.peer, m.Bye("SHUTTING_DOWN", "The broker is shutting down."))

    def _clock(self, now: float, wall: int) -> None:
        self.ledger.now = now
        self.ledger.wall = wall

    # ------------------------------------------------------------ outputs

    def drain(self) -> tuple[Saves, list[Send]]:
        """Dispatch what can run, and hand over the turn's effects: commit the saves, then send in order."""
        placements = self.queues.assign(self.ledger.now)
        if placements:
            self.leases.dispatch(placements)
        return self.ledger.take()

    def committed(self) -> None:
        """The saves of all turns so far are durable: ended jobs are now the store's."""
        self.ledger.forget_ended()

    def counters(self) -> dict[str, int]:
        """Plain counts since the start."""
        return dict(self.ledger.counters)

    def check(self) -> list[str]:
        """Invariants that must hold after every step; a list of what does not."""
        wrong = []
        for job in self.jobs.values():
            name = f"{job.job_id.hex()[:8]} ({job.state})"
            lease = self.leases.by_token.get(job.token)
            if (job.state is JobState.QUEUED) != (job.job_id in self.queues.jobs):
                wrong.append(f"{name}: queued and not in the queue, or the reverse")
            if job.state in HELD and (lease is None or lease.job is not job):
                wrong.append(f"{name}: held without a lease")
            if job.state not in HELD and lease is not None:
                wrong.append(f"{name}: a lease without being held")
            if job.state in TERMINAL and not job.finished_at:
                wrong.append(f"{name}: ended without a time")
        for token, lease in self.leases.by_token.items():
            if lease.job.token != token or lease.worker.leases.get(token) is not lease:
                wrong.append(f"lease {token:x} is not where its job or worker has it")
        for worker in self.registry:
            if any(count < 0 for count in worker.long_leases.values()):
                wrong.append(f"{worker.worker_id}: a negative count of leases")
            if worker.peer and self.registry.by_peer.get(worker.peer) is not worker:
                wrong.append(f"{worker.worker_id}: its connection belongs to another")
            if any(self.leases.by_token.get(token) is not lease for token, lease in worker.leases.items()):
                wrong.append(f"{worker.worker_id}: holds a lease that the book does not have")
        return wrong
