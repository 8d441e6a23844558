"""The life of a lease: dispatch, outcome, return to the queue, cancel, and the two kinds of death. Pure.

Confirmed death (the worker says so, or its HELLO does not list the job) returns a job at once. Presumed death (silence) waits in
proportion to what would be lost, and the worker may still come back and go on, until the job is given to another.
"""

from __future__ import annotations

from ktrdr_broker.ledger import Ledger
from ktrdr_broker.model import Job
from ktrdr_broker.queues import Placement, Queues
from ktrdr_broker.registry import Lease, Liveness, Registry, Worker
from ktrdr_zmq import messages as m
from ktrdr_zmq.jobs import HELD, TAG_CPU, TERMINAL, Attempt, Device, Failure, JobState, Outcome, Reason

RECORDED = "RECORDED"
FORGET = "FORGET"
MISSING_ARTIFACT = "MISSING_ARTIFACT"
LONGEST_RUN = 1e9
"""Seconds (thirty years); what a worker says beyond is nonsense, and would not fit a column."""


class _Batch:
    """One DISPATCH in the making."""

    __slots__ = ("bodies", "items", "size", "worker")

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.items: list[m.DispatchItem] = []
        self.bodies: list[bytes] = []
        self.size = 0


class Leases:
    """All jobs in the hands of workers."""

    def __init__(self, ledger: Ledger, registry: Registry, queues: Queues) -> None:
        self._ledger = ledger
        self._registry = registry
        self._queues = queues
        self.by_token: dict[int, Lease] = {}

    # ------------------------------------------------------------ start

    def restore(self) -> None:
        """After a restart: queued jobs wait again, leased ones wait for their workers."""
        ledger = self._ledger
        for job in sorted(ledger.jobs.values(), key=lambda job: job.seq):
            job.ready = ledger.now
            if job.state is JobState.QUEUED:
                self._queues.add(job)
            elif job.state in HELD:
                self._hold(job, self._registry.expect(job, ledger.now))

    def dispatch(self, placements: list[Placement]) -> None:
        """Give jobs to workers, one DISPATCH for each worker and as many as fit a message."""
        ledger = self._ledger
        limit = ledger.config.max_message // 2
        batches: dict[str, _Batch] = {}
        for job, worker, tag in placements:
            self._lease(job, worker, tag)
            size = len(job.body) + len(job.spec_raw)
            batch = batches.get(worker.worker_id)
            if batch is None or batch.size + size > limit:
                if batch is not None:
                    self._send(batch)
                batch = batches[worker.worker_id] = _Batch(worker)
            batch.items.append(m.DispatchItem(job.job_id, job.token, job.attempt, tag, job.spec_raw, len(job.body), job.checkpoint))
            batch.bodies.append(job.body)
            batch.size += size
        ledger.counters["dispatched"] += len(placements)
        for batch in batches.values():
            self._send(batch)

    def _send(self, batch: _Batch) -> None:
        self._ledger.to_worker(batch.worker.peer, m.Dispatch(batch.worker.session, batch.items), tuple(batch.bodies))

    def _lease(self, job: Job, worker: Worker, tag: str) -> None:
        """Enter a new attempt in the book."""
        ledger = self._ledger
        job.token = ledger.next_token()
        job.attempt = len(job.attempts) + 1
        job.worker_id, job.instance, job.tag = worker.worker_id, worker.instance, tag
        job.attempts.append(Attempt(job.attempt, job.token, worker.worker_id, worker.instance, tag, ledger.wall))
        fallback = tag == TAG_CPU and job.spec.device is Device.AUTO and self._registry.gpu_hope(job.spec, ledger.now)
        job.notice = "Runs on a CPU: no GPU slot was free." if fallback else ""
        ledger.move(job, JobState.LEASED, Reason.DISPATCHED, publish=False)
        self._hold(job, worker)

    def _hold(self, job: Job, worker: Worker) -> Lease:
        mean = self._registry.means.get(job.spec.kind)
        long = mean is None or mean >= self._ledger.config.short_job
        lease = Lease(job, worker, job.tag, self._ledger.now, long)
        if job.attempts:  # after a restart or a return only the wall clock knows how long it has been running
            lease.started -= max(self._ledger.wall - job.attempts[-1].leased_at, 0) / 1e6
        self.by_token[job.token] = worker.leases[job.token] = lease
        if long:
            worker.long_leases[job.tag] = worker.long_leases.get(job.tag, 0) + 1
        return lease

    def release(self, job: Job) -> None:
        """The lease is over; what becomes of the job is the caller's affair."""
        lease = self.by_token.pop(job.token, None)
        if lease is not None:
            del lease.worker.leases[job.token]
            if lease.long:
                lease.worker.long_leases[lease.tag] -= 1

    # ------------------------------------------------------------ while it runs

    def accept(self, job: Job) -> None:
        """The worker has the job in its hands."""
        lease = self.by_token.get(job.token)
        if lease is None or lease.accepted_at is not None:
            return
        lease.accepted_at = self._ledger.now
        if job.state is JobState.LEASED:
            job.started_at = job.started_at or self._ledger.wall
            self._ledger.move(job, JobState.RUNNING, Reason.ACCEPTED)

    def readopt(self, job: Job, worker: Worker) -> None:
        """A worker that was presumed dead still runs the job, and nobody else does: it goes on."""
        before = self.by_token.get(job.token)
        if job.state is JobState.QUEUED:
            self._queues.remove(job)
            job.worker_id, job.instance = worker.worker_id, worker.instance
            job.attempts[-1].ended_at, job.attempts[-1].reason, job.attempts[-1].failure = 0, "", None
            job.losses = max(job.losses - 1, 0)
            self._ledger.counters["losses"] -= self._ledger.counters["losses"] > 0
            self._ledger.move(job, JobState.LEASED, Reason.DISPATCHED, publish=False)
            lease = self._hold(job, worker)
        else:
            self.release(job)
            lease = self._hold(job, worker)
            if job.worker_id != worker.worker_id or job.instance != worker.instance:
                job.worker_id, job.instance = worker.worker_id, worker.instance
                self._ledger.save(job)
        if before is not None:
            lease.started = before.started
        if job.state is JobState.LEASED:
            self.accept(job)
        else:
            lease.accepted_at = self._ledger.now

    def owned(self, job_id: bytes, token: int) -> Job | None:
        """The job, if this token still holds it or may take it back up."""
        job = self._ledger.jobs.get(job_id)
        if job is None or job.token != token or token == 0:
            return None
        if job.state in HELD or (job.state is JobState.QUEUED and job.reason == Reason.WORKER_LOST):
            return job
        return None

    # ------------------------------------------------------------ how it ends

    def outcome(self, item: m.ResultItem, body: bytes, worker: Worker | None) -> str:
        """Record how an attempt ended; exactly one outcome of a job is ever recorded.

        Returns
        -------
        str
            The verdict for RESULT_ACK.
        """
        ledger = self._ledger
        job = self.owned(item.job_id, item.token)
        if job is None:
            known = ledger.jobs.get(item.job_id)
            if known is not None and known.state in TERMINAL and known.token == item.token:
                return RECORDED
            ledger.counters["stale_results"] += 1
            return FORGET
        if item.artifacts and item.outcome in (Outcome.DONE, Outcome.FAILED) and ledger.missing([a.digest for a in item.artifacts]):
            return MISSING_ARTIFACT
        if job.state is JobState.QUEUED:
            holder = job.attempts[-1].worker_id
            self.readopt(job, worker or self._registry.workers.get(holder) or Worker(holder, ledger.now))
        self._record(job, item, body)
        return RECORDED

    def _record(self, job: Job, item: m.ResultItem, body: bytes) -> None:
        ledger = self._ledger
        self.release(job)
        job.run_s = item.run_s if 0.0 <= item.run_s < LONGEST_RUN else 0.0
        job.started_at = job.started_at or ledger.wall - int(job.run_s * 1e6)
        if item.artifacts or job.artifacts:
            ledger.attach(job, [artifact for artifact in item.artifacts if artifact.digest in ledger.artifacts])
        if job.state is JobState.CANCELLING:
            self._end_attempt(job, Reason.CANCELLED, item.failure)
            self._finish(job, JobState.CANCELLED, Reason.CANCELLED)
        elif item.outcome is Outcome.DONE:
            self._registry.learn(job.spec.kind, job.run_s)
            self._end_attempt(job, Reason.COMPLETED, None)
            job.failure = None
            ledger.keep_result(job, body)
            self._finish(job, JobState.DONE, Reason.COMPLETED)
        elif item.outcome is Outcome.FAILED:
            reason = Reason.RESULT_TOO_LARGE if item.reason == Reason.RESULT_TOO_LARGE else Reason.HANDLER_ERROR
            self._fail(job, JobState.FAILED, reason, item.failure)
        elif item.outcome is Outcome.TIMED_OUT:
            self._fail(job, JobState.TIMED_OUT, Reason.RUN_TIMEOUT, item.failure)
        elif item.outcome is Outcome.CRASHED:
            self._crashed(job, item.failure)
        elif item.outcome is Outcome.RETRY:
            self._retry_later(job, item.failure)
        else:  # handed back, or stopped without anybody having asked for it
            self._end_attempt(job, Reason.HANDED_BACK, item.failure)
            self.requeue(job, Reason.HANDED_BACK)

    def _crashed(self, job: Job, failure: Failure | None) -> None:
        job.crashes += 1
        self._ledger.counters["crashes"] += 1
        if job.crashes >= job.spec.max_crashes:
            self._fail(job, JobState.FAILED, Reason.CRASH_LIMIT, failure)
        else:
            self._end_attempt(job, Reason.CRASHED, failure)
            self.requeue(job, Reason.CRASHED)

    def _retry_later(self, job: Job, failure: Failure | None) -> None:
        config = self._ledger.config
        job.retries += 1
        if job.retries > config.max_retries:
            self._fail(job, JobState.FAILED, Reason.RETRY_LIMIT, failure)
        else:
            self._end_attempt(job, Reason.RETRY_LATER, failure)
            pause = min(config.retry_base * 2 ** (job.retries - 1), config.retry_cap)
            self.requeue(job, Reason.RETRY_LATER, not_before=self._ledger.now + pause)

    def _fail(self, job: Job, state: JobState, reason: Reason, failure: Failure | None) -> None:
        self._end_attempt(job, reason, failure)
        job.failure = failure
        self._finish(job, state, reason)

    def _finish(self, job: Job, state: JobState, reason: Reason) -> None:
        self._queues.forget(job)
        self._ledger.move(job, state, reason)

    def _end_attempt(self, job: Job, reason: Reason, failure: Failure | None) -> None:
        if job.attempts:
            last = job.attempts[-1]
            last.ended_at, last.reason, last.failure = self._ledger.wall, reason, failure

    def requeue(self, job: Job, reason: Reason, *, not_before: float = 0.0) -> None:
        """Let a job whose lease is over wait again, before those that came after it."""
        job.ready = not_before or self._ledger.now
        job.fraction, job.stage, job.text, job.metrics, job.progress_seq = 0.0, "", "", [], -1
        self._ledger.counters["requeued"] += 1
        self._ledger.move(job, JobState.QUEUED, reason)
        self._queues.add(job, front=True, not_before=not_before)

    def reject(self, job: Job, code: str) -> None:
        """The worker did not take the job: nothing is charged, and if it never began, there was no attempt."""
        lease = self.by_token.get(job.token)
        self.release(job)
        if job.state is JobState.LEASED and job.attempts:
            job.attempts.pop()
        else:
            self._end_attempt(job, Reason.REJECTED, None)
        if job.state is JobState.CANCELLING:
            self._finish(job, JobState.CANCELLED, Reason.CANCELLED)
            return
        if lease is not None and code != "PREFETCH_STALE":
            self._queues.exclude(job, lease.worker.worker_id, self._ledger.now + self._ledger.config.reject_pause)
        self.requeue(job, Reason.REJECTED)

    def lost(self, lease: Lease, reason: Reason) -> None:
        """The agent or host that held the job is gone (or presumed so): count it, and let the job run elsewhere."""
        job = lease.job
        started = lease.accepted_at is not None or job.state is JobState.RUNNING
        self.release(job)
        if job.state is JobState.CANCELLING:
            self._end_attempt(job, Reason.CANCELLED, None)
            self._finish(job, JobState.CANCELLED, Reason.CANCELLED)
            return
        if not started and reason is not Reason.WORKER_LOST:
            job.attempts.pop()
            self.requeue(job, reason)
            return
        job.losses += 1
        self._ledger.counters["losses"] += 1
        what = "fell silent" if reason is Reason.WORKER_LOST else "went away"
        failure = Failure("WorkerLost", f"Worker {lease.worker.worker_id} {what} while it had the job.")
        if job.losses > job.spec.max_losses:
            self._fail(job, JobState.FAILED, Reason.LOSS_LIMIT, failure)
            return
        self._end_attempt(job, reason, failure)
        self.requeue(job, reason)

    # ------------------------------------------------------------ cancel

    def cancel(self, job: Job, grace: float) -> None:
        """Stop a job: at once if it waits, else when its worker says that the processes are gone."""
        if job.state is JobState.QUEUED:
            self._queues.remove(job)
            self._finish(job, JobState.CANCELLED, Reason.CANCELLED)
        elif job.state in (JobState.LEASED, JobState.RUNNING):
            self._ledger.move(job, JobState.CANCELLING, Reason.CANCEL_REQUESTED)
            self.send_cancel(job, grace)

    def send_cancel(self, job: Job, grace: float = 10.0) -> None:
        """Tell the worker; said again with its heartbeats until it answers."""
        lease = self.by_token.get(job.token)
        if lease is not None and lease.worker.peer:
            lease.cancel_sent = self._ledger.now
            self._ledger.to_worker(lease.worker.peer, m.Cancel([m.CancelItem(job.job_id, job.token, grace)]))

    def queue_timeout(self, job: Job) -> None:
        """A job has waited for as long as it was to wait."""
        self._queues.remove(job)
        failure = Failure("QueueTimeout", f"No worker was free for it within {job.spec.queue_timeout:g} s.")
        job.failure = failure
        self._finish(job, JobState.TIMED_OUT, Reason.QUEUE_TIMEOUT)

    # ------------------------------------------------------------ death

    def presume_dead(self, worker: Worker) -> None:
        """Silence for too long: each job goes back to the queue after a time that fits what it would lose."""
        config = self._ledger.config
        for lease in worker.leases.values():
            ran = max(worker.last_seen - lease.started, 0.0)
            wanted = lease.job.spec.reclaim_after or min(ran / 4, config.reclaim_max)
            lease.reclaim_at = worker.last_seen + max(wanted, config.dead_after)

    def reclaim_due(self, now: float) -> None:
        """Take back what silent workers have held for long enough."""
        for worker in self._registry:
            if worker.leases and worker.state is Liveness.DEAD:
                for lease in [x for x in worker.leases.values() if x.reclaim_at is not None and x.reclaim_at <= now]:
                    self.lost(lease, Reason.WORKER_LOST)
