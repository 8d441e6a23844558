"""Which job goes to which worker: priority, fairness between submitters, tags, GPU first. Pure.

Jobs that ask for the same thing share a `_Line`; a line knows its next job at once, whatever its length. The predicate `misfit` decides
whether a job may use a slot, and is what ``explain`` shows: there is no second account of the rules.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

from ktrdr_broker.config import BrokerConfig
from ktrdr_broker.model import Job
from ktrdr_broker.registry import Liveness, Registry, Worker, tags_for
from ktrdr_zmq.jobs import TAG_CPU, Device

SCAN: Final = 1000
"""How far a line is searched for a job that may use a slot which its head may not."""


_LAST: Final = (1 << 62, 0, 0)


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


class _Offer(NamedTuple):
    """A slot that may be had, and how good it is: free ones before work sent ahead, GPUs before CPUs, then the least loaded."""

    ahead: bool
    order: int
    load: float
    busy: float
    worker_id: str
    tag: str
    free: int
    extra: int
    worker: Worker

    def again(self, free: int) -> _Offer:
        """The same slot with so many free."""
        load = 1.0 - free / self.worker.slots[self.tag]
        return _Offer(free <= 0, self.order, load, self.busy, self.worker_id, self.tag, free, self.extra, self.worker)


class _Line:
    """Queued jobs that ask for the same thing: by priority, then round robin over submitters, then first in, first out."""

    def __init__(self, key: _Key) -> None:
        self.key = key
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

    def first(self, served: dict[str, int]) -> Job:
        """The job that should run next."""
        level = self.levels[max(self.levels)]
        submitter = min(level, key=lambda name: served.get(name, 0)) if len(level) > 1 else next(iter(level))
        return next(iter(level[submitter].values()))

    def in_order(self, served: dict[str, int]) -> Iterator[Job]:
        """The jobs in the order in which they should run."""
        for priority in sorted(self.levels, reverse=True):
            level = self.levels[priority]
            for submitter in sorted(level, key=lambda name: served.get(name, 0)) if len(level) > 1 else list(level):
                yield from level[submitter].values()


class _Market:
    """The free slots of one turn, best first for each line; a heap looks again at a slot only when it comes to the top.

    Within a turn slots only become less, so what was best before is never better than its entry says.
    """

    def __init__(self, registry: Registry, config: BrokerConfig) -> None:
        self._registry = registry
        self._config = config
        self._heaps: dict[_Key, list[_Offer]] = {}

    def best(self, key: _Key) -> _Offer | None:
        """The slot that jobs of a line should have next."""
        heap = self._heaps.get(key)
        if heap is None:
            heap = self._heaps[key] = self._heap(key)
        while heap:
            offer = heap[0]
            free = offer.worker.free(offer.tag)
            if free == offer.free:
                return offer
            if free + offer.extra > 0:
                heapq.heapreplace(heap, offer.again(free))
            else:
                heapq.heappop(heap)
        return None

    def all(self, key: _Key) -> list[_Offer]:
        """All slots that jobs of a line may have, the best first."""
        offers = [offer.again(offer.worker.free(offer.tag)) for offer in self._heaps.get(key, ())]
        return sorted(offer for offer in offers if offer.free + offer.extra > 0)

    def _heap(self, key: _Key) -> list[_Offer]:
        heap: list[_Offer] = []
        mean = self._registry.means.get(key.kind)
        for order, tag in enumerate(tags_for(key.device)):
            for worker in self._registry:
                slots = worker.slots.get(tag)
                if not slots or _slot_misfit(key, worker, tag):
                    continue
                free, room = worker.free(tag), worker.room(tag, mean, self._config)
                if room > 0:
                    load = 1.0 - free / slots
                    heap.append(_Offer(free <= 0, order, load, worker.busy, worker.worker_id, tag, free, room - free, worker))
        heapq.heapify(heap)
        return heap


class Queues:
    """All jobs that wait."""

    def __init__(self, config: BrokerConfig, registry: Registry) -> None:
        self._config = config
        self._registry = registry
        self._lines: dict[_Key, _Line] = {}
        self._standing: dict[bytes, _Line] = {}
        self._parked: list[tuple[float, int, bytes]] = []
        self._not_before: dict[bytes, float] = {}
        self._ends: list[tuple[float, int, bytes]] = []
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
        if job.spec.queue_timeout > 0:
            heapq.heappush(self._ends, (job.ready + job.spec.queue_timeout, job.seq, job.job_id))
        if not_before:
            self._not_before[job.job_id] = not_before
            heapq.heappush(self._parked, (not_before, job.seq, job.job_id))
        else:
            self._line_up(job, front)

    def remove(self, job: Job) -> None:
        """Take a job out, wherever it waits."""
        del self.jobs[job.job_id]
        self.octets -= len(job.body)
        line = self._standing.pop(job.job_id, None)
        if line is None:
            del self._not_before[job.job_id]
            return
        line.remove(job)
        if not line.count:
            del self._lines[line.key]

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
                self._line_up(job, front=True)

    def overdue(self, now: float) -> list[Job]:
        """Jobs that have waited for longer than they were to wait, counted from when they last became ready to run."""
        late = {}
        while self._ends and self._ends[0][0] <= now:
            job = self.jobs.get(heapq.heappop(self._ends)[2])
            if job is not None and job.ready + job.spec.queue_timeout <= now:
                late[job.job_id] = job
        return list(late.values())

    def next_wake(self, now: float) -> float | None:
        """When time alone may change something: a pause or a queue timeout ends, or a line's first wait for a GPU.

        Jobs further back in such a line may be noticed up to one tick late; looking at all of them each turn would cost more.
        """
        if not (self._lines or self._parked or self._ends):
            return None
        times = [heap[0][0] for heap in (self._parked, self._ends) if heap]
        for key, line in self._lines.items():
            if key.waits:
                job = line.first(self._served)
                times.append(job.ready + job.spec.gpu_wait)
        return min((time for time in times if time > now), default=None)

    def assign(self, now: float) -> list[Placement]:
        """Match waiting jobs with free slots until nothing fits any more; what is returned has left the queue."""
        self.wake(now)
        placements: list[Placement] = []
        if self.paused or not self._lines:
            return placements
        market = _Market(self._registry, self._config)
        lines = [line for line in self._lines.values() if market.best(line.key) is not None]
        while lines:
            placement = self._next(lines, market, now)
            if placement is not None:
                self._take(placement)
                placements.append(placement)
        return placements

    def _next(self, lines: list[_Line], market: _Market, now: float) -> Placement | None:
        """The job that goes next; lines of which none can go are struck off."""
        best: Placement | None = None
        best_rank = _LAST
        for line in lines[:]:
            placement = self._first_fit(line, market, now) if line.count else None
            if placement is None:
                lines.remove(line)
                continue
            job = placement.job
            rank = (-job.priority, self._served.get(job.spec.submitter, 0), job.seq)
            if rank < best_rank:
                best, best_rank = placement, rank
        return best

    def _take(self, placement: Placement) -> None:
        job, worker, tag = placement
        self.remove(job)
        self._turn += 1
        if len(self._served) > 10_000:
            self._served.clear()
        self._served[job.spec.submitter] = self._turn
        worker.sent[tag] = worker.sent.get(tag, 0) + 1

    def _first_fit(self, line: _Line, market: _Market, now: float) -> Placement | None:
        offer = market.best(line.key)
        if offer is None:
            return None
        head = line.first(self._served)
        if not self._job_misfit(head, offer.worker, offer.tag, now):
            return Placement(head, self._alike(head, offer, market, line.key, now).worker, offer.tag)
        offers = market.all(line.key)
        for job in islice(line.in_order(self._served), SCAN):
            for other in offers:
                if not self._job_misfit(job, other.worker, other.tag, now):
                    return Placement(job, other.worker, other.tag)
        return None

    def _alike(self, job: Job, offer: _Offer, market: _Market, key: _Key, now: float) -> _Offer:
        """A slot as good as this one whose worker computes like the one that wrote the job's checkpoint, if there is one."""
        before = self._registry.workers.get(job.worker_id) if job.checkpoint is not None else None
        numeric = before.info.numeric if before is not None else ""
        if numeric and offer.worker.info.numeric != numeric:
            for other in market.all(key):
                same = (other.ahead, other.order, other.worker.info.numeric) == (offer.ahead, offer.order, numeric)
                if same and not self._job_misfit(job, other.worker, other.tag, now):
                    return other
        return offer

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
        if job.spec.gpu_wait > 0 and tag == TAG_CPU and job.spec.device is Device.AUTO:
            left = job.ready + job.spec.gpu_wait - now
            if left > 0 and self._registry.gpu_hope(job.spec, now):
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

    def _line_up(self, job: Job, front: bool) -> None:
        key = _key(job)
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line(key)
        line.add(job, front)
        self._standing[job.job_id] = line


def _key(job: Job) -> _Key:
    spec = job.spec
    return _Key(spec.kind, spec.schema, spec.device, spec.gpu_wait > 0 and spec.device is Device.AUTO)


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
