"""Watching jobs: updates become bars with stage, speed, time left, worker and device; ends become texts and exit codes.

Ctrl+C while watching leaves the job alone and says how to come back to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from ktrdr_cli.output import Meter, Output
from ktrdr_cli.texts import job_word, reason_text, seconds
from ktrdr_zmq.errors import (
    EXIT_CANCELLED,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_TIMED_OUT,
    KtrdrError,
)

if TYPE_CHECKING:
    from ktrdr_zmq.client import AsyncClient
    from ktrdr_zmq.events import JobUpdate, ProgressUpdate
    from ktrdr_zmq.handles import AsyncJob, JobResult, Update
    from ktrdr_zmq.views import JobInfo

WINDOW_S: Final = 30.0
"""Speed is that of so many last seconds."""
MEASURABLE_S: Final = 0.5

LOOK_S: Final = 0.5
"""How often it is looked whether the broker answers."""
GONE: Final = "The broker does not answer; trying again ..."
BACK: Final = "The broker is back."

EXIT_OF: Final = {"done": EXIT_DONE, "failed": EXIT_FAILED, "cancelled": EXIT_CANCELLED, "timed_out": EXIT_TIMED_OUT}
_BADNESS: Final = (EXIT_DONE, EXIT_CANCELLED, EXIT_TIMED_OUT, EXIT_FAILED)

COUNTER: Final = re.compile(r"(?P<unit>[a-z]+) (?P<count>\d[\d,]*) of \d")
"""What a job's progress text may begin with, so that a speed can be told: ``epoch 12 of 60``."""


class Detached(KtrdrError):
    """Stopped watching; the job goes on."""

    code = "INTERRUPTED"
    exit_code = EXIT_INTERRUPTED


def worst(codes: Sequence[int]) -> int:
    """The exit code for several jobs: failed is worse than timed out, that than cancelled, that than done."""
    return max(codes, key=_BADNESS.index, default=EXIT_DONE)


@contextlib.contextmanager
def detachable(job_ids: Callable[[], Sequence[str]], back: str = "ktrdr jobs watch") -> Iterator[None]:
    """Turn Ctrl+C into `Detached` once there is a job to come back to."""
    try:
        yield
    except KeyboardInterrupt:
        ids = job_ids()
        if not ids:
            raise
        goes = "Stopped watching; the job goes on." if len(ids) == 1 else "Stopped watching; the jobs go on."
        raise Detached(goes, hint=f"Come back with: {back} {' '.join(job_id[:8] for job_id in ids)}") from None


class Pace:
    """How fast a job gets on: from what was heard in the last half minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._attempt = 0
        self._unit = ""
        self._seen: deque[tuple[float, float, int]] = deque()

    def add(self, attempt: int, fraction: float, text: str) -> None:
        """Take in a progress report; another attempt, or another thing that is counted, begins anew."""
        now = self._clock()
        counter = COUNTER.match(text)
        unit, count = (counter["unit"], int(counter["count"].replace(",", ""))) if counter else ("", 0)
        if attempt != self._attempt or unit != self._unit or (self._seen and fraction < self._seen[-1][1]):
            self._attempt, self._unit = attempt, unit
            self._seen.clear()
        self._seen.append((now, fraction, count))
        while len(self._seen) > 2 and self._seen[0][0] < now - WINDOW_S:
            self._seen.popleft()

    def _gained(self) -> tuple[float, float, int]:
        """Seconds, fraction and count between the first and the last report."""
        if len(self._seen) < 2:
            return 0.0, 0.0, 0
        first, last = self._seen[0], self._seen[-1]
        return last[0] - first[0], last[1] - first[1], last[2] - first[2]

    def left(self) -> float | None:
        """Seconds to the end at this pace; None while it cannot be told."""
        took, gained, _ = self._gained()
        return (1.0 - self._seen[-1][1]) * took / gained if took >= MEASURABLE_S and gained > 0 else None

    def speed(self) -> str:
        """For example ``3.2 epochs/s`` or ``4.0 s/epoch``; empty while it cannot be told."""
        took, _, gained = self._gained()
        if took < MEASURABLE_S or gained <= 0:
            return ""
        rate = gained / took
        if rate < 1:
            return f"{1 / rate:.1f} s/{self._unit}"
        return f"{rate:,.0f} {self._unit}s/s" if rate >= 10 else f"{rate:.1f} {self._unit}s/s"


class Watch:
    """One watched job: takes updates, shows them.

    Parameters
    ----------
    meter : Meter
        Where to show them.
    job_id, name : str
    """

    def __init__(self, meter: Meter, job_id: str, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._meter = meter
        self._id = job_id
        self._name = name
        self._fraction = 0.0
        self._attempt = 0
        self._pace = Pace(clock)

    def update(self, update: Update) -> None:
        """Show an update."""
        from ktrdr_zmq.events import ProgressUpdate

        if isinstance(update, ProgressUpdate):
            self._progress(update)
        else:
            self._state(update)

    def _progress(self, update: ProgressUpdate) -> None:
        self._attempt = update.attempt
        self._fraction = max(self._fraction, update.fraction)
        self._pace.add(update.attempt, update.fraction, update.text)
        left = self._pace.left()
        speed = self._pace.speed()
        details = [update.text, speed, f"{seconds(left)} left" if left is not None else "", _where(update)]
        self._meter.bar(self._id, self._name, update.stage or "running", self._fraction, ", ".join(filter(None, details)))
        self._meter.event({
            "schema": 1, "event": "progress", "job_id": update.job_id, "attempt": update.attempt, "fraction": self._fraction,
            "stage": update.stage, "text": update.text, "metrics": update.metrics, "worker_id": update.worker_id, "tag": update.tag,
            "speed": speed, "eta_s": None if left is None else round(left, 1),
        })  # fmt: skip

    def _state(self, update: JobUpdate) -> None:
        state = update.state.value
        if state == "done":
            self._fraction = 1.0
        if self._attempt and (update.attempt > self._attempt or state == "queued"):
            self._meter.say(f"{self._name}: attempt {self._attempt} ended ({reason_text(update.reason)}); it runs again.")
            self._attempt = 0
            self._fraction = 0.0
        details = [
            _where(update) if update.worker_id else "",
            "" if state in ("done", "running", "leased", "cancelled") else reason_text(update.reason),
        ]
        self._meter.bar(self._id, self._name, job_word(state), self._fraction, ", ".join(filter(None, details)))
        self._meter.event({
            "schema": 1, "event": "state", "job_id": update.job_id, "state": state, "reason": update.reason, "rev": update.rev,
            "attempt": update.attempt, "worker_id": update.worker_id, "tag": update.tag, "fraction": self._fraction,
        })  # fmt: skip


def _where(update: Update) -> str:
    return f"{update.worker_id} ({update.tag})" if update.tag else update.worker_id


def name_of(info: JobInfo) -> str:
    """What a watched job is called: its kind and name."""
    return f"{info.kind} {info.name}" if info.name and info.name != info.kind else f"{info.kind} {info.id[:8]}"


@contextlib.asynccontextmanager
async def outages(client: AsyncClient, meter: Meter) -> AsyncIterator[None]:
    """Say meanwhile when the broker is gone, and when it is back."""

    async def look() -> None:
        there = True
        while True:
            if client.reachable is not there:
                there = not there
                meter.say(BACK if there else GONE)
                meter.event({"schema": 1, "event": "broker", "reachable": there})
            await asyncio.sleep(LOOK_S)

    looking = asyncio.ensure_future(look())
    try:
        yield
    finally:
        looking.cancel()


async def result_of(job: AsyncJob, out: Output, name: str) -> tuple[JobResult, JobInfo]:
    """Wait for a job's result, showing how it gets on.

    Raises
    ------
    JobFailed, JobCancelled, JobTimedOut
    """
    with out.progress() as meter:
        async with outages(job.client, meter):
            result = await job.result(progress=Watch(meter, job.id, name).update)
    return result, await job.status()


async def follow(job: AsyncJob, meter: Meter) -> JobInfo:
    """Watch a job to its end, whatever that is."""
    watch = Watch(meter, job.id, name_of(await job.status()))
    async with contextlib.aclosing(job.events()) as updates:
        async for update in updates:
            watch.update(update)
    return await job.status()


async def follow_all(jobs: Sequence[AsyncJob], meter: Meter) -> list[JobInfo]:
    """Watch several jobs to their ends."""
    if not jobs:
        return []
    tasks = [asyncio.ensure_future(follow(job, meter)) for job in jobs]
    try:
        async with outages(jobs[0].client, meter):
            return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def ended(infos: Sequence[JobInfo]) -> int:
    """The exit code for jobs that have ended."""
    return worst([EXIT_OF[info.state.value] for info in infos])


def outcome(info: JobInfo) -> dict[str, Any]:
    """What an ended job's JSON begins with."""
    return {
        "schema": 1, "job_id": info.id, "kind": info.kind, "name": info.name, "state": info.state.value, "reason": info.reason,
        "worker_id": info.worker_id, "tag": info.tag, "attempt": info.attempt,
    }  # fmt: skip
