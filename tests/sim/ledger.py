"""The test's own book: what was promised to clients, and what workers really did. Set algebra over it decides in the end."""

from __future__ import annotations

import hashlib
from collections import Counter

from ktrdr_zmq.jobs import Artifact, JobState, Reason
from tests.sim.audit import AuditedStore
from tests.sim.work import Work


class Ledger:
    """Everything that was said and done in one World.

    Attributes
    ----------
    expected : dict
        The result that each planned job must have if it is done.
    works : dict
        What each planned job really does.
    acknowledged, cancelled : set of bytes
        Jobs that a client was told are safe, or are being cancelled.
    heard, results : dict
        How a client was told that a job ended, and its result.
    finished : set of int
        Tokens whose outcome lies on a worker's disk, or did.
    deaths, timeouts : Counter
        How often a job's own child died unexplained, and how often a job ran into its time limit.
    """

    def __init__(self, store: AuditedStore) -> None:
        self.store = store
        self.expected: dict[bytes, bytes] = {}
        self.works: dict[bytes, Work] = {}
        self.acknowledged: set[bytes] = set()
        self.cancelled: set[bytes] = set()
        self.cancel_asked: set[bytes] = set()
        self.refused: set[bytes] = set()
        self.unending: set[bytes] = set()
        self.heard: dict[bytes, str] = {}
        self.results: dict[bytes, bytes] = {}
        self.runs: dict[int, str] = {}
        self.finished: set[int] = set()
        self.deaths: Counter[bytes] = Counter()
        self.timeouts: Counter[bytes] = Counter()
        self.fractions: dict[bytes, float] = {}
        self.shared_ids = False
        """Two machines have one worker_id: what is on the disk of one is unknown to the other."""
        self.forked = False
        """The broker runs on an older copy of its disk."""
        self.problems: list[str] = []

    def check(self) -> list[str]:
        """What must hold at every moment."""
        problems, self.problems = self.problems, []
        return problems

    def acknowledge(self, job_id: bytes) -> None:
        """A client has been told that a job is safe."""
        self.acknowledged.add(job_id)
        if job_id not in self.store.jobs and job_id not in self.store.known:
            self.problems.append(f"{job_id.hex()[:8]} was acknowledged and is not on disk")

    def hear(self, job_id: bytes, state: str) -> None:
        """A client has been told how a job ended."""
        durable = self.store.outcomes.get(job_id, ("nothing",))[0]
        if self.heard.setdefault(job_id, state) != state or durable != state:
            self.problems.append(f"{job_id.hex()[:8]}: the client heard {state}, before {self.heard[job_id]}; on disk is {durable}")

    # ------------------------------------------------------------ workers

    def begin(self, job_id: bytes, token: int, worker: str, fits: bool) -> None:
        """A worker has begun an attempt; it may do so again only after its own child died under an innocent job."""
        if self.forked:
            return
        name = f"token {token:x} of {job_id.hex()[:8]}"
        if self.runs.setdefault(token, worker) != worker:
            self.problems.append(f"{name} runs at {worker} and was begun at {self.runs[token]} before")
        job = self.store.jobs.get(job_id)
        if job is not None and job.token < token:
            self.problems.append(f"{name} runs and is not on disk")
        if not fits:
            self.problems.append(f"{name} runs on a slot that is not for it")

    def checkpoint(self, job_id: bytes, token: int, seq: int, fraction: float) -> Artifact:
        """A job has written a checkpoint; returns its file."""
        digest = hashlib.sha256(b"%s %x %x" % (job_id, token, seq)).digest()
        self.fractions[digest] = fraction
        self.store.makers[digest] = token
        return Artifact("checkpoint", digest, 1)

    # ------------------------------------------------------------ the end

    def settled(self) -> bool:
        """Whether every job that can end has ended and its client knows."""
        known = self.acknowledged | self.refused
        return self.expected.keys() <= known and self.acknowledged - self.unending <= self.results.keys()

    def final(self) -> list[str]:
        """What must hold when everything has healed and time enough has passed."""
        wrong = [f"{job_id.hex()[:8]} was never acknowledged" for job_id in self.expected.keys() - self.acknowledged - self.refused]
        for job_id in sorted(self.acknowledged - self.unending):
            wrong += [f"{job_id.hex()[:8]} {text}" for text in self._account(job_id)]
        return wrong

    def _account(self, job_id: bytes) -> list[str]:
        job = self.store.jobs.get(job_id) or self.store.ended.get(job_id)
        if job is None or (job_id not in self.store.jobs and job_id not in self.store.known):
            return ["was acknowledged and is lost"]
        if not job.terminal:
            return [f"has not ended: {job.state} ({job.reason}), attempt {job.attempt} at {job.worker_id}"]
        wrong = []
        if job_id not in self.heard:
            wrong.append(f"has ended {job.state}, and its client has not heard of it")
        elif job.state == "done" and self.results.get(job_id) != self.expected[job_id] + b" of token %x" % job.token:
            wrong.append(f"has the result {self.results.get(job_id)!r} at the client, and its token is {job.token:x}")
        if job_id in self.cancelled and job.state != "cancelled":
            wrong.append(f"was to be cancelled and ended {job.state}")
        if job.crashes > self.deaths[job_id]:
            wrong.append(f"is charged with {job.crashes} crashes; its own child died {self.deaths[job_id]} times")
        for attempt in job.attempts:
            if attempt.token in self.finished and attempt.reason == "WORKER_GONE" and not self.shared_ids:
                wrong.append(f"attempt {attempt.number} was finished, kept on disk, and still counted as lost")
        if not self._true(job.state, job.reason, job_id, job):
            wrong.append(f"ended {job.state} ({job.reason}), and that is not what happened")
        return wrong

    def _true(self, state: str, reason: str, job_id: bytes, job: object) -> bool:
        """Whether a job's end is one that its work, its limits and its clients could bring about."""
        work, spec = self.works[job_id], getattr(job, "spec")  # noqa: B009
        if state == JobState.DONE:
            return work.outcome in ("done", "retry")
        if state == JobState.CANCELLED:
            return job_id in self.cancel_asked
        return {
            Reason.HANDLER_ERROR: work.outcome in ("fail", "limit", "unstorable"),
            Reason.RESULT_TOO_LARGE: work.outcome == "too large",
            Reason.CRASH_LIMIT: self.deaths[job_id] >= spec.max_crashes,
            Reason.RETRY_LIMIT: work.outcome == "retry",
            Reason.RUN_TIMEOUT: self.timeouts[job_id] > 0,
            Reason.QUEUE_TIMEOUT: spec.queue_timeout > 0,
            Reason.LOSS_LIMIT: getattr(job, "losses") > spec.max_losses,  # noqa: B009
        }.get(Reason(reason), False)
