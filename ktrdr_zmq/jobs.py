"""What a job is: its specification, its states, the table of allowed transitions, and the reason codes.

Pure data. The broker's core walks the table, the store writes the names, the CLI shows them, the docs are generated from them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec


class JobState(StrEnum):
    """Where a job stands. The four last ones are terminal: nothing leaves them."""

    QUEUED = "queued"
    LEASED = "leased"
    RUNNING = "running"
    CANCELLING = "cancelling"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"


TERMINAL: Final = frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELLED, JobState.TIMED_OUT})
HELD: Final = frozenset({JobState.LEASED, JobState.RUNNING, JobState.CANCELLING})
"""States in which a worker may be at work on the job: a lease exists."""

TRANSITIONS: Final[dict[JobState, frozenset[JobState]]] = {
    JobState.QUEUED: frozenset({JobState.LEASED, JobState.CANCELLED, JobState.TIMED_OUT}),
    JobState.LEASED: frozenset(
        {JobState.RUNNING, JobState.QUEUED, JobState.CANCELLING, JobState.DONE, JobState.FAILED, JobState.TIMED_OUT}
    ),
    JobState.RUNNING: frozenset({JobState.QUEUED, JobState.CANCELLING, JobState.DONE, JobState.FAILED, JobState.TIMED_OUT}),
    JobState.CANCELLING: frozenset({JobState.CANCELLED}),
    JobState.DONE: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
    JobState.TIMED_OUT: frozenset(),
}


class Reason(StrEnum):
    """Why a job is in its state: written with each transition, shown by ``jobs show`` and in every event."""

    SUBMITTED = "SUBMITTED"
    DISPATCHED = "DISPATCHED"
    ACCEPTED = "ACCEPTED"
    COMPLETED = "COMPLETED"
    HANDLER_ERROR = "HANDLER_ERROR"
    RESULT_TOO_LARGE = "RESULT_TOO_LARGE"
    CRASHED = "CRASHED"
    CRASH_LIMIT = "CRASH_LIMIT"
    WORKER_GONE = "WORKER_GONE"
    WORKER_LOST = "WORKER_LOST"
    LOSS_LIMIT = "LOSS_LIMIT"
    REJECTED = "REJECTED"
    HANDED_BACK = "HANDED_BACK"
    RETRY_LATER = "RETRY_LATER"
    RETRY_LIMIT = "RETRY_LIMIT"
    CANCEL_REQUESTED = "CANCEL_REQUESTED"
    CANCELLED = "CANCELLED"
    RUN_TIMEOUT = "RUN_TIMEOUT"
    QUEUE_TIMEOUT = "QUEUE_TIMEOUT"


class Outcome(StrEnum):
    """How one attempt ended, as the worker reports it in RESULT."""

    DONE = "done"
    FAILED = "failed"
    CRASHED = "crashed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    HANDED_BACK = "handed_back"
    RETRY = "retry"


class Device(StrEnum):
    """What a job may run on: ``auto`` prefers a GPU and falls back to a CPU."""

    AUTO = "auto"
    GPU = "gpu"
    CPU = "cpu"


TAG_GPU: Final = "gpu"
TAG_CPU: Final = "cpu"

NO_WORKERS_TEXT: Final = {
    "training": "No training workers available. Start GPU or CPU training workers.",
    "backtesting": "No workers available for backtesting. Start a backtesting worker.",
}


def no_workers_text(kind: str) -> str:
    """What a person is told when no worker can take a job of this kind."""
    return NO_WORKERS_TEXT.get(kind, f"No workers available for {kind}. Start a worker that offers {kind}.")


class JobSpec(msgspec.Struct, array_like=True, frozen=True):
    """What the broker must know of a job; everything else is in the body, which it never opens.

    Times are in seconds; 0 means "no limit" for timeouts and "default" for ``reclaim_after``. ``inputs`` are
    ``(name, SHA-256)`` of artifacts that must be stored before the job is accepted.
    """

    kind: str
    schema: int = 1
    device: Device = Device.AUTO
    gpu_wait: float = 0.0
    priority: int = 0
    name: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    submitter: str = ""
    run_timeout: float = 0.0
    queue_timeout: float = 0.0
    reclaim_after: float = 0.0
    max_crashes: int = 3
    max_losses: int = 20
    threads: int = 1
    memory_limit: int = 0
    inputs: tuple[tuple[str, bytes], ...] = ()
    queue: bool = False
    retry_of: bytes = b""
    resumes: bytes = b""


class Artifact(msgspec.Struct, array_like=True, frozen=True):
    """A file that a job produced, named by its content."""

    name: str
    digest: bytes
    size: int
    media_type: str = "application/octet-stream"


class Failure(msgspec.Struct, array_like=True, frozen=True):
    """Why an attempt did not succeed, in the worker's words. ``signal`` and ``exit_code`` are 0 where they do not apply."""

    error: str
    message: str
    hint: str = ""
    traceback: str = ""
    exit_code: int = 0
    signal: int = 0
    stderr_tail: str = ""


class Attempt(msgspec.Struct, array_like=True):
    """One entry of a job's history. Times are the broker's UTC microseconds; 0 means "not yet"."""

    number: int
    token: int
    worker_id: str
    instance: bytes
    tag: str
    leased_at: int
    ended_at: int = 0
    reason: str = ""
    failure: Failure | None = None


JOB_ID_SIZE: Final = 16
LANE_SIZE: Final = 6


def lane(job_id: bytes) -> bytes:
    """The last octets of a job id, which a client keeps the same for all its jobs, to hear of them all through one subscription."""
    return job_id[JOB_ID_SIZE - LANE_SIZE :]


def lane_topic(lane_octets: bytes) -> bytes:
    """The subscription prefix that covers every job of one lane."""
    return b"j." + lane_octets.hex().encode() + b"."


def job_topic(job_id: bytes) -> bytes:
    """The topic of a job's events: ``j.<lane>.<id>.``, so that both one job and one lane are a prefix."""
    return lane_topic(lane(job_id)) + job_id.hex().encode() + b"."


WORKER_TOPIC: Final = b"w."
SYNC_TOPIC: Final = b"s."
