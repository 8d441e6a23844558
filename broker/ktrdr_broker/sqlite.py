"""The broker's rows in one SQLite file: one connection, one writer, one commit for each turn of the core.

Write-ahead log with ``synchronous=FULL``: what a commit returned from survives a power cut on a disk that honours fsync. Nothing here
knows what a job means; the core's rows go in as they are. The folder's lock is the shell's affair, before this file is opened.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

import msgspec

from ktrdr_broker.model import ArtifactRow, Found, Job, Known, Loaded, Lookup, PageQuery, Saves
from ktrdr_broker.store import PRUNE_BATCH, TOMBSTONE_US, DamagedError, StorageError, artifact_digests, hex_range, last_kind
from ktrdr_zmq.jobs import JOB_ID_SIZE, TERMINAL, Artifact, Attempt, Failure, JobSpec, JobState

SCHEMA_VERSION: Final = 1
FILE_NAME: Final = "broker.sqlite3"
CLEAN: Final = "clean"
FAILURES: Final = TERMINAL - {JobState.DONE}
CHUNK: Final = 500
"""Most ids in one statement."""

_FIXED: Final = ("seq", "job_id", "kind", "name", "submitter", "digest", "spec", "submitted_at")
_MUTABLE: Final = (
    "state", "reason", "rev", "token", "attempt", "worker_id", "instance", "tag", "crashes", "losses", "retries", "attempts",
    "started_at", "run_s", "artifacts", "failure", "checkpoint", "checkpoint_seq", "notice", "result_size", "priority", "finished_at",
)  # fmt: skip
COLUMNS: Final = ", ".join(_FIXED + _MUTABLE)
# "OR REPLACE": a commit that was written and yet reported as failed is repeated, and finds its rows there.
_INSERT: Final = f"INSERT OR REPLACE INTO job ({COLUMNS}) VALUES ({', '.join('?' * len(_FIXED + _MUTABLE))})"  # noqa: S608 (names from above)
_UPDATE: Final = f"UPDATE job SET {', '.join(f'{name} = ?' for name in _MUTABLE)} WHERE seq = ?"  # noqa: S608 (names from above)

_ENCODE: Final = msgspec.msgpack.Encoder().encode
_SPEC: Final = msgspec.msgpack.Decoder(JobSpec)
_ATTEMPTS: Final = msgspec.msgpack.Decoder(list[Attempt])
_ARTIFACTS: Final = msgspec.msgpack.Decoder(list[Artifact])
_FAILURE: Final = msgspec.msgpack.Decoder(Failure)
_CHECKPOINT: Final = msgspec.msgpack.Decoder(Artifact)


class SqliteStore:
    """A store in ``<folder>/broker.sqlite3``.

    Parameters
    ----------
    folder : Path
        The broker's data folder; this process holds its lock.
    fsync : bool
        False trades the power-cut guarantee for speed (a killed process still loses nothing).

    Raises
    ------
    StorageError
        When the file cannot be opened, is damaged, or was written by a newer release.
    """

    def __init__(self, folder: Path, *, fsync: bool = True) -> None:
        self.path = folder / FILE_NAME
        try:
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, cached_statements=64)
            try:
                self._prepare(fsync)
            except BaseException:
                self._db.close()
                raise
        except sqlite3.Error as error:
            raise StorageError(f"The database {self.path} cannot be opened: {error}.", hint=_WAY_OUT) from error

    def _prepare(self, fsync: bool) -> None:
        db = self._db
        self._token = 0
        db.execute("PRAGMA busy_timeout = 2000")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {'FULL' if fsync else 'NORMAL'}")
        db.execute("PRAGMA foreign_keys = OFF")
        # A small log is soon written over and over: a sync that must make the file longer as well takes half as long again.
        db.execute("PRAGMA wal_autocheckpoint = 1000")
        db.execute("PRAGMA cache_size = -16000")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise StorageError(
                f"The database {self.path} has schema {version}; this release reads up to schema {SCHEMA_VERSION}.",
                hint="Start the newer release again, or name another folder with --data-dir.",
            )
        if version < 1:
            script = resources.files("ktrdr_broker").joinpath("schema.sql").read_text("utf-8")
            db.executescript(f"BEGIN; {script} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")

    # ------------------------------------------------------------ start and end

    def load(self, wall: int) -> Loaded:
        try:
            return self._load(wall)
        except sqlite3.Error as error:
            raise StorageError(f"The database {self.path} cannot be read: {error}.", hint=_WAY_OUT) from error

    def _load(self, wall: int) -> Loaded:
        db = self._db
        meta = dict(db.execute("SELECT key, value FROM meta"))
        clean = meta.get(CLEAN, b"1") == b"1"
        if not clean:
            self._quick_check()
        former = int.from_bytes(meta.get("epoch", b"\0"), "big")
        epoch = max(former + 1, wall // 1_000_000)
        store_id = meta.get("store_id") or os.urandom(16)
        if "token" in meta:
            self._token = int.from_bytes(meta["token"], "big")
        else:  # written by an earlier release
            self._token = db.execute("SELECT COALESCE(MAX(token), 0) FROM job").fetchone()[0]
        synchronous = db.execute("PRAGMA synchronous").fetchone()[0]
        db.execute("PRAGMA synchronous = FULL")  # peers compare epochs: one that they have seen is never taken back
        db.execute("BEGIN IMMEDIATE")
        rows = [("epoch", epoch.to_bytes(8, "big")), ("store_id", store_id), (CLEAN, b"0")]
        db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)
        db.execute("DELETE FROM tombstone WHERE removed_at < ?", (wall - TOMBSTONE_US,))
        db.execute("COMMIT")
        db.execute(f"PRAGMA synchronous = {synchronous}")
        next_seq = db.execute(
            "SELECT MAX(COALESCE((SELECT MAX(seq) FROM job), 0), ?) + 1", (int.from_bytes(meta.get("seq", b"\0"), "big"),)
        )
        return Loaded(
            epoch=epoch,
            store_id=store_id,
            next_seq=next_seq.fetchone()[0],
            jobs=whole(self._rows("WHERE finished_at = 0 ORDER BY seq", ())),
            artifacts=[ArtifactRow(*row) for row in db.execute("SELECT digest, size, stored_at, touched_at FROM artifact")],
            artifact_users=dict(db.execute("SELECT digest, SUM(times) FROM artifact_use GROUP BY digest")),
            clean=clean,
            former_epoch=former,
            last_token=self._token,
        )

    def renew(self) -> None:
        try:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('store_id', ?)", (os.urandom(16),))
        except sqlite3.Error as error:
            raise StorageError(f"The database {self.path} cannot be written: {error}.") from error

    def _quick_check(self) -> None:
        """After an unclean stop: structural damage is found here, before anything is built on it."""
        verdicts = [row[0] for row in self._db.execute("PRAGMA quick_check(5)")]
        if verdicts != ["ok"]:
            raise DamagedError(f"The database {self.path} is damaged: {'; '.join(verdicts)}.", hint=SALVAGE)

    def close(self) -> None:
        try:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (CLEAN, b"1"))
            self._db.close()
        except sqlite3.Error as error:
            raise StorageError(f"The database {self.path} could not be closed: {error}.") from error

    # ------------------------------------------------------------ writing

    def commit(self, saves: Saves) -> None:
        db = self._db
        try:
            db.execute("BEGIN IMMEDIATE")
            try:
                self._write(saves)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise StorageError(f"The database {self.path} cannot be written: {error}.") from error
        self._token = max(self._token, _last_token(saves))
        for job in saves.jobs.values():
            job.stored = True

    def _write(self, saves: Saves) -> None:
        db = self._db
        new = [job for job in saves.jobs.values() if not job.stored]
        old = [job for job in saves.jobs.values() if job.stored]
        if new:
            self._insert(new)
        if old:
            db.executemany(_UPDATE, [(*_mutable(job), job.seq) for job in old])
            self._rewrite_uses([job for job in old if job.artifacts or job.checkpoint is not None])
        if saves.results:
            self._write_results(saves)
        if saves.artifacts_gone:
            db.executemany("DELETE FROM artifact WHERE digest = ?", [(digest,) for digest in saves.artifacts_gone])
        if saves.artifacts:
            rows = [(row.digest, row.size, row.stored_at, row.touched_at) for row in saves.artifacts.values()]
            db.executemany("INSERT OR REPLACE INTO artifact VALUES (?, ?, ?, ?)", rows)
        for job_id in saves.removed:
            self._remove(job_id)
        token = _last_token(saves)
        if token > self._token:
            db.execute("INSERT OR REPLACE INTO meta VALUES ('token', ?)", (token.to_bytes(8, "big"),))
        if saves.meta:
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(saves.meta.items()))

    def _insert(self, jobs: list[Job]) -> None:
        db = self._db
        db.executemany(_INSERT, [(*_fixed(job), *_mutable(job)) for job in jobs])
        db.executemany("INSERT OR REPLACE INTO body VALUES (?, ?)", [(job.seq, _blob(job.body)) for job in jobs])
        labels = [(f"{key}={value}", job.seq) for job in jobs for key, value in job.spec.labels]
        if labels:
            db.executemany("INSERT OR IGNORE INTO label VALUES (?, ?)", labels)
        self._rewrite_uses([job for job in jobs if job.spec.inputs or job.artifacts or job.checkpoint is not None])

    def _rewrite_uses(self, jobs: list[Job]) -> None:
        if not jobs:
            return
        self._db.executemany("DELETE FROM artifact_use WHERE seq = ?", [(job.seq,) for job in jobs])
        uses: dict[tuple[int, bytes], int] = {}
        for job in jobs:
            for digest in artifact_digests(job):
                uses[job.seq, digest] = uses.get((job.seq, digest), 0) + 1
        self._db.executemany("INSERT INTO artifact_use VALUES (?, ?, ?)", [(*key, times) for key, times in uses.items()])

    def _write_results(self, saves: Saves) -> None:
        rows = [(saves.jobs[job_id].seq, _blob(_digest(data)), _blob(data)) for job_id, data in saves.results.items()]
        self._db.executemany("INSERT OR REPLACE INTO result VALUES (?, ?, ?)", rows)

    def _remove(self, job_id: bytes) -> None:
        db = self._db
        row = db.execute("SELECT seq, digest, state, finished_at FROM job WHERE job_id = ?", (job_id,)).fetchone()
        if row is None:
            return
        seq, digest, state, finished_at = row
        tombstone = (job_id, digest, state, finished_at, time.time_ns() // 1000)
        db.execute("INSERT OR REPLACE INTO tombstone VALUES (?, ?, ?, ?, ?)", tombstone)
        db.execute("INSERT OR REPLACE INTO meta VALUES ('seq', ?)", (self._highest(seq).to_bytes(8, "big"),))
        for table in ("job", "body", "result", "label", "artifact_use"):
            db.execute(f"DELETE FROM {table} WHERE seq = ?", (seq,))  # noqa: S608 (names from above)

    def bury(self, tombstones: list[Any]) -> None:
        """Take tombstones over from another database."""
        try:
            self._db.executemany("INSERT OR REPLACE INTO tombstone VALUES (?, ?, ?, ?, ?)", tombstones)
        except sqlite3.Error as error:
            raise StorageError(f"The database {self.path} cannot be written: {error}.") from error

    def _highest(self, seq: int) -> int:
        known = self._db.execute("SELECT value FROM meta WHERE key = 'seq'").fetchone()
        return max(seq, int.from_bytes(known[0], "big") if known else 0)

    # ------------------------------------------------------------ reading

    def find(self, lookup: Lookup) -> Found:
        try:
            return self._find(lookup)
        except sqlite3.Error as error:
            raise StorageError(f"The database {self.path} cannot be read: {error}.", hint=_WAY_OUT) from error

    def _find(self, lookup: Lookup) -> Found:
        if lookup.ids and not lookup.refs and not self._on_record(lookup.ids):
            return Found()
        refs = {ref: self._resolve(ref) for ref in lookup.refs}
        ids = list(dict.fromkeys([*lookup.ids, *(job_id for found in refs.values() for job_id in found)]))
        rows = self._by_ids(ids) if ids else []
        jobs = {job.job_id: job for job in (whole(rows) if lookup.whole else rows)}
        gone = [job_id for job_id in ids if job_id not in jobs]
        gone += [bytes.fromhex(ref) for ref in lookup.refs if len(ref) == 2 * JOB_ID_SIZE and hex_range(ref) and not refs[ref]]
        return Found(
            jobs=jobs,
            known=self._known(gone) if gone else {},
            refs=refs,
            page=self._page(lookup.page) if lookup.page is not None else [],
            results=self._results(list(jobs)) if lookup.results else {},
            prunable=self._prunable(lookup.prune_before) if lookup.prune_before else [],
        )

    def _on_record(self, ids: Sequence[bytes]) -> bool:
        """Whether any of these ids is taken. Those of new jobs, as most are, cost no more than this one question."""
        for start in range(0, len(ids), CHUNK):
            some = list(map(_blob, ids[start : start + CHUNK]))
            if self._db.execute(_any_taken(len(some)), some).fetchone()[0]:
                return True
        return False

    def _by_ids(self, ids: list[bytes]) -> list[Job]:
        found: list[Job] = []
        for start in range(0, len(ids), CHUNK):
            some = list(map(_blob, ids[start : start + CHUNK]))
            found += self._rows(f"WHERE job_id IN ({_marks(some)})", some)
        return found

    def _rows(self, where: str, values: Sequence[Any], *, body: bool = True) -> list[Job]:
        data = "(SELECT data FROM body WHERE body.seq = job.seq)" if body else "x''"
        return [_job(row) for row in self._db.execute(f"SELECT {COLUMNS}, {data} FROM job {where}", values)]  # noqa: S608 (see callers)

    def _known(self, ids: list[bytes]) -> dict[bytes, Known]:
        rows: list[Any] = []
        for start in range(0, len(ids), CHUNK):
            some = list(map(_blob, ids[start : start + CHUNK]))
            rows += self._db.execute(f"SELECT job_id, digest, state, finished_at FROM tombstone WHERE job_id IN ({_marks(some)})", some)  # noqa: S608
        return {job_id: Known(digest, JobState(state), finished_at) for job_id, digest, state, finished_at in rows}

    def _results(self, ids: list[bytes]) -> dict[bytes, bytes]:
        rows = self._db.execute(
            f"SELECT job.job_id, result.digest, result.data FROM result JOIN job USING (seq) WHERE job.job_id IN ({_marks(ids)})",  # noqa: S608
            ids,
        )
        results = {}
        for job_id, digest, data in rows:
            if _digest(data) != digest:
                raise DamagedError(
                    f"The result of job {job_id.hex()} is damaged on disk: its digest does not match.",
                    hint=f"Run it again with: ktrdr jobs retry {job_id.hex()[:8]}",
                )
            results[job_id] = data
        return results

    def _resolve(self, ref: str) -> list[bytes]:
        kind = last_kind(ref)
        if kind is not None:
            where, values = ("WHERE kind = ? ", [kind]) if kind else ("", [])
            return self._ids(f"{where}ORDER BY seq DESC LIMIT 1", values)
        bounds = hex_range(ref)
        return self._ids("WHERE job_id BETWEEN ? AND ? LIMIT 2", bounds) if bounds is not None else []

    def _ids(self, where: str, values: Iterable[Any]) -> list[bytes]:
        return [row[0] for row in self._db.execute(f"SELECT job_id FROM job {where}", tuple(values))]  # noqa: S608 (see callers)

    def _page(self, query: PageQuery) -> list[Job]:
        tests: list[str] = []
        values: list[Any] = []
        if query.before_seq:
            tests.append("seq < ?")
            values.append(query.before_seq)
        for column, wanted in (("state", query.states), ("kind", query.kinds)):
            if wanted:
                tests.append(f"{column} IN ({_marks(wanted)})")
                values += wanted
        # A partial index is used only where its own condition is part of the question.
        if query.states and FAILURES.issuperset(query.states):
            tests.append("finished_at > 0 AND state <> 'done'")
        if query.name:
            tests.append("name = ? AND name <> ''")
            values.append(query.name)
        if query.since:  # the order is that of acceptance; all that is older need not be looked at
            tests.append("submitted_at >= ? AND seq >= (SELECT MIN(+seq) FROM job WHERE submitted_at >= ?)")
            values += [query.since, query.since]
        for key, value in query.labels:
            tests.append("EXISTS (SELECT 1 FROM label WHERE label.label = ? AND label.seq = job.seq)")
            values.append(f"{key}={value}")
        where = f"WHERE {' AND '.join(tests)} " if tests else ""
        return self._rows(f"{where}ORDER BY seq DESC LIMIT ?", [*values, query.limit], body=False)

    def _prunable(self, before: int) -> list[Job]:
        return self._rows("WHERE finished_at > 0 AND finished_at < ? ORDER BY finished_at, seq LIMIT ?", (before, PRUNE_BATCH), body=False)

    def stats(self) -> dict[str, Any]:
        states = dict(self._db.execute("SELECT state, COUNT(*) FROM job GROUP BY state"))
        count, octets = self._db.execute("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM artifact").fetchone()
        size = sum(path.stat().st_size for path in self.path.parent.glob(f"{FILE_NAME}*"))
        return {"jobs": states, "artifacts": count, "artifact_octets": octets, "database_octets": size}


SALVAGE: Final = "What is intact can be taken over into a new folder with: ktrdr broker salvage"
_WAY_OUT: Final = f"{SALVAGE}. Or restore a backup of the data folder; workers keep unacknowledged results."


def whole(jobs: list[Job]) -> list[Job]:
    """The same jobs, if specification and body of each are the octets that were accepted.

    Raises
    ------
    DamagedError
        When one is not.
    """
    for job in jobs:
        if not intact(job):
            raise DamagedError(f"The body of job {job.job_id.hex()} is damaged on disk: its digest does not match.", hint=SALVAGE)
    return jobs


def intact(job: Job) -> bool:
    """Whether a job that was read with its body is what was accepted."""
    return _digest(job.spec_raw + job.body) == job.digest


@lru_cache(64)
def _any_taken(count: int) -> str:
    marks = ", ".join(f"?{number}" for number in range(1, count + 1))
    tests = [f"EXISTS (SELECT 1 FROM {table} WHERE job_id IN ({marks}))" for table in ("job", "tombstone")]  # noqa: S608
    return f"SELECT {' OR '.join(tests)}"


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


# sqlite3 looks for an adapter of every value that is no int, float, str or bytearray: for bytes that takes four times as long as binding
# them.
_blob = bytearray
_NOTHING: Final = bytearray()


def _packed(value: Any) -> bytearray:
    return _blob(_ENCODE(value)) if value else _NOTHING


def _fixed(job: Job) -> tuple[Any, ...]:
    spec = job.spec
    return (
        job.seq, _blob(job.job_id), spec.kind, spec.name, spec.submitter, _blob(job.digest), _blob(job.spec_raw), job.submitted_at,
    )  # fmt: skip


def _mutable(job: Job) -> tuple[Any, ...]:
    return (
        str(job.state), str(job.reason), job.rev, job.token, job.attempt, job.worker_id, _blob(job.instance), job.tag, job.crashes,
        job.losses, job.retries, _packed(job.attempts), job.started_at, job.run_s, _packed(job.artifacts), _packed(job.failure),
        _packed(job.checkpoint), job.checkpoint_seq, job.notice, job.result_size, job.priority, job.finished_at,
    )  # fmt: skip


def _job(row: Sequence[Any]) -> Job:
    try:
        return as_job(row)
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        name = row[1].hex() if isinstance(row[1], bytes) else f"number {row[0]}"
        raise DamagedError(f"The row of job {name} is damaged on disk: {error}", hint=SALVAGE) from error


def as_job(row: Sequence[Any]) -> Job:
    """A job from the columns `COLUMNS` and its body.

    Raises
    ------
    msgspec.MsgspecError, ValueError, TypeError
        When they make no sense.
    """
    (
        seq, job_id, _, _, _, digest, spec, submitted_at,
        state, reason, rev, token, attempt, worker_id, instance, tag, crashes, losses, retries, attempts,
        started_at, run_s, artifacts, failure, checkpoint, checkpoint_seq, notice, result_size, priority, finished_at, body,
    ) = row  # fmt: skip
    return Job(
        job_id=job_id, seq=seq, spec=_SPEC.decode(spec), spec_raw=spec, body=body or b"", digest=digest, submitted_at=submitted_at,
        state=JobState(state), reason=reason, rev=rev, token=token, attempt=attempt, worker_id=worker_id, instance=instance, tag=tag,
        crashes=crashes, losses=losses, retries=retries, attempts=_ATTEMPTS.decode(attempts) if attempts else [], started_at=started_at,
        run_s=run_s, artifacts=_ARTIFACTS.decode(artifacts) if artifacts else [], failure=_FAILURE.decode(failure) if failure else None,
        checkpoint=_CHECKPOINT.decode(checkpoint) if checkpoint else None, checkpoint_seq=checkpoint_seq, notice=notice,
        result_size=result_size, priority=priority, finished_at=finished_at, stored=True,
    )  # fmt: skip


def _last_token(saves: Saves) -> int:
    return max((job.token for job in saves.jobs.values()), default=0)
