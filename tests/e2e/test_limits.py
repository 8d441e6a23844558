"""More peers than there are descriptors, a thousand workers at once, clocks that jump, one id for two, clients that stop or die."""

from __future__ import annotations

import resource
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ktrdr_zmq import Client
from tests.e2e.clock import MISSING, FakeClock
from tests.e2e.crowd import Crowd
from tests.e2e.house import House, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

CROWD = 1000


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Room for a crowd in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 8 * CROWD:
        pytest.skip(f"only {hard} descriptors may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (8 * CROWD, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def works(client: Client) -> None:
    assert client.submit("echo", {"n": 1}).result(timeout=60)["n"] == 1


def test_a_thousand_join_at_once(house: House, many_descriptors: None) -> None:
    house.broker()
    house.worker("one")
    with Client(house.address) as client:
        connected = client.workers()[0].connected_at
        with Crowd(house.port, CROWD) as crowd:
            begun = time.monotonic()
            crowd.greet()
            assert crowd.welcomed(60) == CROWD
            print(f"{CROWD} joined within {time.monotonic() - begun:.2f} s")
            works(client)
            workers = {worker.worker_id: worker for worker in client.workers()}
            assert len(workers) == CROWD + 1
            assert workers["one"].connected_at == connected
        works(client)


def test_out_of_descriptors(house: House, many_descriptors: None) -> None:
    """Who is connected stays so; who comes too late is let in when there is room."""
    house.argv_before = ["prlimit", "--nofile=120:120", "--"]
    if shutil.which("prlimit") is None:
        pytest.skip("needs prlimit (util-linux)")
    house.broker()
    house.argv_before = []
    house.worker("one")
    with Client(house.address) as client:
        connected = client.workers()[0].connected_at
        with Crowd(house.port, 300) as crowd:
            crowd.greet()
            assert 0 < crowd.welcomed(4) < 300
            works(client)
            assert next(worker for worker in client.workers() if worker.worker_id == "one").connected_at == connected
        eventually(lambda: house.cli("status").returncode == 0)
        works(client)


@pytest.mark.parametrize("hour", [3600, -3600], ids=["forward", "back"])
def test_the_clock_jumps_by_an_hour(house: House, tmp_path: Path, hour: int) -> None:
    """Times that are written and shown jump with it; nothing else notices, and not the next start either."""
    clock = FakeClock(tmp_path / "clock")
    if not clock.works:
        pytest.skip(MISSING)
    house.env |= clock.env
    broker = house.broker()
    house.worker("one", "--handlers", "tally=tally:handler", kinds="tally")
    del house.env["LD_PRELOAD"]
    body = {"number": 1, "mark": str(tmp_path / "mark"), "seconds": 6.0}
    with Client(house.address) as client:
        long = client.submit("tally", body, queue_timeout=60.0, run_timeout=60.0)
        waiting = client.submit("tally", {**body, "number": 2, "seconds": 0.0}, device="gpu", queue=True, queue_timeout=60.0)
        eventually(lambda: long.status().state == "running")
        connected = client.workers()[0].connected_at
        clock.set(hour)
        later = eventually(lambda: moved(client, hour, str(tmp_path / "mark")))
        assert abs(later - hour) < 120
        epoch = client.status()["epoch"]
        broker.kill()
        house.broker(env=clock.env)
        assert client.status()["epoch"] > epoch
        assert long.result(timeout=60)["attempt"] == 1
        assert waiting.status().state == "queued"
        assert [worker.state for worker in client.workers()] == ["live"]
        assert connected is not None


def moved(client: Client, hour: int, mark: str) -> float:
    """By how much a job that is submitted now seems to be submitted at another time; 0 while it seems not to be."""
    info = client.submit("tally", {"number": 3, "mark": mark}).status()
    assert info.submitted is not None
    shift = info.submitted.timestamp() - time.time()
    return shift if abs(shift) > 60 else 0.0


def test_two_workers_with_one_id_on_one_host(house: House, tmp_path: Path) -> None:
    """The newer process wins; the older one says why it ends, in a way that keeps systemd from starting it again."""
    house.broker()
    old = house.worker("one")
    gate = tmp_path / "gate"
    with Client(house.address) as client:
        job = client.submit("rogue", {"do": "work", "gate": str(gate)})
        eventually(lambda: job.status().state == "running")
        new = house.worker("one", "--state-dir", str(tmp_path / "clone"))
        eventually(lambda: old.process.poll() is not None)
        assert old.process.returncode == 3
        assert "newer process speaks for worker one" in old.log.read_text()
        gate.touch()
        assert job.result(timeout=60)["attempt"] == 2
        assert [worker.state for worker in client.workers()] == ["live"]
    assert new.process.poll() is None


def test_a_worker_that_comes_back_under_its_id_is_the_same_worker(house: House, tmp_path: Path) -> None:
    house.broker()
    first = house.worker("one")
    with Client(house.address) as client:
        job = client.submit("rogue", {"do": "work", "seconds": 2.0}, reclaim_after=60.0)
        eventually(lambda: job.status().state == "running")
        first.kill()
        house.worker("one")
        assert job.result(timeout=60)["attempt"] == 2, "not after a minute: its return says that the job is lost"
        assert len(client.workers()) == 1


@pytest.mark.slow
def test_a_subscriber_that_was_stopped_hears_of_the_end(house: House) -> None:
    house.broker()
    house.worker("one")
    with Client(house.address) as client:
        job = client.submit("rogue", {"do": "work", "seconds": 4.0})
        watcher = house.start_cli("jobs", "watch", job.id)
        eventually(lambda: job.status().fraction > 0)
        watcher.send_signal(signal.SIGSTOP)
        job.result(timeout=60)
        for n in range(2000):
            client.submit("noop", {"n": n})
        watcher.send_signal(signal.SIGCONT)
        out, err = watcher.communicate(timeout=60)
        assert watcher.returncode == 0, out + err


def test_a_client_that_is_killed_between_submit_and_answer(house: House) -> None:
    """It submits again under the same ids: every job is there once, whichever answers it had heard."""
    house.broker()
    house.worker("one")
    script = (
        "import sys\nfrom ktrdr_zmq import Client\nclient = Client(sys.argv[1])\n"
        "for n in range(int(sys.argv[2])):\n    client.submit('echo', {'n': n}, job_id=f'{n + 1:032x}')\n    print(n, flush=True)\n"
    )
    for count in (3, 40):
        daemon = house.start_python(script, house.address, "1000000")
        assert daemon.stdout is not None
        for _ in range(count):
            daemon.stdout.readline()
        daemon.kill()
        daemon.communicate()
    done = house.start_python(script, house.address, "60")
    done.communicate(timeout=60)
    assert done.returncode == 0
    with Client(house.address) as client:
        infos = client.jobs(limit=10_000)
        assert len({info.id for info in infos}) == len(infos) >= 60
        for info in infos:
            assert client.job(info.id).result(timeout=60)["n"] == int(info.id, 16) - 1
