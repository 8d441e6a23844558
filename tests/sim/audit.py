"""Looks over the broker's shoulder: at what it writes, and at what it says. Neither may break a promise."""

from __future__ import annotations

from collections import Counter
from typing import Any, Self

from ktrdr_broker.model import ArtifactDelete, ArtifactStored, Job, Publish, Saves, Send
from ktrdr_broker.store import MemoryStore, artifact_digests
from ktrdr_zmq import messages as m
from ktrdr_zmq.jobs import TERMINAL, JobState


class AuditedStore(MemoryStore):
    """Remembers what was ever durable, and notes every write that breaks a promise."""

    def __init__(self) -> None:
        super().__init__()
        self.problems: list[str] = []
        self.outcomes: dict[bytes, tuple[str, bytes | None]] = {}
        self.tokens: dict[int, bytes] = {}
        self.revs: dict[bytes, int] = {}
        self.epochs: list[int] = []
        self.ended: dict[bytes, Job] = {}
        self.checkpoints: dict[bytes, tuple[int, int]] = {}
        self.cancelling: set[bytes] = set()
        self.most_retries = 10
        self.makers: dict[bytes, int] = {}
        """Which token made a checkpoint's file; filled in by the workers."""

    def load(self, wall: int) -> Any:
        loaded = super().load(wall)
        if self.epochs and loaded.epoch <= self.epochs[-1]:
            self.problems.append(f"epoch {loaded.epoch} follows {self.epochs[-1]}")
        self.epochs.append(loaded.epoch)
        return loaded

    def commit(self, saves: Saves) -> None:
        before = self.commits
        try:
            super().commit(saves)
        finally:
            if self.commits > before:
                for job_id in saves.jobs:
                    if job_id in self.jobs:
                        self._audit(job_id, self.jobs[job_id])
                self._audit_files(saves)

    def _audit(self, job_id: bytes, job: Job) -> None:
        wrong = []
        if job.rev < self.revs.get(job_id, 0):
            wrong.append(f"rev went back from {self.revs[job_id]} to {job.rev}")
        self.revs[job_id] = job.rev
        outcome = (job.state, self.results.get(job_id))
        if self.outcomes.get(job_id, outcome) != outcome:
            wrong.append(f"a second outcome {job.state} after {self.outcomes[job_id][0]}")
        if job.state in TERMINAL:
            self.outcomes.setdefault(job_id, outcome)
            self.ended[job_id] = job
        if job_id in self.cancelling and job.state not in (JobState.CANCELLING, JobState.CANCELLED):
            wrong.append(f"it was being cancelled and is {job.state}")
        if job.state is JobState.CANCELLING:
            self.cancelling.add(job_id)
        self._audit_attempts(job, wrong)
        self._audit_checkpoint(job, wrong)
        self.problems += [f"{job_id.hex()[:8]}: {text}" for text in wrong]

    def _audit_attempts(self, job: Job, wrong: list[str]) -> None:
        last = 0
        for number, attempt in enumerate(job.attempts, 1):
            if self.tokens.setdefault(attempt.token, job.job_id) != job.job_id:
                wrong.append(f"token {attempt.token:x} belongs to another job")
            if attempt.token <= last or attempt.number != number:
                wrong.append(f"attempt {attempt.number} with token {attempt.token:x} is out of order")
            if not attempt.ended_at and number < len(job.attempts):
                wrong.append(f"attempt {number} was given up without an end: two tokens live")
            last = attempt.token
        if last > job.token:
            wrong.append(f"its token {job.token:x} is not its latest")
        if job.state in TERMINAL and job.attempts and not job.attempts[-1].ended_at:
            wrong.append("it has ended, and its last attempt has not")
        lost = job.losses > job.spec.max_losses + job.terminal
        if job.crashes > job.spec.max_crashes or lost or job.retries > self.most_retries + 1:
            wrong.append("more crashes, losses or retries than it may have")

    def _audit_checkpoint(self, job: Job, wrong: list[str]) -> None:
        if job.checkpoint is None or not job.checkpoint_seq:
            return
        before = self.checkpoints.get(job.job_id, (0, 0))
        now = (job.checkpoint_seq, self.makers.get(job.checkpoint.digest, 0))
        if now[0] < before[0] or now[1] < before[1]:
            wrong.append(f"checkpoint {now[0]} of token {now[1]:x} took the place of {before[0]} of token {before[1]:x}")
        self.checkpoints[job.job_id] = now
        if job.checkpoint.digest not in self.artifacts:
            wrong.append("its checkpoint is not stored")

    def _audit_files(self, saves: Saves) -> None:
        gone = [digest for digest in saves.artifacts_gone if digest not in self.artifacts]
        for job in self.jobs.values() if gone else ():
            if not artifact_digests(job).isdisjoint(gone):
                self.problems.append(f"{job.job_id.hex()[:8]}: an artifact that it names was given up")
        for job_id in saves.jobs:
            job = self.jobs.get(job_id)
            if job is not None and not artifact_digests(job) <= self.artifacts.keys():
                self.problems.append(f"{job_id.hex()[:8]}: it names an artifact that is not stored")


def broken_promise(send: Send, store: MemoryStore, revs: dict[bytes, int]) -> str:
    """What is wrong with sending this now; empty if everything that it says is on disk."""
    if isinstance(send, ArtifactStored):
        return "" if send.digest in store.artifacts else "an upload is acknowledged and not on disk"
    if isinstance(send, ArtifactDelete):
        return ""
    message = send.message
    if isinstance(send, Publish):
        ahead = isinstance(message, m.JobEvent | m.ProgressEvent) and message.rev > revs.get(message.job_id, 0)
        return f"an event of rev {message.rev} is ahead of the disk" if ahead else ""
    check = _CHECKS.get(type(message))
    if check is not None:
        return check(message, store)
    views = [*getattr(message, "jobs", ()), *([message.job] if hasattr(message, "job") else ())]
    if any(view.rev > revs.get(view.job_id, 0) for view in views):
        return f"{type(message).__name__} shows a job that is ahead of the disk"
    return ""


def _dispatch(message: m.Dispatch, store: MemoryStore) -> str:
    for item in message.items:
        job = store.jobs.get(item.job_id)
        if job is None or job.token < item.token:
            return f"token {item.token:x} is sent and not on disk"
        if job.token == item.token and job.checkpoint != item.checkpoint:
            return f"token {item.token:x} is sent without the newest checkpoint"
    return ""


def _submit_ack(message: m.SubmitAck, store: MemoryStore) -> str:
    lost = [reply for reply in message.items if reply.code == "OK" and reply.job_id not in store.jobs and reply.job_id not in store.known]
    return f"{lost[0].job_id.hex()[:8]} is acknowledged and not on disk" if lost else ""


def _result_ack(message: m.ResultAck, store: MemoryStore) -> str:
    for verdict in message.items:
        job = store.jobs.get(verdict.job_id)
        if verdict.verdict != "RECORDED" or job is None:
            continue
        ended = [attempt for attempt in job.attempts if attempt.token == verdict.token and attempt.ended_at]
        if not ended and not (job.terminal and job.token == verdict.token):
            return f"the outcome of token {verdict.token:x} is acknowledged and not on disk"
    return ""


def _checkpoint_ack(message: m.CheckpointAck, store: MemoryStore) -> str:
    job = store.jobs.get(message.job_id)
    ahead = message.ok and job is not None and job.token == message.token and job.checkpoint_seq < message.seq
    return f"checkpoint {message.seq} of token {message.token:x} is acknowledged and not on disk" if ahead else ""


def _hello_ok(message: m.HelloOk | m.ClientHelloOk, store: MemoryStore) -> str:
    return "" if message.epoch == store.epoch else f"epoch {message.epoch} is spoken and not on disk"


_CHECKS: dict[type[m.Message], Any] = {
    m.Dispatch: _dispatch, m.SubmitAck: _submit_ack, m.ResultAck: _result_ack, m.CheckpointAck: _checkpoint_ack,
    m.HelloOk: _hello_ok, m.ClientHelloOk: _hello_ok,
}  # fmt: skip


class Coverage:
    """What a run has exercised."""

    def __init__(self) -> None:
        self.messages: Counter[tuple[str, type[m.Message]]] = Counter()
        self.transitions: Counter[tuple[JobState, JobState]] = Counter()
        self.reasons: Counter[str] = Counter()

    def watch(self, ledger: Any) -> None:
        """Count the transitions of a broker's book."""
        move = ledger.move

        def counted(job: Job, state: JobState, reason: Any, **how: Any) -> None:
            self.transitions[job.state, state] += 1
            self.reasons[str(reason)] += 1
            move(job, state, reason, **how)

        ledger.move = counted

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Coverage):
            return NotImplemented
        return (self.messages, self.transitions, self.reasons) == (other.messages, other.transitions, other.reasons)

    __hash__ = None  # type: ignore[assignment]  # it grows

    def __iadd__(self, other: Coverage) -> Self:
        self.messages.update(other.messages)
        self.transitions.update(other.transitions)
        self.reasons.update(other.reasons)
        return self
