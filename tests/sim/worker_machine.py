"""A worker in the World: the real core, with simulated children, transfers and a disk."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from ktrdr_worker import effects as fx
from ktrdr_worker import pipe
from ktrdr_worker.core import WorkerConfig, WorkerCore
from ktrdr_worker.duties import Timing
from ktrdr_worker.lanes import Assignment, Stop
from ktrdr_zmq import codec
from ktrdr_zmq import messages as m
from ktrdr_zmq.jobs import Outcome
from ktrdr_zmq.testing import Effect, Frames, Quit, Reconnect, Timer, ToServer
from tests.sim.bulk import Transfers
from tests.sim.children import Children
from tests.sim.ledger import Ledger
from tests.sim.work import Work

__all__ = ["KINDS", "Work", "WorkerMachine"]

KINDS = (("long", 1, 1), ("short", 1, 1))


class WorkerMachine:
    """Outcomes of what ran longer than a second and the broker's epoch survive the process, as they do on a real worker's disk.

    Parameters
    ----------
    name : str
        Of the machine; also its host, unless ``host`` says otherwise.
    worker_id : str
        What it calls itself; its name by default.
    probing : float
        For so many seconds after the start it does not know yet that it can do long jobs.
    forgetful : bool
        Its disk is full: no outcome is kept.
    """

    def __init__(
        self, name: str, slots: dict[str, int], rng: random.Random, ledger: Ledger, *, worker_id: str = "", host: str = "",
        kinds: tuple[tuple[str, int, int], ...] = KINDS, probing: float = 0.0, forgetful: bool = False,
    ) -> None:  # fmt: skip
        self.name = name
        self.worker_id = worker_id or name
        self.slots = tuple(sorted(slots.items()))
        self.kinds = kinds
        self.core: WorkerCore = None  # type: ignore[assignment]
        self.exits: list[int] = []
        self._host = host or name
        self._probing = probing
        self._forgetful = forgetful
        self._random = rng
        self._ledger = ledger
        self._disk: dict[int, tuple[m.ResultItem, bytes]] = {}
        self._memory = (b"", 0)

    def start(self, now: float, wall: int) -> None:
        self._timers: list[Effect] = []
        self._transfers = Transfers()
        self._children = Children(self.name, self._random, self._ledger, self._keep)
        recovered = [(msgspec.structs.replace(item), body) for item, body in self._disk.values()]
        info = self._info(whole=not self._probing)
        info.store_id, info.highest_epoch = self._memory
        self.core = WorkerCore(WorkerConfig(slots=self.slots, timing=Timing(stop_grace=2.0)), info, self._random.random, now, recovered)
        if self._probing:
            self._timers.append(Timer(self._probing, ("probed",)))

    def _info(self, *, whole: bool) -> m.WorkerInfo:
        known, pending = (self.kinds, []) if whole else (self.kinds[1:], [self.kinds[0][0]])
        instance = self.core.info.instance if self.core is not None else self._random.randbytes(8)
        return m.WorkerInfo(
            worker_id=self.worker_id, instance=instance, hello_seq=0, versions=[1], slots=list(self.slots), kinds=list(known),
            pending=pending, host=self._host, hostname=self._host,
        )  # fmt: skip

    def stop(self) -> None:
        self.core = None  # type: ignore[assignment]

    def terminate(self, now: float) -> None:
        """SIGTERM: hand everything back and leave."""
        self.core.begin_drain(now)

    def receive(self, port: str, peer: bytes, frames: Frames, now: float, wall: int) -> None:
        if port == "bulk":
            self._transfers.receive(frames, now)
            return
        message, bodies = codec.decode(frames, codec.TO_WORKER)
        session = self.core.session
        self.core.on_message(message, bodies, now)
        if isinstance(message, m.Dispatch) and message.session != session:
            taken = [item.token for item in message.items if item.token in self.core.duties.jobs]
            self._ledger.problems += [f"{self.name} takes token {token:x} from another session" for token in taken]
        if isinstance(message, m.HelloOk) and message.session == self.core.session:
            jobs = self.core.duties.jobs
            aborted = [verdict.token for verdict in message.verdicts if verdict.verdict == "ABORT"]
            disobeyed = [token for token in aborted if token in jobs and jobs[token].stop is not Stop.ABORT]
            self._ledger.problems += [f"{self.name} goes on with token {token:x}, which it was told to abort" for token in disobeyed]

    def subscribed(self, topic: bytes, now: float, wall: int) -> None:
        raise NotImplementedError

    def unreachable(self, port: str, peer: bytes, now: float, wall: int) -> None:
        raise NotImplementedError

    def tick(self, now: float, wall: int) -> None:
        self.core.on_tick(now)

    def next_deadline(self) -> float:
        return self.core.next_deadline()

    def timer(self, payload: Any, now: float, wall: int) -> None:
        if payload[0] == "bulk":
            self._transfers.timer(payload[1])
        elif payload[0] == "probed":
            self.core.set_info(self._info(whole=True), now)
        else:
            self._children.timer(payload, self.core, now)

    # ------------------------------------------------------------ effects

    def effects(self, now: float, wall: int) -> list[Effect]:
        out, self._timers = self._timers, []
        for effect in self.core.drain(now):
            if isinstance(effect, fx.Send):
                if isinstance(effect.message, m.WorkerBye) and self.core.outbox.finished:
                    self._ledger.problems.append(f"{self.name} says good-bye with results in hand")
                out.append(ToServer("workers", codec.encode(effect.message, effect.bodies)))
            elif isinstance(effect, fx.Reconnect):
                out.append(Reconnect("workers"))
            elif isinstance(effect, fx.StartJob):
                self._children.start(effect, now)
            elif isinstance(effect, fx.StopJob):
                self._note_timeout(effect.token)
                self._children.stop(effect)
            elif isinstance(effect, fx.KillChild):
                self._children.kill(effect.lane)
            elif isinstance(effect, fx.Discard):
                self._disk.pop(effect.token, None)
            elif isinstance(effect, fx.Remember):
                self._memory = (effect.store_id, effect.epoch)
            elif isinstance(effect, fx.Fetch):
                self._fetch(effect)
            elif isinstance(effect, fx.Upload):
                out += self._upload(effect)
            elif isinstance(effect, fx.SendLog):
                ended = effect.token not in self.core.duties.jobs
                reply = m.LogTail(effect.request, effect.client, effect.job_id, effect.offset, 3, ended)
                out.append(ToServer("workers", codec.encode(reply, (b"log",))))
            elif isinstance(effect, fx.Exit):
                self.exits.append(effect.code)
                return [*out, Quit(effect.code)]
        return [*out, *self._children.take(), *self._transfers.take()]

    def _note_timeout(self, token: int) -> None:
        job = self.core.duties.jobs.get(token)
        if job is not None and job.stop is Stop.TIMEOUT:
            self._ledger.timeouts[job.job_id] += 1

    def _keep(self, job: Assignment, ended: pipe.Ended) -> None:
        if self._forgetful:
            return
        item = m.ResultItem(
            job.job_id, job.token, Outcome(ended.outcome), len(ended.body), ended.run_s, list(ended.artifacts), ended.failure, ended.reason
        )
        self._ledger.finished.add(job.token)
        self._disk[job.token] = (item, ended.body)

    def _fetch(self, effect: fx.Fetch) -> None:
        token, core = effect.job.token, self.core
        left = set(effect.digests)
        errors: list[str] = []

        def done(digest: bytes, error: str, now: float) -> None:
            left.discard(digest)
            errors.extend([error] if error else [])
            if not left:
                core.on_fetched(token, errors[0] if errors else "", now)

        for digest in effect.digests:
            self._transfers.get(digest, lambda error, now, digest=digest: done(digest, error, now))

    def _upload(self, effect: fx.Upload) -> list[Effect]:
        core = self.core
        left = {artifact.digest for artifact in effect.artifacts}

        def done(digest: bytes) -> None:
            left.discard(digest)
            if not left:
                core.on_uploaded(effect.token, effect.seq)

        if any(artifact.name == "huge" for artifact in effect.artifacts):
            core.on_uploaded(effect.token, effect.seq, "it is too large")
            return [Timer(0.0, ("bulk", 0))]  # another turn
        if not left:
            core.on_uploaded(effect.token, effect.seq)
            return [Timer(0.0, ("bulk", 0))]
        for digest in sorted(left):
            self._transfers.put(digest, lambda error, now, digest=digest: done(digest))
        return [ToServer("workers", codec.encode(m.Have(1, sorted(left))))]

    # ------------------------------------------------------------ invariants

    def check(self) -> list[str]:
        queued = [job for queue in self.core.lanes.queues.values() for job in queue if job.spec.kind == "long"]
        return self.core.check() + [f"{self.name} was sent a long job for which it has no slot" for _ in queued]

    @property
    def seen(self) -> tuple[int, int]:
        """The highest epoch and token that it knows of, with its memory or its disk."""
        if self.core is None:
            return self._memory[1], max(self._disk, default=0)
        return self.core.info.highest_epoch, self.core.duties.last_token

    @property
    def at_rest(self) -> bool:
        """Nothing runs here, and the broker has acknowledged everything."""
        return self.core is not None and not self.core.duties.jobs and not self.core.outbox.finished

    @property
    def tokens(self) -> set[int]:
        """What is in its hands, unacknowledged outcomes included."""
        return {*self.core.duties.jobs, *self.core.outbox.finished} if self.core is not None else set()
