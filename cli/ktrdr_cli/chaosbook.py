"""The ledger of ``ktrdr chaos``: what was submitted, what was acknowledged, what was heard, and what the broker has on record. Pure."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ktrdr_zmq.errors import NoCapableWorker
from ktrdr_zmq.jobs import JobState
from ktrdr_zmq.views import JobInfo, WorkerInfo

KINDS = ("echo", "noop")
"""Kinds of jobs that do no harm."""
LABEL = "chaos"
"""The label under which a run's jobs are found; its value is the run's name."""


class Entry:
    """A job of the run.

    Attributes
    ----------
    number : int
        Unique within the run.
    job_id : str
        Chosen by the submitter, and the same whenever the job is submitted again.
    acknowledged, lost : bool
        Whether the broker said that it has it; whether it later said that it never had it.
    may_cancel : bool
        Whether somebody asked for its end.
    ends : set of JobState
        Every end that was heard of it: one, if all is well.
    """

    def __init__(self, number: int, job_id: str) -> None:
        self.number = number
        self.job_id = job_id
        self.acknowledged = False
        self.lost = False
        self.may_cancel = False
        self.ends: set[JobState] = set()


class Sums(NamedTuple):
    """The counts, and a line for each promise that was broken."""

    counts: dict[str, int]
    broken: list[str]


class Book:
    """All jobs of a run."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.entries: list[Entry] = []

    def add(self) -> Entry:
        """The next job."""
        number = len(self.entries)
        entry = Entry(number, hashlib.sha256(f"chaos {self.run} {number}".encode()).hexdigest()[:32])
        self.entries.append(entry)
        return entry

    def open(self) -> list[Entry]:
        """Acknowledged jobs whose end has not been heard of."""
        return [entry for entry in self.entries if entry.acknowledged and not entry.ends and not entry.lost]

    def judge(self, rows: Sequence[JobInfo]) -> Sums:
        """Compare with the broker's rows of this run.

        Parameters
        ----------
        rows : sequence of JobInfo
            Everything that has the run's label, retries included.
        """
        by_id = {row.id: row for row in rows}
        numbers = Counter(row.name for row in rows if not row.retry_of)
        promised = [entry for entry in self.entries if entry.acknowledged]
        lost = [entry for entry in promised if entry.lost or entry.job_id not in by_id]
        doubled = [name for name, count in numbers.items() if count > 1] + [str(e.number) for e in self.entries if len(e.ends) > 1]
        broken = [
            *_line("lost", (entry.number for entry in lost)),
            *_line("there twice, or ended twice", doubled),
            *_line("not ended", (row.name for row in rows if not row.terminal)),
            *_line("told another end than is on record", (e.number for e in promised if _otherwise(e, by_id))),
            *_line("cancelled without being asked", (e.number for e in promised if _unasked(e, by_id))),
            *_line("failed", (row.name for row in rows if row.state in (JobState.FAILED, JobState.TIMED_OUT))),
        ]
        states = Counter(row.state for row in rows)
        counts = {
            "submitted": len(self.entries),
            "acknowledged": len(promised),
            "finished": states[JobState.DONE],
            "cancelled": states[JobState.CANCELLED],
            "failed": states[JobState.FAILED] + states[JobState.TIMED_OUT],
            "retries": sum(bool(row.retry_of) for row in rows),
            "unfinished": sum(not row.terminal for row in rows),
            "lost": len(lost),
            "duplicates": len(doubled),
            "run_again": sum(row.attempt > 1 for row in rows),
        }
        return Sums(counts, broken)


def _line(what: str, found: Iterable[Any]) -> list[str]:
    names = [str(name) for name in found]
    return [f"{what}: {len(names)} (number {', '.join(names[:8])})"] if names else []


def _otherwise(entry: Entry, rows: dict[str, JobInfo]) -> bool:
    row = rows.get(entry.job_id)
    return row is not None and row.terminal and bool(entry.ends) and row.state not in entry.ends


def _unasked(entry: Entry, rows: dict[str, JobInfo]) -> bool:
    row = rows.get(entry.job_id)
    return row is not None and row.state is JobState.CANCELLED and not entry.may_cancel


def harmless_kind(workers: Iterable[WorkerInfo]) -> str:
    """A kind of job that does no harm and that some worker offers.

    Raises
    ------
    NoCapableWorker
        When none does.
    """
    offered = {kind for worker in workers if worker.state in ("live", "suspect") for kind in worker.kinds}
    for kind in KINDS:
        if kind in offered:
            return kind
    raise NoCapableWorker(
        "No worker offers echo or noop, the jobs that this command submits.", hint="Start one with: ktrdr worker run --kinds echo"
    )
