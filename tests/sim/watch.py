"""Watches what the broker's core decides, with nothing but what went in and what came out: who is taken for dead, who may speak, who
gets work."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ktrdr_broker.core import Broker
from ktrdr_broker.model import Job, Send, ToWorker
from ktrdr_broker.registry import Liveness
from ktrdr_zmq import messages as m
from ktrdr_zmq.jobs import HELD, Reason

LONGEST_STEP = 1.5
"""Seconds between two signs of the broker's own life; what is longer is its own stall."""
TOLERANCE = 2.5


class Watch:
    """One broker process. ``before``: the jobs as they were on disk when it started.

    Attributes
    ----------
    awake : float
        Seconds for which this process has really run: without its own stalls.
    """

    def __init__(self, core: Broker, now: float, before: Iterable[Job]) -> None:
        self.core = core
        self.problems: list[str] = []
        self.awake = 0.0
        self._now = now
        self._heard: dict[str, float] = {}
        self._begun: dict[int, float] = {}
        self._lost = {a.token for job in before for a in job.attempts if a.reason == Reason.WORKER_LOST}
        self._live, self._held, self._same = b"", list[tuple[Job, int]](), False

    def pass_time(self, now: float) -> None:
        """Something happens now."""
        self.awake += min(now - self._now, LONGEST_STEP)
        self._now = now

    # ------------------------------------------------------------ what goes in

    def hear(self, peer: bytes, message: Any) -> None:
        """A worker's message is about to be handled."""
        worker = self.core.registry.by_peer.get(peer)
        if worker is not None:
            self._heard[worker.worker_id] = self.awake
        if isinstance(message, m.Checkpoint):
            job = self.core.jobs.get(message.job_id)
            self._same = job is not None and job.checkpoint == message.artifact
        if not isinstance(message, m.WorkerHello):
            return
        info = message.info
        known = self.core.registry.workers.get(info.worker_id)
        self._live = known.instance if known is not None and known.state is Liveness.LIVE and known.info.host != info.host else b""
        held = [(self.core.jobs[ref.job_id], ref.token) for ref in message.running if ref.job_id in self.core.jobs]
        self._held = [(job, token) for job, token in held if job.token == token and job.state in HELD]

    def heard(self, message: Any) -> None:
        """It was handled."""
        if isinstance(message, m.Checkpoint):
            job = self.core.jobs.get(message.job_id)
            if job is not None and job.checkpoint == message.artifact and job.token != message.token and not self._same:
                self.problems.append(f"token {message.token:x} left a checkpoint and is not the job's any more")
        if not isinstance(message, m.WorkerHello):
            return
        worker = self.core.registry.workers.get(message.info.worker_id)
        if worker is None or worker.instance != message.info.instance:
            return
        self._heard[worker.worker_id] = self.awake
        if self._live and self._live != worker.instance:
            self.problems.append(f"{worker.worker_id}: another host took the place of one that was alive")
        if worker.hello_seq == message.info.hello_seq:
            for job, token in self._held:
                if job.token != token or job.state not in HELD:
                    self.problems.append(f"token {token:x} was taken from {worker.worker_id}, which came back with it")

    # ------------------------------------------------------------ what comes out

    def decided(self, sends: list[Send]) -> None:
        """What the core wants sent in this turn."""
        for send in sends:
            if isinstance(send, ToWorker) and isinstance(send.message, m.HelloOk):
                for verdict in send.message.verdicts:
                    if verdict.verdict == "CONTINUE" and verdict.token not in self.core.leases.by_token:
                        self.problems.append(f"token {verdict.token:x} may go on and has no lease")
            if isinstance(send, ToWorker) and isinstance(send.message, m.Dispatch):
                worker = self.core.registry.by_peer.get(send.peer)
                self._begun.update((item.token, self.awake) for item in send.message.items)
                if self.core.queues.paused:
                    self.problems.append("work is given although dispatch is paused")
                if worker is not None and (worker.cordoned or worker.draining):
                    self.problems.append(f"{worker.worker_id} is drained and gets work")

    def saved(self, jobs: list[Job]) -> None:
        """What the core wants saved in this turn: who was given up?"""
        for job in jobs:
            for attempt in job.attempts:
                if attempt.reason != Reason.WORKER_LOST:
                    self._lost.discard(attempt.token)
                elif attempt.token not in self._lost:
                    self._lost.add(attempt.token)
                    self._given_up(job, attempt.token, attempt.worker_id)

    def _given_up(self, job: Job, token: int, worker_id: str) -> None:
        config = self.core.config
        heard = self._heard.get(worker_id, 0.0)
        ran = max(heard - self._begun.get(token, heard), 0.0)
        worth = job.spec.reclaim_after or min(ran / 4, config.reclaim_max)
        if self.awake - heard < max(config.dead_after, worth) - TOLERANCE:
            self.problems.append(f"{job.job_id.hex()[:8]} was taken from {worker_id}, which was heard of {self.awake - heard:.1f} s ago")
