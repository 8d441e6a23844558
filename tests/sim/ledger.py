"""The test's own book: what was promised to clients, and what workers really did. Set algebra over it decides in the end."""

from __future__ import annotations

from collections import Counter

from tests.sim.broker_machine import AuditedStore


class Ledger:
    """Everything that was said and done in one World."""

    def __init__(self, store: AuditedStore) -> None:
        self.store = store
        self.expected: dict[bytes, bytes] = {}
        self.acknowledged: set[bytes] = set()
        self.cancelled: set[bytes] = set()
        self.heard: dict[bytes, str] = {}
        self.results: dict[bytes, bytes] = {}
        self.begun: Counter[int] = Counter()
        self.finished: set[int] = set()
        self.problems: list[str] = []

    def check(self) -> list[str]:
        """What must hold at every moment."""
        problems, self.problems = self.problems, []
        return problems

    def acknowledge(self, job_id: bytes) -> None:
        """A client has been told that a job is safe."""
        self.acknowledged.add(job_id)
        if job_id not in self.store.jobs:
            self.problems.append(f"{job_id.hex()[:8]} was acknowledged and is not on disk")

    def hear(self, job_id: bytes, state: str) -> None:
        """A client has been told how a job ended."""
        durable = self.store.outcomes.get(job_id, ("nothing",))[0]
        if self.heard.setdefault(job_id, state) != state or durable != state:
            self.problems.append(f"{job_id.hex()[:8]}: the client heard {state}, before {self.heard[job_id]}; on disk is {durable}")

    def begin(self, token: int) -> None:
        """A worker has begun an attempt."""
        self.begun[token] += 1
        if self.begun[token] > 1:
            self.problems.append(f"token {token:x} was begun {self.begun[token]} times")

    def settled(self) -> bool:
        """Whether every acknowledged job has ended and its client knows."""
        return self.acknowledged <= self.results.keys() and len(self.acknowledged) == len(self.expected)

    def final(self) -> list[str]:
        """What must hold when everything has healed and time enough has passed."""
        wrong = [f"{job_id.hex()[:8]} was never acknowledged" for job_id in self.expected.keys() - self.acknowledged]
        for job_id in self.acknowledged:
            name = job_id.hex()[:8]
            job = self.store.jobs.get(job_id)
            if job is None:
                wrong.append(f"{name} was acknowledged and is lost")
            elif not job.terminal:
                wrong.append(f"{name} has not ended: {job.state} ({job.reason}), attempt {job.attempt} at {job.worker_id}")
            elif job_id not in self.heard:
                wrong.append(f"{name} has ended {job.state}, and its client has not heard of it")
            elif job.state == "done" and self.results.get(job_id) != self.expected[job_id] + b" of token %x" % job.token:
                wrong.append(f"{name}: the client has the result {self.results.get(job_id)!r}, the job's token is {job.token:x}")
            for attempt in job.attempts if job is not None else ():
                if attempt.token in self.finished and attempt.reason == "WORKER_GONE":
                    wrong.append(f"{name}: attempt {attempt.number} was finished, kept on disk, and still counted as lost")
            if job is not None and job_id in self.cancelled and job.state != "cancelled":
                wrong.append(f"{name} was to be cancelled and ended {job.state}")
        return wrong
