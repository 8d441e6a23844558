"""A damaged data folder: what of it is intact, and a new folder with all of that. For a broker that does not run.

Reads a copy of the database, row by row where pages are broken; a job's body, a result and a file count as intact if their SHA-256 is the
one on record. Changes nothing in the damaged folder. `ktrdr broker check` and `ktrdr broker salvage` are its faces.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from ktrdr_broker.bulk import ArtifactFiles, artifact_path
from ktrdr_broker.ledger import named_digests
from ktrdr_broker.model import ArtifactRow, Job, Saves
from ktrdr_broker.sqlite import COLUMNS, FILE_NAME, SqliteStore, as_job, intact
from ktrdr_broker.startup import FolderLock
from ktrdr_zmq.errors import ConfigError

BATCH: Final = 500
LAST_SEQ: Final = 1 << 62
PAGEFUL: Final = 500
"""More rows than a broken page holds: beyond, larger steps are tried."""
_PIECE: Final = 1 << 20


class Findings(msgspec.Struct, kw_only=True):
    """What is intact and what is not. Texts name jobs by id."""

    jobs: int = 0
    results: int = 0
    files: int = 0
    structure: list[str] = []
    damaged: list[str] = []
    missing: list[str] = []

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged or missing."""
        return not (self.structure or self.damaged or self.missing)


def check(folder: Path) -> Findings:
    """Look at everything in a data folder.

    Raises
    ------
    StartRefused
        When a broker runs on it.
    ConfigError
        When there is none.
    """
    with _copy(folder) as (db, findings):
        for _ in _batches(db, folder, findings):
            pass
    return findings


def salvage(folder: Path, to: Path) -> Findings:
    """Make a new data folder with all that is intact in a damaged one.

    Unfinished jobs with a damaged body are left out; ended ones stay, without it. A result or file that is damaged is left out.

    Raises
    ------
    StartRefused
        When a broker runs on the folder.
    ConfigError
        When there is no such folder, or the new one exists already.
    """
    if to.exists():
        raise ConfigError(f"{to} exists already.", hint="Name a folder that does not; it will be made.")
    with _copy(folder) as (db, findings):
        to.mkdir(parents=True)
        store = SqliteStore(to)
        store.commit(Saves(meta=_meta(db)))
        for jobs, results in _batches(db, folder, findings):
            for job in jobs:
                job.stored = False
            store.commit(Saves(jobs={job.job_id: job for job in jobs}, results=results))
        _take_files(folder, to, store)
        store.bury(list(_tombstones(db)))
        store.close()
    return findings


# ---------------------------------------------------------------------------------------------------------------- reading


@contextlib.contextmanager
def _copy(folder: Path) -> Iterator[tuple[sqlite3.Connection, Findings]]:
    """The database, copied with its log so that reading changes nothing, and what its structure is like."""
    if not (folder / FILE_NAME).exists():
        raise ConfigError(f"There is no broker's database in {folder}.", hint="Name its folder with --data-dir.")
    lock = FolderLock(folder)
    try:
        with tempfile.TemporaryDirectory(prefix="ktrdr-salvage-", dir=folder.parent) as temporary:
            for path in folder.glob(f"{FILE_NAME}*"):
                if not path.name.endswith("-shm"):  # made anew from the log
                    shutil.copyfile(path, Path(temporary) / path.name)
            db = sqlite3.connect(Path(temporary) / FILE_NAME, isolation_level=None)
            try:
                yield db, Findings(structure=_structure(db))
            finally:
                db.close()
    finally:
        lock.release()


def _structure(db: sqlite3.Connection) -> list[str]:
    try:
        found = [str(row[0]) for row in db.execute("PRAGMA integrity_check(20)")]
    except sqlite3.Error as error:
        return [str(error)]
    return [] if found == ["ok"] else found


def _batches(db: sqlite3.Connection, folder: Path, findings: Findings) -> Iterator[tuple[list[Job], dict[bytes, bytes]]]:
    """Intact jobs with their results, some at a time; what is not intact is written down."""
    files = _Files(folder, findings)
    jobs: list[Job] = []
    results: dict[bytes, bytes] = {}
    for row in _rows(db, f"SELECT {COLUMNS} FROM job", findings, "jobs"):  # noqa: S608 (names from sqlite.py)
        body = _one(db, "SELECT data FROM body WHERE seq = ?", row[0])
        try:
            job = as_job((*row, body[0] if body else b""))
        except (msgspec.MsgspecError, ValueError, TypeError) as error:
            findings.damaged.append(f"job {_name(row)}: its row makes no sense ({error}); left out")
            continue
        if not intact(job):
            if not job.terminal:
                findings.damaged.append(f"job {job.job_id.hex()} ({job.spec.kind}, {job.state.value}): its body; left out, submit it again")
                continue
            findings.damaged.append(f"job {job.job_id.hex()} ({job.spec.kind}, {job.state.value}): its body; it cannot be retried")
        result = _one(db, "SELECT data, digest FROM result WHERE seq = ?", job.seq)
        if result and hashlib.sha256(result[0]).digest() == result[1]:
            results[job.job_id] = result[0]
        elif job.result_size:
            findings.damaged.append(f"job {job.job_id.hex()} ({job.spec.kind}): its result; run it again with: ktrdr jobs retry")
        files.named_by(job)
        findings.jobs += 1
        jobs.append(job)
        if len(jobs) >= BATCH:
            findings.results += len(results)
            yield jobs, results
            jobs, results = [], {}
    findings.results += len(results)
    yield jobs, results
    findings.files = files.intact


class _Files:
    """The files that jobs name, each looked at once."""

    def __init__(self, folder: Path, findings: Findings) -> None:
        self._folder = folder
        self._findings = findings
        self._known: dict[bytes, str] = {}

    @property
    def intact(self) -> int:
        return sum(not verdict for verdict in self._known.values())

    def named_by(self, job: Job) -> None:
        for digest in dict.fromkeys(named_digests(job)):
            if digest not in self._known:
                self._known[digest] = _verdict(artifact_path(self._folder, digest), digest)
            verdict = self._known[digest]
            if verdict:
                what = f"job {job.job_id.hex()} ({job.spec.kind}, {job.state.value}): its file {digest.hex()[:16]}"
                (self._findings.damaged if verdict == "damaged" else self._findings.missing).append(what)


def _verdict(path: Path, digest: bytes) -> str:
    """Empty if the file is what its name says."""
    running = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                running.update(piece)
    except FileNotFoundError:
        return "missing"
    except OSError:
        return "damaged"
    return "" if running.digest() == digest else "damaged"


def _rows(db: sqlite3.Connection, select: str, findings: Findings, what: str) -> Iterator[Any]:
    """Rows in the order of seq; a broken page is stepped over."""
    last, step = -1, 0
    skipped = False
    while last + step < LAST_SEQ:
        try:
            for row in db.execute(f"{select} WHERE seq > ? ORDER BY seq", (last + step,)):
                last, step = row[0], 0
                yield row
        except sqlite3.Error:
            skipped = True
            step = step + 1 if step < PAGEFUL else 2 * step
        else:
            break
    if skipped:
        findings.damaged.append(f"the table of {what}: some of its rows cannot be read")


def _one(db: sqlite3.Connection, select: str, seq: int) -> Any:
    try:
        return db.execute(select, (seq,)).fetchone()
    except sqlite3.Error:
        return None


def _name(row: Any) -> str:
    return row[1].hex() if isinstance(row[1], bytes) else f"number {row[0]}"


def _meta(db: sqlite3.Connection) -> dict[str, bytes]:
    """Who this cluster is; without it the new folder is another cluster to its workers."""
    with contextlib.suppress(sqlite3.Error):
        return {str(key): bytes(value) for key, value in db.execute("SELECT key, value FROM meta WHERE key <> 'clean'")}
    return {}


def _tombstones(db: sqlite3.Connection) -> Iterator[Any]:
    with contextlib.suppress(sqlite3.Error):
        yield from db.execute("SELECT job_id, digest, state, finished_at, removed_at FROM tombstone")


# ---------------------------------------------------------------------------------------------------------------- writing


def _take_files(folder: Path, to: Path, store: SqliteStore) -> None:
    """Copy every file that is what its name says."""
    target = ArtifactFiles(to)
    rows: dict[bytes, ArtifactRow] = {}
    for path in sorted((folder / "artifacts").glob("??/*")):
        try:
            digest = bytes.fromhex(path.name)
        except ValueError:
            continue
        if _verdict(path, digest):
            continue
        copy = target.incoming(path.name)
        shutil.copyfile(path, copy)
        target.adopt(copy, digest)
        at = int(path.stat().st_mtime * 1e6)
        rows[digest] = ArtifactRow(digest=digest, size=path.stat().st_size, stored_at=at, touched_at=at)
    store.commit(Saves(artifacts=rows))
