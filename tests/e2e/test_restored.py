"""A database that was restored from an older copy while workers went on: refused in clear words, unless it was meant."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from ktrdr_zmq import Client, UnknownJob
from tests.e2e.house import House, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@pytest.mark.parametrize("copied", ["in an earlier run of the broker", "in the same run"])
def test_an_older_copy_of_the_database(house: House, tmp_path: Path, copied: str) -> None:
    folder, copy = house.folder / "broker", tmp_path / "copy"
    broker = house.broker()
    house.worker("one")
    gate = tmp_path / "gate"
    with Client(house.address) as client:
        before = client.submit("echo", {"n": 1})
        before.result(timeout=60)
    if copied == "in the same run":
        shutil.copytree(folder, copy)
    else:
        broker.kill(signal.SIGTERM)
        shutil.copytree(folder, copy)
        broker = house.broker()
    with Client(house.address) as client:
        after = client.submit("rogue", {"do": "work", "gate": str(gate)}, queue=True)
        eventually(lambda: after.status().state == "running")
    broker.kill()
    signal.sigtimedwait([], 1.1)  # epochs are seconds: nobody puts a copy in place within one
    shutil.rmtree(folder)
    copy.rename(folder)
    older = house.broker()
    eventually(lambda: older.process.poll() is not None)
    assert older.process.returncode == 3
    text = older.log.read_text()
    assert "The database is older than the cluster: worker one has seen" in text
    assert "--restored" in text
    house.broker("--restored")
    with Client(house.address) as client:
        eventually(lambda: [worker.state for worker in client.workers()] == ["live"])
        assert client.job(before.id).status().state == "done"
        with pytest.raises(UnknownJob):
            client.job(after.id)
        assert client.submit("echo", {"n": 2}).result(timeout=60)["n"] == 2
