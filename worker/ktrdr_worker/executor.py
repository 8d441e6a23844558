"""Child processes: start, pipe, output, limits, and an end that leaves nothing behind.

One child for each lane. A child of a CPU slot is warm: it does many jobs. A child of a GPU slot does one, with its device assigned by the
environment. The agent's loop reads and writes without blocking; what a child does to itself (holds the GIL, crashes, prints for ever)
reaches the agent only as octets or as the end of a process. A child leads a process group of its own and carries a mark in its environment,
by which whatever it started is found again and killed, also after it moved away. Decides nothing about jobs: it tells `Sink` what happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

from ktrdr_worker import pipe, processes
from ktrdr_worker.children import Child, death, launch
from ktrdr_worker.duties import Death
from ktrdr_worker.lanes import Assignment, Lane
from ktrdr_worker.logs import JobLog
from ktrdr_worker.spool import LOG, Spool
from ktrdr_zmq.jobs import TAG_GPU

log = logging.getLogger(__name__)

SWEEPS: Final = 200
NO_CHILD_S: Final = 1.0
"""Seconds after which a lane whose child cannot be started tries again."""
SWEEP_EVERY: Final = 0.02
RECEIVE: Final = 1 << 18


class ExecutorConfig(NamedTuple):
    """What children get and may do; octets and seconds.

    ``devices`` belong to the GPU slots, by slot: the device's name as handlers see it (``cuda:0``, ``mps``, ``cpu``), and the environment
    that selects it. ``threads`` 0 leaves the number to each job.
    """

    handlers: Mapping[str, str]
    devices: tuple[tuple[str, Mapping[str, str]], ...] = ()
    environment: Mapping[str, str] = {}
    threads: int = 0
    log_limit: int = 10 << 20
    memory_every: float = 0.25
    spool_after: float = 1.0
    recycle_resident: int = 2 << 30
    recycle_jobs: int = 200_000
    close_grace: float = 5.0


class Sink(Protocol):
    """Who is told what happened; the agent's shell."""

    def on_frame(self, frame: pipe.FromChild, job_log: JobLog | None, closing: bool) -> None:
        """A child said something; with the end of a job comes its log. ``closing``: the child will be replaced."""

    def on_gone(self, lane: Lane, death: Death, job_log: JobLog | None) -> None:
        """A lane's child and everything it started are gone."""


class Executor:
    """All child processes of a worker."""

    def __init__(self, config: ExecutorConfig, spool: Spool, sink: Sink) -> None:
        self._config = config
        self._spool = spool
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self._children: dict[Lane, Child] = {}
        self._barren: set[Lane] = set()
        self._dirty: set[Child] = set()
        self._memory_watch: asyncio.TimerHandle | None = None
        processes.become_subreaper()

    def pids(self) -> list[int]:
        """The children that live."""
        return [child.pid for child in self._children.values()]

    # ------------------------------------------------------------ orders

    def start(self, lane: Lane, job: Assignment, inputs: tuple[tuple[str, str, bytes], ...] = (), checkpoint: str = "") -> None:
        """Give a job to a lane's child, made if need be."""
        if lane in self._barren:  # what stands behind a job that found no process shares its fate: it would be in two children otherwise
            return
        child = self._children.get(lane)
        if child is None:
            try:
                child = self._spawn(lane)
            except OSError as error:
                self._barren.add(lane)
                self._loop.call_later(NO_CHILD_S, self._gave_up, lane, Death(f"No child process can be started: {error}", began=False))
                return
        if not child.jobs and (child.dead or child.popen.poll() is not None):  # its end may not have been seen yet
            child.late = True
        child.jobs.append(job)
        child.output.expect(job.token)
        spec = job.spec
        threads = self._config.threads or max(spec.threads, 1)
        device = self._device(lane)[0]
        self._put(child, pipe.Run(job.token, spec.kind, job.job_id, job.attempt, device, threads, job.body, inputs, checkpoint))
        if spec.memory_limit and self._memory_watch is None:
            self._memory_watch = self._loop.call_later(self._config.memory_every, self._watch_memory)

    def _gave_up(self, lane: Lane, death: Death) -> None:
        """The lane may try again; its first job is turned down, those behind it begin anew."""
        self._barren.discard(lane)
        self._sink.on_gone(lane, death, None)

    def stop(self, lane: Lane, token: int, interrupt: bool) -> None:
        """Ask a child to leave a job out, or to end it."""
        child = self._children.get(lane)
        if child is None:
            return
        self._put(child, pipe.Stop(token, interrupt))
        # A signal cannot say which job it means: with others in the child it might hit the next one. Before the child is up it would kill
        # it.
        if interrupt and child.began and [job.token for job in child.jobs] == [token]:
            self._write(child)
            processes.signal_group(child.pid, signal.SIGTERM)

    def kill(self, lane: Lane) -> None:
        """Kill a lane's child and everything below it; `Sink.on_gone` follows when all are gone."""
        child = self._children.get(lane)
        if child is not None:
            self._kill(child)
        elif lane not in self._barren:
            self._loop.call_soon(self._sink.on_gone, lane, Death("It was killed."), None)

    def log_of(self, token: int) -> JobLog | None:
        """What a running job has printed so far; None if nothing."""
        for child in self._children.values():
            if child.jobs and child.jobs[0].token == token:
                child.output.pump()
                return child.output.current
        return None

    def flush(self) -> None:
        """Write what was put for each child in this turn, in one piece each."""
        while self._dirty:
            self._write(self._dirty.pop())

    def prestart(self, lane: Lane) -> None:
        """Have a warm child ready before its first job."""
        if lane not in self._children and lane not in self._barren:
            with contextlib.suppress(OSError):
                self._spawn(lane)
            self.flush()

    def close(self) -> None:
        """Kill everything, now; nobody is told."""
        if self._memory_watch is not None:
            self._memory_watch.cancel()
        for child in list(self._children.values()):
            self._kill(child)
            self._unwatch(child)
        for child in list(self._children.values()):
            child.popen.wait()
            for _ in range(SWEEPS):
                if processes.sweep_orphans((), child.suspects, child.mark):
                    break
                time.sleep(SWEEP_EVERY)
            child.output.close()
        self._children.clear()

    # ------------------------------------------------------------ making children

    def _device(self, lane: Lane) -> tuple[str, Mapping[str, str]]:
        """The device of a lane as the handler sees it, and the environment that makes it so."""
        if lane.tag == TAG_GPU and lane.index < len(self._config.devices):
            return self._config.devices[lane.index]
        return "cpu", {"CUDA_VISIBLE_DEVICES": ""}

    def _spawn(self, lane: Lane) -> Child:
        environment = {**os.environ, **self._config.environment, **self._device(lane)[1]}
        child = self._children[lane] = launch(lane, environment, self._make_log)
        self._loop.add_reader(child.line.fileno(), self._readable, child)
        self._loop.add_reader(child.output.fd, self._printed, child)
        self._watch_death(child)
        config = self._config
        spool = self._spool
        places = (str(spool.folder), str(spool.work), str(spool.kept))
        self._put(child, pipe.Setup(dict(config.handlers), *places, child.boundary, config.spool_after))
        return child

    def _make_log(self, token: int) -> JobLog:
        return JobLog(self._spool.job(token) / LOG, self._config.log_limit)

    def _watch_death(self, child: Child) -> None:
        try:
            child.pidfd = os.pidfd_open(child.pid)
        except (AttributeError, OSError):  # another system than Linux, or no descriptor is left
            threading.Thread(target=self._await_death, args=(child,), daemon=True).start()
        else:
            self._loop.add_reader(child.pidfd, self._died, child)

    def _await_death(self, child: Child) -> None:
        """The main function of a thread. Not one of the loop's: those are few, and file transfers need them."""
        child.popen.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._died, child)

    # ------------------------------------------------------------ the line

    def _put(self, child: Child, frame: pipe.ToChild) -> None:
        child.outgoing += pipe.pack(frame)
        self._dirty.add(child)

    def _write(self, child: Child) -> None:
        if child.dead or not child.outgoing:
            return
        try:
            sent = child.line.send(child.outgoing)
            del child.outgoing[:sent]
        except BlockingIOError:
            pass
        except OSError:  # it is dying; its death says the rest
            child.outgoing.clear()
        if child.outgoing:
            self._loop.add_writer(child.line.fileno(), self._writable, child)

    def _writable(self, child: Child) -> None:
        self._loop.remove_writer(child.line.fileno())
        self._write(child)

    def _readable(self, child: Child) -> None:
        try:
            data = child.line.recv(RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(child.line.fileno())  # the end of the process is seen elsewhere
            return
        self._hear(child, data)

    def _hear(self, child: Child, data: bytes) -> None:
        """Take in what a child says. If that fails, nobody knows what the child does: it is killed, unheard, and its jobs run again."""
        if child.unheard:
            return
        try:
            for octets in child.framer.feed(data):
                self._frame(child, pipe.FROM_CHILD.decode(octets))
        except Exception:
            log.exception("what a child said could not be dealt with; it is replaced, its jobs run again")
            child.unheard = True
            self._kill(child)

    def _frame(self, child: Child, frame: pipe.FromChild) -> None:
        if isinstance(frame, pipe.Ended):
            self._ended(child, frame)
            return
        if isinstance(frame, pipe.Ready):
            child.began = True
        elif isinstance(frame, pipe.LeftOut):
            child.output.unexpect(frame.token)
            child.jobs = deque(job for job in child.jobs if job.token != frame.token)
        self._sink.on_frame(frame, None, child.closing)
        if isinstance(frame, pipe.LeftOut):
            self._retire_if_done(child)

    def _ended(self, child: Child, frame: pipe.Ended) -> None:
        if not child.jobs or child.jobs[0].token != frame.token:
            if not child.killed:
                log.error("a child is out of step: it reported the end of a job that is not its first; it is replaced, its jobs run again")
                self._kill(child)
            return
        child.jobs.popleft()
        child.served += 1
        job_log = child.output.take(frame.token)
        child.soiled = child.soiled or frame.soiled
        if (
            child.soiled
            or child.lane.tag == TAG_GPU
            or child.served >= self._config.recycle_jobs
            or (frame.run_s > 1.0 and processes.resident([child.pid]) > self._config.recycle_resident)
        ):
            child.closing = True
        self._sink.on_frame(frame, job_log, child.closing)
        self._retire_if_done(child)

    def _retire_if_done(self, child: Child) -> None:
        """Let a child go that is to be replaced and has no job left."""
        if not child.closing or child.jobs:
            return
        if child.soiled:
            self._kill(child)
            return
        with contextlib.suppress(OSError):
            child.line.shutdown(socket.SHUT_WR)
        self._loop.call_later(self._config.close_grace, self._kill, child)

    # ------------------------------------------------------------ output and memory

    def _printed(self, child: Child) -> None:
        if not child.output.pump():
            self._loop.remove_reader(child.output.fd)

    def _watch_memory(self) -> None:
        """Look at the jobs that have a limit; none of them, no timer."""
        self._memory_watch = None
        again = False
        for child in self._children.values():
            limit = child.jobs[0].spec.memory_limit if child.jobs else 0
            if not limit or child.dead or child.verdict:
                continue
            again = True
            used = processes.resident([child.pid, *processes.descendants(child.pid)])
            if used > limit:
                child.verdict = f"It used more than its memory limit of {_mebibytes(limit)}: {_mebibytes(used)}."
                self._kill(child)
        if again:
            self._memory_watch = self._loop.call_later(self._config.memory_every, self._watch_memory)

    # ------------------------------------------------------------ death

    def _kill(self, child: Child) -> None:
        if not child.dead:
            child.killed = True
            child.suspects += processes.kill_tree(child.pid)

    def _unwatch(self, child: Child) -> None:
        for fd in (child.line.fileno(), child.output.fd, child.pidfd):
            if fd >= 0:
                self._loop.remove_reader(fd)
                self._loop.remove_writer(fd)
        if child.pidfd >= 0:
            os.close(child.pidfd)
            child.pidfd = -1
        child.line.close()

    def _died(self, child: Child) -> None:
        """The process has ended: hear its last words, then make sure that nothing of it is left."""
        if child.dead or child.popen.poll() is None:
            return
        with contextlib.suppress(OSError):
            while data := child.line.recv(RECEIVE):
                self._hear(child, data)
        child.dead = True
        self._unwatch(child)
        processes.signal_group(child.pid, signal.SIGKILL)
        self._sweep(child, SWEEPS)

    def _sweep(self, child: Child, left: int) -> None:
        """Hunt what the dead child has started, until nothing is found any more."""
        if self._children.get(child.lane) is not child:  # closed meanwhile
            return
        others = [pid for pid in self.pids() if pid != child.pid]
        if not processes.sweep_orphans(others, child.suspects, child.mark) and left > 0:
            self._loop.call_later(SWEEP_EVERY, self._sweep, child, left - 1)
            return
        job_log = child.output.rest()
        child.output.close()
        del self._children[child.lane]
        self._sink.on_gone(child.lane, death(child, job_log), job_log if child.jobs else None)


def _mebibytes(octets: int) -> str:
    return f"{octets / (1 << 20):,.0f} MiB"
