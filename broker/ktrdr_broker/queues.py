"""Which job goes to which worker: priority, fairness between submitters, tags, GPU first. Pure.

Jobs that ask for the same thing share a `_Line`; a line knows its next job at once, whatever its length. The predicate `misfit` decides
whether a job may use a slot, and is what ``explain`` shows: there is no second account of the rules.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final, NamedTuple

from ktrdr_broker.config import BrokerConfig
from ktrdr_broker.model import Job
from ktrdr_broker.registry import Liveness, Registry, Worker, tags_for
from ktrdr_zmq.jobs import TAG_CPU, TAG_GPU, Device

SCAN: Final = 1000
"""How far a line is searched for a job that may use a slot which its head may not."""


class Placement(NamedTuple):
    """A job, and the slot it is to have."""

    job: Job
    worker: Worker
    tag: str


class _Key(NamedTuple):
    kind: str
    schema: int
    device: Device
    waits: bool


class _Line:
    """Queued jobs that ask for the same thing: by priority, then round robin over submitters, then first in, first out."""

    def __init__(self) -> None:
        self.levels: dict[int, dict[str, OrderedDict[bytes, Job]]] = {}
        self.count = 0

    def add(self, job: Job, front: bool) -> None:
        jobs = self.levels.setdefault(job.priority, {}).setdefault(job.spec.submitter, OrderedDict())
        jobs[job.job_id] = job
        if front:
            jobs.move_to_end(job.job_id, last=False)
        self.count += 1

    def remove(self, job: Job) -> None:
        level = self.levels[job.priority]
        jobs = level[job.spec.submitter]
        del jobs[job.job_id]
        if not jobs:
            del level[job.spec.submitter]
            if not level:
                del self.levels[job.priority]
        self.count -= 1

    def in_order(self, served: dict[str, int]) -> Iterator[Job]:
        """The jobs in the order in which they should run; the first is found without looking at the rest."""
        for priority in sorted(self.levels, reverse=True):
            level = self.levels[priority]
            for submitter in sorted(level, key=lambda name: served.get(name, 0)) if len(level) > 1 else list(level):
                yield from level[submitter].values()


class Queues:
    """All jobs that wait."""

    def __init__(self, config: BrokerConfig, registry: Registry) -> None:
        self._config = config
        self._registry = registry
        self._lines: dict[_Key, _Line] = {}
        self._parked: list[tuple[float, int, bytes]] = []
        self._not_before: dict[bytes, float] = {}
        self._excluded: dict[bytes, dict[str, float]] = {}
        self._served: dict[str, int] = {}
        self._turn = 0
        self.jobs: dict[bytes, Job] = {}
        self.octets = 0
        self.paused = False

    def __len__(self) -> int:
        return len(self.jobs)

    def add(self, job: Job, *, front: bool = False, not_before: float = 0.0) -> None:
        """Let a job wait; ``front`` for one that returns, ``not_before`` for one that must pause first."""
        self.jobs[job.job_id] = job
        self.octets += len(job.body)
        if not_before:
            self._not_before[job.job_id] = not_before
            heapq.heappush(self._parked, (not_before, job.seq, job.job_id))
        else:
            self._lines.setdefault(_key(job), _Line()).add(job, front)

    def remove(self, job: Job) -> None:
        """Take a job out, wherever it waits."""
        del self.jobs[job.job_id]
        self.octets -= len(job.body)
        if self._not_before.pop(job.job_id, None) is None:
            self._unline(job)

    def forget(self, job: Job) -> None:
        """The job has ended: nothing about it need be remembered."""
        self._excluded.pop(job.job_id, None)

    def exclude(self, job: Job, worker_id: str, until: float) -> None:
        """Keep a job away from a worker that turned it down."""
        self._excluded.setdefault(job.job_id, {})[worker_id] = until

    def reprioritise(self, job: Job, priority: int) -> None:
        """Give a waiting job another priority."""
        not_before = self._not_before.get(job.job_id, 0.0)
        self.remove(job)
        job.priority = priority
        self.add(job, not_before=not_before)

    def wake(self, now: float) -> None:
        """Put jobs whose pause is over back into their lines."""
        while self._parked and self._parked[0][0] <= now:
            due, _, job_id = heapq.heappop(self._parked)
            if self._not_before.get(job_id) == due:
                del self._not_before[job_id]
                job = self.jobs[job_id]
                self._lines.setdefault(_key(job), _Line()).add(job, front=True)

    def next_wake(self, now: float) -> float | None:
        """When time alone may make a job runnable: a pause that ends, or a line's first wait for a GPU that is over.

        Jobs further back in such a line may be noticed up to one tick late; looking at all of them each turn would cost more.
        """
        times = [self._parked[0][0]] if self._parked else []
        for key, line in self._lines.items():
            if key.waits:
                job = next(line.in_order(self._served))
                times.append(job.ready + job.spec.gpu_wait)
        return min((time for time in times if time > now), default=None)

    def assign(self, now: float) -> list[Placement]:
        """Match waiting jobs with free slots until nothing fits any more; what is returned has left the queue."""
        self.wake(now)
        placements: list[Placement] = []
        if self.paused or not self._lines:
            return placements
        stuck: set[_Key] = set()
        while True:
            best: tuple[tuple[int, int, int], Placement] | None = None
            for key, line in self._lines.items():
                if key in stuck:
                    continue
                placement = self._first_fit(key, line, now)
                if placement is None:
                    stuck.add(key)
                    continue
                job = placement.job
                rank = (-job.priority, self._served.get(job.spec.submitter, 0), job.seq)
                if best is None or rank < best[0]:
                    best = (rank, placement)
            if best is None:
                return placements
            self._take(best[1], now)
            placements.append(best[1])

    def _take(self, placement: Placement, now: float) -> None:
        job, worker, tag = placement
        self.remove(job)
        self._turn += 1
        self._served[job.spec.submitter] = self._turn
        if len(self._served) > 10_000:
            self._served.clear()
        worker.sent[tag] = worker.sent.get(tag, 0) + 1

    def _first_fit(self, key: _Key, line: _Line, now: float) -> Placement | None:
        offers = self._offers(key)
        if not offers:
            return None
        for tried, job in enumerate(line.in_order(self._served)):
            if tried >= SCAN:
                return None
            for worker, tag in offers:
                if self._job_misfit(job, worker, tag, now) == "":
                    return Placement(job, worker, tag)
        return None

    def _offers(self, key: _Key) -> list[tuple[Worker, str]]:
        """Free slots that this line may use: GPUs first, then the least loaded worker."""
        mean = self._registry.means.get(key.kind)
        offers = [
            (rank, worker.busy, worker.worker_id, worker, tag)
            for rank, tag in enumerate(tags_for(key.device))
            for worker in self._registry
            if _slot_misfit(key, worker, tag) == "" and worker.room(tag, mean, self._config) > 0
        ]
        offers.sort(key=lambda offer: offer[:3])
        return [(worker, tag) for *_, worker, tag in offers]

    def misfit(self, job: Job, worker: Worker, tag: str, now: float) -> str:
        """Why a job may not use a worker's slot now; empty if it may."""
        key = _key(job)
        reason = _slot_misfit(key, worker, tag)
        if not reason and worker.room(tag, self._registry.means.get(key.kind), self._config) <= 0:
            reason = f"all its {tag} slots are busy"
        return reason or self._job_misfit(job, worker, tag, now)

    def _job_misfit(self, job: Job, worker: Worker, tag: str, now: float) -> str:
        until = self._excluded.get(job.job_id, {}).get(worker.worker_id, 0.0) if self._excluded else 0.0
        if until > now:
            return f"it turned this job down; asked again in {until - now:.0f} s"
        left = job.ready + job.spec.gpu_wait - now
        if tag == TAG_CPU and job.spec.device is Device.AUTO and job.spec.gpu_wait > 0 and left > 0 and self._registry.gpu_hope(job.spec, now):
            return f"the job waits {left:.0f} s more for a GPU before it takes a CPU"
        return ""

    def pause_left(self, job: Job, now: float) -> float:
        """Seconds until a job that is to be retried may run."""
        return max(self._not_before.get(job.job_id, now) - now, 0.0)

    def depths(self) -> dict[str, int]:
        """How many jobs of each kind wait."""
        depths: dict[str, int] = {}
        for job in self.jobs.values():
            depths[job.spec.kind] = depths.get(job.spec.kind, 0) + 1
        return depths

    def _unline(self, job: Job) -> None:
        key = _key(job)
        line = self._lines[key]
        line.remove(job)
        if not line.count:
            del self._lines[key]


def _key(job: Job) -> _Key:
    spec = job.spec
    return _Key(spec.kind, spec.schema, spec.device, spec.device is Device.AUTO and spec.gpu_wait > 0)


def _slot_misfit(key: _Key, worker: Worker, tag: str) -> str:
    if worker.state is not Liveness.LIVE:
        return f"it is {worker.state.value}"
    if worker.draining or worker.cordoned:
        return "it is being drained"
    if key.kind not in worker.kinds:
        return f"it does not offer {key.kind}"
    if not worker.offers(key.kind, key.schema):
        return f"it does not speak schema {key.schema} of {key.kind}"
    if not worker.slots.get(tag, 0):
        return f"it has no {tag} slots"
    return ""
