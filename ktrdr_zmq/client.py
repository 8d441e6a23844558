"""`AsyncClient`: submit, wait, watch, fetch. Turns what a person asks for into messages, and answers into plain objects.

Nothing runs here: jobs run on workers, whoever submitted them may go away, and any other client finds their results.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import secrets
import socket as stdlib_socket
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ktrdr_zmq import messages as m
from ktrdr_zmq import payload
from ktrdr_zmq.config import Endpoint, find_broker, load_settings
from ktrdr_zmq.errors import BrokerUnreachable, KtrdrError, Refused
from ktrdr_zmq.events import Watched
from ktrdr_zmq.handles import AsyncJob, JobRequest, JobResult, Update, job_error
from ktrdr_zmq.jobs import LANE_SIZE, job_topic, lane, lane_topic
from ktrdr_zmq.link import Link, refusal
from ktrdr_zmq.submission import Prepared, new_job_id, octets, offer, prepare
from ktrdr_zmq.version import __version__
from ktrdr_zmq.views import Explanation, JobInfo, LogChunk, WorkerInfo, job_info, worker_info

if TYPE_CHECKING:
    from ktrdr_zmq.datasets import Dataset

__all__ = ["AsyncClient", "AsyncJob", "JobRequest", "JobResult", "Update", "job_error"]


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
        self._lane_ready: asyncio.Future[None] | None = None
        self._link: Link | None = None

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
        info = m.ClientInfo(
            versions=[m.MAJOR], submitter=self._submitter, host=stdlib_socket.gethostname(), pid=os.getpid(),
            software={"ktrdr-zmq": __version__, "python": sys.version.partition(" ")[0]},
        )  # fmt: skip
        self._link = link = Link(self.endpoint, info)
        try:
            await link.opened(self._connect_timeout)
        except BaseException:
            await self.close()
            raise
        # One subscription hears of all jobs that this client will submit; the first submit waits until it stands.
        self._lane_ready = asyncio.get_running_loop().create_task(link.subscribe(lane_topic(self._lane)))

    async def close(self) -> None:
        """Close the connection. Jobs go on; whoever still waits for one gets `BrokerUnreachable`."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()
        if self._lane_ready is not None:
            await asyncio.gather(self._lane_ready, return_exceptions=True)

    @property
    def _open(self) -> Link:
        if self._link is None:
            raise BrokerUnreachable("The client is not connected.", hint="Use it as: async with AsyncClient() as client")
        return self._link

    @property
    def reachable(self) -> bool:
        """Whether the client is connected and the broker answers; it is tried again and again by itself."""
        return self._link is not None and self._link.reachable

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
        BrokerUnreachable
            When no answer comes. With a ``job_id`` of one's own the same submission can be repeated without harm.
        """
        return await self._submit(await self._prepare(JobRequest(kind=kind, body=body, **options)))

    async def submit_many(self, requests: Iterable[JobRequest]) -> list[AsyncJob | Refused]:
        """Submit jobs together; each is accepted or refused for itself. A request that makes no sense raises before any is submitted."""
        prepared = [await self._prepare(request) for request in requests]
        outcomes = await asyncio.gather(*map(self._submit, prepared), return_exceptions=True)
        answers: list[AsyncJob | Refused] = []
        for outcome in outcomes:
            if not isinstance(outcome, AsyncJob | Refused):
                raise outcome
            answers.append(outcome)
        return answers

    async def submit_request(self, request: JobRequest) -> AsyncJob:
        """Submit a job that was made ready before; see `submit`."""
        return await self._submit(await self._prepare(request))

    async def _prepare(self, request: JobRequest) -> Prepared:
        return await prepare(request, self._submitter, self._lane)

    async def _submit(self, job: Prepared) -> AsyncJob:
        link = self._open
        if self._lane_ready is not None and not self._lane_ready.done():
            await asyncio.wait([self._lane_ready])
        watched = link.tracker.watch(job.job_id, time.monotonic(), acknowledged=False)
        try:
            reply = await offer(link, job)
        except BaseException:
            if not watched.acknowledged:
                link.tracker.drop(job.job_id)
            raise
        watched.acknowledged = True
        watched.heard_at = time.monotonic()
        watched.notice = reply.notice
        if job.request.job_id:  # it may have been submitted before, and be over already
            await self._catch_up(link, watched)
        return AsyncJob(self, watched)

    async def _catch_up(self, link: Link, watched: Watched) -> None:
        """Hear of a job from now on, and learn how it stands."""
        if not watched.over and lane(watched.job_id) != self._lane:
            await link.follow(watched, job_topic(watched.job_id))
        view = await self._view(watched.job_id.hex())
        link.tracker.on_view(view, time.monotonic())

    # ------------------------------------------------------------ jobs

    async def job(self, ref: str) -> AsyncJob:
        """A job by id, by the beginning of an id (4 digits and more), by ``last``, or by ``last:KIND``.

        Raises
        ------
        UnknownJob, AmbiguousJob
        """
        link = self._open
        view = await self._view(ref)
        known = link.tracker.jobs.get(view.job_id)
        watched = known or link.tracker.watch(view.job_id, time.monotonic())
        link.tracker.on_view(view, time.monotonic())
        if known is None and not watched.over:
            await self._catch_up(link, watched)
        return AsyncJob(self, watched)

    async def _view(self, ref: str) -> m.JobView:
        reply, _ = await self._open.ask(m.Status(0, [ref], details=True))
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
            reply, _ = await self._open.ask(message)
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
        link = self._open
        reply, _ = await link.ask(m.CancelJobs(0, list(refs), grace))
        now = time.monotonic()
        for view in reply.jobs:
            link.tracker.on_view(view, now)
        if reply.errors:
            raise _ref_error(reply.errors[0])
        return [job_info(view) for view in reply.jobs]

    async def retry(self, ref: str, *, resume: bool = False) -> AsyncJob:
        """Submit an ended job once more, as a new job; with ``resume`` it goes on from the last checkpoint.

        Raises
        ------
        Refused
            When the job has not ended, or with ``resume`` when it is done or has left no checkpoint.
        """
        link = self._open
        job_id = new_job_id(self._lane)
        watched = link.tracker.watch(job_id, time.monotonic(), acknowledged=False)
        try:
            reply, _ = await link.ask(m.Retry(0, ref, job_id, resume))
        except BaseException:
            link.tracker.drop(job_id)
            raise
        link.tracker.on_view(reply.job, time.monotonic())
        return AsyncJob(self, watched)

    async def explain(self, ref: str) -> Explanation:
        """Why a job is where it is."""
        reply, _ = await self._open.ask(m.Explain(0, ref))
        return Explanation(job_info(reply.job), reply.text, reply.workers)

    async def fetch_result(self, ref: str) -> bytes:
        """The result of an ended job as its octets; empty if it has none."""
        reply, bodies = await self._open.ask(m.ResultGet(0, ref))
        if reply.dropped:
            raise Refused(f"The result of job {ref[:8]} is not kept any more.", code="DROPPED", hint="Run it again with: ktrdr jobs retry")
        return bodies[0] if bodies else b""

    async def logs(self, ref: str, offset: int = 0, limit: int = 65_536) -> LogChunk:
        """What a job printed, at most ``limit`` octets from ``offset``: from its worker while it runs, from its log artifact afterwards."""
        reply, bodies = await self._open.ask(m.Logs(0, ref, offset, limit))
        if reply.artifact is None:
            return LogChunk(reply.offset, bodies[0] if bodies else b"", reply.ended)
        data = await self.artifact_bytes(reply.artifact.digest.hex())
        return LogChunk(offset, data[offset : offset + limit], ended=offset + limit >= len(data))

    # ------------------------------------------------------------ cluster

    async def workers(self) -> list[WorkerInfo]:
        """The workers that the broker knows."""
        reply, _ = await self._open.ask(m.Workers(0))
        return [worker_info(view) for view in reply.workers]

    async def status(self) -> dict[str, Any]:
        """The broker's counters and gauges."""
        return await self.admin("status")

    async def admin(self, action: str, **args: Any) -> dict[str, Any]:
        """Administration: ``drain``, ``undrain``, ``pause``, ``unpause``, ``priority``, ``prune``, ``rm``, ``status``."""
        reply, _ = await self._open.ask(m.Admin(0, action, args))
        return dict(reply.document)

    # ------------------------------------------------------------ artifacts

    async def put_artifact(self, source: Path | bytes) -> str:
        """Store a file or octets with the broker; returns the digest (hex). Kept as long as a job names it, and a day beyond."""
        return (await self._open.bulk.put(source)).hex()

    async def get_artifact(self, digest: str, to: Path) -> Path:
        """Fetch an artifact by its digest (hex)."""
        return await self._open.bulk.get(octets(digest, 32, "A digest"), to)

    async def artifact_bytes(self, digest: str) -> bytes:
        """Fetch an artifact that fits into memory."""
        with tempfile.TemporaryDirectory(prefix="ktrdr-") as folder:
            path = await self.get_artifact(digest, Path(folder) / "artifact")
            return await asyncio.to_thread(path.read_bytes)

    # ------------------------------------------------------------ the built-in jobs

    async def train(
        self, strategy: str, symbol: str | Sequence[str] | None = None, timeframe: str | None = None, **options: Any
    ) -> AsyncJob:
        """Train a model; see `ktrdr_zmq.recipes.training` for the options."""
        from ktrdr_zmq.datasets import known_to
        from ktrdr_zmq.recipes import training

        data_dir = options.pop("data_dir", None) or self.data_dir
        options.setdefault("known", await known_to(self))
        return await self.submit_request(training(strategy, symbol, timeframe, data_dir=data_dir, **options))

    async def backtest(
        self, model: AsyncJob | str = "last", symbol: str | None = None, timeframe: str | None = None, **options: Any
    ) -> AsyncJob:
        """Backtest a trained model; see `ktrdr_zmq.recipes.backtesting` for the options. Waits for a training that still runs."""
        from ktrdr_zmq.datasets import known_to
        from ktrdr_zmq.recipes import backtesting, find_model

        options.setdefault("known", await known_to(self))
        info = await find_model(self, model)
        trained = payload.unpack(await self.fetch_result(info.id))
        data_dir = options.pop("data_dir", None) or self.data_dir
        return await self.submit_request(backtesting(info, trained, symbol, timeframe, data_dir=data_dir, **options))

    async def report(self, backtest: AsyncJob | str = "last", **options: Any) -> AsyncJob:
        """Make a page of a backtest; see `ktrdr_zmq.followups.report`. `AsyncJob.save` fetches it."""
        from ktrdr_zmq.followups import report

        return await self.submit_request(await report(self, backtest, **options))

    async def check_lookahead(self, model: AsyncJob | str = "last", symbol: str | None = None, **options: Any) -> AsyncJob:
        """Check whether a model sees what it cannot know yet; see `ktrdr_zmq.followups.check`. Its result says ``clean``."""
        return await self._check("check-lookahead", model, symbol, **options)

    async def check_warmup(self, model: AsyncJob | str = "last", symbol: str | None = None, **options: Any) -> AsyncJob:
        """Measure how much history a model's decisions need; see `ktrdr_zmq.followups.check`. Its result says ``recommended``."""
        return await self._check("check-warmup", model, symbol, **options)

    async def _check(self, kind: str, model: AsyncJob | str, symbol: str | None, **options: Any) -> AsyncJob:
        from ktrdr_zmq.followups import check

        data_dir = options.pop("data_dir", None) or self.data_dir
        return await self.submit_request(await check(self, kind, model, symbol, data_dir=data_dir, **options))

    # ------------------------------------------------------------ bars

    async def datasets(self) -> list[Dataset]:
        """The files of bars that jobs can name, in the order in which they are looked for: one's own, the cluster's, the built-in ones."""
        from ktrdr_zmq.datasets import built_in, known_to, own

        return [*own(self.data_dir), *await known_to(self), *built_in()]

    async def import_data(
        self, file: str | Path, symbol: str, timeframe: str, form: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncJob:
        """Import a file of bars into the cluster; see `ktrdr_zmq.datasets.importing`. Jobs of any client can name it then."""
        from ktrdr_zmq.datasets import importing

        return await self.submit_request(importing(file, symbol, timeframe, form, **options))

    async def check_data(
        self, source: str | Path, symbol: str = "", timeframe: str = "", form: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncJob:
        """Check a file of bars, or a set of bars by its name, on a worker; see `ktrdr_zmq.datasets.CheckResult`."""
        from ktrdr_zmq.datasets import to_check

        return await self.submit_request(to_check(str(source), symbol, timeframe, await self.datasets(), form, **options))

    async def remove_data(self, *names: str) -> int:
        """Remove imported bars by SYMBOL_TIMEFRAME (all versions), SYMBOL_TIMEFRAME@N or the import's id; returns how many."""
        from ktrdr_zmq.datasets import known_to, named

        there = await known_to(self)
        ids = {each.job_id for name in names for each in named(name, there)}
        return int((await self.admin("rm", refs=sorted(ids)))["removed"])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _ref_error(error: m.RefError) -> KtrdrError:
    return refusal(error.code, error.text)
