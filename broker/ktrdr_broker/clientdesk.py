"""What the broker does with each message of a client. Pure.

Every verb is idempotent, so that a client that heard no answer simply asks again. What the core does not hold (ended jobs, results, pages)
the shell has looked up before and hands in as `Found`; `lookup_for` says what that is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ktrdr_broker.intake import Intake
from ktrdr_broker.leases import Leases
from ktrdr_broker.ledger import Ledger
from ktrdr_broker.model import Found, Job, Lookup, PageQuery
from ktrdr_broker.queues import Queues
from ktrdr_broker.registry import Registry
from ktrdr_broker.views import Explainer, job_view, status_document, worker_view
from ktrdr_zmq import messages as m
from ktrdr_zmq.jobs import HELD, JOB_ID_SIZE, TERMINAL, JobState

MAX_PAGE: Final = 1000
MAX_INT: Final = (1 << 63) - 1
LOG_ARTIFACT: Final = "log"
MODEL: Final = "model"
IMPORTED: Final = ("bars", "data-import")
"""Artifact and kind of what other jobs name later: like models, it is no job's leftover."""


def lookup_for(message: m.Message) -> Lookup | None:
    """What the store must be asked before this message can be handled."""
    if isinstance(message, m.Submit):
        return Lookup(ids=tuple(item.job_id for item in message.items))
    if isinstance(message, (m.Status, m.CancelJobs)):
        return Lookup(refs=tuple(message.refs))
    if isinstance(message, m.Retry):
        return Lookup(refs=(message.ref,), ids=(message.new_id,), whole=True)
    if isinstance(message, m.ResultGet):
        return Lookup(refs=(message.ref,), results=True)
    if isinstance(message, (m.Logs, m.Explain)):
        return Lookup(refs=(message.ref,))
    if isinstance(message, m.List):
        query = PageQuery(
            tuple(message.states), tuple(message.kinds), tuple(message.labels), message.name,
            _bounded(message.since), _bounded(message.before_seq), min(max(message.limit, 1), MAX_PAGE),
        )  # fmt: skip
        return Lookup(page=query)
    if isinstance(message, m.Admin):
        return _admin_lookup(message)
    return None


def _admin_lookup(message: m.Admin) -> Lookup | None:
    if message.action in ("rm", "priority"):
        return Lookup(refs=tuple(_refs(message.args)))
    before = message.args.get("before", 0)
    if message.action == "prune" and isinstance(before, int) and before > 0:
        return Lookup(prune_before=_bounded(before))
    return None


def _refs(args: dict[str, Any]) -> list[str]:
    refs = args.get("refs", ())
    return [str(ref) for ref in refs] if isinstance(refs, (list, tuple)) else []


def _bounded(number: int) -> int:
    return min(max(number, 0), MAX_INT)


class AdminError(Exception):
    """An ADMIN request that makes no sense; its text goes back to the client."""


class ClientDesk:
    """Handles the client ROUTER's messages."""

    def __init__(
        self, ledger: Ledger, registry: Registry, queues: Queues, leases: Leases, intake: Intake, version: str, started_wall: int
    ) -> None:
        self._ledger = ledger
        self._registry = registry
        self._queues = queues
        self._leases = leases
        self._intake = intake
        self._version = version
        self._started_wall = started_wall
        self._explainer = Explainer(ledger, registry, queues)
        self._clients: dict[bytes, float] = {}
        self._verbs: dict[type[m.Message], Callable[[bytes, Any, list[bytes], Found], None]] = {
            m.Submit: self._submit, m.Status: self._status, m.List: self._list, m.CancelJobs: self._cancel, m.Retry: self._retry,
            m.ResultGet: self._result, m.Logs: self._logs, m.Snapshot: self._snapshot, m.Workers: self._workers,
            m.Explain: self._explain, m.Admin: self._admin, m.ClientPing: self._ping, m.Have: self._have,
        }  # fmt: skip

    def message(self, peer: bytes, message: Any, bodies: list[bytes], found: Found) -> None:
        """Handle one message; a stranger is asked for HELLO first."""
        if isinstance(message, m.ClientHello):
            self._hello(peer, message)
        elif peer not in self._clients:
            if self._ledger.may_answer_stranger():
                self._nack(peer, "HELLO_REQUIRED", message, "Say HELLO first.", retryable=True)
        else:
            self._clients[peer] = self._ledger.now
            self._verbs[type(message)](peer, message, bodies, found)

    def forget_silent(self) -> None:
        """Drop clients that have not been heard of for long."""
        horizon = self._ledger.now - self._ledger.config.forget_client_after
        for peer in [peer for peer, seen in self._clients.items() if seen < horizon]:
            del self._clients[peer]

    def _make_room(self) -> None:
        """Drop the tenth that was silent for longest: a client that is still there says HELLO again when it is asked to."""
        by_silence = sorted(self._clients, key=self._clients.__getitem__)
        for peer in by_silence[: len(by_silence) // 10 + 1]:
            del self._clients[peer]

    # ------------------------------------------------------------ dialogue

    def _hello(self, peer: bytes, hello: m.ClientHello) -> None:
        ledger = self._ledger
        if m.MAJOR not in hello.info.versions:
            self._nack(peer, "VERSION", hello, f"This broker speaks protocol version {m.MAJOR}.")
            return
        if len(self._clients) >= ledger.config.max_clients and peer not in self._clients:
            self._make_room()
        self._clients[peer] = ledger.now
        ok = m.ClientHelloOk(
            hello.request, ledger.epoch, ledger.store_id, ledger.config.max_message, ledger.config.max_inline_result, self._version
        )
        ledger.to_client(peer, ok, urgent=True)  # it promises nothing, and must come also while the disk is full

    def _ping(self, peer: bytes, message: m.ClientPing, bodies: list[bytes], found: Found) -> None:
        self._ledger.to_client(peer, m.ClientPong(message.request, self._ledger.epoch), urgent=True)

    def _have(self, peer: bytes, message: m.Have, bodies: list[bytes], found: Found) -> None:
        self._ledger.to_client(peer, m.HaveReply(message.request, self._ledger.present(message.digests)))

    # ------------------------------------------------------------ jobs

    def _submit(self, peer: bytes, message: m.Submit, bodies: list[bytes], found: Found) -> None:
        replies = [self._intake.take(item, body, found) for item, body in zip(message.items, bodies, strict=True)]
        # A refusal for want of a disk must not wait for that disk.
        refused = bool(self._intake.storage_trouble) and all(reply.code != "OK" for reply in replies)
        self._ledger.to_client(peer, m.SubmitAck(message.request, replies), urgent=refused)

    def _status(self, peer: bytes, message: m.Status, bodies: list[bytes], found: Found) -> None:
        jobs, errors = self._resolve(message.refs, found)
        self._ledger.to_client(peer, m.StatusReply(message.request, [job_view(job, details=message.details) for job in jobs], errors))

    def _list(self, peer: bytes, message: m.List, bodies: list[bytes], found: Found) -> None:
        rows = [self._ledger.jobs.get(job.job_id, job) for job in found.page]
        limit = min(max(message.limit, 1), MAX_PAGE)
        more = rows[-1].seq if len(rows) >= limit else 0
        self._ledger.to_client(peer, m.ListReply(message.request, [job_view(job, details=message.details) for job in rows], more))

    def _cancel(self, peer: bytes, message: m.CancelJobs, bodies: list[bytes], found: Found) -> None:
        if self._intake.storage_trouble:
            self._nack(peer, "STORAGE", message, self._intake.storage_trouble, retryable=True, urgent=True)
            return
        jobs, errors = self._resolve(message.refs, found)
        grace = min(message.grace, 3600.0) if message.grace > 0 else 0.0
        for job in jobs:
            self._leases.cancel(job, grace)
        self._ledger.to_client(peer, m.CancelReply(message.request, [job_view(job) for job in jobs], errors))

    def _retry(self, peer: bytes, message: m.Retry, bodies: list[bytes], found: Found) -> None:
        again = self._ledger.jobs.get(message.new_id) or found.jobs.get(message.new_id)
        jobs, errors = self._resolve([message.ref], found)
        if message.new_id in found.known or (again is not None and not again.spec.retry_of):
            self._nack(peer, "CONFLICT", message, "Another job has this id.")
        elif again is not None:
            self._ledger.to_client(peer, m.RetryReply(message.request, job_view(again)))
        elif errors:
            self._nack(peer, errors[0].code, message, errors[0].text)
        elif jobs[0].state not in TERMINAL:
            self._nack(peer, "CONFLICT", message, f"The job has not ended: it is {jobs[0].state.value}.")
        elif message.resume and (jobs[0].state is JobState.DONE or jobs[0].checkpoint is None):
            why = "it is done" if jobs[0].state is JobState.DONE else "it has left no checkpoint"
            self._nack(peer, "CONFLICT", message, f"The job cannot go on from where it was: {why}.")
        elif len(message.new_id) != JOB_ID_SIZE:
            self._nack(peer, "BAD_SPEC", message, f"A job id has {JOB_ID_SIZE} octets.")
        elif self._intake.storage_trouble:
            self._nack(peer, "STORAGE", message, self._intake.storage_trouble, retryable=True, urgent=True)
        elif self._intake.closing:
            self._nack(peer, "SHUTTING_DOWN", message, "The broker is shutting down.", retryable=True)
        else:
            job = self._intake.repeat(jobs[0], message.new_id, resume=message.resume)
            self._ledger.to_client(peer, m.RetryReply(message.request, job_view(job)))

    def _result(self, peer: bytes, message: m.ResultGet, bodies: list[bytes], found: Found) -> None:
        job = self._the_one(peer, message, found)
        if job is None:
            return
        body = self._ledger.results.get(job.job_id) or found.results.get(job.job_id, b"")
        dropped = job.state is JobState.DONE and job.result_size > 0 and not body
        reply = m.ResultReply(message.request, job_view(job, details=True), len(body), dropped)
        self._ledger.to_client(peer, reply, (body,) if body else ())

    def _logs(self, peer: bytes, message: m.Logs, bodies: list[bytes], found: Found) -> None:
        job = self._the_one(peer, message, found)
        if job is None:
            return
        lease = self._leases.by_token.get(job.token)
        if job.state in HELD and lease is not None and lease.worker.peer:
            limit = min(max(message.limit, 1), 1 << 20)
            tail = m.Tail(message.request, peer, job.job_id, job.token, max(message.offset, 0), limit)
            self._ledger.to_worker(lease.worker.peer, tail)
            return
        artifact = next((a for a in job.artifacts if a.name == LOG_ARTIFACT), None)
        ended = job.state in TERMINAL
        self._ledger.to_client(peer, m.LogsReply(message.request, message.offset, 0, ended, artifact))

    def _snapshot(self, peer: bytes, message: m.Snapshot, bodies: list[bytes], found: Found) -> None:
        limit = min(max(message.limit, 1), MAX_PAGE)
        rows = sorted((job for job in self._ledger.jobs.values() if job.seq > message.after_seq), key=lambda job: job.seq)
        page = rows[:limit]
        following = page[-1].seq if len(rows) > limit else 0
        self._ledger.to_client(peer, m.SnapshotReply(message.request, [job_view(job) for job in page], following))

    def _explain(self, peer: bytes, message: m.Explain, bodies: list[bytes], found: Found) -> None:
        job = self._the_one(peer, message, found)
        if job is None:
            return
        text, lines = self._explainer.explain(job)
        self._ledger.to_client(peer, m.ExplainReply(message.request, job_view(job), text, lines))

    def _workers(self, peer: bytes, message: m.Workers, bodies: list[bytes], found: Found) -> None:
        views = [worker_view(worker, self._ledger.now) for worker in self._registry]
        # Who is there is no promise: a person who looks for the reason must not wait for the disk that is the reason.
        self._ledger.to_client(peer, m.WorkersReply(message.request, views), urgent=bool(self._intake.storage_trouble))

    def _resolve(self, refs: list[str], found: Found) -> tuple[list[Job], list[m.RefError]]:
        """References to rows: what the core holds is newer than what the store had."""
        jobs, errors = [], []
        for ref in refs:
            ids = found.refs.get(ref) or self._uncommitted(ref)
            if len(ids) == 1:
                job = self._ledger.jobs.get(ids[0]) or found.jobs.get(ids[0])
                if job is not None:
                    jobs.append(job)
                    continue
            if len(ids) > 1:
                errors.append(m.RefError(ref, "AMBIGUOUS_JOB", f"Several jobs begin with {ref}."))
            else:
                errors.append(m.RefError(ref, "UNKNOWN_JOB", f"There is no job {ref}."))
        return jobs, errors

    def _the_one(self, peer: bytes, message: m.ResultGet | m.Logs | m.Explain, found: Found) -> Job | None:
        """The job that a request is about; None where its reference is none, which the client is told."""
        jobs, errors = self._resolve([message.ref], found)
        if errors:
            self._nack(peer, errors[0].code, message, errors[0].text)
            return None
        return jobs[0]

    def _uncommitted(self, ref: str) -> list[bytes]:
        """A full id that the store does not know yet."""
        try:
            job_id = bytes.fromhex(ref)
        except ValueError:
            return []
        return [job_id] if job_id in self._ledger.jobs else []

    # ------------------------------------------------------------ administration

    def _admin(self, peer: bytes, message: m.Admin, bodies: list[bytes], found: Found) -> None:
        try:
            document = self._administer(message.action, message.args, found)
        except AdminError as error:
            self._nack(peer, "BAD_SPEC", message, str(error))
            return
        urgent = message.action == "status" and bool(self._intake.storage_trouble)
        self._ledger.to_client(peer, m.AdminReply(message.request, document), urgent=urgent)

    def _administer(self, action: str, args: dict[str, Any], found: Found) -> dict[str, Any]:
        if action == "status":
            document = status_document(self._ledger, self._registry, self._queues)
            document |= {"version": self._version, "started_at": self._started_wall, "storage": self._intake.storage_trouble or "ok"}
            document["disk"] = args.get("store", {})  # put there by the shell, which knows the disk
            return document
        if action in ("drain", "undrain"):
            return self._drain(args, on=action == "drain")
        if action in ("pause", "unpause"):
            self._queues.paused = action == "pause"
            return {"paused": self._queues.paused}
        if action == "priority":
            return self._reprioritise(args, found)
        if action == "prune":
            return {"removed": self.prune(found.prunable, keep_models=True)}
        if action == "rm":
            jobs, errors = self._resolve(_refs(args), found)
            if errors:
                raise AdminError(errors[0].text)
            if any(job.state not in TERMINAL for job in jobs):
                raise AdminError("Only ended jobs can be removed; cancel the others first.")
            return {"removed": self.prune(jobs, keep_models=False)}
        raise AdminError(f"There is no administrative action {action!r}.")

    def _drain(self, args: dict[str, Any], *, on: bool) -> dict[str, Any]:
        worker = self._registry.workers.get(str(args.get("worker_id", "")))
        if worker is None:
            raise AdminError(f"There is no worker {args.get('worker_id', '')}.")
        worker.cordoned = on
        worker.drain_wishes = (bool(args.get("stop")), bool(args.get("leave")))
        self._ledger.to_worker(worker.peer, m.Drain(on, *worker.drain_wishes))
        return {"worker_id": worker.worker_id, "draining": on, "running": len(worker.leases)}

    def _reprioritise(self, args: dict[str, Any], found: Found) -> dict[str, Any]:
        jobs, errors = self._resolve(_refs(args), found)
        priority = args.get("priority")
        if errors or not isinstance(priority, int) or not -1000 <= priority <= 1000:
            raise AdminError(errors[0].text if errors else "A priority is a whole number between -1000 and 1000.")
        changed = 0
        for job in jobs:
            if job.job_id in self._queues.jobs:
                self._queues.reprioritise(job, priority)
                self._ledger.save(job)
                changed += 1
        return {"changed": changed}

    def prune(self, jobs: list[Job], *, keep_models: bool) -> int:
        """Remove ended jobs; those that carry a model or imported bars stay until somebody removes them by name."""
        removed = 0
        for job in jobs:
            kept = any((artifact.name, job.spec.kind) == IMPORTED or artifact.name == MODEL for artifact in job.artifacts)
            if job.state in TERMINAL and job.job_id not in self._ledger.jobs and not (keep_models and kept):
                removed += self._ledger.remove(job)
        return removed

    def _nack(self, peer: bytes, code: str, message: Any, text: str, *, retryable: bool = False, urgent: bool = False) -> None:
        nack = m.Nack(
            code=code, verb=m.VERBS[type(message)], request=message.request, retryable=retryable, epoch=self._ledger.epoch, text=text,
            versions=[m.MAJOR],
        )  # fmt: skip
        self._ledger.to_client(peer, nack, urgent=urgent)
