"""The worker's agent: sockets, the pure core, child processes and transfers, tied together on one asyncio loop.

It decides nothing and computes nothing: no handler, no torch, no NumPy is ever imported here. Each turn it lets the core say what is to be
done, and does it in order.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import zmq

from ktrdr_worker import effects as e
from ktrdr_worker import pipe
from ktrdr_worker.children import TAIL
from ktrdr_worker.core import Link, WorkerConfig, WorkerCore
from ktrdr_worker.duties import Death
from ktrdr_worker.executor import Executor, ExecutorConfig
from ktrdr_worker.lanes import Lane
from ktrdr_worker.logs import JobLog
from ktrdr_worker.spool import Spool
from ktrdr_worker.state import StateFolder
from ktrdr_worker.transfers import Transfers
from ktrdr_zmq import codec
from ktrdr_zmq import messages as m
from ktrdr_zmq.artifacts import ArtifactCache, BulkClient
from ktrdr_zmq.config import Endpoint
from ktrdr_zmq.errors import EXIT_FAILED, EXIT_INTERRUPTED, ProtocolError
from ktrdr_zmq.jobs import TAG_CPU
from ktrdr_zmq.loops import end_on_error
from ktrdr_zmq.transport import Channel, connect_dealer

log = logging.getLogger(__name__)

BACKLOG: Final = 10_000
GOODBYE_MS: Final = 500
PRESTARTED: Final = 2
"""Children that wait for a first job; more are made when they are needed."""


class AgentSettings(NamedTuple):
    """What an agent is told from outside."""

    endpoint: Endpoint
    core: WorkerConfig
    executor: ExecutorConfig


class Agent:
    """One worker. Implements `ktrdr_worker.executor.Sink`."""

    def __init__(self, settings: AgentSettings, info: m.WorkerInfo, state: StateFolder) -> None:
        info.store_id, info.highest_epoch = state.store_id, state.epoch
        self._settings = settings
        self._state = state
        self._loop = asyncio.get_running_loop()
        self._spool = Spool(state.path)
        self._context: zmq.Context[Any] = zmq.Context()
        bulk = BulkClient(self._context, settings.endpoint.url(3))
        self._transfers = Transfers(bulk, ArtifactCache(state.path / "cache"))
        self.executor = Executor(settings.executor, self._spool, self)
        self.core = WorkerCore(settings.core, info, random.random, time.monotonic(), self._spool.recover())
        self._channel: Channel | None = None
        self._backlog: deque[list[bytes]] = deque()
        self._with_files = set(self.core.outbox.finished)
        self._timer: asyncio.TimerHandle | None = None
        self._turn_planned = False
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._offered_all = False
        self._on_ready: Callable[[], None] | None = None
        self._terms = 0
        self._lag = 0.0

    # ------------------------------------------------------------ life

    async def run(self, on_ready: Callable[[], None]) -> int:
        """Serve until told to leave; returns the exit code."""
        self._on_ready = on_ready
        end_on_error(self._fail)
        for lane in self.core.lanes.lanes.get(TAG_CPU, [])[:PRESTARTED]:
            self.executor.prestart(lane)
        self._wake()
        try:
            return await self._ended
        finally:
            self._close()

    def _fail(self) -> None:
        if not self._ended.done():
            log.critical("the worker has failed and ends; its jobs run again elsewhere, or in the one that is started after it")
            self._ended.set_result(EXIT_FAILED)

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.executor.close()
        self._transfers.close()
        if self._channel is not None:
            self._flush()
            self._channel.close(GOODBYE_MS)
        self._context.term()

    def terminate(self) -> None:
        """SIGTERM or Ctrl+C: the first time hand everything back and leave, the second time just leave."""
        self._terms += 1
        if self._terms == 1:
            log.info("stopping: running jobs are handed back (once more to stop at once)")
            self.core.begin_drain(time.monotonic())
            self._wake()
        elif not self._ended.done():
            self._ended.set_result(EXIT_INTERRUPTED)

    def offer(self, info: m.WorkerInfo, *, complete: bool) -> None:
        """Tell the broker what this worker offers now; ``complete``: nothing more is being found out."""
        self._offered_all = complete
        if info is not self.core.info:
            self.core.set_info(info, time.monotonic())
        self._wake()

    # ------------------------------------------------------------ turns

    def _wake(self) -> None:
        """Have a turn soon; however much happens until then, it is one turn."""
        if not self._turn_planned:
            self._turn_planned = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_planned = False
        if self._ended.done():
            return
        now = time.monotonic()
        core = self.core
        if self._timer is None:  # it has rung; what becomes due in this turn is seen when it is armed again below
            core.health = (self._lag, os.getloadavg()[0], "")
            self._lag = 0.0
            core.on_tick(now)
        for effect in core.drain(now):
            self._do(effect)
        self.executor.flush()
        self._plan(core.next_deadline())
        if self._on_ready is not None and self._offered_all and core.link is Link.LIVE:
            self._on_ready()
            self._on_ready = None

    def _plan(self, due: float) -> None:
        """Arm the timer. One that is armed for an earlier time stays: it looks again, which is cheaper than arming for each turn."""
        timer = self._timer
        if timer is not None and not timer.cancelled():
            if timer.when() <= due:
                return
            timer.cancel()
        self._timer = self._loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        assert self._timer is not None
        self._lag = max(self._lag, self._loop.time() - self._timer.when())
        self._timer = None
        self._wake()

    # ------------------------------------------------------------ effects

    def _do(self, effect: e.Effect) -> None:  # one line for each kind of effect
        if isinstance(effect, e.Send):
            self._send(effect)
        elif isinstance(effect, e.StartJob):
            job = effect.job
            path = self._transfers.cache.path
            inputs = tuple((name, str(path(digest)), digest) for name, digest in job.spec.inputs)
            checkpoint = str(path(job.checkpoint.digest)) if job.checkpoint is not None else ""
            self.executor.start(effect.lane, job, inputs, checkpoint)
        elif isinstance(effect, e.Discard):
            self._discard(effect.token)
        elif isinstance(effect, e.StopJob):
            self.executor.stop(effect.lane, effect.token, effect.interrupt)
        elif isinstance(effect, e.KillChild):
            self.executor.kill(effect.lane)
        elif isinstance(effect, e.Fetch):
            token = effect.job.token
            self._transfers.fetch(token, effect.digests, lambda error: self._fetched(token, error))
        elif isinstance(effect, e.Upload):
            self._upload(effect)
        elif isinstance(effect, e.Reconnect):
            self._reconnect()
        elif isinstance(effect, e.SendLog):
            self._send_log(effect)
        elif isinstance(effect, e.Remember):
            self._remember(effect)
        elif isinstance(effect, e.Note):
            log.log(logging.getLevelNamesMapping()[effect.level.upper()], "%s", effect.text)
        elif not self._ended.done():
            if effect.text:
                log.error("%s", effect.text)
            self._ended.set_result(effect.code)

    def _remember(self, effect: e.Remember) -> None:
        try:
            self._state.remember(effect.store_id, effect.epoch)
        except OSError as error:  # it is known as long as this process lives; only a former broker that answers the next one goes unnoticed
            log.warning("which broker this is cannot be kept: %s", error)

    def _upload(self, effect: e.Upload) -> None:
        token, seq = effect.token, effect.seq
        self._with_files.add(token)

        def done(error: str) -> None:
            self.core.on_uploaded(token, seq, error)
            self._wake()

        self._transfers.upload(token, effect.artifacts, lambda artifact: self._spool.artifact(token, artifact), done)

    def _fetched(self, token: int, error: str) -> None:
        self.core.on_fetched(token, error, time.monotonic())
        self._wake()

    def _discard(self, token: int) -> None:
        self._transfers.drop(token)
        if token in self._with_files:
            self._with_files.discard(token)
            self._loop.run_in_executor(None, self._spool.discard, token)

    def _send_log(self, effect: e.SendLog) -> None:
        job_log = self.executor.log_of(effect.token)
        offset, data = job_log.read(effect.offset, min(effect.limit, 1 << 20)) if job_log is not None else (effect.offset, b"")
        ended = effect.token not in self.core.duties.jobs
        reply = m.LogTail(effect.request, effect.client, effect.job_id, offset, len(data), ended)
        self._send(e.Send(reply, (data,) if data else ()))

    # ------------------------------------------------------------ the broker's socket

    def _reconnect(self) -> None:
        if self._channel is not None:
            self._channel.close(0)
        self._backlog.clear()
        socket = connect_dealer(self._context, self._settings.endpoint.url(0), reconnect_ms=100 + random.randrange(200))
        self._channel = Channel(socket, self._on_batch, on_writable=self._flush)
        self._channel.open()

    def _send(self, effect: e.Send) -> None:
        if self._channel is None:
            return
        frames = codec.encode(effect.message, effect.bodies)
        if (self._backlog or not self._channel.send(frames)) and len(self._backlog) < BACKLOG:
            self._backlog.append(frames)

    def _flush(self) -> None:
        while self._backlog and self._channel is not None and self._channel.send(self._backlog[0]):
            self._backlog.popleft()

    def _on_batch(self, batch: list[list[bytes]]) -> None:
        now = time.monotonic()
        for frames in batch:
            try:
                message, bodies = codec.decode(frames, codec.TO_WORKER)
            except ProtocolError as error:
                log.warning("the broker sent something that cannot be read: %s", error)
                continue
            self.core.on_message(message, bodies, now)
        if not self._turn_planned:  # what came is a whole batch: it need not wait for the loop's next round
            self._turn()

    # ------------------------------------------------------------ what children do

    def on_frame(self, frame: pipe.FromChild, job_log: JobLog | None, closing: bool) -> None:
        """Hand it to the core; the log of an ended job becomes one of its artifacts, and its end part of a failure."""
        if isinstance(frame, pipe.Ended):
            if frame.spooled:
                self._spool.keep(frame.token)
            if frame.spooled or frame.artifacts or job_log is not None or frame.outcome == pipe.INTERRUPTED:
                self._with_files.add(frame.token)
            if job_log is not None:
                if frame.failure is not None:
                    frame.failure = msgspec.structs.replace(frame.failure, stderr_tail=job_log.tail(TAIL))
                frame.artifacts = [*frame.artifacts, *self._finish_log(job_log)]
        elif isinstance(frame, pipe.Checkpointed):
            self._with_files.add(frame.token)
        self.core.on_child(frame, time.monotonic(), closing)
        self._wake()

    def on_gone(self, lane: Lane, death: Death, job_log: JobLog | None) -> None:
        """Hand it to the core, with the log of the job that was running."""
        self._with_files.update(job.token for job in lane.jobs)
        if job_log is not None:
            death = death._replace(artifacts=tuple(self._finish_log(job_log)))
        self.core.on_gone(lane, death, time.monotonic())
        self._wake()

    def _finish_log(self, job_log: JobLog) -> list[Any]:
        try:
            job_log.finish()
        except OSError as error:
            log.warning("a job's output cannot be kept: %s", error)
            return []
        artifact = self._spool.log_artifact(job_log.path)
        return [artifact] if artifact is not None else []


def child_environment(state: Path, threads: int) -> Mapping[str, str]:
    """What every child has in its environment: few threads, so that jobs side by side do not fight, and a place for compiled code."""
    count = str(max(threads, 1))
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS")
    # A thread that waits for the others must not burn its core meanwhile: jobs share the machine.
    return {**dict.fromkeys(names, count), "OMP_WAIT_POLICY": "PASSIVE", "NUMBA_CACHE_DIR": str(state / "numba")}
