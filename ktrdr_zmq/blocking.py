"""`Client`: `AsyncClient` for scripts and notebooks. Its loop runs in a thread of its own, so that it works inside a running loop too.

Every method hands a coroutine over and waits; nothing else happens here.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from ktrdr_zmq.client import AsyncClient
from ktrdr_zmq.datasets import Dataset
from ktrdr_zmq.errors import BrokerUnreachable, Refused, UsageError
from ktrdr_zmq.events import ProgressUpdate
from ktrdr_zmq.handles import AsyncJob, JobRequest, JobResult, Update
from ktrdr_zmq.views import Explanation, JobInfo, LogChunk, Table, WorkerInfo

T = TypeVar("T")


class Result(JobResult):
    """A result whose tables are fetched when they are asked for."""

    def __init__(self, plain: Mapping[str, Any], job: AsyncJob, owner: Client) -> None:
        super().__init__(plain, job)
        self._owner = owner

    @property
    def trades(self) -> Table:
        """The trades of a backtest."""
        return self._owner._run(self.table("trades"))

    @property
    def equity(self) -> Table:
        """The equity curve of a backtest."""
        return self._owner._run(self.table("equity"))


class Job:
    """A job, wherever it runs; see `AsyncJob`."""

    def __init__(self, owner: Client, job: AsyncJob) -> None:
        self._owner = owner
        self._job = job

    def __repr__(self) -> str:
        return repr(self._job)

    @property
    def id(self) -> str:
        """The job's id, 32 hex digits."""
        return self._job.id

    @property
    def notice(self) -> str:
        """What the broker had to say about the accepted job; empty if nothing."""
        return self._job.notice

    def status(self) -> JobInfo:
        """The job as it is now."""
        return self._owner._run(self._job.status())

    def wait(self, timeout: float | None = None) -> JobInfo:
        """Wait for the end, whatever it is; raises WaitTimedOut after ``timeout`` seconds."""
        return self._owner._run(self._job.wait(timeout))

    def result(self, timeout: float | None = None, progress: bool | Callable[[Update], None] = False) -> Result:
        """Wait for the result.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.
        progress : bool or callable
            True draws a bar on stderr; a callable gets each update (in the client's thread, so it must not wait for the client).

        Raises
        ------
        JobFailed, JobCancelled, JobTimedOut, WaitTimedOut
        """
        with _progress_bar() if progress is True else contextlib.nullcontext(progress or None) as listener:
            plain = self._owner._run(self._job.result(timeout, listener))
        return Result(plain, self._job, self._owner)

    def events(self) -> Iterator[Update]:
        """What happens to the job, from its state now to its end."""
        source = self._job.events()
        try:
            while True:
                try:
                    yield self._owner._run(anext(source))
                except StopAsyncIteration:
                    return
        finally:
            self._owner._run(source.aclose())

    def cancel(self, grace: float = 10.0) -> JobInfo:
        """Ask for the job to be stopped."""
        return self._owner._run(self._job.cancel(grace))

    def artifact(self, name: str, to: str | Path) -> Path:
        """Fetch a file that the job produced."""
        return self._owner._run(self._job.artifact(name, Path(to)))

    def save(self, to: str | Path, timeout: float | None = None) -> Path:
        """Wait for the result of a job that makes one file, such as a report or a model, and fetch it; see `AsyncJob.save`."""
        return self._owner._run(self._job.save(Path(to), timeout))


class Client:
    """A connection to the broker for code without async; parameters as for `AsyncClient`.

    Raises
    ------
    BrokerUnreachable
        When the broker does not answer within ``connect_timeout``.
    """

    def __init__(self, broker: str | None = None, **options: Any) -> None:
        self._async = AsyncClient(broker, **options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ktrdr-client", daemon=True)
        self._thread.start()
        try:
            self._run(self._async.connect())
        except BaseException:
            self._end_loop()
            raise
        _OPEN.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Jobs go on; whoever still waits in another thread gets `BrokerUnreachable`."""
        _OPEN.discard(self)
        if not self._loop.is_closed():
            self._run(self._async.close())
            self._end_loop()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._loop.is_closed():
            coroutine.close()
            raise BrokerUnreachable("The client was closed.")
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise UsageError("A progress callback cannot wait for its own client.", hint="Do that after result() has returned.")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    @property
    def endpoint(self) -> str:
        """Where the broker is."""
        return str(self._async.endpoint)

    # ------------------------------------------------------------ the same words as AsyncClient, without await

    def submit(self, kind: str, body: dict[str, Any], **options: Any) -> Job:
        """Submit a job; see `AsyncClient.submit`."""
        return Job(self, self._run(self._async.submit(kind, body, **options)))

    def submit_many(self, requests: Iterable[JobRequest]) -> list[Job | Refused]:
        """Submit jobs together; each is accepted or refused for itself."""
        outcomes = self._run(self._async.submit_many(requests))
        return [Job(self, outcome) if isinstance(outcome, AsyncJob) else outcome for outcome in outcomes]

    def train(self, strategy: str, symbol: str | Sequence[str] | None = None, timeframe: str | None = None, **options: Any) -> Job:
        """Train a model; see `ktrdr_zmq.recipes.training`."""
        return Job(self, self._run(self._async.train(strategy, symbol, timeframe, **options)))

    def backtest(
        self, model: Job | AsyncJob | str = "last", symbol: str | None = None, timeframe: str | None = None, **options: Any
    ) -> Job:
        """Backtest a trained model; see `ktrdr_zmq.recipes.backtesting`."""
        return Job(self, self._run(self._async.backtest(_bare(model), symbol, timeframe, **options)))

    def report(self, backtest: Job | AsyncJob | str = "last", **options: Any) -> Job:
        """Make a page of a backtest, to be fetched with `Job.save`; see `ktrdr_zmq.followups.report`."""
        return Job(self, self._run(self._async.report(_bare(backtest), **options)))

    def check_lookahead(self, model: Job | AsyncJob | str = "last", symbol: str | None = None, **options: Any) -> Job:
        """Check whether a model sees what it cannot know yet; see `AsyncClient.check_lookahead`."""
        return Job(self, self._run(self._async.check_lookahead(_bare(model), symbol, **options)))

    def check_warmup(self, model: Job | AsyncJob | str = "last", symbol: str | None = None, **options: Any) -> Job:
        """Measure how much history a model's decisions need; see `AsyncClient.check_warmup`."""
        return Job(self, self._run(self._async.check_warmup(_bare(model), symbol, **options)))

    def datasets(self) -> list[Dataset]:
        """The files of bars that jobs can name; see `AsyncClient.datasets`."""
        return self._run(self._async.datasets())

    def import_data(self, file: str | Path, symbol: str, timeframe: str, form: Mapping[str, Any] | None = None, **options: Any) -> Job:
        """Import a file of bars into the cluster; see `ktrdr_zmq.datasets.importing`."""
        return Job(self, self._run(self._async.import_data(file, symbol, timeframe, form, **options)))

    def check_data(
        self, source: str | Path, symbol: str = "", timeframe: str = "", form: Mapping[str, Any] | None = None, **options: Any
    ) -> Job:
        """Check a file of bars, or a set of bars by its name; see `ktrdr_zmq.datasets.CheckResult`."""
        return Job(self, self._run(self._async.check_data(source, symbol, timeframe, form, **options)))

    def remove_data(self, *names: str) -> int:
        """Remove imported bars; see `AsyncClient.remove_data`."""
        return self._run(self._async.remove_data(*names))

    def job(self, ref: str) -> Job:
        """A job by id, the beginning of one, ``last`` or ``last:KIND``."""
        return Job(self, self._run(self._async.job(ref)))

    def jobs(self, **filters: Any) -> list[JobInfo]:
        """Jobs, newest first; see `AsyncClient.jobs`."""
        return self._run(self._async.jobs(**filters))

    def cancel(self, refs: Sequence[str], *, grace: float = 10.0) -> list[JobInfo]:
        """Cancel jobs."""
        return self._run(self._async.cancel(refs, grace=grace))

    def retry(self, ref: str, *, resume: bool = False) -> Job:
        """Submit an ended job once more, as a new job; with ``resume`` it goes on from the last checkpoint."""
        return Job(self, self._run(self._async.retry(ref, resume=resume)))

    def logs(self, ref: str, offset: int = 0, limit: int = 65_536) -> LogChunk:
        """What a job printed."""
        return self._run(self._async.logs(ref, offset, limit))

    def explain(self, ref: str) -> Explanation:
        """Why a job is where it is."""
        return self._run(self._async.explain(ref))

    def workers(self) -> list[WorkerInfo]:
        """The workers that the broker knows."""
        return self._run(self._async.workers())

    def status(self) -> dict[str, Any]:
        """The broker's counters and gauges."""
        return self._run(self._async.status())

    def admin(self, action: str, **args: Any) -> dict[str, Any]:
        """Administration; see `AsyncClient.admin`."""
        return self._run(self._async.admin(action, **args))

    def put_artifact(self, source: str | Path | bytes) -> str:
        """Store a file or octets with the broker; returns the digest (hex)."""
        return self._run(self._async.put_artifact(source if isinstance(source, bytes) else Path(source)))

    def get_artifact(self, digest: str, to: str | Path) -> Path:
        """Fetch an artifact by its digest (hex)."""
        return self._run(self._async.get_artifact(digest, Path(to)))


def _bare(job: Job | AsyncJob | str) -> AsyncJob | str:
    """A job as `AsyncClient` takes it."""
    return job._job if isinstance(job, Job) else job


_OPEN: weakref.WeakSet[Client] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """A client that nobody closed must not keep the interpreter from ending."""
    for client in list(_OPEN):
        client.close()


@contextlib.contextmanager
def _progress_bar() -> Iterator[Callable[[Update], None]]:
    """A progress bar on stderr, by rich if it is there; else a line for each change of state."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        yield _write_state
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task("waiting", total=1.0)

        def draw(update: Update) -> None:
            if isinstance(update, ProgressUpdate):
                bar.update(task, completed=update.fraction, description=update.stage or "running")
            else:
                bar.update(task, description=update.state.value)

        yield draw


def _write_state(update: Update) -> None:
    if not isinstance(update, ProgressUpdate):
        sys.stderr.write(f"{update.state.value}\n")
