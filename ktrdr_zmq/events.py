"""What a client knows of the jobs it watches: pure bookkeeping over events and STATUS answers.

Events are hints: a lost one costs seconds, never a hang. Each job's ``rev`` tells news from old; whoever has heard nothing of a job for a
while asks STATUS. The shell subscribes, feeds events in, and asks what `Tracker.due` names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from ktrdr_zmq import messages as m
from ktrdr_zmq.errors import KtrdrError, UnknownJob
from ktrdr_zmq.jobs import TERMINAL, Artifact, Failure, JobState

REPAIR_AFTER: Final = 5.0
REPAIR_BATCH: Final = 500

__all__ = ["JobUpdate", "ProgressUpdate", "Tracker", "Watched"]


class JobUpdate(msgspec.Struct, frozen=True):
    """A job changed its state."""

    job_id: str
    state: JobState
    reason: str
    rev: int
    attempt: int
    worker_id: str
    tag: str
    at: int = 0

    @property
    def terminal(self) -> bool:
        """Whether the job has ended."""
        return self.state in TERMINAL


class ProgressUpdate(msgspec.Struct, frozen=True):
    """A running job got on; ``fraction`` is over the whole job, 0 to 1."""

    job_id: str
    attempt: int
    fraction: float
    stage: str
    text: str
    metrics: dict[str, float]
    worker_id: str
    tag: str


class Watched:
    """One watched job: its latest known state, and whoever wants to hear of changes."""

    __slots__ = (
        "acknowledged", "artifacts", "attempt", "broken", "failure", "heard_at", "job_id", "kind", "listeners", "notice", "progress",
        "progress_seq", "reason", "result", "result_size", "rev", "run_s", "state", "tag", "worker_id",
    )  # fmt: skip

    def __init__(self, job_id: bytes, now: float, *, acknowledged: bool) -> None:
        self.job_id = job_id
        self.acknowledged = acknowledged
        self.kind = ""
        self.state = JobState.QUEUED
        self.reason = ""
        self.rev = 0
        self.attempt = 0
        self.worker_id = ""
        self.tag = ""
        self.run_s = 0.0
        self.notice = ""
        self.result: bytes | None = None
        self.result_size = 0
        self.artifacts: list[Artifact] = []
        self.failure: Failure | None = None
        self.progress: ProgressUpdate | None = None
        self.progress_seq = (0, -1)
        self.heard_at = now
        self.broken: KtrdrError | None = None
        self.listeners: list[Callable[[JobUpdate | ProgressUpdate], None]] = []

    @property
    def terminal(self) -> bool:
        """Whether the job has ended."""
        return self.state in TERMINAL

    @property
    def over(self) -> bool:
        """Whether nothing more will be heard: the job has ended, or watching has (``broken`` says why)."""
        return self.broken is not None or self.state in TERMINAL

    def update(self) -> JobUpdate:
        """The latest state as an event."""
        return JobUpdate(self.job_id.hex(), self.state, self.reason, self.rev, self.attempt, self.worker_id, self.tag)

    def tell(self, event: JobUpdate | ProgressUpdate) -> None:
        """Let the listeners know."""
        for listener in tuple(self.listeners):
            listener(event)


class Tracker:
    """All jobs that a client watches and that have not ended."""

    def __init__(self) -> None:
        self.jobs: dict[bytes, Watched] = {}
        self._asked_at = 0.0

    def watch(self, job_id: bytes, now: float, *, acknowledged: bool = True) -> Watched:
        """Begin to watch a job, or go on; ended jobs are dropped from the table and live on in their `Watched`."""
        watched = self.jobs.get(job_id)
        if watched is None:
            watched = self.jobs[job_id] = Watched(job_id, now, acknowledged=acknowledged)
        return watched

    def drop(self, job_id: bytes) -> None:
        """Nobody watches this job any more."""
        self.jobs.pop(job_id, None)

    def on_event(self, message: Any, bodies: list[bytes], now: float) -> None:
        """Take in a publication."""
        watched = self.jobs.get(getattr(message, "job_id", b""))
        if watched is None:
            return
        watched.heard_at = now
        if isinstance(message, m.JobEvent):
            if message.rev <= watched.rev:
                return
            self._advance(watched, message, bodies[0] if message.size else None)
        elif isinstance(message, m.ProgressEvent):
            self._progress(watched, message)

    def on_view(self, view: m.JobView, now: float) -> None:
        """Take in a job as STATUS showed it."""
        watched = self.jobs.get(view.job_id)
        if watched is None:
            return
        watched.heard_at = now
        watched.acknowledged = True
        if view.rev > watched.rev:
            self._advance(watched, view, None)
        if not watched.terminal and view.fraction > 0 and (watched.progress is None or view.fraction > watched.progress.fraction):
            watched.progress = ProgressUpdate(
                view.job_id.hex(), view.attempt, view.fraction, view.stage, view.text, dict(view.metrics), view.worker_id, view.tag
            )
            watched.tell(watched.progress)

    def _advance(self, watched: Watched, news: Any, result: bytes | None) -> None:
        watched.kind = news.kind
        watched.state, watched.reason, watched.rev = news.state, news.reason, news.rev
        watched.attempt, watched.worker_id, watched.tag = news.attempt, news.worker_id, news.tag
        watched.notice = news.notice or watched.notice
        watched.run_s, watched.result_size = news.run_s, news.result_size
        watched.artifacts, watched.failure = news.artifacts, news.failure
        watched.result = result if result is not None or news.result_size else b""
        if watched.terminal:
            self.jobs.pop(watched.job_id, None)
        watched.tell(watched.update())

    def _progress(self, watched: Watched, event: m.ProgressEvent) -> None:
        place = (event.attempt, event.seq)
        if place <= watched.progress_seq:
            return
        watched.progress_seq = place
        watched.progress = ProgressUpdate(
            event.job_id.hex(), event.attempt, event.fraction, event.stage, event.text, dict(event.metrics), event.worker_id, event.tag
        )
        watched.tell(watched.progress)

    def due(self, now: float) -> list[bytes]:
        """Jobs of which nothing has been heard for so long that STATUS must be asked; at most some hundred at a time."""
        if now - self._asked_at < REPAIR_AFTER / 5:
            return []
        self._asked_at = now
        horizon = now - REPAIR_AFTER
        silent = []
        for watched in self.jobs.values():
            if watched.acknowledged and watched.heard_at <= horizon:
                watched.heard_at = now
                silent.append(watched.job_id)
                if len(silent) >= REPAIR_BATCH:
                    break
        return silent

    def on_unknown(self, job_id: bytes) -> None:
        """The broker does not know this job: it was removed, or the broker's data was."""
        watched = self.jobs.get(job_id)
        if watched is not None and watched.acknowledged:
            self._break(watched, UnknownJob(f"The broker does not know job {job_id.hex()[:8]} any more."))

    def fail(self, error: KtrdrError) -> None:
        """Nothing more will be heard of any job."""
        for watched in list(self.jobs.values()):
            self._break(watched, error)

    def _break(self, watched: Watched, error: KtrdrError) -> None:
        watched.broken = error
        self.jobs.pop(watched.job_id, None)
        watched.tell(watched.update())

    def lost_touch(self) -> None:
        """The connection was renewed or the broker restarted: ask about everything soon."""
        for watched in self.jobs.values():
            watched.heard_at = 0.0
        self._asked_at = 0.0
