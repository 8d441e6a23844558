"""Where no process can be started, the jobs of a lane wait together: one that was placed behind the first must not begin by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ktrdr_worker import executor as room
from ktrdr_worker.duties import Death
from ktrdr_worker.executor import Executor, ExecutorConfig
from ktrdr_worker.lanes import Assignment, Lane
from ktrdr_worker.spool import Spool
from ktrdr_zmq.jobs import JobSpec


class Sink:
    def __init__(self) -> None:
        self.gone: asyncio.Queue[tuple[Lane, Death]] = asyncio.Queue()

    def on_frame(self, *_: Any) -> None:
        return

    def on_gone(self, lane: Lane, death: Death, _log: Any) -> None:
        self.gone.put_nowait((lane, death))


def job(token: int) -> Assignment:
    return Assignment(token.to_bytes(16, "big"), token, 1, "cpu", JobSpec("echo"), b"", None, 0.0)


async def test_a_job_behind_one_that_found_no_process_begins_nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(room, "NO_CHILD_S", 0.01)
    sink = Sink()
    executor = Executor(ExecutorConfig({}), Spool(tmp_path), sink)
    started: list[Lane] = []

    def refuse(lane: Lane) -> Any:
        started.append(lane)
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(executor, "_spawn", refuse)
    lane = Lane("cpu", 0)
    executor.start(lane, job(1))
    executor.start(lane, job(2))
    executor.kill(lane)
    executor.prestart(lane)
    assert started == [lane], "nobody tries again before the first failure was told"
    told, death = await asyncio.wait_for(sink.gone.get(), 10)
    assert (told, death.began) == (lane, False)
    assert sink.gone.empty()
    executor.start(lane, job(2))
    assert started == [lane, lane], "and then somebody does"
    await asyncio.wait_for(sink.gone.get(), 10)
    executor.close()
