"""A worker's child processes in the World: they only pass the time that their jobs' bodies name, and do what a child may do meanwhile."""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from ktrdr_worker import effects as fx
from ktrdr_worker import pipe
from ktrdr_worker.duties import Death
from ktrdr_worker.lanes import Assignment, Lane
from ktrdr_zmq.jobs import TAG_GPU, Artifact, Device, Failure, Outcome
from ktrdr_zmq.testing import Timer
from tests.sim.ledger import Ledger
from tests.sim.work import Work

WORST = 5.0


class Children:
    """All children of one worker process.

    Parameters
    ----------
    worker : str
    keep : callable
        Puts an outcome on the worker's disk: job, what ended, and whether it may be lost with the process.
    """

    def __init__(self, worker: str, rng: random.Random, ledger: Ledger, keep: Callable[[Assignment, pipe.Ended], None]) -> None:
        self._worker = worker
        self._random = rng
        self._ledger = ledger
        self._keep = keep
        self._queues: dict[Lane, deque[Assignment]] = {}
        self._begun: dict[Lane, float] = {}
        self.timers: list[Timer] = []

    # ------------------------------------------------------------ what the agent wants

    def start(self, effect: fx.StartJob, now: float) -> None:
        """A job for a lane's child, behind those that it has."""
        queue = self._queues.setdefault(effect.lane, deque())
        queue.append(effect.job)
        if len(queue) == 1:
            self._begin(effect.lane, now)

    def stop(self, effect: fx.StopJob) -> None:
        """SIGTERM, or a word through the pipe: it takes a moment."""
        self.timers.append(Timer(0.01, ("stop", effect.lane, effect.token, effect.interrupt)))

    def kill(self, lane: Lane) -> None:
        """SIGKILL to the whole group."""
        self._queues.pop(lane, None)
        self.timers.append(Timer(0.02, ("gone", lane, Death("killed", signal=9))))

    def _begin(self, lane: Lane, now: float) -> None:
        job = self._queues[lane][0]
        wanted = job.spec.device
        fits = wanted is Device.AUTO or (wanted is Device.GPU) == (lane.tag == TAG_GPU)
        self._ledger.begin(job.job_id, job.token, self._worker, fits)
        self._begun[lane] = now
        work = msgspec.msgpack.decode(job.body, type=Work)
        done = self._ledger.fractions[job.checkpoint.digest] if job.checkpoint is not None else 0.0
        if job.attempt <= work.starts_badly and len(self._queues[lane]) == 1:
            self._later(0.05, "bad start", lane, job.token)
        elif job.attempt <= work.crashes:
            self._later(min(work.seconds, WORST) * self._random.uniform(0.3, 1.0), "crash", lane, job.token)
        elif work.outcome == "limit":
            self._later(min(work.seconds, WORST), "limit", lane, job.token)
        else:
            self._later(work.seconds * (1.0 - done), "end", lane, job.token, work)
        for what, every in (("checkpoint", work.checkpoint_every), ("progress", work.progress_every)):
            if every:
                self._later(every, what, lane, job.token, work, done, 1)

    def _later(self, seconds: float, *payload: Any) -> None:
        self.timers.append(Timer(seconds, payload))

    # ------------------------------------------------------------ what becomes of it

    def timer(self, payload: tuple[Any, ...], core: Any, now: float) -> None:
        """Something is due at a child."""
        what, lane, *rest = payload
        if what == "gone":
            core.on_gone(lane, rest[0], now)
            return
        queue = self._queues.get(lane)
        if not queue:
            return
        if what == "stop":
            self._stop(lane, rest[0], rest[1], core, now)
        elif queue[0].token == rest[0]:
            self._act(what, lane, queue[0], rest[1:], core, now)

    def _act(self, what: str, lane: Lane, job: Assignment, rest: list[Any], core: Any, now: float) -> None:
        if what == "end":
            self._end(lane, job, rest[0], core, now)
        elif what == "crash":
            self._ledger.deaths[job.job_id] += 1
            del self._queues[lane]
            core.on_gone(lane, Death("crashed", signal=11), now)
        elif what == "bad start":
            del self._queues[lane]
            core.on_gone(lane, Death("no process", began=False), now)
        elif what == "limit":
            del self._queues[lane]
            core.on_gone(lane, Death("killed", signal=9, verdict="It used too much memory."), now)
        else:
            self._report(what, lane, job, rest, core, now)

    def _report(self, what: str, lane: Lane, job: Assignment, rest: list[Any], core: Any, now: float) -> None:
        work, before, number = rest
        every = work.checkpoint_every if what == "checkpoint" else work.progress_every
        fraction = min(before + number * every / work.seconds, 1.0)
        self._later(every, what, lane, job.token, work, before, number + 1)
        if what == "progress":
            core.on_child(pipe.Progress(job.token, fraction, "work", "", []), now)
            return
        seq = (job.attempt << 20) + number
        artifact = self._ledger.checkpoint(job.job_id, job.token, seq, fraction)
        core.on_child(pipe.Checkpointed(job.token, seq, artifact), now)

    def _end(self, lane: Lane, job: Assignment, work: Work, core: Any, now: float) -> None:
        frame = pipe.Ended(job.token, Outcome.DONE.value, work.seconds)
        if work.outcome == "retry" and job.attempt <= work.times:
            frame.outcome = Outcome.RETRY.value
        elif work.outcome in ("fail", "too large"):
            frame.outcome, frame.failure = Outcome.FAILED.value, Failure("ValueError", "It does not work.")
            frame.reason = "RESULT_TOO_LARGE" if work.outcome == "too large" else ""
        else:
            frame.body = work.result + b" of token %x" % job.token
        if work.product or work.outcome == "unstorable":
            frame.artifacts = [_file("huge" if work.outcome == "unstorable" else "product", job)]
        if work.log:
            frame.artifacts = [*frame.artifacts, _file("log", job)]
        self._finish(lane, frame, core, now)

    def _stop(self, lane: Lane, token: int, interrupt: bool, core: Any, now: float) -> None:
        queue = self._queues[lane]
        if queue[0].token == token:
            work = msgspec.msgpack.decode(queue[0].body, type=Work) if queue[0].body else None
            if interrupt and work is not None and not work.stubborn:
                self._finish(lane, pipe.Ended(token, pipe.INTERRUPTED, now - self._begun[lane]), core, now)
            return
        waiting = next((job for job in queue if job.token == token), None)
        if waiting is not None:
            queue.remove(waiting)
            core.on_child(pipe.LeftOut(token), now)

    def _finish(self, lane: Lane, ended: pipe.Ended, core: Any, now: float) -> None:
        job = self._queues[lane].popleft()
        replaced = not self._queues[lane] and (lane.tag == TAG_GPU or self._random.random() < 0.05)
        if ended.outcome != pipe.INTERRUPTED and ended.run_s > 1.0:
            self._keep(job, ended)
        core.on_child(ended, now, replaced)
        if replaced:
            del self._queues[lane]
            self._later(0.05, "gone", lane, Death("replaced"))
        elif self._queues[lane]:
            self._begin(lane, now)

    def take(self) -> list[Timer]:
        """What is to happen later."""
        timers, self.timers = self.timers, []
        return timers


def _file(name: str, job: Assignment) -> Artifact:
    return Artifact(name, hashlib.sha256(b"%s %x" % (name.encode(), job.token)).digest(), 1)
