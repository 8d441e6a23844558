"""Slots and the jobs in them. Pure: no sockets, no processes, no clock; time comes in as an argument.

A lane is one slot of a tag, and has at most one child process. Jobs wait in one queue for each tag, first in, first out. A lane runs one
job at a time; jobs of kinds that are known to be short may stand behind it in the child's own pipe, so that a burst of them costs no round
trip each. Lanes of GPU slots never do that: each of their jobs gets a fresh process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Final

from ktrdr_zmq.jobs import TAG_CPU, Artifact, JobSpec


class Phase(Enum):
    """Where an assignment stands at this worker."""

    QUEUED = "queued"
    FETCHING = "fetching"
    IN_LANE = "in lane"
    UPLOADING = "uploading"


class Stop(Enum):
    """Why a job is made to stop. ABORT: it belongs to somebody else by now, and nobody wants to hear of it."""

    CANCEL = "cancel"
    TIMEOUT = "timeout"
    DRAIN = "drain"
    STALE = "stale"
    ABORT = "abort"


class Assignment:
    """One job in this worker's hands, under one token."""

    __slots__ = (
        "accepted", "attempt", "body", "checkpoint", "job_id", "kill_at", "lane", "phase", "progress_seq", "since", "spec", "stop", "tag",
        "token",
    )  # fmt: skip

    def __init__(
        self, job_id: bytes, token: int, attempt: int, tag: str, spec: JobSpec, body: bytes, checkpoint: Artifact | None, now: float
    ) -> None:
        self.job_id = job_id
        self.token = token
        self.attempt = attempt
        self.tag = tag
        self.spec = spec
        self.body = body
        self.checkpoint = checkpoint
        self.since = now
        self.phase = Phase.QUEUED
        self.lane: Lane | None = None
        self.accepted = 0.0
        self.stop: Stop | None = None
        self.kill_at = 0.0
        self.progress_seq = 0

    @property
    def simple(self) -> bool:
        """Whether the job may stand behind others in a child: it needs nothing fetched and nobody watches its memory."""
        return not self.spec.inputs and self.checkpoint is None and not self.spec.memory_limit

    def digests(self) -> list[bytes]:
        """What must be here before the job can begin."""
        needed = [digest for _, digest in self.spec.inputs]
        return [*needed, self.checkpoint.digest] if self.checkpoint is not None else needed


class Lane:
    """One slot.

    Attributes
    ----------
    jobs : deque of Assignment
        The first one runs, the others stand behind it in the child's pipe.
    since : float
        When the first one began.
    open : bool
        Whether short jobs may be put behind.
    closing : bool
        The child is to be replaced; the slot is free only when it is gone.
    killing : int
        Token of the job for whose sake the child is being killed; 0 if it is not.
    """

    __slots__ = ("closing", "index", "jobs", "killing", "kind", "open", "since", "tag")

    def __init__(self, tag: str, index: int) -> None:
        self.tag = tag
        self.index = index
        self.jobs: deque[Assignment] = deque()
        self.since = 0.0
        self.open = False
        self.closing = False
        self.killing = 0
        self.kind = ""

    def __repr__(self) -> str:
        return f"Lane({self.tag}:{self.index})"

    @property
    def idle(self) -> bool:
        return not self.jobs and not self.closing and not self.killing

    @property
    def busy(self) -> bool:
        return not self.idle


MIN_MEAN: Final = 1e-4


class Lanes:
    """All slots, the queues before them, and what is known of how long each kind takes.

    Parameters
    ----------
    slots : iterable of (tag, number)
    feed_depth : int
        Most jobs in one child at a time.
    feed_s : float
        How many seconds of work may stand in one child.
    """

    def __init__(self, slots: Iterable[tuple[str, int]], feed_depth: int, feed_s: float) -> None:
        self._feed_depth = feed_depth
        self._feed_s = feed_s
        self._means: dict[str, float] = {}
        self.lanes: dict[str, list[Lane]] = {}
        self.queues: dict[str, deque[Assignment]] = {}
        for tag, number in slots:
            self.lanes[tag] = [Lane(tag, index) for index in range(number)]
            self.queues[tag] = deque()

    def __iter__(self) -> Iterator[Lane]:
        for lanes in self.lanes.values():
            yield from lanes

    def learn(self, kind: str, run_s: float) -> None:
        """Remember how long a job of a kind took."""
        mean = self._means.get(kind)
        self._means[kind] = run_s if mean is None else mean + 0.2 * (run_s - mean)

    def depth(self, kind: str) -> int:
        """How many jobs of a kind may stand in one child."""
        mean = self._means.get(kind)
        if mean is None:
            return 1
        return max(1, min(self._feed_depth, int(self._feed_s / max(mean, MIN_MEAN))))

    def outstanding(self, tag: str) -> int:
        """Jobs of a tag in hand, and slots that are not free yet although their job has ended."""
        count = len(self.queues[tag])
        for lane in self.lanes[tag]:
            count += len(lane.jobs) or lane.busy
        return count

    def place(self, tag: str, now: float) -> list[Assignment]:
        """Move waiting jobs into lanes as far as there is room; return those moved, their ``lane`` set."""
        queue, lanes = self.queues[tag], self.lanes[tag]
        placed: list[Assignment] = []
        while queue:
            job = queue[0]
            lane = self._room(job, lanes)
            if lane is None:
                break
            queue.popleft()
            if not lane.jobs:
                lane.since = now
                lane.open = tag == TAG_CPU and job.simple
                lane.kind = job.spec.kind
            lane.jobs.append(job)
            job.lane = lane
            job.since = now
            job.phase = Phase.IN_LANE
            placed.append(job)
        return placed

    def _room(self, job: Assignment, lanes: list[Lane]) -> Lane | None:
        """A lane for a job: an idle one, of a child that knows the kind if possible; else behind other short ones."""
        kind = job.spec.kind
        idle: Lane | None = None
        best: Lane | None = None
        most = self.depth(kind) if job.simple else 1
        for lane in lanes:
            if lane.jobs:
                if lane.open and not lane.closing and len(lane.jobs) < most and (best is None or len(lane.jobs) < len(best.jobs)):
                    best = lane
            elif not lane.closing and not lane.killing:
                if lane.kind == kind:
                    return lane
                idle = idle or lane
        if idle is not None or best is None:
            return idle
        return best if self.depth(best.jobs[0].spec.kind) > 1 else None

    def leave(self, job: Assignment, now: float) -> None:
        """A job is no longer in its lane; the next one in the child begins."""
        lane = job.lane
        assert lane is not None
        if lane.jobs and lane.jobs[0] is job:
            lane.jobs.popleft()
            lane.since = now
        else:
            lane.jobs.remove(job)
        job.lane = None
