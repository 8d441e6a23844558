"""What nobody has thought of goes wrong in a daemon's own code: it ends with exit code 1, and whoever looks after it starts a new one."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import zmq
import zmq.asyncio

from ktrdr_broker.config import BrokerConfig
from ktrdr_broker.server import BrokerServer, ServerSettings
from ktrdr_worker.core import WorkerConfig
from ktrdr_worker.effects import Remember
from ktrdr_worker.executor import ExecutorConfig
from ktrdr_worker.server import Agent, AgentSettings
from ktrdr_worker.state import StateFolder
from ktrdr_zmq import codec
from ktrdr_zmq import messages as m
from ktrdr_zmq.cluster import LocalCluster, Process
from ktrdr_zmq.config import Endpoint
from ktrdr_zmq.errors import EXIT_FAILED


def broken(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError("what nobody has thought of")


async def say_hello(port: int) -> None:
    """What a worker says first."""
    with zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 1000)
        socket.connect(f"tcp://127.0.0.1:{port}")
        info = m.WorkerInfo("w", b"i" * 16, 1, [m.MAJOR], [("cpu", 1)], [("noop", 1, 1)])
        await socket.send_multipart(codec.encode(m.WorkerHello(info, [], [])))


@pytest.mark.parametrize("where", ["on_message", "on_tick", "drain"])
async def test_a_broker_that_fails_ends(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = BrokerServer(ServerSettings("127.0.0.1", 0, tmp_path, BrokerConfig()))
    monkeypatch.setattr(server.core, where, broken)
    greeting: list[asyncio.Task[None]] = []
    code = await asyncio.wait_for(server.run(lambda port: greeting.append(asyncio.create_task(say_hello(port)))), 30)
    await asyncio.gather(*greeting)
    assert code == EXIT_FAILED
    assert "ZeroDivisionError" in caplog.text
    assert "nothing that was acknowledged is lost" in caplog.text
    with sqlite3.connect(tmp_path / "broker.sqlite3") as database:
        (clean,) = database.execute("SELECT value FROM meta WHERE key = 'clean'").fetchone()
    database.close()
    assert clean == b"0", "the next one looks at the database first"
    again = BrokerServer(ServerSettings("127.0.0.1", 0, tmp_path, BrokerConfig()))
    assert await asyncio.wait_for(again.run(lambda _: again.stop()), 30) == 0


class Alone(Agent):
    """An agent without a broker."""

    def _reconnect(self) -> None:
        return


def alone(folder: Path) -> tuple[Alone, StateFolder]:
    slots = (("cpu", 1),)
    state = StateFolder(folder)
    info = m.WorkerInfo("w", b"i" * 16, 0, [m.MAJOR], list(slots), [("noop", 1, 1)])
    executor = ExecutorConfig({"noop": "ktrdr_worker.jobs.noop:handler"})
    return Alone(AgentSettings(Endpoint("127.0.0.1", 1), WorkerConfig(slots=slots), executor), info, state), state


async def test_a_worker_that_fails_ends_and_leaves_no_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    agent, state = alone(tmp_path)
    monkeypatch.setattr(agent.core, "drain", broken)
    assert await asyncio.wait_for(agent.run(lambda: None), 30) == EXIT_FAILED
    state.release()
    assert agent.executor.pids() == []
    assert "ZeroDivisionError" in caplog.text
    assert "its jobs run again" in caplog.text


async def test_a_worker_whose_disk_is_full_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    agent, state = alone(tmp_path)

    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state, "remember", refuse)
    agent._do(Remember(b"s" * 16, 7))
    assert "No space left on device" in caplog.text
    agent._close()
    state.release()


@pytest.mark.parametrize(("end", "fate"), [("os.kill(os.getpid(), 9)", "was killed"), ("sys.exit(1)", "has failed"), ("sys.exit(3)", "")])
def test_a_cluster_starts_again_what_has_fallen(end: str, fate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But not what says that it may not run."""
    (tmp_path / "fallible.py").write_text(f"import os, sys\n{end}\n")
    cluster = LocalCluster.__new__(LocalCluster)
    process = Process("fallible", "fallible", [], tmp_path, {**os.environ, "PYTHONPATH": str(tmp_path)})
    cluster.processes = [process]
    first = process.pid
    process._process.wait(30)
    if fate == "has failed":
        assert cluster.revive() == [], "not more often than every ten seconds"
        monkeypatch.setattr("ktrdr_zmq.cluster.RETRY_S", 0.0)
    assert cluster.revive() == ([process] if fate else [])
    assert (process.fate, process.pid != first) == (fate, bool(fate))
    process._process.wait(30)
    os.close(process._reader)
