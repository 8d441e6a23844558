"""Deliberate bugs. Each breaks a promise in one place of a core; the World must notice every one of them.

A mutation replaces a function for as long as its context lasts. What it breaks is its docstring. Those that are a change of one piece of
text are in `tests.sim.edits`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ktrdr_broker import leases, ledger, queues, registry, workerdesk
from ktrdr_broker.intake import Intake
from ktrdr_broker.model import Found, Job
from ktrdr_worker import core, duties, lanes, outbox
from ktrdr_zmq import events, session
from ktrdr_zmq import messages as m
from ktrdr_zmq.jobs import TAG_CPU, TAG_GPU, Device, JobState, Reason
from tests.sim.edits import EDITS
from tests.sim.mutating import Mutation, added, both, replaced


def acknowledged_before_the_commit() -> contextlib.AbstractContextManager[None]:
    """SUBMIT_ACK overtakes the commit, and a disk that fails is no reason to refuse."""
    original = ledger.Ledger.to_client

    def to_client(self: Any, peer: bytes, message: Any, bodies: Any = (), *, urgent: bool = False) -> None:
        original(self, peer, message, bodies, urgent=urgent or isinstance(message, m.SubmitAck))

    trouble = property(lambda self: "", lambda self, text: None)
    return both(replaced(ledger.Ledger, "to_client", to_client), added(Intake, "storage_trouble", trouble))


def tokens_that_begin_again() -> contextlib.AbstractContextManager[None]:
    """A restarted broker gives tokens that were given before."""

    def next_token(self: Any) -> int:
        self._counter += 1
        return int(self._counter)

    return replaced(ledger.Ledger, "next_token", next_token)


def outcomes_judged_by_job_alone() -> contextlib.AbstractContextManager[None]:
    """A result is taken from whoever sends one, whatever its token."""

    def owned(self: Any, job_id: bytes, token: int) -> Job | None:
        job: Job | None = self._ledger.jobs.get(job_id)
        return job if job is not None and not job.terminal else None

    return replaced(leases.Leases, "owned", owned)


def lost_jobs_stay_lost() -> contextlib.AbstractContextManager[None]:
    """A job whose worker died goes back to QUEUED, but not into the queue."""

    def requeue(self: Any, job: Job, reason: Reason, *, not_before: float = 0.0) -> None:
        self._ledger.move(job, JobState.QUEUED, reason)

    return replaced(leases.Leases, "requeue", requeue)


def silence_without_end() -> contextlib.AbstractContextManager[None]:
    """What a dead worker held is never taken back."""
    return replaced(leases.Leases, "reclaim_due", lambda self, now: None)


def swallowed_cancels() -> contextlib.AbstractContextManager[None]:
    """A cancellation is acknowledged and forgotten."""
    return replaced(leases.Leases, "cancel", lambda self, job, grace: None)


def cancels_never_said() -> contextlib.AbstractContextManager[None]:
    """A cancellation is saved, and the worker never hears of it."""
    return replaced(leases.Leases, "send_cancel", lambda self, job, grace=10.0: None)


def submits_without_memory() -> contextlib.AbstractContextManager[None]:
    """A repeated SUBMIT makes a second job."""
    original = Intake.take

    def take(self: Any, item: m.SubmitItem, body: bytes, found: Found) -> m.SubmitReply:
        known = self._ledger.jobs.pop(item.job_id, None)
        if known is not None and known.job_id in self._queues.jobs:
            self._queues.remove(known)
        return original(self, item, body, Found())

    return replaced(Intake, "take", take)


def hello_without_reconciliation() -> contextlib.AbstractContextManager[None]:
    """A worker that comes back without its jobs is believed to have them."""
    return replaced(workerdesk.WorkerDesk, "_confirmed", lambda self, lease, renewed: None)


def readopted_and_queued() -> contextlib.AbstractContextManager[None]:
    """A job that its worker goes on with stays in the queue."""

    def remove(self: Any, job: Job) -> None:
        if job.reason != Reason.WORKER_LOST:
            original(self, job)

    original = queues.Queues.remove
    return replaced(queues.Queues, "remove", remove)


def credit_counted_twice() -> contextlib.AbstractContextManager[None]:
    """A repeated grant is added instead of compared."""

    def grant(self: Any, totals: list[tuple[str, int]]) -> None:
        for tag, total in totals:
            self.credit[tag] = self.credit.get(tag, 0) + total

    return replaced(registry.Worker, "grant", grant)


def results_not_kept() -> contextlib.AbstractContextManager[None]:
    """A job ends DONE without its result."""
    return replaced(ledger.Ledger, "keep_result", lambda self, job, result: None)


def leases_forgotten_at_restart() -> contextlib.AbstractContextManager[None]:
    """After a restart only queued jobs are known."""

    def restore(self: Any) -> None:
        for job in self._ledger.jobs.values():
            if job.state is JobState.QUEUED:
                job.ready = self._ledger.now
                self._queues.add(job)

    return replaced(leases.Leases, "restore", restore)


def results_never_forgotten() -> contextlib.AbstractContextManager[None]:
    """A worker is never told to forget a result that lost its race, neither in RESULT_ACK nor in HELLO_OK."""
    original = leases.Leases.outcome
    reconcile = workerdesk.WorkerDesk._reconcile

    def lenient(self: Any, worker: Any, hello: m.WorkerHello, renewed: bool) -> list[m.Verdict]:
        verdicts = reconcile(self, worker, hello, renewed)
        return [m.Verdict(v.job_id, v.token, "SEND_RESULT" if v.verdict == "FORGET" else v.verdict) for v in verdicts]

    def outcome(self: Any, item: m.ResultItem, body: bytes, worker: Any) -> str:
        verdict = original(self, item, body, worker)
        return leases.MISSING_ARTIFACT if verdict == leases.FORGET else verdict

    return both(replaced(leases.Leases, "outcome", outcome), replaced(workerdesk.WorkerDesk, "_reconcile", lenient))


def revisions_that_stand_still() -> contextlib.AbstractContextManager[None]:
    """An event carries the same rev as the one before it, so that watchers take no notice."""
    original = ledger.Ledger.move

    def move(self: Any, job: Job, state: JobState, reason: Reason, *, publish: bool = True) -> None:
        original(self, job, state, reason, publish=publish)
        job.rev -= int(job.terminal)

    return replaced(ledger.Ledger, "move", move)


def doubt_never_spoken() -> contextlib.AbstractContextManager[None]:
    """A worker is never asked to say HELLO again when its pings and the book differ."""

    def ping(self: Any, worker: Any, message: m.WorkerPing) -> None:
        self._ledger.to_worker(worker.peer, m.Pong(message.seq, self._ledger.epoch), urgent=True)

    return replaced(workerdesk.WorkerDesk, "_ping", ping)


def duplicates_run_twice() -> contextlib.AbstractContextManager[None]:
    """A worker runs a repeated DISPATCH again."""
    original = duties.Duties.dispatch

    def dispatch(self: Any, item: m.DispatchItem, body: bytes, now: float) -> bool:
        self.last_token = 0
        return bool(original(self, item, body, now))

    return replaced(duties.Duties, "dispatch", dispatch)


def results_said_once() -> contextlib.AbstractContextManager[None]:
    """A worker sends a result and forgets it, acknowledged or not."""
    original = outbox.Outbox.flush

    def flush(self: Any, *args: Any) -> Any:
        sends = original(self, *args)
        self.finished.clear()
        return sends

    return replaced(outbox.Outbox, "flush", flush)


def verdicts_ignored() -> contextlib.AbstractContextManager[None]:
    """A worker goes on with a job that was given to another."""
    return replaced(core.WorkerCore, "_verdict", lambda self, verdict, now: None)


def sessions_mixed_up() -> contextlib.AbstractContextManager[None]:
    """A worker says HELLO without what it runs and has finished."""
    return replaced(duties.Duties, "running", lambda self: [])


def credit_for_busy_slots() -> contextlib.AbstractContextManager[None]:
    """A worker grants a slot again while its job still runs."""
    return replaced(lanes.Lanes, "outstanding", lambda self, tag: len(self.queues[tag]))


def requests_asked_once() -> contextlib.AbstractContextManager[None]:
    """A client never asks again."""

    def keep(self: Any, now: float) -> None:
        self._last_ping = self._last_heard = now
        self._resend_at = now + 1e9

    return replaced(session.ClientSession, "_keep", keep)


def old_news_believed() -> contextlib.AbstractContextManager[None]:
    """A watcher takes every event at its word, however old."""
    original = events.Tracker.on_event

    def on_event(self: Any, message: Any, bodies: list[bytes], now: float) -> None:
        if isinstance(message, m.JobEvent) and message.state is JobState.RUNNING:
            message = m.JobEvent(**{**{f: getattr(message, f) for f in message.__struct_fields__}, "state": JobState.CANCELLED})
        original(self, message, bodies, now)

    return replaced(events.Tracker, "on_event", on_event)


def _both_tags(device: Device) -> contextlib.AbstractContextManager[None]:
    return put(registry._TAGS, device, (TAG_GPU, TAG_CPU))


@contextlib.contextmanager
def put(table: dict[Any, Any], key: Any, value: Any) -> Iterator[None]:
    """Another entry in a table."""
    old, table[key] = table[key], value
    try:
        yield
    finally:
        table[key] = old


def gpu_jobs_on_cpu_slots() -> contextlib.AbstractContextManager[None]:
    """A job that asks for a GPU gets a CPU."""
    return _both_tags(Device.GPU)


def cpu_jobs_on_gpu_slots() -> contextlib.AbstractContextManager[None]:
    """A job that asks for a CPU occupies a GPU."""
    return _both_tags(Device.CPU)


MUTATIONS: tuple[Mutation, ...] = (
    acknowledged_before_the_commit,
    tokens_that_begin_again,
    outcomes_judged_by_job_alone,
    lost_jobs_stay_lost,
    silence_without_end,
    swallowed_cancels,
    cancels_never_said,
    submits_without_memory,
    hello_without_reconciliation,
    readopted_and_queued,
    credit_counted_twice,
    results_not_kept,
    leases_forgotten_at_restart,
    results_never_forgotten,
    revisions_that_stand_still,
    doubt_never_spoken,
    duplicates_run_twice,
    results_said_once,
    verdicts_ignored,
    sessions_mixed_up,
    credit_for_busy_slots,
    requests_asked_once,
    old_news_believed,
    gpu_jobs_on_cpu_slots,
    cpu_jobs_on_gpu_slots,
    *EDITS,
)


def name_of(mutation: Mutation) -> str:
    """What a bug is called."""
    return str(getattr(mutation, "name", "") or getattr(mutation, "__name__", ""))


SEEDS_THAT_SHOW: dict[str, int] = {
    "acknowledged_before_the_commit": 11,
    "results_said_once": 17,
    "verdicts_ignored": 37,
    "outcomes_acknowledged_before_the_commit": 11,
    "checkpoints_without_a_token": 119,
    "results_judged_by_their_session": 83,
    "results_counted_twice": 31,
    "stalls_blamed_on_workers": 21,
    "checkpoints_nobody_keeps": 15,
    "older_copies_go_on": 20,
    "zombies_may_go_on": 25,
    "lost_dispatches_unnoticed": 94,
    "finished_work_unnamed": 17,
    "stale_dispatches_obeyed": 21,
    "neighbours_are_charged": 22,
}
"""Where to look first for bugs that not every story shows."""
