"""The broker's disk is full, read-only, broken or slow: new jobs are refused, what runs and what was done is kept, and it goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ktrdr_zmq import Client, Job, Refused
from tests.e2e.faulty import WHY_NOT, FaultyDisk
from tests.e2e.house import House, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

BIG = b"x" * 200_000


def refused(client: Client) -> Refused | None:
    """The refusal of a small job; None if it is accepted."""
    try:
        client.submit("echo", {"n": 0})
    except Refused as error:
        return error
    return None


def storage(client: Client) -> str:
    return str(client.status()["storage"])


def started(client: Client, gate: Path) -> list[Job]:
    """Jobs of which the first runs until there is a gate; the results are larger than what a log has room for."""
    first = client.submit("rogue", {"do": "work", "gate": str(gate)})
    jobs = [first, *(client.submit("echo", {"n": n, "data": BIG}) for n in range(40))]
    eventually(lambda: first.status().state == "running")
    return jobs


def all_done(jobs: list[Job]) -> None:
    for job in jobs:
        job.result(timeout=60)
        info = job.status()
        assert (info.state, info.crashes, info.losses) == ("done", 0, 0)


@pytest.fixture
def small_disk(house: House) -> Iterator[Path]:
    """A file system of 100 MB for the broker's folder."""
    folder = house.folder / "broker"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        house.close()
        subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take all the room there is."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 65_536)
        except OSError:
            pass
    return filler


def test_a_full_disk(house: House, small_disk: Path, tmp_path: Path) -> None:
    house.broker()
    house.worker("one")
    gate = tmp_path / "gate"
    with Client(house.address) as client:
        jobs = started(client, gate)
        filler = fill(small_disk)
        error = refused(client)
        assert error is not None, "the first one already"
        assert (error.code, error.retryable) == ("STORAGE", True)
        gate.touch()
        eventually(lambda: "disk is full" in storage(client) or "cannot be written" in storage(client))
        assert [worker.state for worker in client.workers()] == ["live"]
        status = house.cli("status")
        assert status.returncode == 0
        assert "storage   ok" not in status.stdout
        filler.unlink()
        all_done(jobs)
        eventually(lambda: storage(client) == "ok")
        assert client.submit("echo", {"n": 1}).result(timeout=30)["n"] == 1


def test_less_room_than_is_kept_free(house: House, small_disk: Path) -> None:
    """Below 64 MiB nothing new is taken, so that there is room for what was."""
    house.broker()
    house.worker("one")
    with Client(house.address) as client:
        filler = small_disk / "filler"
        filler.write_bytes(b"\0" * 50_000_000)
        error = refused(client)
        assert error is not None, "the first one already"
        assert "free" in error.message
        with pytest.raises(Refused, match="full"):
            client.put_artifact(BIG)
        filler.unlink()
        eventually(lambda: refused(client) is None)


@pytest.fixture
def disk(house: House, tmp_path: Path) -> FaultyDisk:
    """A disk whose faults the test chooses, for the broker alone."""
    if WHY_NOT:
        pytest.skip(WHY_NOT)
    return FaultyDisk(tmp_path, house.folder / "broker")


def broker_on(house: House, disk: FaultyDisk) -> None:
    house.broker(env=disk.env)


@pytest.mark.parametrize("fault", ["erofs", "enospc", "eio"])
def test_a_disk_that_cannot_be_written(house: House, disk: FaultyDisk, tmp_path: Path, fault: str) -> None:
    broker_on(house, disk)
    house.worker("one")
    gate = tmp_path / "gate"
    with Client(house.address) as client:
        jobs = started(client, gate)
        disk.be(fault)
        gate.touch()
        eventually(lambda: "cannot be written" in storage(client))
        error = eventually(lambda: refused(client))
        assert error.code == "STORAGE"
        assert [worker.state for worker in client.workers()] == ["live"]
        disk.be("none")
        all_done(jobs)
        assert client.submit("echo", {"n": 1}).result(timeout=30)["n"] == 1


def test_a_broker_that_is_killed_while_its_disk_is_full_loses_nothing(house: House, disk: FaultyDisk, tmp_path: Path) -> None:
    broker_on(house, disk)
    house.worker("one")
    gate = tmp_path / "gate"
    with Client(house.address) as client:
        jobs = started(client, gate)
        disk.be("enospc")
        gate.touch()
        eventually(lambda: "cannot be written" in storage(client))
        house.kill_broker()
        disk.be("none")
        broker_on(house, disk)
        all_done(jobs)


@pytest.mark.slow
@pytest.mark.parametrize("milliseconds", [200, 2000])
def test_a_slow_disk_costs_time_and_nothing_else(house: House, disk: FaultyDisk, milliseconds: int) -> None:
    """Two seconds for a sync are as long as a heartbeat; nobody is given up for that."""
    broker_on(house, disk)
    house.worker("one", "--slots", "cpu=2")
    with Client(house.address) as client:
        disk.be(f"slow {milliseconds}")
        jobs = [client.submit("echo", {"n": n, "seconds": 1.0}) for n in range(4)]
        all_done(jobs)
        assert [job.status().attempt for job in jobs] == [1, 1, 1, 1]
        assert [worker.state for worker in client.workers()] == ["live"]
