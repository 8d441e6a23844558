"""Agent and child tell each other the same story, also when jobs are left out, descriptors run out, or something in the agent fails."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ktrdr_worker import children, pipe
from ktrdr_worker.child import Child as ChildProcess
from ktrdr_worker.duties import Death
from ktrdr_worker.effects import Fetch, KillChild
from ktrdr_worker.executor import Executor, ExecutorConfig
from ktrdr_worker.lanes import Assignment, Lane
from ktrdr_worker.logs import MEMORY, JobLog
from ktrdr_worker.spool import Spool
from ktrdr_zmq import payload
from ktrdr_zmq.jobs import JobSpec
from tests.unit.worker.dialogue import Desk

HANDLERS = {"noop": "ktrdr_worker.jobs.noop:handler", "echo": "ktrdr_worker.jobs.echo:handler"}


class Sink:
    """Writes down what the executor tells."""

    def __init__(self, broken: int = 0) -> None:
        self.ended: list[int] = []
        self.gone: asyncio.Queue[tuple[Lane, Death]] = asyncio.Queue()
        self.ready = asyncio.Event()
        self._broken = broken

    def on_frame(self, frame: pipe.FromChild, _log: JobLog | None, _closing: bool) -> None:
        if isinstance(frame, pipe.Ready):
            self.ready.set()
        if isinstance(frame, pipe.Ended):
            if frame.token == self._broken:
                raise ValueError("what nobody has thought of")
            self.ended.append(frame.token)

    def on_gone(self, lane: Lane, death: Death, _log: Any) -> None:
        self.gone.put_nowait((lane, death))


def job(token: int, kind: str = "noop") -> Assignment:
    return Assignment(token.to_bytes(16, "big"), token, 1, "cpu", JobSpec(kind), payload.pack({}), None, 0.0)


def kill_and_leave(pid: int) -> None:
    """Kill a child process, so that it is dead and the loop has had no turn to see it."""
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# ---------------------------------------------------------------- the order of what a child says


def test_that_a_job_is_left_out_is_said_before_the_next_one_begins(tmp_path: Path) -> None:
    """Said later, the end of the next job would come first, and the agent would take the child for one that is out of step."""
    ours, theirs = socket.socketpair()
    reader, writer = os.pipe()
    child = ChildProcess(theirs, writer)
    said: list[pipe.FromChild] = []
    asked, over = threading.Event(), threading.Event()
    send = child.send

    def slowly(frame: pipe.FromChild, may_drop: bool = False) -> None:
        if isinstance(frame, pipe.LeftOut):
            asked.set()
            over.wait(0.3)  # a thread may always be put off; the jobs would be through by then
        said.append(frame)
        send(frame, may_drop)
        if isinstance(frame, pipe.Ended) and frame.token == 3:
            over.set()

    child.send = slowly  # type: ignore[method-assign]
    reads, works = (threading.Thread(target=target, daemon=True) for target in (child.read, child.work))
    setup = pipe.Setup(HANDLERS, str(tmp_path), str(tmp_path), str(tmp_path), b"\0mark")
    frames = [pipe.Run(token, "noop", b"", 1, "cpu", 1, payload.pack({})) for token in (1, 2, 3)]
    ours.sendall(b"".join(map(pipe.pack, [setup, *frames, pipe.Stop(2, True)])))
    reads.start()
    assert asked.wait(10)
    works.start()
    assert over.wait(10)
    ours.shutdown(socket.SHUT_WR)
    for thread in (reads, works):
        thread.join(10)
    told = [(type(frame).__name__, frame.token) for frame in said if isinstance(frame, pipe.LeftOut | pipe.Ended)]
    assert told == [("LeftOut", 2), ("Ended", 1), ("Ended", 3)]
    for end in (ours, theirs):
        end.close()
    for fd in (reader, writer):
        os.close(fd)


def test_a_job_that_is_another_workers_by_now_leaves_the_lane_when_it_is_left_out() -> None:
    """It stood behind another one: for ever, if the child's word was not heard, and then the next job's child was killed for it."""
    desk = Desk("cpu=1")
    desk.dispatch(1).end(1, run_s=0.0001)  # the kind is known to be short
    desk.dispatch(2, 3, 4)
    assert desk.started() == [1, 2, 3, 4]
    desk.core._lose(desk.now)
    desk.tick(2.0).welcome((2, "KEEP"), (3, "ABORT"), (4, "KEEP"))
    desk.core.on_child(pipe.LeftOut(3), desk.now)
    desk.turn()
    desk.end(2)
    lane = next(iter(desk.core.lanes))
    assert [job.token for job in lane.jobs] == [4]
    desk.tick(1.0)
    assert desk.wanted(KillChild) == []


def test_a_child_that_dies_while_inputs_arrive_costs_the_job_nothing() -> None:
    desk = Desk("cpu=1").dispatch(1, inputs=[("data", b"d" * 32)])
    assert len(desk.wanted(Fetch)) == 1
    lane = desk.core.duties.jobs[1].lane
    assert lane is not None
    desk.core.on_fetched(1, "", desk.now)
    desk.core.on_gone(lane, Death("an idle child was killed"), desk.now)
    desk.turn()
    assert desk.started() == [1], "in the next child"
    assert desk.end(1).results() == [(1, "done")]


@pytest.mark.parametrize("soiled", [True, False])
async def test_a_child_that_is_to_be_replaced_goes_also_when_its_last_job_is_left_out(tmp_path: Path, soiled: bool) -> None:
    """A cancellation may come just as the job before it ends. The slot is free only when the child is gone."""
    sink = Sink()
    executor = Executor(ExecutorConfig(HANDLERS, recycle_jobs=1), Spool(tmp_path), sink)
    lane = Lane("cpu", 0)
    executor.prestart(lane)
    await asyncio.wait_for(sink.ready.wait(), 30)
    child = executor._children[lane]
    child.jobs.extend(map(job, (1, 2)))
    executor._hear(child, pipe.pack(pipe.Ended(1, "done", 0.0, soiled=soiled)) + pipe.pack(pipe.LeftOut(2)))
    try:
        assert (await asyncio.wait_for(sink.gone.get(), 30))[0] is lane
    finally:
        executor.close()


# ---------------------------------------------------------------- what may fail in the agent


@pytest.mark.parametrize("missing", ["socketpair", "pipe", "Popen"])
def test_where_no_child_can_be_started_nothing_is_left(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(24, "Too many open files")

    owner = {"socketpair": children.socket, "pipe": children.os, "Popen": children.subprocess}[missing]
    before = descriptors()
    monkeypatch.setattr(owner, missing, refuse)
    with pytest.raises(OSError, match="Too many"):
        children.launch(Lane("cpu", 0), os.environ, lambda _: None)  # type: ignore[arg-type,return-value]
    assert descriptors() == before


async def test_the_death_of_a_child_is_seen_without_a_descriptor_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(_pid: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))  # which transfers need: it is not for waiting
    sink = Sink()
    executor = Executor(ExecutorConfig(HANDLERS), Spool(tmp_path), sink)
    lanes = [Lane("cpu", 0), Lane("cpu", 1)]
    try:
        for token, lane in enumerate(lanes, 1):
            executor.start(lane, job(token))
        executor.flush()
        for lane in reversed(lanes):
            executor.kill(lane)
            told, death = await asyncio.wait_for(sink.gone.get(), 30)
            assert (told, death.signal) == (lane, 9)
    finally:
        executor.close()


async def test_what_goes_wrong_while_a_child_is_heard_costs_that_child(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sink = Sink(broken=2)
    executor = Executor(ExecutorConfig(HANDLERS), Spool(tmp_path), sink)
    lane = Lane("cpu", 0)
    for token in (1, 2, 3):
        executor.start(lane, job(token))
    executor.flush()
    _, death = await asyncio.wait_for(sink.gone.get(), 30)
    assert death.signal == 9
    assert "could not deal with what the process said" in death.text
    assert sink.ended == [1]
    assert "what nobody has thought of" in caplog.text
    executor.close()


async def test_a_child_that_could_not_be_understood_is_not_heard_any_more(tmp_path: Path) -> None:
    """What it said in between is lost: who goes on listening draws conclusions from half a story."""
    sink = Sink(broken=2)
    executor = Executor(ExecutorConfig(HANDLERS), Spool(tmp_path), sink)
    lane = Lane("cpu", 0)
    executor.prestart(lane)
    child = executor._children[lane]
    child.jobs.extend(map(job, (1, 2, 3)))
    for token in (1, 2, 3):  # one piece each, as the system may well deliver them
        executor._hear(child, pipe.pack(pipe.Ended(token, "done", 0.0)))
    assert sink.ended == [1]
    executor.close()


async def test_a_job_that_is_given_to_a_dead_child_is_not_charged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An idle child has died, and what it left behind is still being hunted."""
    sink = Sink()
    executor = Executor(ExecutorConfig(HANDLERS), Spool(tmp_path), sink)
    lane = Lane("cpu", 0)
    executor.prestart(lane)
    await asyncio.wait_for(sink.ready.wait(), 30)
    hunted, given = asyncio.Event(), asyncio.Event()

    def sweep(*_: Any) -> bool:
        hunted.set()
        return given.is_set()

    monkeypatch.setattr("ktrdr_worker.processes.sweep_orphans", sweep)
    executor.kill(lane)
    await asyncio.wait_for(hunted.wait(), 30)
    executor.start(lane, job(1))
    given.set()
    _, death = await asyncio.wait_for(sink.gone.get(), 30)
    assert not death.began
    assert "before the job came" in death.text
    executor.close()


@pytest.mark.parametrize("up,said", [(True, "before the job came"), (False, "did not come up")])
async def test_a_job_that_is_given_to_a_child_whose_death_is_not_seen_yet_is_not_charged(tmp_path: Path, up: bool, said: str) -> None:
    sink = Sink()
    executor = Executor(ExecutorConfig(HANDLERS), Spool(tmp_path), sink)
    lane = Lane("cpu", 0)
    executor.prestart(lane)
    if up:
        await asyncio.wait_for(sink.ready.wait(), 30)
    (pid,) = executor.pids()
    kill_and_leave(pid)
    executor.start(lane, job(1))
    _, death = await asyncio.wait_for(sink.gone.get(), 30)
    assert not death.began
    assert said in death.text
    executor.close()


# ---------------------------------------------------------------- output that cannot be kept


def test_output_that_the_disk_does_not_take_is_told_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    log = JobLog(tmp_path / "file" / "log", 4 * MEMORY)
    for _ in range(10):
        log.write(b"x" * MEMORY)
    assert log.size == 10 * MEMORY
    assert log.tail(10) == "x" * 10
    with pytest.raises(OSError, match="File exists"):
        log.finish()


@pytest.mark.parametrize("piece", [66_000, 70_000, 100_000])
def test_output_is_read_as_it_was_written_when_the_disk_has_filled_up(tmp_path: Path, piece: int) -> None:
    """Whoever watches a job or buries it reads its log, also when a part of the log is on disk and no more goes there."""
    text = b"".join(b"%07d\n" % number for number in range(100_000))
    log = JobLog(tmp_path / "log", 40 * MEMORY)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MEMORY + 100, limits[1]))
    try:
        for size in (piece, 30_000, 3, 200_000):
            log.write(text[log.size : log.size + size])
            for wanted in (0, log.size - 20_000, log.size - 2):
                offset, data = log.read(wanted, 10_000)
                assert offset >= wanted
                assert data
                assert data == text[offset : offset + len(data)]
            assert log.tail(1000).encode() == text[log.size - 1000 : log.size]
        with pytest.raises(OSError, match="too large"):
            log.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
