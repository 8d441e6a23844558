"""The jobs in this worker's hands, from DISPATCH to the outcome: fetch, start, stop, end, upload. Pure; driven by `ktrdr_worker.core`."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import msgspec

from ktrdr_worker import pipe
from ktrdr_worker.checkpoints import Checkpoints
from ktrdr_worker.effects import Discard, Effect, Fetch, KillChild, Send, StartJob, StopJob
from ktrdr_worker.endings import Endings
from ktrdr_worker.lanes import Assignment, Lane, Lanes, Phase, Stop
from ktrdr_worker.outbox import Outbox
from ktrdr_zmq import messages as m
from ktrdr_zmq.jobs import Artifact, Failure, JobSpec, Outcome

MAX_WAITING: Final = 2000
_SPEC: Final = msgspec.msgpack.Decoder(JobSpec)


class Death(NamedTuple):
    """How a child process ended. ``text`` says it in words.

    ``began``: it had come up; if not, the job in it is not to blame. ``verdict`` is set where the agent killed it for a reason of its own
    (memory): the job fails with that text.
    """

    text: str
    exit_code: int = 0
    signal: int = 0
    began: bool = True
    verdict: str = ""
    stderr_tail: str = ""
    artifacts: tuple[Artifact, ...] = ()


class Timing(NamedTuple):
    """Durations in seconds that concern jobs."""

    accept_delay: float = 0.02
    prefetch_stale: float = 2.0
    stop_grace: float = 10.0


class Duties:
    """All assignments of this worker.

    ``effects`` gathers what is to be done; the core swaps it out. ``last_token`` is the highest that was seen: tokens of a store only grow.
    """

    def __init__(self, lanes: Lanes, outbox: Outbox, kinds: dict[str, tuple[int, int]], timing: Timing) -> None:
        self.lanes = lanes
        self.jobs: dict[int, Assignment] = {}
        self.kinds = kinds
        self.effects: list[Effect] = []
        self.checkpoints = Checkpoints()
        self.refusal = ""
        self._outbox = outbox
        self._endings = Endings(self.jobs, self.checkpoints, outbox)
        self._timing = timing
        self.last_token = 0
        self._specs: dict[bytes, JobSpec] = {}
        self._stopping: dict[int, Assignment] = {}
        self._touched: set[str] = set()

    # ------------------------------------------------------------ taking jobs

    def dispatch(self, item: m.DispatchItem, body: bytes, now: float) -> bool:
        """Take a job in, or turn it down; False for one that was seen before."""
        if item.token <= self.last_token:  # tokens grow: this is a duplicate
            return False
        self.last_token = item.token
        spec = self._spec(item.spec)
        why = self._misfit(item, spec)
        if why or spec is None:
            self._outbox.reject(item.job_id, item.token, self.refusal or "UNFIT", why)
            return True
        job = Assignment(item.job_id, item.token, item.attempt, item.tag, spec, body, item.checkpoint, now)
        self.jobs[item.token] = job
        self.lanes.queues[item.tag].append(job)
        self._touched.add(item.tag)
        return True

    def _spec(self, octets: bytes) -> JobSpec | None:
        spec = self._specs.get(octets)
        if spec is None:
            try:
                spec = _SPEC.decode(octets)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                return None
            if len(self._specs) >= 256:
                self._specs.clear()
            self._specs[octets] = spec
        return spec

    def _misfit(self, item: m.DispatchItem, spec: JobSpec | None) -> str:
        if self.refusal:
            return "This worker takes no jobs now."
        if spec is None:
            return "The job's specification cannot be read."
        versions = self.kinds.get(spec.kind)
        if versions is None or not versions[0] <= spec.schema <= versions[1]:
            return f"This worker has no handler for {spec.kind} of schema {spec.schema}."
        queue = self.lanes.queues.get(item.tag)
        if queue is None or not self.lanes.lanes[item.tag]:
            return f"This worker has no {item.tag} slots."
        return "Too many jobs wait here." if len(queue) >= MAX_WAITING else ""

    def place(self, now: float) -> None:
        """Let waiting jobs begin where there is room. Called once at the end of each turn."""
        while self._touched:
            tag = min(self._touched)  # no hash decides the order: a seed of the World must tell the same story in every process
            self._touched.remove(tag)
            for job in self.lanes.place(tag, now):
                digests = job.digests()
                if digests:
                    job.phase = Phase.FETCHING
                    self.effects.append(Fetch(job, digests))
                else:
                    assert job.lane is not None
                    self.effects.append(StartJob(job.lane, job))

    def on_fetched(self, token: int, error: str, now: float) -> None:
        """A job's inputs are here, or cannot be had."""
        job = self.jobs.get(token)
        if job is None or job.phase is not Phase.FETCHING or job.lane is None:
            return
        if error:
            self._outbox.reject(job.job_id, token, "INPUT_UNAVAILABLE", error)
            self._remove(job, now)
            return
        job.phase = Phase.IN_LANE
        job.lane.since = now
        self.effects.append(StartJob(job.lane, job))

    # ------------------------------------------------------------ what children say

    def on_child(self, frame: pipe.FromChild, now: float, closing: bool = False) -> None:
        """A child has said something; ``closing``: it will be replaced when its jobs are done."""
        if isinstance(frame, pipe.Ended):
            self._ended(frame, now, closing)
            return
        if isinstance(frame, pipe.Ready):
            return
        job = self.jobs.get(frame.token)
        if job is None:
            return
        if isinstance(frame, pipe.LeftOut):
            self._left_out(job, now)
        elif job.stop is Stop.ABORT:  # nobody wants to hear of it
            return
        elif isinstance(frame, pipe.Progress):
            self._outbox.progress(job, frame)
        else:
            self.effects += self.checkpoints.saved(job.job_id, job.token, frame.seq, frame.artifact)

    def _ended(self, frame: pipe.Ended, now: float, closing: bool) -> None:
        job = self.jobs.get(frame.token)
        if job is None or job.lane is None:
            return
        job.lane.closing = job.lane.closing or closing
        self._leave(job, now)
        if job.stop is Stop.ABORT:
            self._forget(job)
            return
        if frame.outcome == pipe.INTERRUPTED:
            self._interrupted(job, frame.run_s, frame.artifacts, "", now)
            return
        if frame.outcome == Outcome.DONE:
            self.lanes.learn(job.spec.kind, frame.run_s)
        outcome = Outcome(frame.outcome)
        item = m.ResultItem(job.job_id, job.token, outcome, len(frame.body), frame.run_s, frame.artifacts, frame.failure, frame.reason)
        self._conclude(job, item, frame.body, now)

    def _left_out(self, job: Assignment, now: float) -> None:
        """A job that stood behind another in a child has not begun, and will not."""
        stop = job.stop
        self._remove(job, now)
        if stop is Stop.CANCEL or stop is Stop.TIMEOUT:
            self._outbox.finish(m.ResultItem(job.job_id, job.token, Outcome.CANCELLED), b"")
        elif stop is not Stop.ABORT:
            self._reject_waiting(job)

    def _reject_waiting(self, job: Assignment) -> None:
        self._outbox.reject(job.job_id, job.token, self.refusal or "PREFETCH_STALE")

    def on_gone(self, lane: Lane, death: Death, now: float) -> None:
        """A lane's child and all it started are gone; its first job is charged, the others begin anew."""
        killed, lane.killing, lane.closing = lane.killing, 0, False
        self._touched.add(lane.tag)
        jobs = list(lane.jobs)
        if jobs and (jobs[0].phase is Phase.FETCHING or self._starts(lane)):  # no child had it yet
            return
        first = jobs.pop(0) if jobs and killed in (0, jobs[0].token) else None
        run_s = now - lane.since
        for job in reversed(jobs):
            self._leave(job, now)
            if job.stop is not None:
                self._left_out(job, now)
            else:
                job.phase, job.since = Phase.QUEUED, now
                self.lanes.queues[job.tag].appendleft(job)
        if first is not None:
            self._leave(first, now)
            self._bury(first, death, run_s, now)

    def _starts(self, lane: Lane) -> bool:
        """Whether a job is about to be given to the lane's child: its inputs have come in this turn."""
        return any(isinstance(effect, StartJob) and effect.lane is lane for effect in self.effects)

    def _bury(self, job: Assignment, death: Death, run_s: float, now: float) -> None:
        """Say how the job ended whose child has died."""
        artifacts = list(death.artifacts)
        if job.stop is not None:
            self._interrupted(job, run_s, artifacts, death.stderr_tail, now)
            return
        if not death.began:
            self._outbox.reject(job.job_id, job.token, "CHILD_START_FAILED", death.text)
            self._forget(job)
            return
        if death.verdict:
            outcome, failure = Outcome.FAILED, Failure("LimitExceeded", death.verdict, stderr_tail=death.stderr_tail)
        else:
            failure = Failure("Crashed", death.text, exit_code=death.exit_code, signal=death.signal, stderr_tail=death.stderr_tail)
            outcome = Outcome.CRASHED
        self._conclude(job, m.ResultItem(job.job_id, job.token, outcome, 0, run_s, artifacts, failure), b"", now)

    def _interrupted(self, job: Assignment, run_s: float, artifacts: list[Artifact], tail: str, now: float) -> None:
        """A job has ended because it was made to; what that is called depends on why."""
        failure = None
        if job.stop is Stop.ABORT:
            self._forget(job)
            return
        if job.stop is Stop.TIMEOUT:
            outcome = Outcome.TIMED_OUT
            failure = Failure("RunTimeout", f"It ran longer than its limit of {job.spec.run_timeout:g} s.", stderr_tail=tail)
        elif job.stop is Stop.CANCEL:
            outcome = Outcome.CANCELLED
        elif job.stop is None:  # SIGTERM from somebody else
            outcome = Outcome.CRASHED
            failure = Failure("Interrupted", "The job's process was told to end (SIGTERM), and not by its worker.", stderr_tail=tail)
        else:
            outcome = Outcome.HANDED_BACK
        self._conclude(job, m.ResultItem(job.job_id, job.token, outcome, 0, run_s, artifacts, failure), b"", now)

    # ------------------------------------------------------------ the end of a job

    def _leave(self, job: Assignment, now: float) -> None:
        """Out of the lane; the slot serves the next one."""
        self.lanes.leave(job, now)
        self._touched.add(job.tag)

    def _remove(self, job: Assignment, now: float) -> None:
        """Out of lane or queue, and out of the book."""
        if job.lane is not None:
            self._leave(job, now)
        elif job.phase is Phase.QUEUED and job in self.lanes.queues[job.tag]:
            self.lanes.queues[job.tag].remove(job)
        self._forget(job, files=job.phase is not Phase.QUEUED)

    def _forget(self, job: Assignment, files: bool = True) -> None:
        self.jobs.pop(job.token, None)
        self._stopping.pop(job.token, None)
        self._endings.drop(job.token)
        self.checkpoints.drop(job.token)
        self._outbox.forget_progress(job.token)
        if files:
            self.effects.append(Discard(job.token))

    def _conclude(self, job: Assignment, item: m.ResultItem, body: bytes, now: float) -> None:
        self._stopping.pop(job.token, None)
        self.effects += self._endings.begin(job, item, body, now)

    def on_uploaded(self, token: int, seq: int, error: str) -> None:
        """Artifacts are stored at the broker (``error`` empty), or never will be."""
        self.effects += self._endings.uploaded(token, seq, error)

    def report_checkpoints(self, session: int) -> list[Send]:
        """CHECKPOINT messages to send now, before any result; jobs that waited for their last one are concluded."""
        sends, uploads = self._endings.reports(session)
        self.effects += uploads
        return sends

    def resume_upload(self, token: int) -> None:
        """The broker lacks artifacts of a result that it was sent, or of a checkpoint."""
        self.effects += self._endings.resume(token)

    # ------------------------------------------------------------ stopping

    def stop(self, token: int, cause: Stop, grace: float, now: float) -> None:
        """Make a job end. For CANCEL of a job that is not here, the answer is that nothing of it runs here."""
        job = self.jobs.get(token)
        if job is None or job.phase is Phase.UPLOADING:
            if job is not None and cause is Stop.ABORT:
                self._forget(job)
            return
        stronger = cause is Stop.ABORT or (cause is Stop.CANCEL and job.stop is Stop.DRAIN)
        # A job that was to be given back may have begun all the same: then it can be drained and timed out like any other.
        if job.stop is not None and not stronger and (job.stop is not Stop.STALE or cause is Stop.STALE):
            return
        job.stop = cause
        if job.phase is not Phase.IN_LANE:
            self._left_out(job, now)
            return
        lane = job.lane
        assert lane is not None
        if cause is Stop.STALE:
            self.effects.append(StopJob(lane, token, False))
            return
        job.kill_at = now + (0.0 if cause is Stop.ABORT else grace)
        self._stopping[token] = job
        self.effects.append(StopJob(lane, token, True))

    def cancel_unknown(self, item: m.CancelItem) -> None:
        """A CANCEL names a token that is not here: nothing of it runs here, and nothing will."""
        self.last_token = max(self.last_token, item.token)
        self._outbox.finish(m.ResultItem(item.job_id, item.token, Outcome.CANCELLED), b"")

    def stop_waiting(self, code: str, now: float) -> None:
        """Give back everything that has not begun; ``code`` is what new jobs are told as well."""
        self.refusal = code
        for queue in self.lanes.queues.values():
            for job in list(queue):
                self._left_out(job, now)
        for lane in self.lanes:
            for job in list(lane.jobs)[1:]:
                self.stop(job.token, Stop.STALE, 0.0, now)

    def forget_queued(self) -> None:
        """The session is lost: what has not begun is not named in HELLO, and goes elsewhere at once."""
        for queue in self.lanes.queues.values():
            for job in queue:
                self.jobs.pop(job.token, None)
            queue.clear()

    # ------------------------------------------------------------ time

    def tick(self, now: float) -> None:
        """Accept what has begun, stop what ran too long, give back what waited too long, kill what does not listen."""
        timing = self._timing
        for queue in self.lanes.queues.values():
            while queue and now >= queue[0].since + timing.prefetch_stale:
                self._left_out(queue[0], now)
        for lane in self.lanes:
            if not lane.jobs:
                continue
            job = lane.jobs[0]
            if not job.accepted and now >= lane.since + timing.accept_delay:
                self._outbox.accept(job, now)
            if job.phase is not Phase.IN_LANE:
                continue
            limit = job.spec.run_timeout
            if limit > 0 and job.stop is None and now >= lane.since + limit:
                self.stop(job.token, Stop.TIMEOUT, timing.stop_grace, now)
            if job.stop is not None and job.token in self._stopping and now >= job.kill_at and not lane.killing:
                lane.killing = job.token
                self.effects.append(KillChild(lane))
            for behind in list(lane.jobs)[1:]:
                if behind.stop is None and now >= behind.since + timing.prefetch_stale:
                    self.stop(behind.token, Stop.STALE, 0.0, now)

    def next_deadline(self) -> float:
        """When `tick` has something to do at the latest."""
        timing = self._timing
        due = math.inf
        for queue in self.lanes.queues.values():
            if queue:
                due = min(due, queue[0].since + timing.prefetch_stale)
        for lane in self.lanes:
            if not lane.jobs:
                continue
            job = lane.jobs[0]
            if not job.accepted:
                due = min(due, lane.since + timing.accept_delay)
            if job.spec.run_timeout > 0 and job.stop is None and job.phase is Phase.IN_LANE:
                due = min(due, lane.since + job.spec.run_timeout)
            if job.token in self._stopping and not lane.killing:
                due = min(due, job.kill_at)
            if len(lane.jobs) > 1 and lane.jobs[1].stop is None:
                due = min(due, lane.jobs[1].since + timing.prefetch_stale)
        return due

    def running(self) -> list[m.JobRef]:
        """What HELLO names as running: begun and not concluded, uploads included."""
        return [
            m.JobRef(job.job_id, job.token) for job in self.jobs.values() if job.phase is not Phase.QUEUED and job.stop is not Stop.ABORT
        ]
