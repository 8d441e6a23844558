"""Rows as people see them: job and worker views, the status document, and explanations. Pure, and changes nothing."""

from __future__ import annotations

from typing import Any

from ktrdr_broker.ledger import Ledger
from ktrdr_broker.model import Job
from ktrdr_broker.queues import Queues
from ktrdr_broker.registry import Liveness, Registry, Worker, tags_for
from ktrdr_zmq import messages as m
from ktrdr_zmq.jobs import HELD, TAG_GPU, TERMINAL, Device, JobState, Reason


def job_view(job: Job, *, details: bool = False) -> m.JobView:
    """A job without its body; ``details`` adds failure text, the history of attempts and the inputs."""
    spec = job.spec
    done = job.state is JobState.DONE
    view = m.JobView(
        job_id=job.job_id, seq=job.seq, rev=job.rev, kind=spec.kind, state=job.state, reason=job.reason, name=spec.name,
        labels=list(spec.labels), submitter=spec.submitter, priority=job.priority, device=spec.device, attempt=job.attempt,
        worker_id=job.worker_id, tag=job.tag, crashes=job.crashes, losses=job.losses, submitted_at=job.submitted_at,
        started_at=job.started_at, finished_at=job.finished_at, run_s=job.run_s, fraction=1.0 if done else job.fraction,
        stage=job.stage, text=job.text, metrics=job.metrics, artifacts=job.artifacts, failure=job.failure, notice=job.notice,
        retry_of=spec.retry_of, result_size=job.result_size, checkpoint_seq=job.checkpoint_seq,
    )  # fmt: skip
    if details:
        view.attempts = job.attempts
        view.inputs = list(spec.inputs)
    return view


def worker_view(worker: Worker, now: float) -> m.WorkerView:
    """A worker with what it offers and what it has in hand."""
    info = worker.info
    gpus = len(info.devices) or worker.slots.get(TAG_GPU, 0)
    kind = "simulated" if info.simulated_gpu else (info.devices[0].type if info.devices else None)
    return m.WorkerView(
        worker_id=worker.worker_id, state=worker.state, gpu=worker.has_gpu, gpu_type=kind if worker.has_gpu else None,
        gpu_count=gpus if worker.has_gpu else 0, simulated_gpu=info.simulated_gpu, address=worker.address, hostname=info.hostname,
        slots=list(worker.slots.items()), kinds=[(kind, low, high) for kind, (low, high) in worker.kinds.items()],
        running=[lease.job.job_id for lease in worker.leases.values()], draining=worker.draining or worker.cordoned,
        silent_s=max(now - worker.last_seen, 0.0), connected_at=worker.connected_at, software=info.software, numeric=info.numeric,
        pid=info.pid, cpus=info.cpus, memory=info.memory, lag=worker.lag, load=worker.load,
    )  # fmt: skip


def status_document(ledger: Ledger, registry: Registry, queues: Queues) -> dict[str, Any]:
    """Counters and gauges for ``ktrdr status``."""
    states: dict[str, int] = {}
    for job in ledger.jobs.values():
        states[job.state.value] = states.get(job.state.value, 0) + 1
    workers: dict[str, int] = {}
    for worker in registry:
        workers[worker.state.value] = workers.get(worker.state.value, 0) + 1
    return {
        "schema": 1,
        "epoch": ledger.epoch,
        "store_id": ledger.store_id.hex(),
        "counters": dict(ledger.counters),
        "states": states,
        "queued": queues.depths(),
        "queued_octets": queues.octets,
        "paused": queues.paused,
        "workers": workers,
        "artifacts": {"count": len(ledger.artifacts), "octets": sum(row.size for row in ledger.artifacts.values())},
        "mean_run_s": dict(registry.means),
    }


class Explainer:
    """Says why a job is where it is, by asking the dispatch predicate itself."""

    def __init__(self, ledger: Ledger, registry: Registry, queues: Queues) -> None:
        self._ledger = ledger
        self._registry = registry
        self._queues = queues

    def explain(self, job: Job) -> tuple[str, list[tuple[str, str]]]:
        """A sentence, and one line for each worker that could matter."""
        if job.state in TERMINAL:
            return f"The job has ended: {job.state.value} ({job.reason}).", []
        if job.state in HELD:
            return self._held(job), []
        lines = [(worker.worker_id, self._why_not(job, worker)) for worker in self._registry if self._matters(worker)]
        return self._waiting(job, lines), lines

    def _held(self, job: Job) -> str:
        worker = self._registry.workers.get(job.worker_id)
        lease = worker.leases.get(job.token) if worker is not None else None
        where = f"worker {job.worker_id} ({job.tag}), attempt {job.attempt}"
        if worker is None or lease is None:
            return f"The job is with {where}."
        if worker.state is Liveness.EXPECTED:
            return f"The broker was restarted; it waits for {where} to come back before it gives the job to another."
        if worker.state is Liveness.DEAD and lease.reclaim_at is not None:
            left = max(lease.reclaim_at - self._ledger.now, 0.0)
            return f"The job is with {where}, which has fallen silent. If it stays away, the job runs elsewhere in {left:.0f} s."
        if job.state is JobState.CANCELLING:
            return f"The job is being cancelled at {where}; it ends when its processes are gone."
        if lease.accepted_at is None:
            return f"The job was sent to {where} a moment ago."
        return f"The job runs at {where}."

    def _waiting(self, job: Job, lines: list[tuple[str, str]]) -> str:
        pause = self._queues.pause_left(job, self._ledger.now)
        if self._queues.paused:
            return "The job waits: dispatch is paused. Go on with: ktrdr broker unpause"
        if pause:
            return f"The job waits {pause:.0f} s before it is tried again, as its handler asked."
        if not self._registry.capable(job.spec, self._ledger.now):
            return f"The job waits for a worker that can run it. {self._registry.nobody_text(job.spec, self._ledger.now)}"
        if any(not reason for _, reason in lines):
            return "The job is about to be sent."
        rank = (-job.priority, job.seq)
        ahead = sum((-other.priority, other.seq) < rank for other in self._queues.jobs.values())
        after = f" It came back to the queue: {job.reason}." if job.reason not in (Reason.SUBMITTED, "") else ""
        return f"The job waits for a free slot; {ahead} jobs are before it.{after}"

    def _why_not(self, job: Job, worker: Worker) -> str:
        """The reasons for each tag the job may use; empty if one fits."""
        tags = [tag for tag in tags_for(job.spec.device) if worker.slots.get(tag)]
        if not tags:
            wanted = "gpu" if job.spec.device is Device.GPU else job.spec.device.value
            return f"it has no {wanted} slots"
        reasons = [self._queues.misfit(job, worker, tag, self._ledger.now) for tag in tags]
        return "" if "" in reasons else "; ".join(dict.fromkeys(reasons))

    def _matters(self, worker: Worker) -> bool:
        return worker.state is not Liveness.GONE or worker.returns_at > self._ledger.now
