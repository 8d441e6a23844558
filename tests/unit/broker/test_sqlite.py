"""What only the store on disk can do wrong: schemas of other releases, damage, a full disk, a second opener."""

from __future__ import annotations

import ast
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ktrdr_broker.model import ArtifactRow, Job, Lookup, PageQuery, Saves
from ktrdr_broker.sqlite import FILE_NAME, SCHEMA_VERSION, SqliteStore
from ktrdr_broker.store import TOMBSTONE_US, StorageError
from ktrdr_zmq.errors import EXIT_REFUSED
from ktrdr_zmq.jobs import JobState
from tests.unit.broker.driver import House
from tests.unit.broker.test_store import WALL, digest, full_job, job, saved

COLUMNS_OF_VERSION_1 = {
    "meta": "key value",
    "job": "seq job_id kind name submitter digest spec submitted_at state reason rev token attempt worker_id instance tag crashes losses "
    "retries attempts started_at run_s artifacts failure checkpoint checkpoint_seq notice result_size priority finished_at",
    "body": "seq data",
    "result": "seq digest data",
    "label": "label seq",
    "artifact": "digest size stored_at touched_at",
    "artifact_use": "seq digest times",
    "tombstone": "job_id digest state finished_at removed_at",
}
"""Columns may be added to a version, with a default, and never removed: the release before must be able to run on it."""


class Disk:
    """A folder, and every connection that a test has opened on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / FILE_NAME
        self._open: list[sqlite3.Connection] = []

    def store(self) -> SqliteStore:
        store = SqliteStore(self.folder, fsync=False)
        self._open.append(store._db)
        return store

    def loaded(self, *rows: Job) -> SqliteStore:
        store = self.store()
        store.load(WALL)
        saved(store, *rows)
        return store

    def raw(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.file, isolation_level=None)
        self._open.append(db)
        return db

    def close(self) -> None:
        while self._open:
            self._open.pop().close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path)
    yield disk
    disk.close()


def refusal(disk: Disk) -> StorageError:
    """What is said by a store that cannot be opened, or not be loaded."""
    with pytest.raises(StorageError) as caught:
        disk.store().load(WALL)
    assert str(disk.file) in caught.value.message
    assert caught.value.hint, "a person must be told what to do"
    assert caught.value.exit_code == EXIT_REFUSED
    return caught.value


# ---------------------------------------------------------------- schemas


def test_a_new_file_gets_the_schema_of_this_release(disk: Disk) -> None:
    disk.loaded()
    db = disk.raw()
    assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_schema_has_at_least_the_columns_that_version_1_had(disk: Disk) -> None:
    disk.loaded()
    db = disk.raw()
    for table, columns in COLUMNS_OF_VERSION_1.items():
        there = {row[1]: row for row in db.execute(f"PRAGMA table_info({table})")}
        assert set(columns.split()) <= there.keys()
        for name in there.keys() - set(columns.split()):
            assert there[name][4] is not None or not there[name][3], f"{table}.{name} needs a default"


def test_a_database_of_a_newer_release_is_refused_by_name(disk: Disk) -> None:
    disk.loaded(job(1))
    disk.raw().execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    disk.close()
    before = disk.file.read_bytes()
    error = refusal(disk)
    assert f"schema {SCHEMA_VERSION + 1}" in error.message
    assert "newer release" in error.hint
    disk.close()
    assert disk.file.read_bytes() == before, "it was not touched"


def test_a_column_that_a_newer_release_has_added_is_no_trouble(disk: Disk) -> None:
    disk.loaded(job(1))
    disk.raw().execute("ALTER TABLE job ADD COLUMN mood TEXT NOT NULL DEFAULT 'good'")
    disk.close()
    store = disk.loaded(job(2))
    assert [row.seq for row in store.find(Lookup(page=PageQuery())).page] == [2, 1]


def test_rows_without_history_may_have_null_or_nothing_there(disk: Disk) -> None:
    """Earlier releases wrote NULL."""
    disk.loaded(job(1))
    disk.raw().execute("UPDATE job SET attempts = NULL, artifacts = NULL, failure = NULL, checkpoint = NULL")
    disk.close()
    (row,) = disk.store().load(WALL).jobs
    assert (row.attempts, row.artifacts, row.failure, row.checkpoint) == ([], [], None, None)


def test_a_process_killed_while_it_made_the_schema_leaves_nothing_behind(disk: Disk) -> None:
    """It is one transaction with the version number."""
    db = disk.raw()
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("BEGIN")
    db.execute("CREATE TABLE meta (key TEXT)")
    disk.close()
    assert disk.loaded(job(1)).find(Lookup(page=PageQuery())).page[0].seq == 1


def test_what_the_start_asks_for_is_found_by_an_index(disk: Disk) -> None:
    """A store with a million ended jobs must start as fast as an empty one."""
    disk.loaded()
    db = disk.raw()
    for question in (
        "SELECT * FROM job WHERE finished_at = 0 ORDER BY seq",
        "SELECT * FROM job WHERE job_id IN (x'00', x'01')",
        "SELECT * FROM job WHERE kind = 'echo' ORDER BY seq DESC LIMIT 1",
        "SELECT * FROM job WHERE finished_at > 0 AND finished_at < 5 ORDER BY finished_at, seq LIMIT 10",
        "DELETE FROM artifact_use WHERE seq = 5",
        "DELETE FROM label WHERE seq = 5",
        "DELETE FROM tombstone WHERE removed_at < 5",
    ):
        plan = " ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {question}"))
        assert "USING" in plan, f"{question}: {plan}"
        assert "TEMP B-TREE" not in plan, f"{question}: {plan}"


# ---------------------------------------------------------------- damage


def test_a_file_that_is_no_database(disk: Disk) -> None:
    disk.file.write_bytes(b"this was never a database, " * 100)
    assert "not a database" in refusal(disk).message


def test_a_folder_in_the_files_place(disk: Disk) -> None:
    disk.file.mkdir()
    assert "cannot be opened" in refusal(disk).message


def overwrite_a_page(disk: Disk) -> None:
    """The first page of the table of jobs."""
    (page,) = disk.raw().execute("SELECT rootpage FROM sqlite_master WHERE name = 'job'").fetchone()
    disk.close()
    data = bytearray(disk.file.read_bytes())
    data[(page - 1) * 4096 : page * 4096] = b"\xa5" * 4096
    disk.file.write_bytes(bytes(data))


def test_structural_damage_is_found_after_an_unclean_stop(disk: Disk) -> None:
    disk.loaded(*(job(seq, body=b"x" * 500) for seq in range(1, 200)))
    disk.raw().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    overwrite_a_page(disk)
    assert "damaged" in refusal(disk).message


def test_a_clean_stop_saves_the_check(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads every page, which takes its time on a large file."""
    checks: list[int] = []
    monkeypatch.setattr(SqliteStore, "_quick_check", lambda self: checks.append(1))
    disk.loaded().close()
    disk.loaded()
    disk.close()
    assert checks == []
    disk.loaded()
    assert checks == [1]


@pytest.mark.parametrize("column", ["data", "digest"])
def test_a_result_that_has_changed_on_disk_is_not_handed_out(disk: Disk, column: str) -> None:
    row = job(1, JobState.DONE)
    store = disk.loaded()
    saved(store, row, results={row.job_id: b"profit: 100"})
    disk.raw().execute(f"UPDATE result SET {column} = ?", (b"profit: 900",))
    with pytest.raises(StorageError, match="damaged on disk") as caught:
        store.find(Lookup(ids=(row.job_id,), results=True))
    assert row.job_id.hex() in caught.value.message
    assert store.find(Lookup(ids=(row.job_id,))).jobs[row.job_id].state is JobState.DONE, "everything else goes on"


# ---------------------------------------------------------------- commits that fail


def test_a_commit_is_all_or_nothing(disk: Disk) -> None:
    store = disk.loaded(job(1))
    trigger = "CREATE TRIGGER full BEFORE INSERT ON artifact BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END"
    disk.raw().execute(trigger)
    fresh, artifact = job(2), ArtifactRow(digest("a"), 1, WALL, WALL)
    with pytest.raises(StorageError, match="disk is full"):
        saved(store, fresh, results={fresh.job_id: b"r"}, artifacts={artifact.digest: artifact})
    assert not fresh.stored
    found = store.find(Lookup(ids=(fresh.job_id,), results=True))
    assert (found.jobs, found.results) == ({}, {})
    disk.raw().execute("DROP TRIGGER full")
    saved(store, fresh, artifacts={artifact.digest: artifact})
    assert store.find(Lookup(ids=(fresh.job_id,))).jobs[fresh.job_id].seq == 2


def test_a_database_that_somebody_else_holds_is_a_storage_error(disk: Disk) -> None:
    """The folder's lock keeps brokers apart; this is a person with sqlite3 in the middle of something."""
    store = disk.loaded()
    store._db.execute("PRAGMA busy_timeout = 20")
    other = disk.raw()
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError, match="locked"):
        saved(store, job(1))
    other.execute("ROLLBACK")
    saved(store, job(1))


def test_errors_while_reading_are_storage_errors(disk: Disk) -> None:
    store = disk.loaded(job(1))
    disk.raw().execute("DROP TABLE job")
    with pytest.raises(StorageError, match="cannot be read"):
        store.find(Lookup(refs=("last",)))


def test_a_killed_process_loses_nothing_that_was_committed(disk: Disk) -> None:
    """Its connection is simply gone; what is in the write-ahead log counts."""
    store = disk.loaded()
    for seq in range(1, 20):
        saved(store, job(seq))
    assert disk.file.with_name(f"{FILE_NAME}-wal").stat().st_size > 0
    copies = disk.folder / "copy"
    copies.mkdir()
    for path in disk.folder.glob(f"{FILE_NAME}*"):
        (copies / path.name).write_bytes(path.read_bytes())
    other = Disk(copies)
    loaded = other.store().load(WALL)
    other.close()
    assert [row.seq for row in loaded.jobs] == list(range(1, 20))
    assert not loaded.clean


def test_a_torn_end_of_the_log_loses_only_what_was_not_committed(disk: Disk) -> None:
    store = disk.loaded(job(1))
    saved(store, job(2))
    wal = disk.file.with_name(f"{FILE_NAME}-wal")
    whole = wal.read_bytes()
    saved(store, job(3))
    torn = wal.read_bytes()[: len(whole) + 100]
    copies = disk.folder / "copy"
    copies.mkdir()
    (copies / FILE_NAME).write_bytes(disk.file.read_bytes())
    (copies / wal.name).write_bytes(torn)
    other = Disk(copies)
    assert [row.seq for row in other.store().load(WALL).jobs] == [1, 2]
    other.close()


@pytest.mark.parametrize("fsync, level", [(True, 2), (False, 1)])
def test_a_commit_waits_for_the_disk_unless_told_not_to(tmp_path: Path, fsync: bool, level: int) -> None:
    store = SqliteStore(tmp_path, fsync=fsync)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (level,)
    store.close()


def test_the_highest_token_of_a_database_of_an_earlier_release(disk: Disk) -> None:
    row = full_job(1)
    disk.loaded(row)
    disk.raw().execute("DELETE FROM meta WHERE key = 'token'")
    assert disk.store().load(WALL).last_token == row.token


# ---------------------------------------------------------------- what is remembered, and for how long


def test_tombstones_are_forgotten_after_their_time(disk: Disk) -> None:
    row = full_job(1)
    store = disk.loaded(row)
    store.commit(Saves(removed=[row.job_id]))
    removed_at = time.time_ns() // 1000
    for wall, known in ((removed_at + TOMBSTONE_US - 10**9, True), (removed_at + TOMBSTONE_US + 10**9, False)):
        disk.close()
        store = disk.store()
        store.load(wall)
        assert (row.job_id in store.find(Lookup(ids=(row.job_id,))).known) is known


def test_nothing_of_a_removed_job_stays_but_its_tombstone(disk: Disk) -> None:
    row = full_job(1)
    store = disk.loaded()
    saved(store, row, results={row.job_id: b"abc"})
    store.commit(Saves(removed=[row.job_id]))
    db = disk.raw()
    counts = {table: db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in COLUMNS_OF_VERSION_1 if table != "meta"}
    assert counts == {"job": 0, "body": 0, "result": 0, "label": 0, "artifact": 0, "artifact_use": 0, "tombstone": 1}


def test_a_place_in_the_order_is_not_given_again_after_the_newest_job_was_removed(disk: Disk) -> None:
    store = disk.loaded(job(1), job(2, JobState.DONE))
    store.commit(Saves(removed=[job(2).job_id]))
    disk.close()
    assert disk.store().load(WALL).next_seq == 3


def test_sizes_are_those_of_the_files(disk: Disk) -> None:
    store = disk.loaded(job(1))
    assert store.stats()["database_octets"] == sum(path.stat().st_size for path in disk.folder.glob(f"{FILE_NAME}*"))


def test_many_ids_at_once(disk: Disk) -> None:
    """More than one statement may have parameters."""
    rows = [job(seq, JobState.DONE if seq % 2 else JobState.QUEUED) for seq in range(1, 2501)]
    store = disk.loaded()
    saved(store, *rows, results={row.job_id: b"r%d" % row.seq for row in rows if row.terminal})
    store.commit(Saves(removed=[row.job_id for row in rows if row.terminal and row.seq < 2000]))
    found = store.find(Lookup(ids=tuple(row.job_id for row in rows), results=True))
    assert len(found.jobs) == 1500
    assert len(found.known) == 1000
    assert len(found.results) == 250


@pytest.mark.parametrize("run_s", [1e300, 1e9, 1e12])
def test_no_number_of_a_worker_is_too_large_for_a_column(disk: Disk, run_s: float) -> None:
    """It would raise in every commit from then on."""
    house = House(disk.store())  # type: ignore[arg-type]
    worker, client = house.worker(), house.client()
    job_id = client.submit("echo")
    worker.finish(job_id, run_s=run_s)
    assert client.state(job_id) == "done"
    assert client.view(job_id).run_s == 0.0


def test_one_module_opens_a_database() -> None:
    """There is one writer, because there is nobody else who could. What salvages reads a copy, under the folder's lock."""
    root = Path(__file__).parents[3]
    openers = set()
    for package in ("ktrdr_zmq", "broker", "worker", "cli"):
        for path in (root / package).rglob("*.py"):
            imports = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Import | ast.ImportFrom)]
            if any("sqlite3" in ast.dump(node) for node in imports):
                openers.add(path.name)
    assert openers == {"sqlite.py", "salvage.py"}
