"""What was promised and what became of it, written down outside the system under test; at the end set algebra decides.

The submitters append to one file each (``a``: acknowledged, ``o``: outcome), synced before they go on; the handler appends every execution
to another. `judge` compares these with each other, with the broker's rows and with the events that it published.
"""

from __future__ import annotations

import asyncio
import collections
import os
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ktrdr_zmq.jobs import Attempt
from tests.storm import jobs

_ATTEMPTS = msgspec.msgpack.Decoder(list[Attempt])


class Book:
    """A submitter's file. Lines: ``a NUMBER JOB_ID`` and ``o NUMBER STATE ATTEMPT``."""

    def __init__(self, path: Path) -> None:
        self.acknowledged: dict[int, str] = {}
        self.outcomes: dict[int, set[tuple[str, int]]] = {}
        if path.exists():
            for line in path.read_text().split("\n")[:-1]:  # a torn last line was never relied upon
                self._take(line.split())
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._synced: asyncio.Future[None] | None = None

    def _take(self, words: list[str]) -> None:
        if words[0] == "a":
            self.acknowledged[int(words[1])] = words[2]
        else:
            self.outcomes.setdefault(int(words[1]), set()).add((words[2], int(words[3])))

    async def write(self, *words: object) -> None:
        """Write a line; returns when it is on disk. Those of one moment share a sync."""
        line = " ".join(map(str, words))
        os.write(self._fd, line.encode() + b"\n")
        self._take(line.split())
        if self._synced is None:
            loop = asyncio.get_running_loop()
            self._synced = synced = loop.create_future()
            await asyncio.sleep(0.005)
            self._synced = None
            await loop.run_in_executor(None, os.fdatasync, self._fd)
            synced.set_result(None)
        else:
            await self._synced

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class Row(NamedTuple):
    """A job in the broker's database."""

    job_id: str
    number: int
    state: str
    reason: str
    crashes: int
    losses: int
    attempts: list[Attempt]


def rows(database: Path) -> list[Row]:
    """All jobs of a broker that has ended."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        found = connection.execute("SELECT job_id, name, state, reason, crashes, losses, attempts FROM job WHERE kind = 'tally'")
        return [Row(job_id.hex(), int(name), *rest, _ATTEMPTS.decode(packed) if packed else []) for job_id, name, *rest, packed in found]
    finally:
        connection.close()


def executions(path: Path) -> collections.Counter[tuple[int, int]]:
    """How often each ``(number, attempt)`` was begun."""
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return collections.Counter((int(number), int(attempt)) for number, attempt in map(str.split, lines))


class Verdict(NamedTuple):
    """The counts, and every promise that was broken."""

    counts: dict[str, int]
    broken: list[str]


def judge(  # the whole algebra, in one place
    books: Iterable[Book],
    table: list[Row],
    ran: Mapping[tuple[int, int], int],
    events: Mapping[str, set[tuple[int, str]]],
) -> Verdict:
    """Compare what was acknowledged with what became of it.

    Parameters
    ----------
    books : iterable of Book
    table : list of Row
        The broker's rows.
    ran : mapping
        Executions, from `executions`.
    events : mapping
        By job id, the different ``(rev, state)`` of terminal events that were heard.
    """
    books = list(books)
    acknowledged = {number: job_id for book in books for number, job_id in book.acknowledged.items()}
    outcomes = {number: ends for book in books for number, ends in book.outcomes.items()}
    by_id = {row.job_id: row for row in table}
    begun: dict[int, set[int]] = {}
    times: collections.Counter[int] = collections.Counter()
    for (number, attempt), count in ran.items():
        begun.setdefault(number, set()).add(attempt)
        times[number] += count
    tokens = collections.Counter(attempt.token for row in table for attempt in row.attempts)

    def those(what: str, numbers: Iterable[Any]) -> list[str]:
        found = sorted(numbers)
        return [f"{what}: {len(found)} ({', '.join(map(str, found[:10]))})"] if found else []

    lost = [number for number, job_id in acknowledged.items() if job_id not in by_id]
    unfinished = [row.number for row in table if row.state not in ("done", "failed", "cancelled", "timed_out")]
    untold = acknowledged.keys() - outcomes.keys()
    contradicted = [number for number, ends in outcomes.items() if len(ends) > 1]
    doubled = [job_id for job_id, ends in events.items() if len(ends) > 1]
    completed = {row.job_id: sum(attempt.reason == "COMPLETED" for attempt in row.attempts) for row in table}
    broken = [
        *those("acknowledged and lost", lost),
        *those("acknowledged and never told how they ended", untold),
        *those("not ended", unfinished),
        *those("ended in two ways, as their submitter was told", contradicted),
        *those("ended twice, as events say", doubled),
        *those(
            "done, but not completed exactly once", (row.number for row in table if (row.state == "done") != (completed[row.job_id] == 1))
        ),
        *those("done and never run", (row.number for row in table if row.state == "done" and not begun.get(row.number))),
        *those(
            "done by an attempt that never ran",
            (n for n, ends in outcomes.items() for s, a in ends if s == "done" and a not in begun.get(n, ())),
        ),
        *those("told another end than is on record", _otherwise(acknowledged, outcomes, by_id)),
        *those("cancelled without being asked", (r.number for r in table if r.state == "cancelled" and not jobs.cancelled(r.number))),
        *those("failed before their limit", (r.number for r in table if r.state == "failed" and not _at_limit(r))),
        *those("poisonous and done", (r.number for r in table if r.state == "done" and jobs.poison(r.number))),
        *those("beyond a limit", (r.number for r in table if r.crashes > jobs.MAX_CRASHES or r.losses > jobs.MAX_LOSSES + 1)),
        *those("a token given twice", (f"{token:x}" for token, count in tokens.items() if count > 1)),
    ]
    states = collections.Counter(row.state for row in table)
    counts = {
        "acknowledged": len(acknowledged),
        "accepted": len(table),
        "done": states["done"],
        "failed_at_their_limit": states["failed"],
        "cancelled": states["cancelled"],
        "lost": len(lost),
        "duplicate_outcomes": len(contradicted) + len(doubled) + sum(count > 1 for count in completed.values()),
        "executions": sum(ran.values()),
        "executed_again": sum(count > 1 for count in times.values()),
        "most_attempts": max((len(row.attempts) for row in table), default=0),
        "most_crashes": max((row.crashes for row in table if not jobs.poison(row.number)), default=0),
        "most_losses": max((row.losses for row in table), default=0),
        "terminal_events": sum(map(len, events.values())),
    }
    return Verdict(counts, broken)


def _otherwise(acknowledged: Mapping[int, str], outcomes: Mapping[int, set[tuple[str, int]]], by_id: Mapping[str, Row]) -> list[int]:
    return [
        number
        for number, ends in outcomes.items()
        for state, _ in ends
        if acknowledged.get(number) in by_id and by_id[acknowledged[number]].state != state
    ]


def _at_limit(row: Row) -> bool:
    if row.reason == "CRASH_LIMIT":
        return row.crashes == jobs.MAX_CRASHES
    return row.reason == "LOSS_LIMIT" and row.losses > jobs.MAX_LOSSES
