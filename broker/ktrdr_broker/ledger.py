"""The broker's book: jobs, their transitions, artifacts, and what must be saved and sent. Pure.

Every change of a job's state goes through `Ledger.move`, which checks it against the table in ktrdr_zmq.jobs, raises the job's ``rev``,
marks the row for the next commit and publishes the event behind that commit. Nothing here decides; the desks do.
"""

from __future__ import annotations

from typing import Final

from ktrdr_broker.config import BrokerConfig
from ktrdr_broker.model import (
    ArtifactDelete,
    ArtifactRow,
    ArtifactStored,
    Job,
    Loaded,
    Publish,
    Saves,
    Send,
    ToClient,
    ToWorker,
)
from ktrdr_zmq import messages as m
from ktrdr_zmq.jobs import TERMINAL, TRANSITIONS, WORKER_TOPIC, Artifact, JobState, Reason, job_topic

NACKS_PER_SECOND: Final = 500


class IllegalTransition(Exception):
    """The core tried a transition that the table does not have: a bug here, never a peer's fault."""


class Ledger:
    """Jobs that are not over (and those that ended since the last commit), artifacts, and the outbox of the turn.

    Attributes
    ----------
    now, wall : float, int
        The clocks of the current turn: monotonic seconds that decide, UTC microseconds that are only written and shown.
    results : dict
        Results that no commit has confirmed yet.
    """

    def __init__(self, config: BrokerConfig, loaded: Loaded, now: float, wall: int) -> None:
        self.config = config
        self.epoch = loaded.epoch
        self.store_id = loaded.store_id
        self.former_epoch = loaded.former_epoch
        self.last_token = loaded.last_token
        self.now = now
        self.wall = wall
        self.jobs: dict[bytes, Job] = {job.job_id: job for job in loaded.jobs}
        self.artifacts: dict[bytes, ArtifactRow] = {row.digest: row for row in loaded.artifacts}
        self.users: dict[bytes, int] = dict(loaded.artifact_users)
        self.counters: dict[str, int] = dict.fromkeys(
            ("submitted", "dispatched", "done", "failed", "cancelled", "timed_out", "requeued", "crashes", "losses", "stale_results"), 0
        )
        self._next_seq = loaded.next_seq
        self._counter = 0
        self._touched: dict[bytes, float] = dict.fromkeys(self.artifacts, now)
        self._saves = Saves()
        self._sends: list[Send] = []
        self.results: dict[bytes, bytes] = {}
        self._ended: list[bytes] = []
        self._ended_out: list[bytes] = []
        self._removing: set[bytes] = set()
        self._removing_out: list[bytes] = []
        self._nacks = 0
        self._nack_second = 0

    # ------------------------------------------------------------ numbers

    def next_token(self) -> int:
        """A number that no other dispatch or session has, also across restarts."""
        self._counter += 1
        return self.epoch << 32 | self._counter

    @property
    def newest_token(self) -> int:
        """The highest that this process has given; those of earlier ones are below it."""
        return self.epoch << 32 | self._counter

    def next_seq(self) -> int:
        """The next place in the order of acceptance."""
        self._next_seq += 1
        return self._next_seq - 1

    # ------------------------------------------------------------ jobs

    def add(self, job: Job) -> None:
        """Take in a new job; its row is written with the next commit."""
        self.jobs[job.job_id] = job
        self.counters["submitted"] += 1
        if job.spec.inputs or job.checkpoint is not None:  # all that a new job can name
            self._use(job, 1)
        self.save(job)

    def save(self, job: Job) -> None:
        """Write the job's row with the next commit."""
        self._saves.jobs[job.job_id] = job

    def move(self, job: Job, state: JobState, reason: Reason, *, publish: bool = True) -> None:
        """Change a job's state.

        Raises
        ------
        IllegalTransition
            If the table does not allow it.
        """
        if state not in TRANSITIONS[job.state]:
            raise IllegalTransition(f"{job.job_id.hex()}: {job.state} -> {state} ({reason})")
        job.state = state
        job.reason = reason
        job.rev += 1
        if state in TERMINAL:
            job.finished_at = self.wall
            self.counters[state] += 1
            self._ended.append(job.job_id)
        self.save(job)
        if publish:
            self.publish_job(job)

    def keep_result(self, job: Job, result: bytes) -> None:
        """Save a result with the outcome that it belongs to."""
        job.result_size = len(result)
        self._saves.results[job.job_id] = self.results[job.job_id] = result

    def publish_job(self, job: Job) -> None:
        """Tell watchers how the job stands; a small result goes along."""
        result = self._saves.results.get(job.job_id, b"") if job.state is JobState.DONE else b""
        inline = (result,) if 0 < len(result) <= self.config.max_event_body else ()
        event = m.JobEvent(
            epoch=self.epoch, job_id=job.job_id, rev=job.rev, at=self.wall, kind=job.spec.kind, state=job.state, reason=job.reason,
            attempt=job.attempt, worker_id=job.worker_id, tag=job.tag, run_s=job.run_s, size=len(inline[0]) if inline else 0,
            result_size=job.result_size, artifacts=job.artifacts, failure=job.failure, notice=job.notice,
        )  # fmt: skip
        self._sends.append(Publish(job_topic(job.job_id), event, inline))

    def publish_worker(self, worker_id: str, state: str, text: str = "") -> None:
        """Tell watchers of workers what became of one."""
        topic = WORKER_TOPIC + worker_id.encode() + b"."
        self._sends.append(Publish(topic, m.WorkerEvent(self.epoch, worker_id, self.wall, state, text)))

    def publish(self, topic: bytes, message: m.Message) -> None:
        """Publish anything else, in order with the rest."""
        self._sends.append(Publish(topic, message))

    def remove(self, job: Job) -> bool:
        """Let retention take an ended job, once; a tombstone stays in the store."""
        if job.job_id in self._removing:
            return False
        self._removing.add(job.job_id)
        self._use(job, -1)
        self._saves.removed.append(job.job_id)
        return True

    # ------------------------------------------------------------ sends

    def to_worker(self, peer: bytes, message: m.Message, bodies: tuple[bytes, ...] = (), *, urgent: bool = False) -> None:
        """Send after the commit of this turn (``urgent``: need not wait for it)."""
        if peer:
            self._sends.append(ToWorker(peer, message, bodies, urgent))

    def to_client(self, peer: bytes, message: m.Message, bodies: tuple[bytes, ...] = (), *, urgent: bool = False) -> None:
        """Send after the commit of this turn (``urgent``: need not wait for it)."""
        self._sends.append(ToClient(peer, message, bodies, urgent))

    def take(self) -> tuple[Saves, list[Send]]:
        """Hand over the turn's effects by swapping the lists."""
        saves, self._saves = self._saves, Saves()
        sends, self._sends = self._sends, []
        if self._ended:
            self._ended_out += self._ended
            self._ended = []
        self._removing_out += saves.removed
        return saves, sends

    def forget_ended(self) -> None:
        """After a commit of all that was taken: what has ended is the store's affair now."""
        for job_id in self._ended_out:
            self.jobs.pop(job_id, None)
            self.results.pop(job_id, None)
        self._ended_out.clear()
        self._removing.difference_update(self._removing_out)
        self._removing_out.clear()

    def may_answer_stranger(self) -> bool:
        """Whether one more NACK to an unknown or confused peer is due: a flood of nonsense is not worth a flood of answers."""
        second = int(self.now)
        if second != self._nack_second:
            self._nack_second, self._nacks = second, 0
        self._nacks += 1
        return self._nacks <= NACKS_PER_SECOND

    # ------------------------------------------------------------ artifacts

    def stored(self, digest: bytes, size: int) -> None:
        """A file is on disk: write its row, and let the uploader know after the commit."""
        if digest not in self.artifacts:
            row = ArtifactRow(digest=digest, size=size, stored_at=self.wall, touched_at=self.wall)
            self.artifacts[digest] = self._saves.artifacts[digest] = row
        self._touched[digest] = self.now
        self._sends.append(ArtifactStored(digest))

    def present(self, digests: list[bytes]) -> list[bytes]:
        """Which of these are stored; asking renews their grace."""
        present = [digest for digest in digests if digest in self.artifacts]
        self._touched.update(dict.fromkeys(present, self.now))
        return present

    def missing(self, digests: list[bytes]) -> list[bytes]:
        """Which of these are not stored."""
        return [digest for digest in digests if digest not in self.artifacts]

    def attach(self, job: Job, artifacts: list[Artifact]) -> None:
        """Let a job name artifacts that it produced."""
        self._use(job, -1)
        job.artifacts = artifacts
        self._use(job, 1)

    def replace_checkpoint(self, job: Job, artifact: Artifact, seq: int) -> None:
        """Let a job's newest checkpoint take the place of the former."""
        self._use(job, -1)
        job.checkpoint = artifact
        job.checkpoint_seq = seq
        self._use(job, 1)
        self.save(job)

    def collect_garbage(self) -> None:
        """Delete artifacts that nothing names and nobody asked for during the grace."""
        horizon = self.now - self.config.artifact_grace
        for digest in [d for d in self.artifacts if not self.users.get(d) and self._touched.get(d, self.now) < horizon]:
            del self.artifacts[digest]
            self._touched.pop(digest, None)
            self._saves.artifacts.pop(digest, None)
            self._saves.artifacts_gone.append(digest)
            self._sends.append(ArtifactDelete(digest))

    def _use(self, job: Job, step: int) -> None:
        for digest in named_digests(job):
            count = self.users.get(digest, 0) + step
            if count > 0:
                self.users[digest] = count
            else:
                self.users.pop(digest, None)


def named_digests(job: Job) -> list[bytes]:
    """Every artifact that a job's row names."""
    digests = [digest for _, digest in job.spec.inputs]
    digests += [artifact.digest for artifact in job.artifacts]
    if job.checkpoint is not None:
        digests.append(job.checkpoint.digest)
    return digests
