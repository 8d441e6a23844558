"""Workers, their sessions and their liveness. Pure: time comes in as an argument, and nothing is sent from here.

A worker is known by its ``worker_id`` across restarts; ``instance`` tells processes apart, ``session`` tells connections apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from enum import StrEnum
from typing import Final

from ktrdr_broker.config import BrokerConfig
from ktrdr_broker.model import Job
from ktrdr_zmq.jobs import TAG_CPU, TAG_GPU, Device, JobSpec, no_workers_text
from ktrdr_zmq.messages import WorkerInfo


class Liveness(StrEnum):
    """EXPECTED: known from leases in the store, not yet back after a restart of the broker. GONE: said good-bye."""

    LIVE = "live"
    SUSPECT = "suspect"
    EXPECTED = "expected"
    DEAD = "dead"
    GONE = "gone"


HOPEFUL = frozenset({Liveness.LIVE, Liveness.SUSPECT, Liveness.EXPECTED})
"""States in which a worker may still do work that is accepted now."""


class Lease:
    """A job in the hands of a worker. Ends with the death of its session, never by a clock of its own.

    ``started`` is when the attempt began on the monotonic clock; unlike ``accepted_at`` it survives a worker's reconnect.
    """

    __slots__ = ("accepted_at", "cancel_sent", "job", "leased_at", "long", "missed", "reclaim_at", "started", "tag", "worker")

    def __init__(self, job: Job, worker: Worker, tag: str, now: float, long: bool) -> None:
        self.job = job
        self.worker = worker
        self.tag = tag
        self.leased_at = now
        self.started = now
        self.accepted_at: float | None = None
        self.long = long
        self.missed = 0
        self.reclaim_at: float | None = None
        self.cancel_sent = -math.inf


class Worker:
    """What the broker knows of one worker."""

    def __init__(self, worker_id: str, now: float) -> None:
        self.worker_id = worker_id
        self.state = Liveness.EXPECTED
        self.info = WorkerInfo(worker_id=worker_id, instance=b"", hello_seq=0, versions=[], slots=[], kinds=[])
        self.instance = b""
        self.hello_seq = -1
        self.past_instances: list[bytes] = []
        self.session = 0
        self.peer = b""
        self.address = ""
        self.last_seen = now
        self.connected_at = 0
        self.returns_at = -math.inf
        self.slots: dict[str, int] = {}
        self.kinds: dict[str, tuple[int, int]] = {}
        self.credit: dict[str, int] = {}
        self.sent: dict[str, int] = {}
        self.long_leases: dict[str, int] = {}
        self.leases: dict[int, Lease] = {}
        self.cordoned = False
        self.drain_wishes = (False, False)
        """Whether an administrator who drains it wants it to stop its jobs, and to leave."""
        self.draining = False
        self.lag = 0.0
        self.load = 0.0

    def open(self, info: WorkerInfo, peer: bytes, session: int, address: str, now: float, wall: int) -> None:
        """Begin a session; credit starts from nothing, and ``cordoned`` stays as an administrator left it."""
        if self.instance and self.instance != info.instance:
            self.past_instances = [*self.past_instances[-7:], self.instance]
        self.state = Liveness.LIVE
        self.info = info
        self.instance = info.instance
        self.hello_seq = info.hello_seq
        self.session = session
        self.peer = peer
        self.address = address or self.address
        self.last_seen = now
        self.connected_at = wall
        self.returns_at = -math.inf
        self.slots = dict(info.slots)
        self.kinds = {kind: (low, high) for kind, low, high in info.kinds}
        self.credit = dict.fromkeys(self.slots, 0)
        self.sent = dict.fromkeys(self.slots, 0)
        self.draining = info.draining

    def close(self, state: Liveness) -> None:
        """End the session."""
        self.state = state
        self.session = 0
        self.peer = b""
        self.credit = dict.fromkeys(self.slots, 0)
        self.sent = dict.fromkeys(self.slots, 0)

    def offers(self, kind: str, schema: int) -> bool:
        """Whether the worker has a handler for jobs of this kind and schema."""
        versions = self.kinds.get(kind)
        return versions is not None and versions[0] <= schema <= versions[1]

    def grant(self, totals: list[tuple[str, int]]) -> None:
        """Take cumulative credit; a repeated or late grant changes nothing."""
        for tag, total in totals:
            if total > self.credit.get(tag, 0) and tag in self.slots:
                self.credit[tag] = total

    def room(self, tag: str, mean: float | None, config: BrokerConfig) -> int:
        """How many jobs of a kind with this mean run time may be sent now.

        A slot's credit serves any job. Short ones (mean known and under a second) may be sent ahead to CPU slots, as long as nothing
        long holds a slot of the tag: what waits at the worker must not wait long. A GPU slot starts a process for each job.
        """
        free = self.free(tag)
        if mean is None or mean >= config.short_job or tag == TAG_GPU or self.long_leases.get(tag, 0):
            return free
        slots = self.slots.get(tag, 0)
        window = min(config.prefetch, slots * math.ceil(config.short_job / max(mean, 1e-6)))
        return free + max(window - slots, 0)

    def free(self, tag: str) -> int:
        """Slots of a tag that have nothing to do; negative while jobs were sent ahead."""
        return self.credit.get(tag, 0) - self.sent.get(tag, 0)

    @property
    def busy(self) -> float:
        """Leases per slot."""
        return len(self.leases) / max(sum(self.slots.values()), 1)

    @property
    def has_gpu(self) -> bool:
        return self.slots.get(TAG_GPU, 0) > 0


class Registry:
    """All known workers, by id and by connection."""

    def __init__(self, config: BrokerConfig) -> None:
        self._config = config
        self.workers: dict[str, Worker] = {}
        self.by_peer: dict[bytes, Worker] = {}
        self.means: dict[str, float] = {}

    def __iter__(self) -> Iterator[Worker]:
        return iter(self.workers.values())

    def learn(self, kind: str, run_s: float) -> None:
        """Remember how long jobs of a kind take (an exponentially weighted mean)."""
        mean = self.means.get(kind)
        self.means[kind] = run_s if mean is None else mean + 0.2 * (run_s - mean)

    def expect(self, job: Job, now: float) -> Worker:
        """The worker that held a job before the broker restarted, waited for during the grace."""
        worker = self.workers.get(job.worker_id)
        if worker is None:
            worker = self.workers[job.worker_id] = Worker(job.worker_id, now)
            worker.instance = job.instance
        worker.kinds.setdefault(job.spec.kind, (job.spec.schema, job.spec.schema))
        worker.slots[job.tag] = worker.slots.get(job.tag, 0) + 1
        return worker

    def bind(self, worker: Worker, peer: bytes) -> None:
        """Let a connection speak for a worker, and no other one; a worker whose connection it was counts as silent."""
        other = self.by_peer.get(peer)
        if other is not None and other is not worker:
            self.close(other, Liveness.SUSPECT)
        if worker.peer:
            self.by_peer.pop(worker.peer, None)
        self.by_peer[peer] = worker

    def close(self, worker: Worker, state: Liveness) -> None:
        """End a worker's session; its leases are the caller's affair."""
        if worker.peer:
            self.by_peer.pop(worker.peer, None)
        worker.close(state)

    def capable(self, spec: JobSpec, now: float) -> bool:
        """Whether a worker that is here, or is known to come back, can take such a job."""
        return any(self._usable(worker, now) and serves(worker, spec) for worker in self)

    def gpu_hope(self, spec: JobSpec, now: float) -> bool:
        """Whether waiting for a GPU makes sense: one that offers the kind is here, silent for a moment, or expected."""
        return any(w.has_gpu and w.offers(spec.kind, spec.schema) and self._usable(w, now) for w in self)

    def starting(self, spec: JobSpec, now: float) -> bool:
        """Whether a worker is just finding out if it can do jobs of this kind."""
        return any(spec.kind in worker.info.pending and self._usable(worker, now) for worker in self)

    def nobody_text(self, spec: JobSpec, now: float) -> str:
        """What a person is told when `capable` says no."""
        if spec.device is not Device.AUTO and any(self._usable(w, now) and w.offers(spec.kind, spec.schema) for w in self):
            return f"No {spec.device.value.upper()} worker available for {spec.kind}. Start one, or let the job use any device."
        return no_workers_text(spec.kind)

    def _usable(self, worker: Worker, now: float) -> bool:
        if worker.cordoned or worker.draining:
            return False
        return worker.state in HOPEFUL or (worker.state is Liveness.GONE and worker.returns_at > now)

    def forget_old(self, now: float, after: float | None = None) -> None:
        """Drop workers that have been away for long (``after`` seconds) and hold nothing."""
        after = self._config.forget_worker_after if after is None else after
        for worker in list(self):
            away = worker.state in (Liveness.DEAD, Liveness.GONE)
            if away and not worker.leases and now - worker.last_seen > after:
                del self.workers[worker.worker_id]


_TAGS: Final = {Device.GPU: (TAG_GPU,), Device.CPU: (TAG_CPU,), Device.AUTO: (TAG_GPU, TAG_CPU)}


def tags_for(device: Device) -> tuple[str, ...]:
    """The slots a job may use, the preferred ones first."""
    return _TAGS[device]


def serves(worker: Worker, spec: JobSpec) -> bool:
    """Whether a worker has the handler and a slot that such a job may use."""
    return worker.offers(spec.kind, spec.schema) and any(map(worker.slots.get, tags_for(spec.device)))
