"""What a client hands out: a request to fill in, a job to wait for, its result. Plain objects around a client; no sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ktrdr_zmq import payload
from ktrdr_zmq.errors import JobCancelled, JobEnded, JobFailed, JobTimedOut, Refused, UsageError, WaitTimedOut
from ktrdr_zmq.events import JobUpdate, ProgressUpdate, Watched
from ktrdr_zmq.jobs import Failure, JobState
from ktrdr_zmq.views import JobInfo, Table

if TYPE_CHECKING:
    from ktrdr_zmq.client import AsyncClient

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
    name, labels : str, dict of str to str
        For people: shown in lists and searched by them.
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
    wait_refusals : bool or callable
        Wait when the broker refuses for the moment (queue full, disk full) instead of raising; a callable gets each such `Refused`.
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
    wait_refusals: bool | Callable[[Refused], None] = False


class JobResult(dict[str, Any]):
    """The result of a job: a dictionary whose entries are attributes too, with the job's tables within reach.

    Attributes
    ----------
    job : AsyncJob
        Whose result it is.

    Examples
    --------
    ``result["in_sample"]`` and ``result.in_sample`` are the same; ``result.metrics["sharpe_ratio"]`` is a figure of a backtest.
    """

    def __init__(self, plain: Mapping[str, Any], job: AsyncJob) -> None:
        super().__init__(plain)
        self.job = job

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"This result has no {name!r}; it has: {', '.join(self) or 'nothing'}.")

    @property
    def document(self) -> Any:
        """The typed form (`ktrdr_zmq.results`) of a training's or backtest's result."""
        from ktrdr_zmq.results import read

        return read(self)

    @property
    def metrics(self) -> dict[str, Any]:
        """The figures by name: of a backtest, or of the test part of a training."""
        for part in ("metrics", "test"):
            if part in self:
                return dict(self[part])
        raise AttributeError("metrics")

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
        await self._in_time(self._ended(), timeout)
        self._raise_broken()
        return await self.status()

    async def result(self, timeout: float | None = None, progress: Callable[[Update], None] | None = None) -> JobResult:
        """Wait for the result.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.
        progress : callable, optional
            Called with each `JobUpdate` and `ProgressUpdate`, from the job's state now to its end; what it raises is raised here.

        Raises
        ------
        JobFailed, JobCancelled, JobTimedOut
            When it ended without one.
        WaitTimedOut
            After ``timeout`` seconds; the job goes on.
        """
        watched = self._watched
        if progress is not None:
            await self._in_time(self._report(progress), timeout)
        elif not watched.over:
            await self._in_time(self._ended(), timeout)
        self._raise_broken()
        if watched.state is not JobState.DONE:
            raise job_error(self.id, watched.state, watched.reason, watched.failure)
        if watched.result is None:
            watched.result = await self._client.fetch_result(self.id)
        return JobResult(payload.unpack(watched.result) if watched.result else {}, self)

    async def _in_time(self, waiting: Coroutine[Any, Any, None], timeout: float | None) -> None:
        if timeout is None:
            await waiting
            return
        try:
            async with asyncio.timeout(timeout):
                await waiting
        except TimeoutError:
            raise WaitTimedOut(f"Job {self.id[:8]} did not end within {timeout:g} s; it goes on.") from None

    async def _ended(self) -> None:
        watched = self._watched
        if watched.over:
            return
        ended = asyncio.get_running_loop().create_future()

        def listen(_: Update) -> None:
            if watched.over and not ended.done():
                ended.set_result(None)

        watched.listeners.append(listen)
        try:
            await ended
        finally:
            watched.listeners.remove(listen)

    async def _report(self, progress: Callable[[Update], None]) -> None:
        async with contextlib.aclosing(self.events()) as updates:
            async for update in updates:
                progress(update)

    def _raise_broken(self) -> None:
        if self._watched.broken is not None:
            raise self._watched.broken

    async def events(self) -> AsyncGenerator[Update, None]:
        """What happens to the job, from its state now to its end; survives reconnects and restarts of the broker.

        Yields
        ------
        JobUpdate or ProgressUpdate
            The last one is the `JobUpdate` of the job's end. Progress that nobody waited for may be skipped, state never goes back.

        Raises
        ------
        BrokerUnreachable
            When the client is closed meanwhile.
        UnknownJob
            When the job was removed meanwhile.
        """
        watched = self._watched
        news: asyncio.Queue[Update] = asyncio.Queue()
        watched.listeners.append(news.put_nowait)
        try:
            news.put_nowait(watched.update())
            if watched.progress is not None and not watched.over:
                news.put_nowait(watched.progress)
            while True:
                update = await news.get()
                if news.empty():
                    self._raise_broken()
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
        return await self._client.get_artifact(await self._digest(name), to)

    async def save(self, to: Path, timeout: float | None = None) -> Path:
        """Wait for the result of a job that makes one file, such as a report or a model, and fetch that file.

        Raises
        ------
        UsageError
            When it has made none, or several.
        JobFailed, JobCancelled, JobTimedOut, WaitTimedOut
            As `result`.
        """
        await self.result(timeout)
        made = [artifact.name for artifact in (await self.status()).artifacts if artifact.name not in ("log", "checkpoint")]
        if len(made) != 1:
            raise UsageError(f"Job {self.id[:8]} has not made one file but: {', '.join(made) or 'none'}.", hint="Use artifact(name, to).")
        return await self.artifact(made[0], to)

    async def artifact_bytes(self, name: str) -> bytes:
        """Fetch a file that the job produced, as octets; see `artifact`."""
        return await self._client.artifact_bytes(await self._digest(name))

    async def _digest(self, name: str) -> str:
        artifacts = (await self.status()).artifacts
        for artifact in artifacts:
            if artifact.name == name:
                return artifact.digest
        there = ", ".join(artifact.name for artifact in artifacts) or "none"
        raise UsageError(f"Job {self.id[:8]} has no artifact {name!r}; it has: {there}.")


def job_error(job_id: str, state: JobState, reason: str, failure: Failure | None) -> JobEnded:
    """The exception for a job that ended without a result."""
    text = failure.message if failure is not None else reason
    hint = failure.hint if failure is not None else ""
    if state is JobState.CANCELLED:
        return JobCancelled(f"Job {job_id[:8]} was cancelled.", job_id=job_id)
    if state is JobState.TIMED_OUT:
        return JobTimedOut(f"Job {job_id[:8]} timed out: {text}", hint=hint, job_id=job_id)
    if not hint and failure is not None and (failure.traceback or failure.stderr_tail or failure.signal):  # not for a person's mistake
        hint = f"See what it printed with: ktrdr jobs logs {job_id[:8]}"
    return JobFailed(
        f"Job {job_id[:8]} failed: {text}", hint=hint, job_id=job_id,
        traceback=failure.traceback if failure is not None else "", stderr_tail=failure.stderr_tail if failure is not None else "",
    )  # fmt: skip
