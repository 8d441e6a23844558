"""What the broker does with each message of a worker, and with its silence. Pure.

RESULT and CHECKPOINT are judged by their token alone, so that nothing finished is lost to a stale session; everything else must come
through the worker's current connection. A stranger gets an answer, never an exception.
"""

from __future__ import annotations

import re
from typing import Final

from ktrdr_broker.leases import MISSING_ARTIFACT, Leases
from ktrdr_broker.ledger import Ledger
from ktrdr_broker.queues import Queues
from ktrdr_broker.registry import Lease, Liveness, Registry, Worker
from ktrdr_zmq import messages as m
from ktrdr_zmq.jobs import JobState, Reason, job_topic

WORKER_ID: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
MAX_SLOTS: Final = 4096
LONGEST_RETURN: Final = 3600.0
_DUPLICATE_TEXT: Final = (
    "Worker {id} is already connected from {address}. Give this one another id with --id or KTRDR_WORKER_ID "
    "(a cloned container keeps the id of its original)."
)


class WorkerDesk:
    """Handles the worker ROUTER's messages."""

    def __init__(self, ledger: Ledger, registry: Registry, queues: Queues, leases: Leases, version: str) -> None:
        self._ledger = ledger
        self._registry = registry
        self._queues = queues
        self._leases = leases
        self._version = version
        self.fatal = ""

    # ------------------------------------------------------------ HELLO

    def hello(self, peer: bytes, hello: m.WorkerHello, address: str) -> None:
        """Open a session, or say why not."""
        info, ledger = hello.info, self._ledger
        if m.MAJOR not in info.versions:
            self._nack(peer, "VERSION", 0x01, f"This broker speaks protocol version {m.MAJOR}.")
            return
        if not WORKER_ID.fullmatch(info.worker_id) or any(not 0 <= number <= MAX_SLOTS for _, number in info.slots):
            self._nack(peer, "BAD_SPEC", 0x01, "A worker id is lower case, with digits, dots and dashes, 63 at most; slots are 0 to 4096.")
            return
        seen = self._seen_before(info)
        if seen:
            self.fatal = (
                f"The database is older than the cluster: worker {info.worker_id} has seen {seen}. It was restored from a backup or "
                "snapshot while the workers went on. Put the newer one back, or give up what it knew: start once with --restored."
            )
            return
        worker = self._registry.workers.get(info.worker_id)
        if worker is None and len(self._registry.workers) >= ledger.config.max_workers:
            self._registry.forget_old(ledger.now, after=0.0)
        if worker is None and len(self._registry.workers) >= ledger.config.max_workers:
            self._nack(peer, "QUEUE_FULL", 0x01, "This broker has as many workers as it may have.")
            return
        if worker is None:
            worker = self._registry.workers[info.worker_id] = Worker(info.worker_id, ledger.now)
        elif not self._admits(worker, peer, info, address):
            return
        self._registry.bind(worker, peer)
        renewed = worker.instance != info.instance
        worker.open(info, peer, ledger.next_token(), address, ledger.now, ledger.wall)
        verdicts = self._reconcile(worker, hello, renewed)
        config = ledger.config
        ok = m.HelloOk(
            epoch=ledger.epoch, store_id=ledger.store_id, session=worker.session, ping_interval=config.ping_interval,
            dead_after=config.dead_after, max_message=config.max_message, max_inline_result=config.max_inline_result,
            verdicts=verdicts, version=self._version, hello_seq=info.hello_seq,
        )  # fmt: skip
        ledger.to_worker(peer, ok)
        if worker.cordoned:  # a new process is only kept from work; one that was told more may not have heard it
            ledger.to_worker(peer, m.Drain(True, *(worker.drain_wishes if not renewed else (False, False))))
        for lease in worker.leases.values():
            if lease.job.state is JobState.CANCELLING:
                self._leases.send_cancel(lease.job)
        ledger.publish_worker(worker.worker_id, Liveness.LIVE, "connected")

    def _seen_before(self, info: m.WorkerInfo) -> str:
        """What a worker has seen of this store that the store does not know of: then it is an older copy. Empty if there is nothing."""
        ledger = self._ledger
        epoch, token = info.highest_epoch, info.highest_token
        if info.store_id not in (b"", ledger.store_id):
            return ""
        if epoch > ledger.epoch:
            return f"epoch {epoch}, this is {ledger.epoch}"
        if info.store_id and ledger.former_epoch < epoch < ledger.epoch:
            return f"epoch {epoch}, and the last one in the database is {ledger.former_epoch}"
        if info.store_id and ledger.last_token < token < ledger.epoch << 32:
            return f"token {token:x}, and the last one in the database is {ledger.last_token:x}"
        if info.store_id and token > ledger.newest_token:  # two starts with one epoch: the clock had been set back
            return f"token {token:x}, and the last one given is {ledger.newest_token:x}"
        return ""

    def _admits(self, worker: Worker, peer: bytes, info: m.WorkerInfo, address: str) -> bool:
        """Whether this HELLO may speak for a worker that is known already."""
        if info.instance == worker.instance:
            # A closed connection's HELLO can be read after the newer one.
            return info.hello_seq > worker.hello_seq or worker.hello_seq < 0
        if info.instance in worker.past_instances:
            self._ledger.to_worker(peer, m.Bye("SUPERSEDED", f"A newer process speaks for worker {worker.worker_id}."))
            return False
        if worker.state is Liveness.LIVE:
            if (info.host, address) != (worker.info.host, worker.address):
                text = _DUPLICATE_TEXT.format(id=worker.worker_id, address=worker.address or worker.info.hostname or "another host")
                self._ledger.to_worker(peer, m.Bye("DUPLICATE_WORKER_ID", text))
                return False
            self._ledger.to_worker(worker.peer, m.Bye("SUPERSEDED", f"A newer process speaks for worker {worker.worker_id}."))
        return True

    def _reconcile(self, worker: Worker, hello: m.WorkerHello, renewed: bool) -> list[m.Verdict]:
        """Compare what the worker has with what the book says; the worker obeys the verdicts."""
        leases = self._leases
        verdicts = []
        claimed = set()
        for ref in hello.running:
            job = leases.owned(ref.job_id, ref.token)
            if job is None:
                verdicts.append(m.Verdict(ref.job_id, ref.token, "ABORT"))
            else:
                claimed.add(ref.token)
                leases.readopt(job, worker)
                verdicts.append(m.Verdict(ref.job_id, ref.token, "CONTINUE"))
        for ref in hello.finished:
            job = leases.owned(ref.job_id, ref.token)
            if job is None:
                verdicts.append(m.Verdict(ref.job_id, ref.token, "FORGET"))
            else:
                claimed.add(ref.token)
                leases.readopt(job, worker)  # nobody else gets it while its result is on its way
                verdicts.append(m.Verdict(ref.job_id, ref.token, "SEND_RESULT"))
        for token, lease in list(worker.leases.items()):
            if token not in claimed:
                self._confirmed(lease, renewed)
        return verdicts

    def _confirmed(self, lease: Lease, renewed: bool) -> None:
        """A worker that came back does not have the job: it goes back at once. It is a loss only if a process is known to have died."""
        if renewed or lease.accepted_at is not None or lease.job.state is JobState.RUNNING:
            self._leases.lost(lease, Reason.WORKER_GONE)
        else:
            self._leases.reject(lease.job, "PREFETCH_STALE")

    # ------------------------------------------------------------ other verbs

    def message(self, peer: bytes, message: m.Message, bodies: list[bytes]) -> None:
        """Handle anything but HELLO."""
        worker = self._registry.by_peer.get(peer)
        if isinstance(message, m.Result):
            self._result(peer, worker, message, bodies)
        elif isinstance(message, m.Checkpoint):
            self._checkpoint(peer, message)
        elif isinstance(message, m.Have):
            self._ledger.to_worker(peer, m.HaveReply(message.request, self._ledger.present(message.digests)))
        if worker is None or worker.state is Liveness.DEAD:
            if self._ledger.may_answer_stranger():
                self._nack(peer, "HELLO_REQUIRED", m.VERBS[type(message)], "Say HELLO first.")
            return
        self._alive(worker)
        if getattr(message, "session", worker.session) != worker.session:
            return  # left over from an earlier session of this worker; its HELLO has settled everything
        self._in_session(worker, message, bodies)

    def _in_session(self, worker: Worker, message: m.Message, bodies: list[bytes]) -> None:
        if isinstance(message, m.Result):
            worker.grant(message.credit)
        elif isinstance(message, m.Credit):
            worker.grant(message.totals)
        elif isinstance(message, m.Accept):
            for ref in message.items:
                job = self._leases.owned(ref.job_id, ref.token)
                if job is not None:
                    self._leases.accept(job)
        elif isinstance(message, m.Reject):
            for item in message.items:
                job = self._leases.owned(item.job_id, item.token)
                if job is not None and job.token in worker.leases:
                    self._leases.reject(job, item.code)
        elif isinstance(message, m.Progress):
            self._progress(worker, message)
        elif isinstance(message, m.WorkerPing):
            self._ping(worker, message)
        elif isinstance(message, m.Drained):
            self._ledger.publish_worker(worker.worker_id, worker.state, "drained")
        elif isinstance(message, m.WorkerBye):
            self._bye(worker, message)
        elif isinstance(message, m.LogTail):
            reply = m.LogsReply(message.request, message.offset, message.size, message.ended)
            self._ledger.to_client(message.client, reply, tuple(bodies) if message.size else ())

    def _alive(self, worker: Worker) -> None:
        worker.last_seen = self._ledger.now
        if worker.state is Liveness.SUSPECT:
            worker.state = Liveness.LIVE
            self._ledger.publish_worker(worker.worker_id, Liveness.LIVE, "answers again")

    def _result(self, peer: bytes, worker: Worker | None, message: m.Result, bodies: list[bytes]) -> None:
        verdicts = []
        for item, body in zip(message.items, bodies, strict=True):
            verdict = self._leases.outcome(item, body, worker)
            verdicts.append(m.Verdict(item.job_id, item.token, verdict))
        self._ledger.to_worker(peer, m.ResultAck(verdicts))

    def _checkpoint(self, peer: bytes, message: m.Checkpoint) -> None:
        job = self._leases.owned(message.job_id, message.token)
        if job is not None and self._ledger.missing([message.artifact.digest]):
            self._ledger.to_worker(peer, m.ResultAck([m.Verdict(message.job_id, message.token, MISSING_ARTIFACT)]))
            return
        ok = job is not None
        if job is not None and job.checkpoint_seq < message.seq < 1 << 62:
            self._ledger.replace_checkpoint(job, message.artifact, message.seq)
            job.crashes = 0  # it got further than before: not a poison job
        self._ledger.to_worker(peer, m.CheckpointAck(message.job_id, message.token, message.seq, ok))

    def _progress(self, worker: Worker, message: m.Progress) -> None:
        ledger = self._ledger
        for item in message.items:
            job = self._leases.owned(item.job_id, item.token)
            if job is None or job.token not in worker.leases or item.seq <= job.progress_seq:
                continue
            self._leases.accept(job)
            job.progress_seq = item.seq
            job.fraction = max(job.fraction, min(item.fraction, 1.0))
            job.stage, job.text, job.metrics = item.stage, item.text, item.metrics
            event = m.ProgressEvent(
                ledger.epoch, job.job_id, job.rev, ledger.wall, job.attempt, item.seq, job.fraction, item.stage, item.text,
                item.metrics, worker.worker_id, job.tag,
            )  # fmt: skip
            ledger.publish(job_topic(job.job_id), event)

    def _ping(self, worker: Worker, ping: m.WorkerPing) -> None:
        ledger, config = self._ledger, self._ledger.config
        worker.lag, worker.load = ping.lag, ping.load
        worker.grant(ping.credit)
        if ping.draining != worker.cordoned and not worker.draining:  # it has not heard the last word on that
            ledger.to_worker(worker.peer, m.Drain(worker.cordoned, *worker.drain_wishes))
        ledger.to_worker(worker.peer, m.Pong(ping.seq, ledger.epoch), urgent=True)
        tokens = set(ping.tokens)
        doubtful = not tokens <= worker.leases.keys()
        for lease in worker.leases.values():
            if lease.accepted_at is None:
                doubtful |= ledger.now - lease.leased_at > config.accept_timeout
            elif ledger.now - lease.accepted_at > config.long_after + config.ping_interval:
                lease.missed = 0 if lease.job.token in tokens else lease.missed + 1
                doubtful |= lease.missed >= 2
            if lease.job.state is JobState.CANCELLING and ledger.now - lease.cancel_sent > config.cancel_resend:
                self._leases.send_cancel(lease.job)
        if doubtful:
            self._nack(worker.peer, "HELLO_REQUIRED", 0x08, "What this worker runs and what the broker has on record differ.")

    def _bye(self, worker: Worker, message: m.WorkerBye) -> None:
        ledger = self._ledger
        self._registry.close(worker, Liveness.GONE)
        if message.returns_in >= 0:
            worker.returns_at = ledger.now + min(message.returns_in, LONGEST_RETURN)
        for lease in list(worker.leases.values()):
            self._leases.lost(lease, Reason.WORKER_GONE)
        ledger.publish_worker(worker.worker_id, Liveness.GONE, "said good-bye")

    # ------------------------------------------------------------ silence

    def unreachable(self, peer: bytes) -> None:
        """A send found no connection: no new work until the worker is heard of again."""
        worker = self._registry.by_peer.get(peer)
        if worker is not None and worker.state is Liveness.LIVE:
            worker.state = Liveness.SUSPECT
            self._ledger.publish_worker(worker.worker_id, Liveness.SUSPECT, "its connection is gone")

    def watch(self, now: float, grace_over: bool) -> None:
        """Judge every worker by how long it has been silent."""
        config = self._ledger.config
        for worker in self._registry:
            silent = now - worker.last_seen
            if worker.state is Liveness.LIVE and silent > config.suspect_after:
                worker.state = Liveness.SUSPECT
                self._ledger.publish_worker(worker.worker_id, Liveness.SUSPECT, f"silent for {silent:.0f} s")
            if (worker.state is Liveness.SUSPECT and silent > config.dead_after) or (worker.state is Liveness.EXPECTED and grace_over):
                self._registry.close(worker, Liveness.DEAD)
                self._leases.presume_dead(worker)
                self._ledger.publish_worker(worker.worker_id, Liveness.DEAD, f"silent for {silent:.0f} s")
        self._leases.reclaim_due(now)
        self._registry.forget_old(now)

    def excuse(self, stall: float) -> None:
        """The broker itself stood still: nobody is blamed for silence that it could not hear."""
        for worker in self._registry:
            worker.last_seen = min(worker.last_seen + stall, self._ledger.now)
            for lease in worker.leases.values():
                lease.leased_at = min(lease.leased_at + stall, self._ledger.now)
                if lease.reclaim_at is not None:
                    lease.reclaim_at += stall

    def _nack(self, peer: bytes, code: str, verb: int, text: str) -> None:
        nack = m.Nack(code=code, verb=verb, epoch=self._ledger.epoch, text=text, versions=[m.MAJOR])
        self._ledger.to_worker(peer, nack, urgent=code == "HELLO_REQUIRED")
