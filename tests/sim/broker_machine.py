"""The broker in the World: the real core over a store in memory that watches what is written, and dies or fails now and then."""

from __future__ import annotations

import random
from typing import Any

from ktrdr_broker.config import BrokerConfig
from ktrdr_broker.core import Broker, Port
from ktrdr_broker.model import ArtifactDelete, ArtifactStored, Found, Publish, Saves, Send, ToClient, ToWorker
from ktrdr_broker.store import MemoryStore, StorageError
from ktrdr_zmq import codec
from ktrdr_zmq.errors import ProtocolError
from ktrdr_zmq.jobs import TERMINAL
from ktrdr_zmq.testing import Crash, Effect, Frames, Publication, ToPeer

TABLES = {"workers": (Port.WORKER, codec.FROM_WORKER), "clients": (Port.CLIENT, codec.FROM_CLIENT)}


class AuditedStore(MemoryStore):
    """Remembers what was ever durable, and notes every write that breaks a promise."""

    def __init__(self) -> None:
        super().__init__()
        self.problems: list[str] = []
        self.outcomes: dict[bytes, tuple[str, bytes | None]] = {}
        self.tokens: dict[int, tuple[bytes, int]] = {}
        self.revs: dict[bytes, int] = {}
        self.epochs: list[int] = []

    def load(self, wall: int) -> Any:
        loaded = super().load(wall)
        if self.epochs and loaded.epoch <= self.epochs[-1]:
            self.problems.append(f"epoch {loaded.epoch} follows {self.epochs[-1]}")
        self.epochs.append(loaded.epoch)
        return loaded

    def commit(self, saves: Saves) -> None:
        try:
            super().commit(saves)
        finally:
            for job_id, job in self.jobs.items():
                if job_id in saves.jobs:
                    self._audit(job_id, job)

    def _audit(self, job_id: bytes, job: Any) -> None:
        name = job_id.hex()[:8]
        if job.rev < self.revs.get(job_id, 0):
            self.problems.append(f"{name}: rev went back from {self.revs[job_id]} to {job.rev}")
        self.revs[job_id] = job.rev
        if job_id in self.outcomes:
            if self.outcomes[job_id] != (job.state, self.results.get(job_id)):
                self.problems.append(f"{name}: a second outcome {job.state} after {self.outcomes[job_id][0]}")
        elif job.state in TERMINAL:
            self.outcomes[job_id] = (job.state, self.results.get(job_id))
        for attempt in job.attempts:
            owner = self.tokens.setdefault(attempt.token, (job_id, attempt.number))
            if owner[0] != job_id:
                self.problems.append(f"token {attempt.token:x} was given to {name} and to {owner[0].hex()[:8]}")
        if job.crashes > job.spec.max_crashes or job.losses > job.spec.max_losses + 1:
            self.problems.append(f"{name}: more crashes or losses than it may have")


class BrokerMachine:
    """Keeps the shell's law: urgent sends, one commit for each turn, then the other sends in order.

    Parameters
    ----------
    fragility : float
        Probability that a commit with something in it fails, or that the process dies before or after it.
    """

    name = "broker"

    def __init__(self, config: BrokerConfig, rng: random.Random, fragility: float = 0.0) -> None:
        self.config = config
        self.store = AuditedStore()
        self.fragility = fragility
        self.core: Broker = None  # type: ignore[assignment]
        self.fatal: list[str] = []
        self._random = rng
        self._waiting = Saves()
        self._held: list[Send] = []

    def start(self, now: float, wall: int) -> None:
        self._waiting, self._held = Saves(), []
        self.store.failures = self.store.torn = 0
        self.core = Broker(self.config, self.store.load(wall), now, wall)

    def stop(self) -> None:
        self.core = None  # type: ignore[assignment]

    def receive(self, port: str, peer: bytes, frames: Frames, now: float, wall: int) -> None:
        side, table = TABLES[port]
        try:
            message, bodies = codec.decode(frames, table)
        except ProtocolError as error:
            self.core.on_bad_message(side, peer, error, now)
            return
        lookup = self.core.lookup(side, message)
        found = self.store.find(lookup) if lookup is not None else Found()
        self.core.on_message(side, peer, message, bodies, now, wall, found)

    def subscribed(self, topic: bytes, now: float, wall: int) -> None:
        self.core.on_subscribe(topic)

    def unreachable(self, port: str, peer: bytes, now: float, wall: int) -> None:
        self.core.on_unreachable(TABLES[port][0], peer, now, wall)

    def timer(self, payload: Any, now: float, wall: int) -> None:
        raise NotImplementedError

    def tick(self, now: float, wall: int) -> None:
        self.core.on_tick(now, wall)

    def next_deadline(self) -> float:
        return self.core.next_deadline()

    def effects(self, now: float, wall: int) -> list[Effect]:
        if self.core.fatal:
            self.fatal.append(self.core.fatal)
        saves, sends = self.core.drain()
        urgent = self._encode([send for send in sends if getattr(send, "urgent", False)])
        self._held += [send for send in sends if not getattr(send, "urgent", False)]
        self._waiting.merge(saves)
        if self._waiting and not self._commit(urgent):
            self.core.on_storage(False, "an injected failure")
            return urgent
        self.core.on_storage(True)
        self.core.committed()
        released, self._held, self._waiting = self._encode(self._held), [], Saves()
        return urgent + released

    def _commit(self, sent: list[Effect]) -> bool:
        """One commit, unless fate has it otherwise."""
        fate = self._random.random() / self.fragility if self.fragility else 1.0
        if fate < 0.3:
            raise Crash("dies before the commit", sent)
        if fate < 0.6:
            self.store.commit(self._waiting)
            raise Crash("dies between commit and send", sent)
        if fate < 1.0:
            self.store.failures = int(fate < 0.8)
            self.store.torn = int(fate >= 0.8)
        try:
            self.store.commit(self._waiting)
        except StorageError:
            return False
        return True

    def _encode(self, sends: list[Send]) -> list[Effect]:
        effects: list[Effect] = []
        for send in sends:
            if isinstance(send, ToWorker):
                effects.append(ToPeer("workers", send.peer, codec.encode(send.message, send.bodies)))
            elif isinstance(send, ToClient):
                effects.append(ToPeer("clients", send.peer, codec.encode(send.message, send.bodies)))
            elif isinstance(send, Publish):
                effects.append(Publication(send.topic, codec.encode(send.message, send.bodies)))
            else:
                assert isinstance(send, ArtifactStored | ArtifactDelete)
        return effects

    def check(self) -> list[str]:
        return [*self.core.check(), *self.store.problems, *self.fatal]
