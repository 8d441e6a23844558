"""What the broker's memory must be able to do, and a double of it that forgets what was not committed.

The shell owns the store; the core never sees it. ``SqliteStore`` (sqlite.py) is the real one. Nothing here knows what a job means:
rows go in as the core left them and come back the same.
"""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from typing import Any, ClassVar, Final, Protocol

from ktrdr_broker.model import ArtifactRow, Found, Job, Known, Loaded, Lookup, PageQuery, Saves
from ktrdr_zmq.errors import EXIT_REFUSED, KtrdrError
from ktrdr_zmq.jobs import JOB_ID_SIZE

TOMBSTONE_US: Final = 90 * 86_400 * 1_000_000
"""How long the id of a removed job is remembered: the window in which a repeated SUBMIT is recognised."""

MIN_PREFIX: Final = 4
LAST: Final = "last"


class StorageError(KtrdrError):
    """The broker's database cannot be read or written."""

    code: ClassVar[str] = "STORAGE"
    exit_code: ClassVar[int] = EXIT_REFUSED


class DamagedError(StorageError):
    """What is on the disk is not what was written there; trying again does not help."""


class Store(Protocol):
    """The one place where rows are durable. All methods raise `StorageError` when the disk does not do what it should."""

    def load(self, wall: int) -> Loaded:
        """Begin an epoch, durably, and return everything that is not over.

        Parameters
        ----------
        wall : int
            UTC microseconds; the epoch is the greater of these as seconds and the stored one plus 1.
        """
        ...

    def renew(self) -> None:
        """Before `load`: become another store, so that nobody compares it with what they saw of this one. For a restored copy."""
        ...

    def commit(self, saves: Saves) -> None:
        """Make everything in ``saves`` durable, or nothing of it; may be repeated with the same and more after an error."""
        ...

    def find(self, lookup: Lookup) -> Found:
        """Fetch what the core does not hold. Bodies come with jobs found by id or reference, not with pages."""
        ...

    def stats(self) -> dict[str, Any]:
        """Sizes in octets, and how many jobs and artifacts there are."""
        ...

    def close(self) -> None:
        """Mark a clean end."""
        ...


def artifact_digests(job: Job) -> set[bytes]:
    """The artifacts that a job names: as inputs, results and checkpoint. They stay as long as its row does."""
    digests = {digest for _, digest in job.spec.inputs}
    digests.update(artifact.digest for artifact in job.artifacts)
    if job.checkpoint is not None:
        digests.add(job.checkpoint.digest)
    return digests


def hex_range(prefix: str) -> tuple[bytes, bytes] | None:
    """The least and the greatest job id that begin with these hex digits; None if it is no such beginning."""
    digits = prefix.lower()
    size = 2 * JOB_ID_SIZE
    if not MIN_PREFIX <= len(digits) <= size or digits.strip("0123456789abcdef"):
        return None
    return bytes.fromhex(digits.ljust(size, "0")), bytes.fromhex(digits.ljust(size, "f"))


def last_kind(ref: str) -> str | None:
    """The kind asked for by ``last:KIND``, an empty one for ``last``, None for any other reference."""
    head, _, kind = ref.partition(":")
    return kind if head == LAST else None


def matches(job: Job, query: PageQuery) -> bool:
    """Whether a job passes a page's filter (its ``before_seq`` and ``limit`` apart)."""
    return (
        (not query.states or job.state in query.states)
        and (not query.kinds or job.spec.kind in query.kinds)
        and (not query.name or job.spec.name == query.name)
        and job.submitted_at >= query.since
        and set(query.labels) <= set(job.spec.labels)
    )


def stored_copy(job: Job, *, body: bool = True) -> Job:
    """A job as a database would give it back: its columns, independent of the original."""
    fields = {name: getattr(job, name) for name in COLUMNS}
    fields["attempts"] = [copy.copy(attempt) for attempt in job.attempts]
    fields["artifacts"] = list(job.artifacts)
    if not body:
        fields["body"] = b""
    return Job(**fields, stored=True)


COLUMNS: Final = Job.__struct_fields__[: Job.__struct_fields__.index("stored")]
"""The fields of a job that are durable."""


class MemoryStore:
    """A store in memory, for the simulated World and for tests.

    It outlives the broker that uses it: a crash is a new core and `load`. What was not committed is gone then.

    Attributes
    ----------
    failures : int
        So many commits from now on fail and write nothing.
    torn : int
        So many commits from now on (after ``failures``) are written and reported as failed, as a disk may do.
    commits : int
        How many were written.
    """

    def __init__(self, store_id: bytes = b"memory-store-id!") -> None:
        self.store_id = store_id
        self.failures = 0
        self.torn = 0
        self.commits = 0
        self.epoch = 0
        self.token = 0
        self.clean = True
        self.jobs: dict[bytes, Job] = {}
        self.results: dict[bytes, bytes] = {}
        self.artifacts: dict[bytes, ArtifactRow] = {}
        self.known: dict[bytes, Known] = {}
        self.meta: dict[str, bytes] = {}
        self._next_seq = 1

    def load(self, wall: int) -> Loaded:
        clean, self.clean = self.clean, False
        former = self.epoch
        self.epoch = max(self.epoch + 1, wall // 1_000_000)
        users: Counter[bytes] = Counter()
        for job in self.jobs.values():
            users.update(artifact_digests(job))
        return Loaded(
            epoch=self.epoch,
            store_id=self.store_id,
            next_seq=self._next_seq,
            jobs=[stored_copy(job) for job in sorted(self.jobs.values(), key=_seq) if not job.terminal],
            artifacts=[copy.copy(row) for row in self.artifacts.values()],
            artifact_users=dict(users),
            clean=clean,
            former_epoch=former,
            last_token=self.token,
        )

    def copy(self) -> MemoryStore:
        """What a backup of the disk would hold now."""
        other = MemoryStore(self.store_id)
        other.epoch, other.token, other._next_seq = self.epoch, self.token, self._next_seq
        other.jobs, other.results, other.known = dict(self.jobs), dict(self.results), dict(self.known)
        other.artifacts, other.meta = dict(self.artifacts), dict(self.meta)
        return other

    def renew(self) -> None:
        self.store_id = hashlib.sha256(self.store_id).digest()[:16]

    def commit(self, saves: Saves) -> None:
        if self.failures:
            self.failures -= 1
            raise StorageError("An injected failure: nothing was written.")
        for job_id, job in saves.jobs.items():
            self.jobs[job_id] = stored_copy(job)
            self._next_seq = max(self._next_seq, job.seq + 1)
            self.token = max(self.token, job.token)
        self.results.update(saves.results)
        for digest in saves.artifacts_gone:
            self.artifacts.pop(digest, None)
        self.artifacts.update({digest: copy.copy(row) for digest, row in saves.artifacts.items()})
        for job_id in saves.removed:
            gone = self.jobs.pop(job_id, None)
            self.results.pop(job_id, None)
            if gone is not None:
                self.known[job_id] = Known(gone.digest, gone.state, gone.finished_at)
        self.meta.update(saves.meta)
        self.commits += 1
        if self.torn:
            self.torn -= 1
            raise StorageError("An injected failure: written, but reported as failed.")
        for job in saves.jobs.values():
            job.stored = True

    def find(self, lookup: Lookup) -> Found:
        refs = {ref: self._resolve(ref) for ref in lookup.refs}
        ids = {*lookup.ids, *(job_id for found in refs.values() for job_id in found)}
        jobs = {job_id: stored_copy(self.jobs[job_id]) for job_id in ids if job_id in self.jobs}
        full = {bytes.fromhex(ref) for ref in lookup.refs if len(ref) == 2 * JOB_ID_SIZE and hex_range(ref)}
        return Found(
            jobs=jobs,
            known={job_id: self.known[job_id] for job_id in ids | full if job_id in self.known},
            refs=refs,
            page=self._page(lookup.page) if lookup.page is not None else [],
            results={job_id: self.results[job_id] for job_id in jobs if job_id in self.results} if lookup.results else {},
            prunable=self._prunable(lookup.prune_before),
        )

    def stats(self) -> dict[str, Any]:
        states = Counter(job.state.value for job in self.jobs.values())
        octets = sum(row.size for row in self.artifacts.values())
        return {"jobs": dict(states), "artifacts": len(self.artifacts), "artifact_octets": octets, "database_octets": 0}

    def close(self) -> None:
        self.clean = True

    def _resolve(self, ref: str) -> list[bytes]:
        kind = last_kind(ref)
        newest_first = sorted(self.jobs.values(), key=_seq, reverse=True)
        if kind is not None:
            return [job.job_id for job in newest_first if not kind or job.spec.kind == kind][:1]
        bounds = hex_range(ref)
        if bounds is None:
            return []
        return sorted(job_id for job_id in self.jobs if bounds[0] <= job_id <= bounds[1])[:2]

    def _page(self, query: PageQuery) -> list[Job]:
        found = []
        for job in sorted(self.jobs.values(), key=_seq, reverse=True):
            if (not query.before_seq or job.seq < query.before_seq) and matches(job, query):
                found.append(stored_copy(job, body=False))
                if len(found) >= query.limit:
                    break
        return found

    def _prunable(self, before: int) -> list[Job]:
        if not before:
            return []
        old = [job for job in self.jobs.values() if job.terminal and job.finished_at < before]
        return [stored_copy(job, body=False) for job in sorted(old, key=_seq)[:PRUNE_BATCH]]


PRUNE_BATCH: Final = 1000
"""Most jobs offered to retention at once: removing them is one commit."""


def _seq(job: Job) -> int:
    return job.seq
