"""`AsyncClient`: submit, wait, watch, fetch. A thin shell of sockets and futures around `session` and `events`.

Nothing runs here: jobs run on workers, whoever submitted them may go away, and any other client finds their results.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import random
import secrets
import socket as stdlib_socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import msgspec
import zmq

from ktrdr_zmq import codec, payload
from ktrdr_zmq import messages as m
from ktrdr_zmq.artifacts import BulkClient
from ktrdr_zmq.config import Endpoint, find_broker, load_settings
from ktrdr_zmq.errors import (
    AmbiguousJob,
    BrokerUnreachable,
    JobCancelled,
    JobEnded,
    JobFailed,
    JobTimedOut,
    NoCapableWorker,
    PayloadError,
    ProtocolError,
    Refused,
    UnknownJob,
    UsageError,
    WaitTimedOut,
)
from ktrdr_zmq.events import JobUpdate, ProgressUpdate, Tracker, Watched
from ktrdr_zmq.jobs import JOB_ID_SIZE, LANE_SIZE, SYNC_TOPIC, Device, Failure, JobSpec, JobState, job_topic, lane_topic
from ktrdr_zmq.session import Answer, ClientSession, Reconnect, Send, State, Submitted
from ktrdr_zmq.transport import Channel, connect_dealer, connect_sub
from ktrdr_zmq.version import __version__
from ktrdr_zmq.views import Explanation, JobInfo, LogChunk, Table, WorkerInfo, job_info, worker_info

MAX_JOB_BODY: Final = 1 << 20
ANSWER_TIMEOUT: Final = 30.0
Update = JobUpdate | ProgressUpdate


class JobRequest(msgspec.Struct, kw_only=True):
    """A job to submit.

    Parameters
    ----------
    kind : str
        What kind of job it is, for example ``training``.
    body : dict
        Its parameters; MessagePack-able, arrays and aware datetimes included, at most 1 MiB encoded.
    job_id : str, optional
        32 hex digits chosen by the caller: the same id and content submitted twice is one job.
    inputs : dict of str to Path, bytes or str
        Named files for the job: a path or octets are uploaded, a text is the digest (hex) of what is stored already.
    device : {"auto", "gpu", "cpu"}
        Which slots it may use; ``auto`` prefers a GPU.
    gpu_wait : float
        Seconds for which ``auto`` waits for a busy GPU before it takes a CPU.
    priority : int
        Higher runs first.
    queue : bool
        Accept the job even if no worker can run it now.
    run_timeout, queue_timeout : float
        Seconds an attempt may run, and the job may wait; 0 for no limit.
    threads : int
        Threads for the job's numerical libraries; the same number gives the same figures everywhere.
    memory_limit : int
        Octets the job's processes may use; 0 for no limit.
    max_crashes, max_losses : int
        How often its process may die unexplained, and its worker be lost, before it fails.
    reclaim_after : float
        Seconds for which a silent worker may keep it; 0 leaves that to the broker.
    wait_refusals : bool
        Wait when the broker refuses for the moment (queue full, disk full), instead of raising.
    """

    kind: str
    body: dict[str, Any]
    job_id: str = ""
    inputs: dict[str, Any] = {}
    device: str = "auto"
    gpu_wait: float = 0.0
    priority: int = 0
    name: str = ""
    labels: dict[str, str] = {}
    queue: bool = False
    run_timeout: float = 0.0
    queue_timeout: float = 0.0
    threads: int = 1
    memory_limit: int = 0
    max_crashes: int = 3
    max_losses: int = 20
    reclaim_after: float = 0.0
    schema: int = 1
    wait_refusals: bool = False


class JobResult(dict[str, Any]):
    """The result of a job: a dictionary, with the job's tables within reach.

    Attributes
    ----------
    job : AsyncJob
        Whose result it is.
    """

    def __init__(self, plain: Mapping[str, Any], job: AsyncJob) -> None:
        super().__init__(plain)
        self.job = job

    @property
    def document(self) -> Any:
        """The typed form (`ktrdr_zmq.results`) of a training's or backtest's result."""
        from ktrdr_zmq.results import read

        return read(self)

    @property
    def metrics(self) -> dict[str, Any]:
        """The figures by name: of the backtest, or of the test part of a training."""
        return dict(self["metrics"] if "metrics" in self else self["test"])

    async def table(self, name: str) -> Table:
        """Fetch a table that the job left, for example ``trades`` or ``equity``."""
        return Table(await self.job.artifact_bytes(name))


class AsyncJob:
    """A job, wherever it runs. Made by a client; keeps nothing alive but itself."""

    def __init__(self, client: AsyncClient, watched: Watched) -> None:
        self._client = client
        self._watched = watched

    def __repr__(self) -> str:
        return f"<job {self.id[:8]} {self._watched.state.value}>"

    @property
    def id(self) -> str:
        """The job's id, 32 hex digits."""
        return self._watched.job_id.hex()

    @property
    def notice(self) -> str:
        """What the broker had to say about the accepted job; empty if nothing."""
        return self._watched.notice

    @property
    def client(self) -> AsyncClient:
        """The client that it was made by."""
        return self._client

    async def status(self) -> JobInfo:
        """The job as it is now."""
        return await self._client.job_info(self.id)

    async def wait(self, timeout: float | None = None) -> JobInfo:
        """Wait for the end, whatever it is.

        Raises
        ------
        WaitTimedOut
            After ``timeout`` seconds; the job goes on.
        """
        await self._ended(timeout)
        return await self.status()

    async def result(self, timeout: float | None = None, progress: Callable[[Update], None] | None = None) -> JobResult:
        """Wait for the result.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.
        progress : callable, optional
            Called with each `JobUpdate` and `ProgressUpdate` meanwhile.

        Raises
        ------
        JobFailed, JobCancelled, JobTimedOut
            When it ended without one.
        WaitTimedOut
            After ``timeout`` seconds; the job goes on.
        """
        watched = self._watched
        if progress is not None:
            watched.listeners.append(progress)
        try:
            await self._ended(timeout)
        finally:
            if progress is not None:
                watched.listeners.remove(progress)
        if watched.state is not JobState.DONE:
            raise job_error(self.id, watched.state, watched.reason, watched.failure)
        if watched.result is None:
            watched.result = await self._client.fetch_result(self.id)
        return JobResult(payload.unpack(watched.result) if watched.result else {}, self)

    async def _ended(self, timeout: float | None) -> None:
        watched = self._watched
        if watched.terminal:
            return
        ended = asyncio.get_running_loop().create_future()

        def listen(update: Update) -> None:
            if isinstance(update, JobUpdate) and update.terminal and not ended.done():
                ended.set_result(None)

        watched.listeners.append(listen)
        try:
            async with asyncio.timeout(timeout):
                await ended
        except TimeoutError:
            raise WaitTimedOut(f"Job {self.id[:8]} did not end within {timeout:g} s; it goes on.") from None
        finally:
            watched.listeners.remove(listen)

    async def events(self) -> AsyncIterator[Update]:
        """What happens to the job, from its state now to its end; survives reconnects and restarts of the broker."""
        watched = self._watched
        news: asyncio.Queue[Update] = asyncio.Queue()
        watched.listeners.append(news.put_nowait)
        try:
            yield watched.update()
            if watched.progress is not None:
                yield watched.progress
            while not watched.terminal or not news.empty():
                update = await news.get()
                yield update
                if isinstance(update, JobUpdate) and update.terminal:
                    return
        finally:
            watched.listeners.remove(news.put_nowait)

    async def cancel(self, grace: float = 10.0) -> JobInfo:
        """Ask for the job to be stopped; ``grace`` seconds lie between SIGTERM and SIGKILL."""
        return (await self._client.cancel([self.id], grace=grace))[0]

    async def artifact(self, name: str, to: Path) -> Path:
        """Fetch a file that the job produced.

        Raises
        ------
        UsageError
            When the job has no artifact of this name.
        """
        info = await self.status()
        digest = next((artifact.digest for artifact in info.artifacts if artifact.name == name), None)
        if digest is None:
            names = ", ".join(artifact.name for artifact in info.artifacts) or "none"
            raise UsageError(f"Job {self.id[:8]} has no artifact {name!r}; it has: {names}.")
        return await self._client.get_artifact(digest, to)

    async def artifact_bytes(self, name: str) -> bytes:
        """Fetch a small file that the job produced, as octets."""
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            path = await self.artifact(name, Path(folder) / "artifact")
            return await asyncio.to_thread(path.read_bytes)


def job_error(job_id: str, state: JobState, reason: str, failure: Failure | None) -> JobEnded:
    """The exception for a job that ended without a result."""
    text = failure.message if failure is not None else reason
    hint = failure.hint if failure is not None else ""
    if state is JobState.CANCELLED:
        return JobCancelled(f"Job {job_id[:8]} was cancelled.", job_id=job_id)
    if state is JobState.TIMED_OUT:
        return JobTimedOut(f"Job {job_id[:8]} timed out: {text}", hint=hint, job_id=job_id)
    return JobFailed(
        f"Job {job_id[:8]} failed: {text}", hint=hint or f"See what it printed with: ktrdr jobs logs {job_id[:8]}", job_id=job_id,
        traceback=failure.traceback if failure is not None else "", stderr_tail=failure.stderr_tail if failure is not None else "",
    )  # fmt: skip


class _Subscription(NamedTuple):
    topic: bytes
    ready: asyncio.Future[None]


class AsyncClient:
    """A connection to the broker.

    Parameters
    ----------
    broker : str, optional
        An IP, IP:port or tcp://IP:port; otherwise found as the command line finds it.
    submitter : str, optional
        Whose jobs these are, for fairness; ``user@host`` by default.
    connect_timeout : float
        Seconds within which the broker must answer.
    data_dir : Path, optional
        Folder with bars of one's own for `train` and `backtest`.

    Raises
    ------
    ConfigError
        When no broker is named, or not by a numeric address.
    """

    def __init__(
        self,
        broker: str | None = None,
        *,
        submitter: str | None = None,
        connect_timeout: float = 5.0,
        data_dir: str | Path | None = None,
    ) -> None:
        settings = load_settings({"client.submitter": submitter, "client.data_dir": str(data_dir) if data_dir else None})
        self.endpoint: Endpoint = find_broker(broker, settings=settings)
        self.data_dir = Path(settings["client.data_dir"]).expanduser() if settings["client.data_dir"] else None
        self._submitter = settings["client.submitter"] or f"{_user()}@{stdlib_socket.gethostname()}"
        self._connect_timeout = connect_timeout
        self._lane = secrets.token_bytes(LANE_SIZE)
        self._tracker = Tracker()
        self._answers: dict[int, asyncio.Future[tuple[Any, list[bytes]]]] = {}
        self._acks: dict[bytes, asyncio.Future[m.SubmitReply]] = {}
        self._syncs: dict[bytes, asyncio.Future[None]] = {}
        self._topics: set[bytes] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._pump_planned = False
        self._open = False
        self._epoch = 0

    # ------------------------------------------------------------ life

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def connect(self) -> None:
        """Open the dialogue.

        Raises
        ------
        BrokerUnreachable
            When nothing answers within the connect timeout.
        ProtocolError
            When the broker speaks another version.
        """
        self._loop = asyncio.get_running_loop()
        self._context: zmq.Context[Any] = zmq.Context()
        info = m.ClientInfo(
            versions=[m.MAJOR], submitter=self._submitter, host=stdlib_socket.gethostname(), pid=os.getpid(),
            software={"ktrdr-zmq": __version__, "python": sys.version.partition(" ")[0]},
        )  # fmt: skip
        self._session = ClientSession(info, time.monotonic(), random.random)
        self._session.watch(True)
        self._bulk = BulkClient(self._context, self.endpoint.url(3))
        self._open = True
        self._dial()
        self._events = Channel(connect_sub(self._context, self.endpoint.url(2), reconnect_ms=random.randint(100, 300)), self._on_events)
        self._events.open()
        self._pump()
        try:
            await self._await_open()
            self.lane_ready = self._loop.create_task(self._subscribe(lane_topic(self._lane)))
        except BaseException:
            await self.close()
            raise

    async def _await_open(self) -> None:
        end = self._loop.time() + self._connect_timeout
        while self._session.state is not State.OPEN:
            if self._session.state is State.FAILED:
                refusal = self._session.refusal
                raise ProtocolError(refusal.text if refusal else "", code=refusal.code if refusal else "VERSION")
            if self._loop.time() > end:
                raise BrokerUnreachable(
                    f"The broker at {self.endpoint} does not answer (tried for {self._connect_timeout:g} s).",
                    hint="Is it running there? Start one with: ktrdr broker run, or a whole cluster with: ktrdr up",
                )
            await asyncio.sleep(0.005)

    async def close(self) -> None:
        """Close the connection. Jobs go on; whoever still waits gets `BrokerUnreachable`."""
        if not self._open:
            return
        self._open = False
        lane = getattr(self, "lane_ready", None)
        if lane is not None:
            lane.cancel()
            await asyncio.gather(lane, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()
        for waiting in (*self._answers.values(), *self._acks.values(), *self._syncs.values()):
            if not waiting.done():
                waiting.set_exception(BrokerUnreachable("The client was closed."))
                waiting.exception()
        self._bulk.close()
        self._channel.close(200)
        self._events.close(0)
        self._context.term()

    def _dial(self) -> None:
        socket = connect_dealer(self._context, self.endpoint.url(1), reconnect_ms=random.randint(100, 300), hwm=20_000)
        self._channel = Channel(socket, self._on_batch, on_writable=self._on_writable, budget=1024)
        self._channel.open()

    # ------------------------------------------------------------ the pump

    def _on_batch(self, batch: list[list[bytes]]) -> None:
        now = time.monotonic()
        for frames in batch:
            try:
                message, bodies = codec.decode(frames, codec.TO_CLIENT)
            except ProtocolError:
                continue
            self._session.on_message(message, bodies, now)
        self._pump()

    def _on_events(self, batch: list[list[bytes]]) -> None:
        now = time.monotonic()
        for _, *frames in batch:
            try:
                message, bodies = codec.decode(frames, codec.EVENTS)
            except ProtocolError:
                continue
            if isinstance(message, m.SyncEvent):
                sync = self._syncs.get(message.nonce)
                if sync is not None and not sync.done():
                    sync.set_result(None)
            else:
                self._tracker.on_event(message, bodies, now)

    def _on_writable(self) -> None:
        self._session.on_writable(time.monotonic())
        self._pump()

    def _plan_pump(self) -> None:
        if not self._pump_planned:
            self._pump_planned = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Carry out what the session wants, and see when it wants to be woken."""
        self._pump_planned = False
        if not self._open:
            return
        for output in self._session.drain():
            if isinstance(output, Send):
                self._channel.send(codec.encode(output.message, output.bodies))
            elif isinstance(output, Submitted):
                self._acknowledged(output.reply)
            elif isinstance(output, Answer):
                waiting = self._answers.pop(output.request, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result((output.reply, output.bodies))
            elif isinstance(output, Reconnect):
                self._channel.close(0)
                self._dial()
        if self._session.epoch != self._epoch:
            self._epoch = self._session.epoch
            self._tracker.lost_touch()
        self._plan_tick()

    def _plan_tick(self) -> None:
        due = self._session.next_deadline()
        if self._timer is not None:
            if self._timer_due <= due + 0.001:
                return
            self._timer.cancel()
        self._timer_due = due
        self._timer = self._loop.call_later(max(due - time.monotonic(), 0.001), self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = time.monotonic()
        self._session.on_tick(now)
        silent = self._tracker.due(now)
        if silent and self._session.state is State.OPEN:
            self._loop.create_task(self._repair(silent))
        self._pump()

    async def _repair(self, job_ids: list[bytes]) -> None:
        """Ask STATUS about jobs of which nothing has been heard."""
        try:
            reply, _ = await self._ask(m.Status(0, [job_id.hex() for job_id in job_ids]))
        except (BrokerUnreachable, Refused):
            return
        now = time.monotonic()
        for view in reply.jobs:
            self._tracker.on_view(view, now)

    def _acknowledged(self, reply: m.SubmitReply) -> None:
        waiting = self._acks.pop(reply.job_id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)

    async def _ask(self, message: Any, timeout: float = ANSWER_TIMEOUT) -> tuple[Any, list[bytes]]:
        """One request and its answer; NACKs become exceptions."""
        if not self._open:
            raise BrokerUnreachable("The client is not connected.")
        number = self._session.request(message, now=time.monotonic())
        answer = self._answers[number] = self._loop.create_future()
        self._plan_pump()
        try:
            async with asyncio.timeout(timeout):
                reply, bodies = await answer
        except TimeoutError:
            raise BrokerUnreachable(f"The broker at {self.endpoint} has not answered for {timeout:g} s.") from None
        finally:
            self._answers.pop(number, None)
            self._session.forget(number)
        if isinstance(reply, m.Nack):
            raise _refusal(reply.code, reply.text, reply.retryable, reply.retry_after)
        return reply, bodies

    # ------------------------------------------------------------ events

    async def _subscribe(self, topic: bytes) -> None:
        """Subscribe, and wait until the subscription has arrived: everything published from then on is heard."""
        if topic in self._topics:
            return
        self._topics.add(topic)
        nonce = secrets.token_hex(8).encode()
        sync = self._syncs[nonce] = self._loop.create_future()
        barrier = SYNC_TOPIC + nonce
        self._events.socket.setsockopt(zmq.SUBSCRIBE, topic)
        self._events.socket.setsockopt(zmq.SUBSCRIBE, barrier)
        self._events.rearm()
        try:
            async with asyncio.timeout(2.0):
                await sync
        except TimeoutError:
            pass  # events are hints: without them STATUS is asked every few seconds
        finally:
            self._syncs.pop(nonce, None)
            if self._open:
                self._events.socket.setsockopt(zmq.UNSUBSCRIBE, barrier)

    # ------------------------------------------------------------ submitting

    async def submit(self, kind: str, body: dict[str, Any], **options: Any) -> AsyncJob:
        """Submit a job; returns when the broker has it on disk. Options are those of `JobRequest`.

        Raises
        ------
        NoCapableWorker
            When no worker can run it, and ``queue`` was not asked for.
        Refused
            For any other reason of the broker's.
        PayloadError
            When the body cannot be encoded, or is larger than 1 MiB.
        """
        return await self._submit(JobRequest(kind=kind, body=body, **options))

    async def submit_many(self, requests: Iterable[JobRequest]) -> list[AsyncJob | Refused]:
        """Submit jobs together; each is accepted or refused for itself."""
        outcomes = await asyncio.gather(*(self._submit(request) for request in requests), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, Refused):
                raise outcome
        return [outcome for outcome in outcomes if not isinstance(outcome, BaseException) or isinstance(outcome, Refused)]

    async def _submit(self, request: JobRequest) -> AsyncJob:
        if not self.lane_ready.done():
            await asyncio.wait([self.lane_ready])
        job_id = _job_id(request.job_id) if request.job_id else secrets.token_bytes(JOB_ID_SIZE - LANE_SIZE) + self._lane
        body = payload.pack(request.body)
        if len(body) > MAX_JOB_BODY:
            raise PayloadError(
                f"The job's body has {len(body):,} octets; the limit is {MAX_JOB_BODY:,}.", hint="Give large data as inputs.", code="TOO_LARGE"
            )
        sources, inputs = _digests(request.inputs) if request.inputs else ({}, ())
        spec = msgspec.msgpack.encode(self._spec(request, inputs))
        now = time.monotonic()
        watched = self._tracker.watch(job_id, now, acknowledged=False)
        try:
            reply = await self._offer(job_id, spec, body, sources, request.wait_refusals)
        except BaseException:
            self._tracker.drop(job_id)
            raise
        watched.acknowledged = True
        watched.heard_at = time.monotonic()
        watched.notice = reply.notice
        if request.job_id:
            await self._subscribe(job_topic(job_id))
            watched.heard_at = 0.0
        return AsyncJob(self, watched)

    async def _offer(
        self, job_id: bytes, spec: bytes, body: bytes, sources: dict[bytes, Path | bytes], wait_refusals: bool
    ) -> m.SubmitReply:
        """SUBMIT until it is acknowledged: upload what is missing, wait out refusals that pass."""
        while True:
            ack = self._acks.get(job_id)
            if ack is None:
                ack = self._acks[job_id] = self._loop.create_future()
                self._session.submit(job_id, spec, body, now=time.monotonic())
                self._plan_pump()
            reply = await ack
            if reply.code == "OK":
                return reply
            if reply.code == "MISSING_ARTIFACT" and all(digest in sources for digest in reply.missing) and reply.missing:
                for digest in reply.missing:
                    await self._bulk.put(sources[digest], digest)
                continue
            if reply.retryable and wait_refusals and reply.code != "MISSING_ARTIFACT":
                await asyncio.sleep(reply.retry_after or 2.0)
                continue
            raise _refusal(reply.code, reply.text, reply.retryable, reply.retry_after)

    def _spec(self, request: JobRequest, inputs: tuple[tuple[str, bytes], ...]) -> JobSpec:
        try:
            device = Device(request.device)
        except ValueError:
            raise UsageError(f"There is no device {request.device!r}; choose auto, gpu or cpu.") from None
        return JobSpec(
            kind=request.kind, schema=request.schema, device=device, gpu_wait=float(request.gpu_wait), priority=request.priority,
            name=request.name, labels=tuple(sorted((str(k), str(v)) for k, v in request.labels.items())), submitter=self._submitter,
            run_timeout=float(request.run_timeout), queue_timeout=float(request.queue_timeout), reclaim_after=float(request.reclaim_after),
            max_crashes=request.max_crashes, max_losses=request.max_losses, threads=request.threads, memory_limit=request.memory_limit,
            inputs=inputs, queue=request.queue,
        )  # fmt: skip

    # ------------------------------------------------------------ jobs

    async def job(self, ref: str) -> AsyncJob:
        """A job by id, by the beginning of an id (4 digits and more), by ``last``, or by ``last:KIND``.

        Raises
        ------
        UnknownJob, AmbiguousJob
        """
        view = await self._view(ref)
        watched = self._tracker.jobs.get(view.job_id)
        if watched is None:
            watched = self._tracker.watch(view.job_id, time.monotonic())
            await self._subscribe(job_topic(view.job_id))
            view = await self._view(view.job_id.hex())
        self._tracker.on_view(view, time.monotonic())
        return AsyncJob(self, watched)

    async def _view(self, ref: str) -> m.JobView:
        reply, _ = await self._ask(m.Status(0, [ref], details=True))
        if reply.errors:
            raise _ref_error(reply.errors[0])
        view: m.JobView = reply.jobs[0]
        return view

    async def job_info(self, ref: str) -> JobInfo:
        """A job as it is now."""
        return job_info(await self._view(ref))

    async def jobs(
        self, *, states: Sequence[str] = (), kinds: Sequence[str] = (), labels: Mapping[str, str] | None = None, name: str = "",
        since: float = 0.0, limit: int = 100, details: bool = False,
    ) -> list[JobInfo]:  # fmt: skip
        """Jobs, newest first. ``since`` is UTC seconds; empty filters match all."""
        found: list[JobInfo] = []
        before = 0
        pairs = list((labels or {}).items())
        while len(found) < limit:
            page = min(limit - len(found), 1000)
            message = m.List(0, list(states), list(kinds), pairs, name, int(since * 1e6), before, page, details)
            reply, _ = await self._ask(message)
            found += [job_info(view) for view in reply.jobs]
            before = reply.next_before
            if not before:
                break
        return found

    async def cancel(self, refs: Sequence[str], *, grace: float = 10.0) -> list[JobInfo]:
        """Cancel jobs.

        Raises
        ------
        UnknownJob, AmbiguousJob
            For the first reference that is none; the others are cancelled all the same.
        """
        reply, _ = await self._ask(m.CancelJobs(0, list(refs), grace))
        if reply.errors:
            raise _ref_error(reply.errors[0])
        now = time.monotonic()
        for view in reply.jobs:
            self._tracker.on_view(view, now)
        return [job_info(view) for view in reply.jobs]

    async def retry(self, ref: str) -> AsyncJob:
        """Submit an ended job once more, as a new job."""
        job_id = secrets.token_bytes(JOB_ID_SIZE - LANE_SIZE) + self._lane
        watched = self._tracker.watch(job_id, time.monotonic())
        try:
            reply, _ = await self._ask(m.Retry(0, ref, job_id))
        except BaseException:
            self._tracker.drop(job_id)
            raise
        self._tracker.on_view(reply.job, time.monotonic())
        return AsyncJob(self, watched)

    async def explain(self, ref: str) -> Explanation:
        """Why a job is where it is."""
        reply, _ = await self._ask(m.Explain(0, ref))
        return Explanation(job_info(reply.job), reply.text, reply.workers)

    async def fetch_result(self, ref: str) -> bytes:
        """The result of an ended job as its octets; empty if it has none."""
        reply, bodies = await self._ask(m.ResultGet(0, ref))
        if reply.dropped:
            raise Refused(f"The result of job {ref[:8]} is not kept any more.", code="DROPPED", hint="Run it again with: ktrdr jobs retry")
        return bodies[0] if bodies else b""

    async def logs(self, ref: str, offset: int = 0, limit: int = 65_536) -> LogChunk:
        """What a job printed, from ``offset``: from its worker while it runs, from its log artifact afterwards."""
        reply, bodies = await self._ask(m.Logs(0, ref, offset, limit))
        if reply.artifact is None:
            return LogChunk(reply.offset, bodies[0] if bodies else b"", reply.ended)
        job = await self.job(ref)
        data = await job.artifact_bytes(reply.artifact.name)
        return LogChunk(offset, data[offset:], ended=True)

    # ------------------------------------------------------------ cluster

    async def workers(self) -> list[WorkerInfo]:
        """The workers that the broker knows."""
        reply, _ = await self._ask(m.Workers(0))
        return [worker_info(view) for view in reply.workers]

    async def status(self) -> dict[str, Any]:
        """The broker's counters and gauges."""
        return await self.admin("status")

    async def admin(self, action: str, **args: Any) -> dict[str, Any]:
        """Administration: ``drain``, ``undrain``, ``pause``, ``unpause``, ``priority``, ``prune``, ``rm``, ``status``."""
        reply, _ = await self._ask(m.Admin(0, action, args))
        return dict(reply.document)

    # ------------------------------------------------------------ artifacts

    async def put_artifact(self, source: Path | bytes) -> str:
        """Store a file or octets with the broker; returns the digest (hex). Kept as long as a job names it, and a day beyond."""
        return (await self._bulk.put(source)).hex()

    async def get_artifact(self, digest: str, to: Path) -> Path:
        """Fetch an artifact by its digest (hex)."""
        return await self._bulk.get(bytes.fromhex(digest), to)

    # ------------------------------------------------------------ the two built-in jobs

    async def train(self, strategy: str, symbol: str | None = None, timeframe: str | None = None, **options: Any) -> AsyncJob:
        """Train a model; see `ktrdr_zmq.recipes.training` for the options."""
        from ktrdr_zmq.recipes import training

        return await self._submit(training(strategy, symbol, timeframe, data_dir=options.pop("data_dir", None) or self.data_dir, **options))

    async def backtest(self, model: AsyncJob | str = "last", symbol: str | None = None, timeframe: str | None = None, **options: Any) -> AsyncJob:
        """Backtest a trained model; see `ktrdr_zmq.recipes.backtesting` for the options. Waits for the model's training if it still runs."""
        from ktrdr_zmq.recipes import backtesting, find_model

        info = await find_model(self, model)
        trained = await self._trained(info)
        data_dir = options.pop("data_dir", None) or self.data_dir
        return await self._submit(backtesting(info, trained, symbol, timeframe, data_dir=data_dir, **options))

    async def _trained(self, info: JobInfo) -> dict[str, Any]:
        return dict(payload.unpack(await self.fetch_result(info.id)))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _job_id(text: str) -> bytes:
    try:
        job_id = bytes.fromhex(text)
    except ValueError:
        job_id = b""
    if len(job_id) != JOB_ID_SIZE:
        raise UsageError(f"A job id has {2 * JOB_ID_SIZE} hex digits, not {text!r}.")
    return job_id


def _digests(inputs: Mapping[str, Any]) -> tuple[dict[bytes, Path | bytes], tuple[tuple[str, bytes], ...]]:
    """What may have to be uploaded by digest, and the names that the job gives it."""
    import hashlib

    from ktrdr_zmq.artifacts import file_digest

    sources: dict[bytes, Path | bytes] = {}
    named = []
    for name, source in inputs.items():
        if isinstance(source, str):
            digest = bytes.fromhex(source)
        else:
            digest = file_digest(source) if isinstance(source, Path) else hashlib.sha256(source).digest()
            sources[digest] = source
        named.append((name, digest))
    return sources, tuple(named)


def _refusal(code: str, text: str, retryable: bool, retry_after: float) -> Exception:
    if code == "NO_CAPABLE_WORKER":
        return NoCapableWorker(text, hint="Start one with: ktrdr worker run, or let the job wait with --queue.")
    if code == "UNKNOWN_JOB":
        return UnknownJob(text)
    if code == "AMBIGUOUS_JOB":
        return AmbiguousJob(text)
    if code == "BAD_SPEC":
        return UsageError(text)
    return Refused(text, code=code, retryable=retryable, retry_after=retry_after)


def _ref_error(error: m.RefError) -> Exception:
    return _refusal(error.code, error.text, retryable=False, retry_after=0.0)
