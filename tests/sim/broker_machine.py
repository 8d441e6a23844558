"""The broker in the World: the real core over a store in memory that watches what is written, and dies or fails now and then."""

from __future__ import annotations

import random
from typing import Any

from ktrdr_broker.config import BrokerConfig
from ktrdr_broker.core import Broker, Port
from ktrdr_broker.model import ArtifactDelete, ArtifactStored, Found, Publish, Saves, Send, ToWorker
from ktrdr_broker.store import MemoryStore, StorageError
from ktrdr_zmq import codec
from ktrdr_zmq import messages as m
from ktrdr_zmq.errors import ProtocolError
from ktrdr_zmq.jobs import TAG_GPU
from ktrdr_zmq.testing import Crash, Effect, Frames, Publication, Quit, Timer, ToPeer
from tests.sim.audit import AuditedStore, Coverage, broken_promise
from tests.sim.bulk import BulkDesk
from tests.sim.watch import Watch

TABLES = {"workers": (Port.WORKER, codec.FROM_WORKER), "clients": (Port.CLIENT, codec.FROM_CLIENT)}
RETRY_COMMIT_S = 0.5


class BrokerMachine:
    """Keeps the shell's law: one commit for each turn, then the sends in order; urgent ones alone overtake a commit that fails.

    Parameters
    ----------
    fragility : float
        Probability that a commit with something in it fails, or that the process dies before or after it.

    Attributes
    ----------
    full : bool
        The disk is full: every commit fails.
    address_of : dict
        The host that a connection comes from, for those that do not come from their own.
    """

    name = "broker"

    def __init__(self, config: BrokerConfig, rng: random.Random, fragility: float = 0.0) -> None:
        self.config = config
        self.audit = AuditedStore()
        self.audit.most_retries = config.max_retries
        self.store: MemoryStore = self.audit
        self.bulk = BulkDesk()
        self.coverage = Coverage()
        self.fragility = fragility
        self.full = False
        self.core: Broker = None  # type: ignore[assignment]
        self.fatal: list[str] = []
        self._random = rng
        self._problems: list[str] = []
        self._waiting = Saves()
        self._held: list[Send] = []
        self._retry_due: bool | None = False
        """Whether a failed commit is to be tried again: planned, or (None) now."""
        self._stopping = False

    def start(self, now: float, wall: int) -> None:
        self._waiting, self._held, self._retry_due, self._stopping = Saves(), [], False, False
        self.store.failures = self.store.torn = 0
        self.bulk.restart()
        before = list(self.store.jobs.values())
        self.core = Broker(self.config, self.store.load(wall), now, wall)
        self.coverage.watch(self.core.ledger)
        self._watch = Watch(self.core, now, before)

    def stop(self) -> None:
        self.core = None  # type: ignore[assignment]

    def restore(self, copy: MemoryStore | None) -> None:
        """While it is down somebody puts an older copy in the place of its disk, or (None) the right one back."""
        self.store = copy if copy is not None else self.audit

    def terminate(self, now: float, wall: int) -> None:
        """SIGTERM: it says good-bye and ends."""
        self.core.shutdown(now, wall)
        self._stopping = True

    def receive(self, port: str, peer: bytes, frames: Frames, now: float, wall: int) -> None:
        if port == "bulk":
            request, _ = codec.decode(frames, codec.BULK_TO_BROKER)
            self.coverage.messages["bulk", type(request)] += 1
            self.bulk.receive(peer, request, lambda digest, size: self.core.on_artifact_stored(digest, size, now, wall))
            return
        side, table = TABLES[port]
        try:
            message, bodies = codec.decode(frames, table)
        except ProtocolError as error:
            self.core.on_bad_message(side, peer, error, now)
            return
        self.coverage.messages[port, type(message)] += 1
        lookup = self.core.lookup(side, message)
        found = self.store.find(lookup) if lookup is not None else Found()
        address = message.info.hostname if isinstance(message, m.WorkerHello) else ""
        self._watch.pass_time(now)
        if side is Port.WORKER:
            self._watch.hear(peer, message)
        self.core.on_message(side, peer, message, bodies, now, wall, found, address)
        if side is Port.WORKER:
            self._watch.heard(message)

    def subscribed(self, topic: bytes, now: float, wall: int) -> None:
        self.core.on_subscribe(topic)

    def unreachable(self, port: str, peer: bytes, now: float, wall: int) -> None:
        if port in TABLES:
            self.core.on_unreachable(TABLES[port][0], peer, now, wall)

    def tick(self, now: float, wall: int) -> None:
        self._watch.pass_time(now)
        self.core.on_tick(now, wall)
        prune = self.core.wants_prune(now, wall)
        if prune is not None and not self._waiting:
            self.core.on_prunable(self.store.find(prune).prunable, now, wall)

    def next_deadline(self) -> float:
        return self.core.next_deadline()

    # ------------------------------------------------------------ a turn

    def effects(self, now: float, wall: int) -> list[Effect]:
        out: list[Effect] = []
        if self._retry_due is None:
            self._retry_due = False
            out += self._release(out)
            if not self._waiting:
                self.core.on_storage(True)
        saves, sends = self.core.drain()
        self._watch.decided(sends)
        self._watch.saved(list(saves.jobs.values()))
        if self._held or self._waiting:
            self._waiting.merge(saves)
            out += self._emit([send for send in sends if getattr(send, "urgent", False)])
            self._held += [send for send in sends if not getattr(send, "urgent", False)]
        else:
            self._waiting, self._held = saves, sends
            out += self._release(out)
        if self.core.fatal or self._stopping:
            self.fatal += [self.core.fatal] if self.core.fatal else []
            out.append(Quit(3 if self.core.fatal else 0))
        if self._waiting and not self._retry_due:
            self._retry_due = True
            out.append(Timer(RETRY_COMMIT_S, "commit"))
        return [*out, *self._from_bulk()]

    def timer(self, payload: Any, now: float, wall: int) -> None:
        self._retry_due = None

    def _release(self, sent: list[Effect]) -> list[Effect]:
        if self._waiting and not self._commit(sent):
            self.core.on_storage(False, "an injected failure")
            return []
        self._waiting = Saves()
        self.core.committed()
        held, self._held = self._held, []
        return self._emit(held)

    def _commit(self, sent: list[Effect]) -> bool:
        """One commit, unless fate has it otherwise."""
        fate = self._random.random() / self.fragility if self.fragility else 1.0
        if fate < 0.3:
            raise Crash("dies before the commit", sent)
        if fate < 0.6:
            self.store.commit(self._waiting)
            raise Crash("dies between commit and send", sent)
        self.store.failures = int(self.full or 0.6 <= fate < 0.8)
        self.store.torn = int(not self.full and 0.8 <= fate < 1.0)
        try:
            self.store.commit(self._waiting)
        except StorageError:
            return False
        return True

    def _emit(self, sends: list[Send]) -> list[Effect]:
        effects: list[Effect] = []
        for send in sends:
            if self.store is self.audit:
                wrong = broken_promise(send, self.store, self.audit.revs)
                if wrong:
                    self._problems.append(wrong)
            if isinstance(send, ArtifactStored | ArtifactDelete):
                self.bulk.order(send, self.store.artifacts)
                continue
            port = "events" if isinstance(send, Publish) else "workers" if isinstance(send, ToWorker) else "clients"
            self.coverage.messages[port, type(send.message)] += 1
            frames = codec.encode(send.message, send.bodies)
            effects.append(Publication(send.topic, frames) if isinstance(send, Publish) else ToPeer(port, send.peer, frames))
        return effects

    def _from_bulk(self) -> list[Effect]:
        sends, self.bulk.sends = self.bulk.sends, []
        for send in sends:
            assert isinstance(send, ToPeer)
            message, _ = codec.decode(send.frames, codec.BULK_FROM_BROKER)
            self.coverage.messages["bulk", type(message)] += 1
        return sends

    # ------------------------------------------------------------ invariants

    def check(self) -> list[str]:
        wrong = [*self.core.check(), *self.audit.problems, *self._problems, *self.bulk.problems, *self._watch.problems]
        for worker in self.core.registry:
            for tag, slots in worker.slots.items():
                free = worker.free(tag)
                if free > slots:
                    wrong.append(f"{worker.worker_id}: {free} free {tag} slots of {slots}")
                if worker.credit.get(tag, 0) < 0 or free < (0 if tag == TAG_GPU else -self.config.prefetch):
                    wrong.append(f"{worker.worker_id}: {free} free {tag} slots")
        return wrong
