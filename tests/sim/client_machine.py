"""A client in the World: the real session and tracker, and a plan of jobs to submit and cancel. Its plan is on disk, its memory is not."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import msgspec

from ktrdr_zmq import codec
from ktrdr_zmq import messages as m
from ktrdr_zmq.events import REPAIR_AFTER, JobUpdate, ProgressUpdate, Tracker, Watched
from ktrdr_zmq.jobs import JobSpec, lane_topic
from ktrdr_zmq.session import Answer, ClientSession, Reconnect, Send, Submitted
from ktrdr_zmq.testing import Effect, Frames, Subscribe, Timer, ToServer
from ktrdr_zmq.testing import Reconnect as NewSocket
from tests.sim.ledger import Ledger

LANE = b"sim-cl"


@dataclass(frozen=True)
class Planned:
    """A job to submit at a time, and to cancel some seconds later if ``cancel_after`` is not negative."""

    at: float
    job_id: bytes
    spec: JobSpec
    body: bytes
    cancel_after: float = -1.0


class ClientMachine:
    """Submits its plan again and again until all of it is acknowledged, and wants to hear of every outcome."""

    name = "client"

    def __init__(self, plan: list[Planned], rng: random.Random, ledger: Ledger) -> None:
        self._plan = {job.job_id: job for job in plan}
        self._random = rng
        self._ledger = ledger
        self._session: ClientSession = None  # type: ignore[assignment]
        self._tracker = Tracker()
        self._asked: dict[int, tuple[str, bytes]] = {}
        self._timers: list[Timer] = []
        self._subscribed = False
        self._tick_at = 0.0

    def start(self, now: float, wall: int) -> None:
        self._session = ClientSession(m.ClientInfo(versions=[1]), now, self._random.random)
        self._session.watch(True)
        self._tracker = Tracker()
        self._asked, self._timers, self._subscribed = {}, [], False
        self._tick_at = now
        for job in self._plan.values():
            if job.job_id not in self._ledger.acknowledged:
                self._timers.append(Timer(max(job.at - now, 0.0), ("submit", job.job_id)))
            else:
                self._acknowledged(job, now)

    def stop(self) -> None:
        self._session = None  # type: ignore[assignment]

    def receive(self, port: str, peer: bytes, frames: Frames, now: float, wall: int) -> None:
        if port == "events":
            message, bodies = codec.decode(frames, codec.EVENTS)
            self._tracker.on_event(message, bodies, now)
        else:
            message, bodies = codec.decode(frames, codec.TO_CLIENT)
            self._session.on_message(message, bodies, now)

    def subscribed(self, topic: bytes, now: float, wall: int) -> None:
        raise NotImplementedError

    def unreachable(self, port: str, peer: bytes, now: float, wall: int) -> None:
        raise NotImplementedError

    def timer(self, payload: Any, now: float, wall: int) -> None:
        what, job_id = payload
        job = self._plan[job_id]
        if what == "submit":
            self._session.submit(job_id, msgspec.msgpack.encode(job.spec), job.body, now=now)
        elif what == "cancel" and job_id not in self._ledger.cancelled and job_id not in self._ledger.heard:
            self._ask("cancel", job_id, m.CancelJobs(0, [job_id.hex()], 1.0), now)

    def tick(self, now: float, wall: int) -> None:
        self._session.on_tick(now)
        self._tick_at = now + REPAIR_AFTER / 4
        silent = self._tracker.due(now)
        if silent:
            self._ask("status", b"", m.Status(0, [job_id.hex() for job_id in silent]), now)

    def next_deadline(self) -> float:
        return min(self._session.next_deadline(), self._tick_at)

    def effects(self, now: float, wall: int) -> list[Effect]:
        out: list[Effect] = []
        if not self._subscribed:
            self._subscribed = True
            out.append(Subscribe(lane_topic(LANE)))
        for output in self._session.drain():
            if isinstance(output, Send):
                out.append(ToServer("clients", codec.encode(output.message, output.bodies)))
            elif isinstance(output, Reconnect):
                out.append(NewSocket("clients"))
            elif isinstance(output, Submitted):
                self._answered(output.reply, now)
            elif isinstance(output, Answer):
                self._on_answer(output, now)
        for output in self._session.drain():  # what the answers led to
            assert isinstance(output, Send)
            out.append(ToServer("clients", codec.encode(output.message, output.bodies)))
        timers, self._timers = self._timers, []
        return [*out, *timers]

    # ------------------------------------------------------------ answers

    def _answered(self, reply: m.SubmitReply, now: float) -> None:
        job = self._plan[reply.job_id]
        if reply.code == "OK":
            if reply.job_id not in self._ledger.acknowledged:
                self._ledger.acknowledge(reply.job_id)
                self._acknowledged(job, now)
        elif reply.retryable:
            self._timers.append(Timer(reply.retry_after, ("submit", reply.job_id)))
        else:
            self._ledger.problems.append(f"{reply.job_id.hex()[:8]} was refused: {reply.code}: {reply.text}")

    def _acknowledged(self, job: Planned, now: float) -> None:
        if job.job_id not in self._ledger.heard or job.job_id not in self._ledger.results:
            watched = self._tracker.watch(job.job_id, now)
            watched.heard_at = 0.0  # it may have ended before it was watched
            watched.listeners.append(lambda update: self._on_update(watched, update, now))
        if job.cancel_after >= 0:
            self._timers.append(Timer(job.cancel_after, ("cancel", job.job_id)))

    def _on_update(self, watched: Watched, update: JobUpdate | ProgressUpdate, now: float) -> None:
        if not isinstance(update, JobUpdate) or not update.terminal:
            return
        self._ledger.hear(watched.job_id, update.state.value)
        if update.state.value != "done":
            self._ledger.results.setdefault(watched.job_id, b"")
        elif watched.result is not None:
            self._ledger.results[watched.job_id] = watched.result
        else:
            self._ask("result", watched.job_id, m.ResultGet(0, watched.job_id.hex()), now)

    def _ask(self, what: str, job_id: bytes, message: Any, now: float) -> None:
        self._asked[self._session.request(message, now=now)] = (what, job_id)

    def _on_answer(self, answer: Answer, now: float) -> None:
        what, job_id = self._asked.pop(answer.request)
        if isinstance(answer.reply, m.Nack):
            self._timers += [Timer(1.0, ("cancel", job_id))] if what == "cancel" else []
        elif what == "status":
            for view in answer.reply.jobs:
                self._tracker.on_view(view, now)
            for error in answer.reply.errors:
                self._ledger.problems.append(f"the broker does not know {error.ref[:8]}")
        elif what == "result":
            self._ledger.results[job_id] = answer.bodies[0] if answer.bodies else b""
        elif answer.reply.jobs and answer.reply.jobs[0].state.value in ("cancelling", "cancelled"):
            self._ledger.cancelled.add(job_id)

    def check(self) -> list[str]:
        return []
