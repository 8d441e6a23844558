"""Every kind of damage is found and named, and what is intact is taken over."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

import pytest

from ktrdr_broker.bulk import artifact_path
from ktrdr_broker.model import ArtifactRow, Job, Lookup, Saves
from ktrdr_broker.salvage import Findings, check, salvage
from ktrdr_broker.sqlite import FILE_NAME, SqliteStore
from ktrdr_broker.startup import FolderLock, StartRefused
from ktrdr_broker.store import DamagedError
from ktrdr_zmq.errors import ConfigError
from ktrdr_zmq.jobs import Artifact, JobState
from tests.unit.broker.test_store import WALL, job, saved

FILE = b"a trained model" * 1000
DIGEST = hashlib.sha256(FILE).digest()
MANY = 200


def whole(seq: int, state: JobState = JobState.QUEUED, body: bytes = b"body") -> Job:
    """A job whose digest is that of its octets, as the broker makes them."""
    row = job(seq, state, body=body)
    row.digest = hashlib.sha256(row.spec_raw + row.body).digest()
    return row


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with unfinished and finished jobs, a result, a file and a tombstone."""
    folder = tmp_path / "broker"
    folder.mkdir()
    store = SqliteStore(folder)
    store.load(WALL)
    saved(store, *(whole(seq, body=f"body {seq} ".encode() * 30) for seq in range(1, MANY + 1)))
    done = whole(MANY + 1, JobState.DONE)
    done.artifacts = [Artifact("model", DIGEST, len(FILE))]
    done.result_size = 6
    saved(store, done, results={done.job_id: b"profit"}, artifacts={DIGEST: ArtifactRow(DIGEST, len(FILE), WALL, WALL)})
    gone = whole(MANY + 2, JobState.DONE)
    saved(store, gone)
    store.commit(Saves(removed=[gone.job_id]))
    store.close()
    path = artifact_path(folder, DIGEST)
    path.parent.mkdir(parents=True)
    path.write_bytes(FILE)
    return folder


def spoil(folder: Path, *statements: str) -> None:
    db = sqlite3.connect(folder / FILE_NAME)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


def rescued(folder: Path) -> tuple[Findings, SqliteStore]:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "broker.lock"}
    findings = salvage(folder, folder.parent / "new")
    assert {path: path.read_bytes() for path in before} == before, "the damaged folder is not changed"
    return findings, SqliteStore(folder.parent / "new")


def test_a_sound_folder_is_taken_over_whole(folder: Path) -> None:
    assert check(folder).sound
    findings, store = rescued(folder)
    assert (findings.jobs, findings.results, findings.files, findings.sound) == (MANY + 1, 1, 1, True)
    old = SqliteStore(folder)
    before, after = old.load(WALL), store.load(WALL)
    assert (after.store_id, after.jobs, after.next_seq) == (before.store_id, before.jobs, before.next_seq)
    assert [row.digest for row in after.artifacts] == [DIGEST]
    assert after.artifact_users == {DIGEST: 1}
    lost = whole(MANY + 2, JobState.DONE).job_id
    assert store.find(Lookup(ids=(lost,))).known.keys() == {lost}
    done = whole(MANY + 1, JobState.DONE).job_id
    assert store.find(Lookup(ids=(done,), results=True)).results == {done: b"profit"}
    assert artifact_path(folder.parent / "new", DIGEST).read_bytes() == FILE
    old.close()
    store.close()


def test_a_damaged_body_stops_the_start_and_is_left_out(folder: Path) -> None:
    spoil(folder, "UPDATE body SET data = x'00' WHERE seq = 3")
    store = SqliteStore(folder)
    with pytest.raises(DamagedError, match="body of job") as caught:
        store.load(WALL)
    assert "broker salvage" in caught.value.hint
    store.close()
    findings, new = rescued(folder)
    assert findings.jobs == MANY
    assert whole(3).job_id.hex() in findings.damaged[0]
    assert {row.seq for row in new.load(WALL).jobs} == set(range(1, MANY + 1)) - {3}
    new.close()


def test_an_ended_job_with_a_damaged_body_stays_and_cannot_be_retried(folder: Path) -> None:
    spoil(folder, f"UPDATE body SET data = x'00' WHERE seq = {MANY + 1}")
    findings, new = rescued(folder)
    assert "cannot be retried" in findings.damaged[0]
    done = whole(MANY + 1, JobState.DONE).job_id
    assert new.find(Lookup(ids=(done,))).jobs[done].state is JobState.DONE
    with pytest.raises(DamagedError):
        new.find(Lookup(ids=(done,), whole=True))
    new.close()


def test_a_damaged_result_is_left_out(folder: Path) -> None:
    spoil(folder, "UPDATE result SET data = x'00'")
    findings, new = rescued(folder)
    assert "its result" in findings.damaged[0]
    done = whole(MANY + 1, JobState.DONE).job_id
    assert new.find(Lookup(ids=(done,), results=True)).results == {}
    new.close()


@pytest.mark.parametrize("column", ["spec = x'ff'", "state = 'dnoe'", "attempts = x'c1'", "seq = 'x'"])
def test_a_row_that_makes_no_sense(folder: Path, column: str) -> None:
    if column.startswith("seq"):
        column = "rev = 'x', state = x'00'"
    spoil(folder, f"UPDATE job SET {column} WHERE seq = 5")
    store = SqliteStore(folder)
    with pytest.raises(DamagedError, match="row of job"):
        store.load(WALL)
    store.close()
    findings, new = rescued(folder)
    assert findings.jobs == MANY
    assert "makes no sense" in findings.damaged[0]
    new.close()


@pytest.mark.parametrize("damage", ["flipped", "gone"])
def test_a_damaged_file(folder: Path, damage: str) -> None:
    path = artifact_path(folder, DIGEST)
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(FILE[:-1] + b"!")
    findings = check(folder)
    assert [*findings.damaged, *findings.missing][0].endswith(f"its file {DIGEST.hex()[:16]}")
    findings, new = rescued(folder)
    assert new.load(WALL).artifacts == []
    new.close()


def test_broken_pages_are_stepped_over(folder: Path) -> None:
    spoil(folder)
    file = folder / FILE_NAME
    octets = bytearray(file.read_bytes())
    db = sqlite3.connect(file)
    root = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'job'").fetchone()[0]
    db.close()
    page = next(n for n in range(root, len(octets) // 4096) if b"echo" in octets[n * 4096 : n * 4096 + 4096] and octets[n * 4096] == 13)
    octets[page * 4096 : page * 4096 + 4096] = b"\xa5" * 4096
    file.write_bytes(octets)
    findings, new = rescued(folder)
    assert findings.structure
    kept = {row.seq for row in new.load(WALL).jobs}
    assert MANY - 60 < len(kept) < MANY
    assert {row.state for row in new.load(WALL).jobs} == {JobState.QUEUED}
    new.close()


def test_a_file_cut_in_half(folder: Path) -> None:
    spoil(folder)
    file = folder / FILE_NAME
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    findings, new = rescued(folder)
    assert findings.structure
    new.close()


def test_a_file_that_is_no_database_any_more(folder: Path) -> None:
    (folder / FILE_NAME).write_bytes(b"\0" * 8192)
    findings, new = rescued(folder)
    assert findings.structure
    assert findings.jobs == 0
    assert artifact_path(folder.parent / "new", DIGEST).exists(), "the files are there all the same"
    new.close()


def test_not_under_a_running_broker_not_into_a_folder_that_exists_and_not_out_of_nothing(folder: Path, tmp_path: Path) -> None:
    lock = FolderLock(folder)
    with pytest.raises(StartRefused):
        check(folder)
    lock.release()
    with pytest.raises(ConfigError, match="exists already"):
        salvage(folder, tmp_path)
    with pytest.raises(ConfigError, match="no broker's database"):
        check(tmp_path / "nowhere")
