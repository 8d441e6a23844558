"""Jobs that do what no job should: each gets a clear end where a person sees it, and everything else goes on."""

from __future__ import annotations

import os
import signal
import socket
import struct
from pathlib import Path

import pytest
import zmq

from ktrdr_zmq import Client, JobFailed, JobTimedOut
from ktrdr_zmq.codec import TO_CLIENT, decode
from ktrdr_zmq.errors import JobCancelled, PayloadError
from tests.e2e.house import House, alive, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@pytest.fixture
def client(house: House) -> object:
    house.broker()
    house.worker("one", "--slots", "cpu=2")
    with Client(house.address) as client:
        yield client
        assert client.submit("echo", {"n": 1}).result(timeout=30)["n"] == 1


def test_a_handler_that_raises(client: Client, house: House) -> None:
    job = client.submit("rogue", {"do": "raise_"})
    with pytest.raises(JobFailed) as caught:
        job.result(timeout=60)
    text = str(caught.value) + str(getattr(caught.value, "traceback", ""))
    assert "the handler's own mistake" in text
    assert "ValueError" in text
    watched = house.cli("jobs", "wait", job.id)
    assert watched.returncode == 1
    logs = house.cli("jobs", "logs", job.id)
    assert "about to fail" in logs.stdout


def test_a_handler_that_eats_memory(client: Client) -> None:
    job = client.submit("rogue", {"do": "eat_memory"}, memory_limit=600_000_000, max_crashes=1)
    with pytest.raises(JobFailed, match="memory"):
        job.result(timeout=90)


def test_a_handler_that_prints_a_gigabyte(client: Client, house: House) -> None:
    job = client.submit("rogue", {"do": "print_much", "lines": 10_000})
    assert job.result(timeout=120)["did"] == "print_much"
    biggest = max((path.stat().st_size for path in (house.folder / "one").rglob("*") if path.is_file()), default=0)
    assert biggest < 64_000_000


def test_a_handler_whose_grandchild_stays_behind(client: Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    grandchild = client.submit("rogue", {"do": "fork", "gate": str(gate)}).result(timeout=60)["grandchild"]
    eventually(lambda: not alive(grandchild))


def test_a_handler_that_never_ends_runs_into_its_limit(client: Client) -> None:
    job = client.submit("rogue", {"do": "never_end"}, run_timeout=1.0)
    with pytest.raises(JobTimedOut):
        job.result(timeout=60)


def test_a_handler_that_ignores_sigterm_is_killed(client: Client, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    mark = tmp_path / "mark"
    job = client.submit("rogue", {"do": "ignore_sigterm", "ready": str(ready), "mark": str(mark)})
    eventually(ready.exists)
    job.cancel(grace=0.5)
    with pytest.raises(JobCancelled):
        job.result(timeout=60)
    assert not alive(int(mark.read_text().split()[1]))


@pytest.mark.slow
def test_a_handler_that_holds_the_gil_for_a_minute(client: Client) -> None:
    job = client.submit("rogue", {"do": "hold_gil", "seconds": 60})
    eventually(lambda: job.status().state == "running")
    connected = client.workers()[0].connected_at
    for _ in range(50):
        signal.sigtimedwait([], 1)
        worker = client.workers()[0]
        assert (worker.state, worker.connected_at) == ("live", connected)
        assert worker.silent_s < 6
    assert job.result(timeout=60)["attempt"] == 1


def test_frames_of_every_wrong_kind(client: Client, house: House) -> None:
    context = zmq.Context()
    try:
        for offset in (0, 1, 3):
            dealer = context.socket(zmq.DEALER)
            dealer.setsockopt(zmq.LINGER, 0)
            dealer.connect(f"tcp://127.0.0.1:{house.port + offset}")
            for frames in (
                [b""], [b"GET / HTTP/1.1"], [b"KZ\x01"], [b"KZ\x09\x41\x90"], [b"KZ\x01\xee\x90"], [b"KZ\x01\x41\x90"],
                [b"KZ\x01\x41\xc1"], [b"KZ\x01\x41" + b"\x91" * 5000], [b"KZ\x01\x41\x90", b"body", b"more"], [os.urandom(5000)],
            ):  # fmt: skip
                dealer.send_multipart(frames)
            assert dealer.poll(10_000), f"no answer on port +{offset}"
            if offset == 1:
                nack, _ = decode(dealer.recv_multipart(), TO_CLIENT)
                assert nack.code in ("BAD_FRAME", "VERSION", "FORBIDDEN_VERB")
            dealer.close()
    finally:
        context.term()
    for offset in range(4):  # no ZeroMQ at all, and a handshake that never ends
        with socket.create_connection(("127.0.0.1", house.port + offset)) as raw:
            raw.sendall(b"\x00" * 64 + struct.pack(">Q", 2**60))


def test_bodies_that_are_too_large(client: Client) -> None:
    with pytest.raises(PayloadError, match="limit"):
        client.submit("echo", {"data": b"x" * 2_000_000})
