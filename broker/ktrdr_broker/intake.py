"""Whether a submitted job is accepted. Pure.

Checks go in the order in which a person can do something about them: what was said before (idempotency), the specification, capability,
limits, inputs. So "No training workers" comes before any upload.
"""

from __future__ import annotations

import hashlib
import math
import re
from typing import Final

import msgspec

from ktrdr_broker.ledger import Ledger
from ktrdr_broker.model import Found, Job
from ktrdr_broker.queues import Queues
from ktrdr_broker.registry import Registry
from ktrdr_zmq.jobs import JOB_ID_SIZE, JobSpec, JobState, Reason
from ktrdr_zmq.messages import SubmitItem, SubmitReply

MAX_SPEC: Final = 64 * 1024
MAX_TEXT: Final = 200
MAX_LABELS: Final = 64
KIND: Final = re.compile(r"[a-z][a-z0-9_.-]{0,62}")
REMEMBERED: Final = 256
REMEMBERED_SIZE: Final = 1024
_SPEC: Final = msgspec.msgpack.Decoder(JobSpec)


class Intake:
    """Turns SUBMIT items into jobs, or into refusals that say what to do."""

    def __init__(self, ledger: Ledger, registry: Registry, queues: Queues) -> None:
        self._ledger = ledger
        self._registry = registry
        self._queues = queues
        self._specs: dict[bytes, JobSpec | str] = {}
        self.storage_trouble = ""
        self.closing = False

    def take(self, item: SubmitItem, body: bytes, found: Found) -> SubmitReply:
        """Accept one job, or refuse it."""
        if len(item.job_id) != JOB_ID_SIZE:
            return SubmitReply(item.job_id, "BAD_SPEC", f"A job id has {JOB_ID_SIZE} octets.")
        if len(item.spec) > MAX_SPEC:
            return SubmitReply(
                item.job_id, "TOO_LARGE", f"The job's specification has {len(item.spec):,} octets; the limit is {MAX_SPEC:,}."
            )
        digest = hashlib.sha256(item.spec + body).digest()
        before = self._ledger.jobs.get(item.job_id) or found.jobs.get(item.job_id) or found.known.get(item.job_id)
        if before is not None:
            if before.digest == digest:
                return SubmitReply(item.job_id, "OK")
            return SubmitReply(item.job_id, "CONFLICT", "Another job has this id.")
        spec = self._spec(item.spec)
        if isinstance(spec, str):
            return SubmitReply(item.job_id, "BAD_SPEC", spec)
        capable = self._registry.capable(spec, self._ledger.now)
        refusal = self._refusal(spec, body, capable)
        if refusal is not None:
            refusal.job_id = item.job_id
            return refusal
        return SubmitReply(item.job_id, "OK", notice=self._accept(item, spec, body, digest, capable))

    def _spec(self, octets: bytes) -> JobSpec | str:
        """The specification, or what is wrong with it. Those of many jobs are the same octets: they are looked at once."""
        spec = self._specs.get(octets)
        if spec is None:
            try:
                spec = _SPEC.decode(octets)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                spec = f"The job's specification is wrong: {error}"
            else:
                spec = _misfit(spec) or spec
            if len(self._specs) >= REMEMBERED:
                self._specs.clear()
            if len(octets) <= REMEMBERED_SIZE:
                self._specs[octets] = spec
        return spec

    def _accept(self, item: SubmitItem, spec: JobSpec, body: bytes, digest: bytes, capable: bool) -> str:
        """Take the job in; returns what its submitter should know."""
        ledger = self._ledger
        job = Job(
            job_id=item.job_id, seq=ledger.next_seq(), spec=spec, spec_raw=item.spec, body=body, digest=digest, submitted_at=ledger.wall,
            state=JobState.QUEUED, reason=Reason.SUBMITTED, priority=spec.priority, ready=ledger.now,
        )  # fmt: skip
        ledger.add(job)
        self._queues.add(job)
        if not capable:
            return f"Queued until a worker comes. {self._registry.nobody_text(spec, ledger.now)}"
        return "Queued: dispatch is paused." if self._queues.paused else ""

    def repeat(self, old: Job, new_id: bytes, *, resume: bool) -> Job:
        """A new job like an ended one (`retry`), perhaps from its last checkpoint on; it waits for a worker if none is there."""
        ledger = self._ledger
        spec = msgspec.structs.replace(old.spec, retry_of=old.job_id, resumes=old.job_id if resume else b"", queue=True)
        raw = msgspec.msgpack.encode(spec)
        job = Job(
            job_id=new_id, seq=ledger.next_seq(), spec=spec, spec_raw=raw, body=old.body, digest=hashlib.sha256(raw + old.body).digest(),
            submitted_at=ledger.wall, state=JobState.QUEUED, reason=Reason.SUBMITTED, priority=spec.priority, ready=ledger.now,
            checkpoint=old.checkpoint if resume else None,
        )  # fmt: skip
        ledger.add(job)
        self._queues.add(job)
        return job

    def _refusal(self, spec: JobSpec, body: bytes, capable: bool) -> SubmitReply | None:
        """Reasons that lie in the cluster as it is now."""
        ledger, config = self._ledger, self._ledger.config
        if self.closing:
            return SubmitReply(b"", "SHUTTING_DOWN", "The broker is shutting down.", True, 5.0)
        if self.storage_trouble:
            return SubmitReply(b"", "STORAGE", f"The broker cannot write to its disk: {self.storage_trouble.rstrip('.')}.", True, 5.0)
        if not spec.queue and not capable:
            if self._registry.starting(spec, ledger.now):
                return SubmitReply(b"", "NO_CAPABLE_WORKER", f"A worker for {spec.kind} is starting.", True, 1.0)
            return SubmitReply(b"", "NO_CAPABLE_WORKER", self._registry.nobody_text(spec, ledger.now))
        if len(body) > config.max_body:
            text = f"The job's body has {len(body):,} octets; the limit is {config.max_body:,}. Put large data into an artifact."
            return SubmitReply(b"", "TOO_LARGE", text)
        if len(self._queues) >= config.max_queued_jobs or self._queues.octets + len(body) > config.max_queued_octets:
            return SubmitReply(b"", "QUEUE_FULL", f"The queue is full ({len(self._queues):,} jobs wait).", True, 2.0)
        missing = ledger.missing([digest for _, digest in spec.inputs]) if spec.inputs else None
        if missing:
            return SubmitReply(b"", "MISSING_ARTIFACT", "An input is not stored; upload it first.", True, missing=missing)
        return None


def _misfit(spec: JobSpec) -> str:
    """Reasons that lie in the specification itself; empty if there are none."""
    problem = ""
    if not KIND.fullmatch(spec.kind):
        problem = f"{spec.kind!r} is no name for a kind of job."
    elif not all(0 <= number < math.inf for number in (*_durations(spec), spec.memory_limit)):
        problem = "A duration or limit is negative or no number."
    elif not (1 <= spec.max_crashes <= 100 and 0 <= spec.max_losses <= 1000 and 1 <= spec.threads <= 1024):
        problem = "max_crashes is 1 to 100, max_losses 0 to 1000, threads 1 to 1024."
    elif not -1000 <= spec.priority <= 1000:
        problem = "A priority is between -1000 and 1000."
    elif any(len(digest) != 32 for _, digest in spec.inputs):
        problem = "An input is not named by a SHA-256 digest."
    elif len(spec.labels) > MAX_LABELS or any(len(text) > MAX_TEXT for text in _texts(spec)):
        problem = "The name, the submitter or the labels are too long."
    return problem


def _durations(spec: JobSpec) -> tuple[float, ...]:
    return spec.gpu_wait, spec.run_timeout, spec.queue_timeout, spec.reclaim_after


def _texts(spec: JobSpec) -> list[str]:
    return [spec.name, spec.submitter, *(text for label in spec.labels for text in label)]
