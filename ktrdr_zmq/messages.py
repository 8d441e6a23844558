"""Every message on the wire as a typed, positional struct.

Pure data: no sockets, no clock. A header is a MessagePack array in the order of the fields here; fields are only ever appended
within a major version, with a default. Maps appear in HELLO and STATUS documents only. ``docs/protocol.md`` is generated from this
module. Octet strings are ids and digests; times named ``*_at`` are the broker's UTC microseconds; other times are seconds.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ktrdr_zmq.jobs import Artifact, Attempt, Failure, JobState, Outcome

MAGIC: Final = b"KZ"
MAJOR: Final = 1
MAX_MESSAGE: Final = 16 * 1024 * 1024
"""ZMQ_MAXMSGSIZE of the broker's sockets; senders split batches below half of it."""


class Message(msgspec.Struct, array_like=True):
    """Base of all messages."""


class Item(msgspec.Struct, array_like=True):
    """Base of the elements of a batch."""


# ---------------------------------------------------------------- worker -> broker


class Device(msgspec.Struct):
    """One accelerator of a worker."""

    index: int
    uuid: str = ""
    name: str = ""
    memory: int = 0
    type: str = "CUDA"


class JobRef(Item):
    """A job and the fencing token of one dispatch of it."""

    job_id: bytes
    token: int


class WorkerInfo(msgspec.Struct):
    """What a worker says of itself in HELLO (a map, so that it can grow)."""

    worker_id: str
    instance: bytes
    hello_seq: int
    versions: list[int]
    slots: list[tuple[str, int]]
    kinds: list[tuple[str, int, int]]
    highest_epoch: int = 0
    store_id: bytes = b""
    host: str = ""
    hostname: str = ""
    pid: int = 0
    devices: list[Device] = []
    simulated_gpu: bool = False
    software: dict[str, str] = {}
    numeric: str = ""
    cpus: int = 0
    memory: int = 0
    draining: bool = False
    pending: list[str] = []
    highest_token: int = 0


class WorkerHello(Message):
    """Opens or re-opens a session: who the worker is, what it offers, what it still runs and what it has finished."""

    info: WorkerInfo
    running: list[JobRef] = []
    finished: list[JobRef] = []


class Credit(Message):
    """Cumulative grants per tag since the session began: the first are the free slots, then one for each slot freed."""

    session: int
    totals: list[tuple[str, int]]


class Accept(Message):
    """The jobs are in the worker's hands. A RESULT without an ACCEPT before it implies one."""

    session: int
    items: list[JobRef]


class RejectItem(Item):
    """A job that the worker does not take, and why: DRAINING, UNFIT, PREFETCH_STALE, INPUT_UNAVAILABLE, CHILD_START_FAILED."""

    job_id: bytes
    token: int
    code: str
    text: str = ""


class Reject(Message):
    """The worker will not run these jobs; they return to the queue and avoid it for a while."""

    session: int
    items: list[RejectItem]


class ProgressItem(Item):
    """The latest state of one job; ``seq`` grows within an attempt."""

    job_id: bytes
    token: int
    seq: int
    fraction: float
    stage: str = ""
    text: str = ""
    metrics: list[tuple[str, float]] = []


class Progress(Message):
    """Progress of running jobs, coalesced: only the latest of each job is sent."""

    session: int
    items: list[ProgressItem]


class Checkpoint(Message):
    """A checkpoint was uploaded; it replaces the former one if the token still holds the lease."""

    session: int
    job_id: bytes
    token: int
    seq: int
    artifact: Artifact


class ResultItem(Item):
    """How one attempt ended. ``size`` octets of the joined body are its result."""

    job_id: bytes
    token: int
    outcome: Outcome
    size: int = 0
    run_s: float = 0.0
    artifacts: list[Artifact] = []
    failure: Failure | None = None
    reason: str = ""


class Result(Message):
    """Ended attempts with their results, and the credit that their slots give back."""

    session: int
    items: list[ResultItem]
    credit: list[tuple[str, int]] = []


class WorkerPing(Message):
    """Heartbeat. ``tokens`` are the leases held longer than 10 s; ``lag`` is the agent's own loop lag in seconds; ``credit`` repeats the
    totals granted, and ``draining`` says whether it takes no jobs, in case a word about either was lost.
    """

    session: int
    seq: int
    tokens: list[int] = []
    lag: float = 0.0
    load: float = 0.0
    gpu: str = ""
    credit: list[tuple[str, int]] = []
    draining: bool = False


class Drained(Message):
    """A drain has ended: nothing runs here any more."""

    session: int


class WorkerBye(Message):
    """The worker leaves. ``returns_in`` seconds says when it means to be back; negative: not known."""

    session: int
    returns_in: float = -1.0


class LogTail(Message):
    """Answer to TAIL: log octets from ``offset`` in the body."""

    request: int
    client: bytes
    job_id: bytes
    offset: int
    size: int
    ended: bool = False


class Have(Message):
    """Which of these artifacts are stored? Asking renews their grace period. Sent by workers and clients alike."""

    request: int
    digests: list[bytes]


# ---------------------------------------------------------------- broker -> worker


class Verdict(Item):
    """What is to become of a job named in HELLO: CONTINUE, ABORT, SEND_RESULT or FORGET."""

    job_id: bytes
    token: int
    verdict: str


class HelloOk(Message):
    """The session is open."""

    epoch: int
    store_id: bytes
    session: int
    ping_interval: float
    dead_after: float
    max_message: int
    max_inline_result: int
    verdicts: list[Verdict] = []
    version: str = ""
    hello_seq: int = 0


class DispatchItem(Item):
    """One job for the worker. ``spec`` holds the octets of the job's specification, ``size`` octets of the joined body are its body."""

    job_id: bytes
    token: int
    attempt: int
    tag: str
    spec: bytes
    size: int
    checkpoint: Artifact | None = None


class Dispatch(Message):
    """Jobs to run. Discarded by the worker if the session is not its current one."""

    session: int
    items: list[DispatchItem]


class CheckpointAck(Message):
    """The checkpoint is saved (``ok``) or its token no longer holds the lease."""

    job_id: bytes
    token: int
    seq: int
    ok: bool


class ResultAck(Message):
    """Verdicts on results: RECORDED, FORGET (another outcome stands), MISSING_ARTIFACT (upload and send again)."""

    items: list[Verdict]


class CancelItem(Item):
    """A job to stop. The worker answers with RESULT, also for a token that it does not know."""

    job_id: bytes
    token: int
    grace: float


class Cancel(Message):
    """Stop these jobs: SIGTERM to the process group, ``grace`` seconds, SIGKILL."""

    items: list[CancelItem]


class Pong(Message):
    """Answer to a ping, with the broker's epoch."""

    seq: int
    epoch: int


class Drain(Message):
    """Take no more jobs. ``stop``: also hand the running ones back; ``leave``: exit when done; ``on=False`` ends the drain."""

    on: bool = True
    stop: bool = False
    leave: bool = False


class Bye(Message):
    """The broker ends this session; SUPERSEDED and DUPLICATE_WORKER_ID mean that the worker must not come back by itself."""

    code: str
    text: str = ""


class Tail(Message):
    """Asks a worker for the log of a running job."""

    request: int
    client: bytes
    job_id: bytes
    token: int
    offset: int
    limit: int


class HaveReply(Message):
    """The digests that are stored."""

    request: int
    present: list[bytes]


class Nack(Message):
    """Something was refused. ``verb`` and ``request`` echo what it was; never sent in answer to a NACK."""

    code: str
    verb: int = 0
    request: int = 0
    retryable: bool = False
    retry_after: float = 0.0
    epoch: int = 0
    text: str = ""
    versions: list[int] = []


# ---------------------------------------------------------------- client -> broker


class ClientInfo(msgspec.Struct):
    """What a client says of itself in HELLO (a map, so that it can grow)."""

    versions: list[int]
    submitter: str = ""
    host: str = ""
    pid: int = 0
    software: dict[str, str] = {}
    highest_epoch: int = 0


class ClientHello(Message):
    """Opens a client's dialogue."""

    request: int
    info: ClientInfo


class SubmitItem(Item):
    """A new job: the id that the client chose, the octets of its JobSpec, and ``size`` octets of the joined body."""

    job_id: bytes
    spec: bytes
    size: int


class Submit(Message):
    """Jobs to accept; each is answered for itself."""

    request: int
    items: list[SubmitItem]


class Status(Message):
    """Asks for jobs by reference: a full id (32 hex digits), its beginning (4 and more), or ``last`` / ``last:KIND``."""

    request: int
    refs: list[str]
    details: bool = False


class List(Message):
    """Asks for jobs, newest first, before ``before_seq`` (0: from the newest). Empty filters match all."""

    request: int
    states: list[str] = []
    kinds: list[str] = []
    labels: list[tuple[str, str]] = []
    name: str = ""
    since: int = 0
    before_seq: int = 0
    limit: int = 100
    details: bool = False


class CancelJobs(Message):
    """Asks to cancel jobs by reference."""

    request: int
    refs: list[str]
    grace: float = 10.0


class Retry(Message):
    """Makes a new job like an ended one; with ``resume`` it goes on from the ended one's last checkpoint."""

    request: int
    ref: str
    new_id: bytes
    resume: bool = False


class ResultGet(Message):
    """Asks for the result of an ended job."""

    request: int
    ref: str


class Logs(Message):
    """Asks for log octets of a job: from its worker while it runs, else the name of its log artifact."""

    request: int
    ref: str
    offset: int = 0
    limit: int = 65536


class Snapshot(Message):
    """Asks for all non-terminal jobs, in pages, after a join of the event stream."""

    request: int
    after_seq: int = 0
    limit: int = 1000


class Workers(Message):
    """Asks for the known workers."""

    request: int


class Explain(Message):
    """Asks why a job is where it is."""

    request: int
    ref: str


class Admin(Message):
    """Administration: an action and its arguments as a map. The actions are ``status``, ``drain``, ``undrain``, ``pause``, ``unpause``,
    ``priority``, ``prune`` and ``rm``.
    """

    request: int
    action: str
    args: dict[str, Any] = {}


class ClientPing(Message):
    """Asks whether the broker is there."""

    request: int


# ---------------------------------------------------------------- broker -> client


class JobView(msgspec.Struct):
    """A job as shown to people (a map, so that it can grow). ``body`` never travels here."""

    job_id: bytes
    seq: int
    rev: int
    kind: str
    state: JobState
    reason: str
    name: str = ""
    labels: list[tuple[str, str]] = []
    submitter: str = ""
    priority: int = 0
    device: str = "auto"
    attempt: int = 0
    worker_id: str = ""
    tag: str = ""
    crashes: int = 0
    losses: int = 0
    submitted_at: int = 0
    started_at: int = 0
    finished_at: int = 0
    run_s: float = 0.0
    fraction: float = 0.0
    stage: str = ""
    text: str = ""
    metrics: list[tuple[str, float]] = []
    artifacts: list[Artifact] = []
    failure: Failure | None = None
    attempts: list[Attempt] = []
    notice: str = ""
    retry_of: bytes = b""
    inputs: list[tuple[str, bytes]] = []
    result_size: int = 0
    checkpoint_seq: int = 0
    note: str = ""


class RefError(Item):
    """A reference that names no job, or several."""

    ref: str
    code: str
    text: str = ""


class ClientHelloOk(Message):
    """The dialogue is open."""

    request: int
    epoch: int
    store_id: bytes
    max_message: int
    max_inline_result: int
    version: str = ""


class SubmitReply(Item):
    """``code`` is OK or a NACK code; ``notice`` tells the submitter something worth knowing about an accepted job."""

    job_id: bytes
    code: str
    text: str = ""
    retryable: bool = False
    retry_after: float = 0.0
    notice: str = ""
    missing: list[bytes] = []


class SubmitAck(Message):
    """Sent after the commit: what is OK here survives a power cut."""

    request: int
    items: list[SubmitReply]


class StatusReply(Message):
    """Jobs found, and references that could not be resolved."""

    request: int
    jobs: list[JobView]
    errors: list[RefError] = []


class ListReply(Message):
    """A page of jobs; ``next_before`` is 0 on the last page."""

    request: int
    jobs: list[JobView]
    next_before: int = 0


class CancelReply(Message):
    """Jobs as they stand now that their cancellation is saved."""

    request: int
    jobs: list[JobView]
    errors: list[RefError] = []


class RetryReply(Message):
    """The new job."""

    request: int
    job: JobView


class ResultReply(Message):
    """The job, and its result as the body (none if the job has none, or if retention dropped it)."""

    request: int
    job: JobView
    size: int = 0
    dropped: bool = False


class LogsReply(Message):
    """Log octets in the body; ``artifact`` names the complete log of an ended job."""

    request: int
    offset: int
    size: int
    ended: bool
    artifact: Artifact | None = None


class SnapshotReply(Message):
    """A page of non-terminal jobs; ``next_after`` is 0 on the last page."""

    request: int
    jobs: list[JobView]
    next_after: int = 0


class WorkerView(msgspec.Struct):
    """A worker as shown to people (a map, so that it can grow)."""

    worker_id: str
    state: str
    gpu: bool
    gpu_type: str | None
    gpu_count: int
    simulated_gpu: bool = False
    address: str = ""
    hostname: str = ""
    slots: list[tuple[str, int]] = []
    kinds: list[tuple[str, int, int]] = []
    running: list[bytes] = []
    draining: bool = False
    silent_s: float = 0.0
    connected_at: int = 0
    software: dict[str, str] = {}
    numeric: str = ""
    pid: int = 0
    cpus: int = 0
    memory: int = 0
    lag: float = 0.0
    load: float = 0.0


class WorkersReply(Message):
    """All known workers."""

    request: int
    workers: list[WorkerView]


class ExplainReply(Message):
    """Why the job is where it is: a sentence, and one line for each worker that could matter."""

    request: int
    job: JobView
    text: str
    workers: list[tuple[str, str]] = []


class AdminReply(Message):
    """Answer to ADMIN as a map."""

    request: int
    document: dict[str, Any] = {}


class ClientPong(Message):
    """The broker is there."""

    request: int
    epoch: int


# ---------------------------------------------------------------- broker -> subscribers


class JobEvent(Message):
    """A job changed its state; published only after the commit. A small result of a finished job is the body (``size`` octets)."""

    epoch: int
    job_id: bytes
    rev: int
    at: int
    kind: str
    state: JobState
    reason: str
    attempt: int = 0
    worker_id: str = ""
    tag: str = ""
    run_s: float = 0.0
    size: int = 0
    result_size: int = 0
    artifacts: list[Artifact] = []
    failure: Failure | None = None
    notice: str = ""


class ProgressEvent(Message):
    """A running job got on."""

    epoch: int
    job_id: bytes
    rev: int
    at: int
    attempt: int
    seq: int
    fraction: float
    stage: str = ""
    text: str = ""
    metrics: list[tuple[str, float]] = []
    worker_id: str = ""
    tag: str = ""


class WorkerEvent(Message):
    """A worker came, fell silent, came back, left or died."""

    epoch: int
    worker_id: str
    at: int
    state: str
    text: str = ""


class SyncEvent(Message):
    """The join barrier: everything published from here on reaches the subscriber that asked with this nonce."""

    epoch: int
    nonce: bytes


# ---------------------------------------------------------------- bulk


class Get(Message):
    """Asks for the chunks of an artifact from ``offset``; ``credit`` is how many may be in flight."""

    request: int
    digest: bytes
    offset: int
    credit: int


class Chunk(Message):
    """One chunk of an artifact, in the body; ``total`` is the artifact's size."""

    request: int
    offset: int
    total: int
    size: int


class Put(Message):
    """Announces an upload."""

    request: int
    digest: bytes
    total: int


class PutReady(Message):
    """Send up to ``credit`` chunks more. ``stored`` means that nothing need be sent."""

    request: int
    credit: int
    stored: bool = False


class PutChunk(Message):
    """One chunk of an upload, in the body, in order."""

    request: int
    offset: int
    size: int


class PutDone(Message):
    """The artifact is on disk and committed."""

    request: int
    digest: bytes


FROM_WORKER: Final[dict[int, type[Message]]] = {
    0x01: WorkerHello, 0x02: Credit, 0x03: Accept, 0x04: Reject, 0x05: Progress, 0x06: Checkpoint, 0x07: Result,
    0x08: WorkerPing, 0x09: Drained, 0x0A: WorkerBye, 0x0B: LogTail, 0x0C: Have,
}  # fmt: skip
TO_WORKER: Final[dict[int, type[Message]]] = {
    0x21: HelloOk, 0x22: Dispatch, 0x23: CheckpointAck, 0x24: ResultAck, 0x25: Cancel, 0x26: Pong, 0x27: Drain, 0x28: Bye,
    0x29: Tail, 0x2A: HaveReply, 0x7F: Nack,
}  # fmt: skip
FROM_CLIENT: Final[dict[int, type[Message]]] = {
    0x41: ClientHello, 0x42: Submit, 0x43: Status, 0x44: List, 0x45: CancelJobs, 0x46: Retry, 0x47: ResultGet, 0x48: Logs,
    0x49: Snapshot, 0x4A: Workers, 0x4B: Explain, 0x4C: Admin, 0x4D: ClientPing, 0x0C: Have,
}  # fmt: skip
TO_CLIENT: Final[dict[int, type[Message]]] = {
    0x61: ClientHelloOk, 0x62: SubmitAck, 0x63: StatusReply, 0x64: ListReply, 0x65: CancelReply, 0x66: RetryReply, 0x67: ResultReply,
    0x68: LogsReply, 0x69: SnapshotReply, 0x6A: WorkersReply, 0x6B: ExplainReply, 0x6C: AdminReply, 0x6D: ClientPong, 0x2A: HaveReply,
    0x7F: Nack,
}  # fmt: skip
EVENTS: Final[dict[int, type[Message]]] = {0x81: JobEvent, 0x82: ProgressEvent, 0x83: WorkerEvent, 0x84: SyncEvent}
BULK_TO_BROKER: Final[dict[int, type[Message]]] = {0xA1: Get, 0xA2: Put, 0xA3: PutChunk}
BULK_FROM_BROKER: Final[dict[int, type[Message]]] = {0xC1: Chunk, 0xC2: PutReady, 0xC3: PutDone, 0x7F: Nack}

VERBS: Final[dict[type[Message], int]] = {
    cls: verb
    for table in (FROM_WORKER, TO_WORKER, FROM_CLIENT, TO_CLIENT, EVENTS, BULK_TO_BROKER, BULK_FROM_BROKER)
    for verb, cls in table.items()
}
