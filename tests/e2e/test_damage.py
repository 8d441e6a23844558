"""The broker's files are damaged: it says so in clear words, and what is intact is taken over with one command."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

import pytest

from ktrdr_zmq import Client, Refused
from ktrdr_zmq.errors import KtrdrError
from tests.e2e.house import House, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

JOBS = 300
LEAF = 13
"""The first octet of a page that holds rows."""


def filled(house: House) -> list[str]:
    """A broker that was killed with many waiting jobs, all of them in the main file."""
    broker = house.broker()
    with Client(house.address) as client:
        ids = [client.submit("echo", {"n": n, "data": b"x" * 500}, queue=True).id for n in range(JOBS)]
    broker.kill()
    db = sqlite3.connect(file_of(house))
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    return ids


def file_of(house: House) -> Path:
    return house.folder / "broker" / "broker.sqlite3"


def refuses_to_start(house: House) -> str:
    done = house.cli("broker", "run", "--base-port", "0", "--data-dir", str(house.folder / "broker"))
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert "damaged" in done.stderr or "malformed" in done.stderr
    assert "ktrdr broker salvage" in done.stderr
    return done.stderr


def check(house: House) -> dict[str, object]:
    return dict(house.cli_json("broker", "check", "--data-dir", str(house.folder / "broker"), exit_code=1))


def salvaged(house: House) -> dict[str, object]:
    """Take over what is intact, and let the next broker start there."""
    old, new = house.folder / "broker", house.folder / "new"
    found = dict(house.cli_json("broker", "salvage", "--data-dir", str(old), "--to", str(new), exit_code=1))
    old.rename(house.folder / "damaged")
    new.rename(old)
    return found


def test_a_broken_page(house: House) -> None:
    ids = filled(house)
    octets = bytearray(file_of(house).read_bytes())
    leaves = [at for at in range(0, len(octets), 4096) if octets[at] == LEAF]
    leaf = leaves[len(leaves) // 2]
    octets[leaf : leaf + 4096] = b"\xa5" * 4096
    file_of(house).write_bytes(octets)
    refuses_to_start(house)
    assert check(house)["structure"]
    found = salvaged(house)
    assert JOBS - 60 < found["jobs"] < JOBS
    house.broker()
    house.worker("one")
    with Client(house.address) as client:
        kept = {info.id for info in client.jobs(limit=1000)}
        assert len(kept) == found["jobs"]
        assert kept < set(ids)
        for info in client.jobs(limit=1000):
            assert client.job(info.id).result(timeout=60)["data"] == b"x" * 500


def test_a_file_that_was_cut_short(house: House) -> None:
    filled(house)
    file_of(house).write_bytes(file_of(house).read_bytes()[: file_of(house).stat().st_size * 2 // 3])
    refuses_to_start(house)
    assert check(house)["structure"]


def test_a_flipped_bit_in_a_waiting_job(house: House) -> None:
    ids = filled(house)
    octets = bytearray(file_of(house).read_bytes())
    octets[octets.index(b"x" * 100) + 50] ^= 1
    file_of(house).write_bytes(octets)
    text = refuses_to_start(house)
    damaged = next(job_id for job_id in ids if job_id in text)
    found = salvaged(house)
    assert found["jobs"] == JOBS - 1
    assert any(damaged in line and "submit it again" in line for line in found["damaged"])
    house.broker()
    assert house.cli("jobs", "show", damaged).returncode == 2


def test_a_flipped_bit_in_a_result(house: House) -> None:
    broker = house.broker()
    house.worker("one")
    with Client(house.address) as client:
        job = client.submit("echo", {"secret": b"profit" * 100})
        job.result(timeout=60)
    broker.kill()
    db = sqlite3.connect(file_of(house))
    data = db.execute("SELECT data FROM result").fetchone()[0]
    db.execute("UPDATE result SET data = ?", (data[:-1] + b"?",))
    db.commit()
    db.close()
    house.broker()
    with Client(house.address) as client:
        with pytest.raises(Refused, match="damaged on disk.*ktrdr jobs retry") as caught:
            client.job(job.id).result(timeout=60)
        assert not caught.value.retryable
        assert client.job(job.id).status().state == "done"
        assert client.retry(job.id).result(timeout=60)["secret"] == b"profit" * 100


def test_a_flipped_bit_in_a_file(house: House, tmp_path: Path) -> None:
    """One that a job left is not handed out; one that a job needs keeps it from running, until it is there again."""
    broker = house.broker()
    body = b"bars" * 10_000
    digest = hashlib.sha256(body).hexdigest()
    with Client(house.address) as client:
        job = client.submit("tally", {"number": 1, "mark": str(tmp_path / "mark")}, inputs={"data": body}, queue=True)
    path = house.folder / "broker" / "artifacts" / digest[:2] / digest
    path.write_bytes(b"?" + body[1:])
    worker = house.worker("one", "--handlers", "tally=tally:handler", kinds="tally")
    with Client(house.address) as client:
        with pytest.raises(KtrdrError, match="damaged"):
            client.get_artifact(digest, tmp_path / "copy")
        assert not (tmp_path / "copy").exists()
        eventually(lambda: job_explained(house, job.id))
        assert not (tmp_path / "mark").exists()
        broker.kill()
        assert any(digest[:16] in line for line in check(house)["damaged"])
        path.unlink()
        house.broker()
        assert "1 artifacts are gone" in (house.folder / "broker.log").read_text()
        again = client.submit("tally", {"number": 2, "mark": str(tmp_path / "mark")}, inputs={"data": body}, queue=True)
        assert again.result(timeout=90)["inputs"] == {"data": digest}
        assert client.job(job.id).result(timeout=90)["inputs"] == {"data": digest}
    assert worker.process.poll() is None


def job_explained(house: House, job_id: str) -> bool:
    text = house.cli("jobs", "explain", job_id).stdout
    return "REJECTED" in text or "turned this job down" in text
