"""What the broker remembers: rows as plain structs, and the two kinds of effect that leave the core. Pure data.

The core owns these objects; the store writes them, the shell sends what they name. Nobody else changes them.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from ktrdr_zmq.jobs import TERMINAL, Artifact, Attempt, Failure, JobSpec, JobState
from ktrdr_zmq.messages import Message


class Job(msgspec.Struct):
    """A job as the broker knows it. The first block never changes after the insert.

    ``seq`` is the broker's own order of acceptance; ``spec_raw`` and ``body`` are the octets as received, ``digest`` the SHA-256 over
    both. ``token`` is that of the latest dispatch (0: never dispatched). Times named ``*_at`` are UTC microseconds.
    """

    job_id: bytes
    seq: int
    spec: JobSpec
    spec_raw: bytes
    body: bytes
    digest: bytes
    submitted_at: int

    state: JobState
    reason: str
    rev: int = 1
    token: int = 0
    attempt: int = 0
    worker_id: str = ""
    instance: bytes = b""
    tag: str = ""
    crashes: int = 0
    losses: int = 0
    retries: int = 0
    attempts: list[Attempt] = []
    started_at: int = 0
    finished_at: int = 0
    run_s: float = 0.0
    artifacts: list[Artifact] = []
    failure: Failure | None = None
    checkpoint: Artifact | None = None
    checkpoint_seq: int = 0
    notice: str = ""
    result_size: int = 0
    priority: int = 0

    stored: bool = False
    """Whether the row has been inserted; set by the store after the commit. Not a column, like all that follow."""
    ready: float = 0.0
    """When the job last became ready to run, on the broker's monotonic clock."""
    fraction: float = 0.0
    stage: str = ""
    text: str = ""
    metrics: list[tuple[str, float]] = []
    progress_seq: int = -1

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL


class ArtifactRow(msgspec.Struct):
    """An artifact on disk. ``touched_at`` (UTC microseconds) begins its grace period."""

    digest: bytes
    size: int
    stored_at: int
    touched_at: int


class Saves(msgspec.Struct):
    """Everything that one turn of the core wants durable, in one commit.

    ``jobs`` are inserted or updated as they stand; ``results`` are written once, with their jobs; ``removed`` jobs
    (retention) lose row, body and result and keep only (job_id, digest, state, finished_at).
    """

    jobs: dict[bytes, Job] = {}
    results: dict[bytes, bytes] = {}
    artifacts: dict[bytes, ArtifactRow] = {}
    artifacts_gone: list[bytes] = []
    removed: list[bytes] = []
    meta: dict[str, bytes] = {}

    def __bool__(self) -> bool:
        return bool(self.jobs or self.results or self.artifacts or self.artifacts_gone or self.removed or self.meta)

    def merge(self, later: Saves) -> None:
        """Take the saves of a later turn in: after a failed commit, everything that waits is committed at once."""
        self.jobs.update(later.jobs)
        self.results.update(later.results)
        self.artifacts.update(later.artifacts)
        for digest in later.artifacts_gone:
            self.artifacts.pop(digest, None)
        self.artifacts_gone.extend(later.artifacts_gone)
        self.removed.extend(later.removed)
        self.meta.update(later.meta)


class ToWorker(NamedTuple):
    """Send to a worker's connection. ``urgent``: may overtake sends that wait for a commit (PONG, NACK to a stranger)."""

    peer: bytes
    message: Message
    bodies: tuple[bytes, ...] = ()
    urgent: bool = False


class ToClient(NamedTuple):
    """Send to a client's connection."""

    peer: bytes
    message: Message
    bodies: tuple[bytes, ...] = ()
    urgent: bool = False


class Publish(NamedTuple):
    """Publish on the event socket."""

    topic: bytes
    message: Message
    bodies: tuple[bytes, ...] = ()


class ArtifactStored(NamedTuple):
    """Tell the bulk thread that the artifact's row is committed, so that it may answer PUT_DONE."""

    digest: bytes


class ArtifactDelete(NamedTuple):
    """Tell the bulk thread to delete the file of an artifact whose row is gone."""

    digest: bytes


Send = ToWorker | ToClient | Publish | ArtifactStored | ArtifactDelete


class PageQuery(NamedTuple):
    """A filter over stored jobs, newest first (``after_seq`` >= 0: oldest first from there)."""

    states: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    name: str = ""
    since: int = 0
    before_seq: int = 0
    limit: int = 100


class Lookup(NamedTuple):
    """What the shell must fetch from the store before it hands a message to the core. ``whole``: bodies are needed, and are checked."""

    ids: tuple[bytes, ...] = ()
    refs: tuple[str, ...] = ()
    page: PageQuery | None = None
    results: bool = False
    prune_before: int = 0
    whole: bool = False


class Known(NamedTuple):
    """A job that retention removed: enough to answer a repeated SUBMIT."""

    digest: bytes
    state: JobState
    finished_at: int


class Found(NamedTuple):
    """What the store had. ``refs`` maps a reference to the ids it may mean (two at most are enough to call it ambiguous)."""

    jobs: dict[bytes, Job] = {}
    known: dict[bytes, Known] = {}
    refs: dict[str, list[bytes]] = {}
    page: list[Job] = []
    results: dict[bytes, bytes] = {}
    prunable: list[Job] = []


class Loaded(NamedTuple):
    """What a broker starts from. ``former_epoch`` and ``last_token`` are the highest that the store had before: a peer that has seen later
    ones shows that it is an older copy.
    """

    epoch: int
    store_id: bytes
    next_seq: int
    jobs: list[Job]
    artifacts: list[ArtifactRow]
    artifact_users: dict[bytes, int]
    clean: bool
    former_epoch: int = 0
    last_token: int = 0
