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
from tests.sim.bulk import Transfers
from tests.sim.ledger import Ledger

LANE = b"sim-cl"
NEVER = 1e9


def numbered(number: int) -> bytes:
    """The id of a planned job."""
    return number.to_bytes(4, "big") + bytes(6) + LANE


@dataclass(frozen=True)
class Planned:
    """A job to submit at a time (`NEVER`: it comes from another one's end), and to cancel some seconds later if ``cancel_after`` is not
    negative. ``then`` is "retry" or "resume": what to do when it has ended, under the id ``then_id``.
    """

    at: float
    job_id: bytes
    spec: JobSpec
    body: bytes
    cancel_after: float = -1.0
    then: str = ""
    then_id: bytes = b""


class Talker:
    """What every client machine has: a session, and a memory of what it asked."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self.name = name
        self.session: ClientSession = None  # type: ignore[assignment]
        self._random = rng

    def start(self, now: float, wall: int) -> None:
        self.session = ClientSession(m.ClientInfo(versions=[1], submitter=self.name), now, self._random.random)
        self.session.watch(True)
        self._asked: dict[int, tuple[Any, ...]] = {}
        self._out: list[Effect] = []

    def stop(self) -> None:
        self.session = None  # type: ignore[assignment]

    def subscribed(self, topic: bytes, now: float, wall: int) -> None:
        raise NotImplementedError

    def unreachable(self, port: str, peer: bytes, now: float, wall: int) -> None:
        raise NotImplementedError

    def ask(self, message: Any, now: float, *what: Any) -> None:
        """Ask something; `answered` gets ``what`` with the answer."""
        self._asked[self.session.request(message, now=now)] = what

    def answered(self, what: tuple[Any, ...], reply: Any, bodies: list[bytes], now: float) -> None:
        raise NotImplementedError

    def submitted(self, reply: m.SubmitReply, now: float) -> None:
        raise NotImplementedError

    def effects(self, now: float, wall: int) -> list[Effect]:
        for _ in range(2):  # the second time what the answers led to
            for output in self.session.drain():
                if isinstance(output, Send):
                    self._out.append(ToServer("clients", codec.encode(output.message, output.bodies)))
                elif isinstance(output, Reconnect):
                    self._out.append(NewSocket("clients"))
                elif isinstance(output, Submitted):
                    self.submitted(output.reply, now)
                elif isinstance(output, Answer):
                    self.answered(self._asked.pop(output.request), output.reply, output.bodies, now)
        out, self._out = self._out, []
        return out

    def check(self) -> list[str]:
        return []


class ClientMachine(Talker):
    """Submits its plan again and again until all of it is acknowledged, and wants to hear of every outcome."""

    def __init__(self, plan: list[Planned], rng: random.Random, ledger: Ledger, name: str = "client") -> None:
        super().__init__(name, rng)
        self._plan = {job.job_id: job for job in plan}
        self._ledger = ledger
        self._tracker = Tracker()
        self._tick_at = 0.0

    def start(self, now: float, wall: int) -> None:
        super().start(now, wall)
        self._tracker = Tracker()
        self._transfers = Transfers()
        self._tick_at = now
        self._began = getattr(self, "_began", now)
        self._out.append(Subscribe(lane_topic(LANE)))
        for job in self._plan.values():
            if job.job_id in self._ledger.acknowledged:
                self._acknowledged(job, now)
            elif job.at < NEVER:
                self._later(max(self._began + job.at - now, 0.0), "submit", job.job_id)

    def add(self, job: Planned) -> None:
        """One more job, to be submitted now, or at the next start if this process is down."""
        self._plan[job.job_id] = job
        if self.session is not None:
            self._later(0.0, "submit", job.job_id)

    def receive(self, port: str, peer: bytes, frames: Frames, now: float, wall: int) -> None:
        if port == "events":
            message, bodies = codec.decode(frames, codec.EVENTS)
            self._tracker.on_event(message, bodies, now)
        elif port == "bulk":
            self._transfers.receive(frames, now)
        else:
            message, bodies = codec.decode(frames, codec.TO_CLIENT)
            self.session.on_message(message, bodies, now)

    def timer(self, payload: Any, now: float, wall: int) -> None:
        what, job_id = payload
        if what == "bulk":
            self._transfers.timer(job_id)
            return
        job = self._plan[job_id]
        if what == "submit":
            self.session.submit(job_id, msgspec.msgpack.encode(job.spec), job.body, now=now)
        elif what == "cancel" and job_id not in self._ledger.cancelled and job_id not in self._ledger.heard:
            self._ledger.cancel_asked.add(job_id)
            self.ask(m.CancelJobs(0, [job_id.hex()], 1.0), now, "cancel", job_id)
        elif what == "again" and not {job.then_id} & (self._ledger.acknowledged | self._ledger.refused):
            self.ask(m.Retry(0, job_id.hex(), job.then_id, job.then == "resume"), now, "again", job_id)

    def _later(self, seconds: float, what: str, job_id: bytes) -> None:
        self._out.append(Timer(seconds, (what, job_id)))

    def tick(self, now: float, wall: int) -> None:
        self.session.on_tick(now)
        self._tick_at = now + REPAIR_AFTER / 4
        silent = self._tracker.due(now)
        if silent:
            self.ask(m.Status(0, [job_id.hex() for job_id in silent]), now, "status")

    def next_deadline(self) -> float:
        return min(self.session.next_deadline(), self._tick_at)

    def effects(self, now: float, wall: int) -> list[Effect]:
        return [*super().effects(now, wall), *self._transfers.take()]

    # ------------------------------------------------------------ answers

    def submitted(self, reply: m.SubmitReply, now: float) -> None:
        job_id = reply.job_id
        if reply.code == "OK":
            if job_id not in self._ledger.acknowledged:
                self._ledger.acknowledge(job_id)
                self._acknowledged(self._plan[job_id], now)
        elif reply.code == "MISSING_ARTIFACT":
            left = set(reply.missing)

            def done(digest: bytes) -> None:
                left.discard(digest)
                if not left:
                    self.timer(("submit", job_id), self.session._now, 0)

            for digest in reply.missing:
                self._transfers.put(digest, lambda error, now, digest=digest: done(digest))
        elif reply.retryable or reply.code == "NO_CAPABLE_WORKER":
            self._later(max(reply.retry_after, 0.5), "submit", job_id)
        else:
            self._ledger.problems.append(f"{job_id.hex()[:8]} was refused: {reply.code}: {reply.text}")

    def _acknowledged(self, job: Planned, now: float) -> None:
        if job.job_id not in self._ledger.heard or job.job_id not in self._ledger.results:
            watched = self._tracker.watch(job.job_id, now)
            watched.heard_at = 0.0  # it may have ended before it was watched
            watched.listeners.append(lambda update: self._on_update(watched, update))
        elif job.then:
            self._later(0.1, "again", job.job_id)
        if job.cancel_after >= 0:
            self._later(job.cancel_after, "cancel", job.job_id)

    def _on_update(self, watched: Watched, update: JobUpdate | ProgressUpdate) -> None:
        if not isinstance(update, JobUpdate) or not update.terminal:
            return
        self._ledger.hear(watched.job_id, update.state.value)
        if update.state.value != "done":
            self._ended(watched.job_id, b"")
        elif watched.result is not None:
            self._ended(watched.job_id, watched.result)
        else:
            self.ask(m.ResultGet(0, watched.job_id.hex()), self.session._now, "result", watched.job_id)

    def _ended(self, job_id: bytes, result: bytes) -> None:
        self._ledger.results.setdefault(job_id, result)
        if self._plan[job_id].then:
            self._later(0.1, "again", job_id)

    def answered(self, what: tuple[Any, ...], reply: Any, bodies: list[bytes], now: float) -> None:
        if what[0] == "status":
            if isinstance(reply, m.StatusReply):
                for view in reply.jobs:
                    self._tracker.on_view(view, now)
                for error in reply.errors:
                    self._removed(bytes.fromhex(error.ref))
        elif what[0] == "cancel":
            if isinstance(reply, m.Nack):
                self._later(1.0, "cancel", what[1])
            elif reply.jobs and reply.jobs[0].state.value in ("cancelling", "cancelled"):
                self._ledger.cancelled.add(what[1])
        elif what[0] == "result":
            if isinstance(reply, m.ResultReply):
                self._ended(what[1], bodies[0] if bodies else b"")
            else:
                self._removed(what[1])
        else:
            self._again(what[1], reply, now)

    def _again(self, job_id: bytes, reply: Any, now: float) -> None:
        new = self._plan[self._plan[job_id].then_id]
        if isinstance(reply, m.RetryReply):
            self._ledger.acknowledge(new.job_id)
            self._acknowledged(new, now)
        elif reply.retryable:
            self._later(1.0, "again", job_id)
        else:  # nothing to go on from, or removed meanwhile
            self._ledger.refused.add(new.job_id)

    def _removed(self, job_id: bytes) -> None:
        """Somebody has pruned it: how it ended is not to be had any more."""
        if job_id not in self._ledger.store.known:
            self._ledger.problems.append(f"the broker does not know {job_id.hex()[:8]}")
            return
        state, result = self._ledger.store.outcomes[job_id]
        self._tracker.drop(job_id)
        self._ledger.heard.setdefault(job_id, state)
        self._ended(job_id, result or b"")
