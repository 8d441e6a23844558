"""A worker in the World: the real core, with children that only pass the time their job's body names."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import msgspec

from ktrdr_worker import effects as fx
from ktrdr_worker import pipe
from ktrdr_worker.core import WorkerConfig, WorkerCore
from ktrdr_worker.duties import Death
from ktrdr_worker.lanes import Assignment, Lane
from ktrdr_zmq import codec
from ktrdr_zmq import messages as m
from ktrdr_zmq.jobs import Outcome
from ktrdr_zmq.testing import Effect, Frames, Reconnect, Timer, ToServer
from tests.sim.ledger import Ledger

SPOOL_AFTER = 1.0
KINDS = [("long", 1, 1), ("short", 1, 1)]


class Work(msgspec.Struct):
    """The body of a simulated job: how long it takes, how many attempts crash, whether it listens to SIGTERM, and its result."""

    seconds: float
    crashes: int
    stubborn: bool
    result: bytes


class WorkerMachine:
    """Results that ran longer than a second and the broker's epoch survive it, as they do on a real worker's disk."""

    def __init__(self, name: str, slots: dict[str, int], rng: random.Random, ledger: Ledger) -> None:
        self.name = name
        self.core: WorkerCore = None  # type: ignore[assignment]
        self.exited = 0
        self._slots = tuple(sorted(slots.items()))
        self._random = rng
        self._ledger = ledger
        self._disk: dict[int, tuple[m.ResultItem, bytes]] = {}
        self._memory = (b"", 0)
        self._children: dict[Lane, deque[Assignment]] = {}
        self._next: list[Lane] = []

    def start(self, now: float, wall: int) -> None:
        info = m.WorkerInfo(
            worker_id=self.name, instance=self._random.randbytes(8), hello_seq=0, versions=[1], slots=list(self._slots), kinds=list(KINDS),
            store_id=self._memory[0], highest_epoch=self._memory[1], host=self.name,
        )  # fmt: skip
        self._children, self._next = {}, []
        recovered = [(msgspec.structs.replace(item), body) for item, body in self._disk.values()]
        self.core = WorkerCore(WorkerConfig(slots=self._slots), info, self._random.random, now, recovered)

    def stop(self) -> None:
        self.core = None  # type: ignore[assignment]
        self._children = {}

    def receive(self, port: str, peer: bytes, frames: Frames, now: float, wall: int) -> None:
        message, bodies = codec.decode(frames, codec.TO_WORKER)
        self.core.on_message(message, bodies, now)

    def subscribed(self, topic: bytes, now: float, wall: int) -> None:
        raise NotImplementedError

    def unreachable(self, port: str, peer: bytes, now: float, wall: int) -> None:
        raise NotImplementedError

    def tick(self, now: float, wall: int) -> None:
        self.core.on_tick(now)

    def next_deadline(self) -> float:
        return self.core.next_deadline()

    def effects(self, now: float, wall: int) -> list[Effect]:
        out: list[Effect] = [self._begin(lane) for lane in self._next if self._children.get(lane)]
        self._next = []
        for effect in self.core.drain(now):
            if isinstance(effect, fx.Send):
                out.append(ToServer("workers", codec.encode(effect.message, effect.bodies)))
            elif isinstance(effect, fx.Reconnect):
                out.append(Reconnect("workers"))
            elif isinstance(effect, fx.StartJob):
                queue = self._children.setdefault(effect.lane, deque())
                queue.append(effect.job)
                if len(queue) == 1:
                    out.append(self._begin(effect.lane))
            elif isinstance(effect, fx.StopJob):
                out.append(Timer(0.01, ("stop", effect.lane, effect.token, effect.interrupt)))
            elif isinstance(effect, fx.KillChild):
                self._children.pop(effect.lane, None)
                out.append(Timer(0.02, ("gone", effect.lane, Death("killed", signal=9))))
            elif isinstance(effect, fx.Discard):
                self._disk.pop(effect.token, None)
            elif isinstance(effect, fx.Remember):
                self._memory = (effect.store_id, effect.epoch)
            elif isinstance(effect, fx.Exit):
                self.exited += 1
        return out

    # ------------------------------------------------------------ children

    def _begin(self, lane: Lane) -> Timer:
        job = self._children[lane][0]
        self._ledger.begin(job.token)
        work = msgspec.msgpack.decode(job.body, type=Work)
        seconds = min(work.seconds, 5.0) if job.attempt <= work.crashes else work.seconds
        return Timer(seconds, ("end", lane, job.token, job.attempt <= work.crashes, work))

    def timer(self, payload: Any, now: float, wall: int) -> None:
        what, lane = payload[:2]
        queue = self._children.get(lane)
        if what == "gone":
            self.core.on_gone(lane, payload[2], now)
        elif queue and what == "end" and queue[0].token == payload[2]:
            self._end(lane, payload[2], payload[3], payload[4], now)
        elif queue and what == "stop":
            self._stop(lane, payload[2], payload[3], now)

    def _end(self, lane: Lane, token: int, crash: bool, work: Work, now: float) -> None:
        if crash:
            self._children.pop(lane)
            self.core.on_gone(lane, Death("crashed", signal=11), now)
            return
        self._finish(lane, pipe.Ended(token, Outcome.DONE.value, work.seconds, work.result), now)

    def _stop(self, lane: Lane, token: int, interrupt: bool, now: float) -> None:
        queue = self._children[lane]
        if queue[0].token == token:
            work = msgspec.msgpack.decode(queue[0].body, type=Work) if queue[0].body else None
            if interrupt and work is not None and not work.stubborn:
                self._finish(lane, pipe.Ended(token, pipe.INTERRUPTED, 0.5), now)
            return
        waiting = next((job for job in queue if job.token == token), None)
        if waiting is not None:
            queue.remove(waiting)
            self.core.on_child(pipe.LeftOut(token), now)

    def _finish(self, lane: Lane, ended: pipe.Ended, now: float) -> None:
        job = self._children[lane].popleft()
        if ended.outcome == Outcome.DONE:
            ended.body += b" of token %x" % ended.token
        if ended.outcome == Outcome.DONE and ended.run_s > SPOOL_AFTER:
            self._ledger.finished.add(ended.token)
            self._disk[ended.token] = (m.ResultItem(job.job_id, job.token, Outcome.DONE, len(ended.body), ended.run_s), ended.body)
        self.core.on_child(ended, now)
        if self._children.get(lane):
            self._next.append(lane)

    def check(self) -> list[str]:
        queued = [job for queue in self.core.lanes.queues.values() for job in queue if job.spec.kind == "long"]
        return self.core.check() + [f"{self.name} was sent a long job for which it has no slot" for _ in queued]
