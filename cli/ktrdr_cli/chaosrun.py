"""A run of ``ktrdr chaos``: submits steadily, disturbs meanwhile, puts everything right, waits, and lets the ledger count."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from ktrdr_cli import common
from ktrdr_cli.chaosbook import LABEL, Book, Entry, Sums, harmless_kind
from ktrdr_cli.chaoskill import Victims
from ktrdr_cli.common import Face
from ktrdr_cli.output import Output
from ktrdr_zmq.errors import AmbiguousJob, BrokerUnreachable, KtrdrError, Refused, UnknownJob, UsageError
from ktrdr_zmq.handles import JobRequest
from ktrdr_zmq.jobs import JobState

if TYPE_CHECKING:
    from ktrdr_zmq.client import AsyncClient
    from ktrdr_zmq.views import JobInfo

OUTAGE_S: Final = 60.0
"""For so long the broker may be unreachable before the run is given up."""
TRIES: Final = 3
"""How often a request may stay without an answer, half a minute each time."""
TOLD_EVERY_S: Final = 10.0
GUESTS: Final = 10
"""Jobs of one second client."""


class Run:
    """One run.

    Parameters
    ----------
    shown : Face
    seed : int
        Of the disturbances.
    rate, pause : float
        Jobs a second; mean seconds between two disturbances.
    kill : bool
        Whether processes are fair game.

    Attributes
    ----------
    did : Counter
        How often each disturbance happened.
    """

    def __init__(self, shown: Face, seed: int, rate: float, pause: float, *, kill: bool) -> None:
        self.seed = seed
        self.name = secrets.token_hex(4)
        self.did: Counter[str] = Counter()
        self._shown = shown
        self._out: Output = shown.out
        self._chance = random.Random(seed)
        self._rate = rate
        self._pause = pause
        self._kill = kill
        self._book = Book(self.name)
        self._kind = ""
        self._client: AsyncClient | None = None
        self._connecting = asyncio.Lock()
        self._drained: set[str] = set()
        self._victims: Victims | None = None
        self._tasks: set[asyncio.Future[None]] = set()
        self._error: BaseException | None = None
        self._over = asyncio.Event()

    # ------------------------------------------------------------ the run

    async def go(self, seconds: float, patience: float) -> Sums:
        """Disturb for so long, wait, and count."""
        async with common.connect(self._shown.broker) as first:  # says at once when there is no broker
            self._kind = harmless_kind(await first.workers())
            if self._kill:
                self._victims = Victims(str(first.endpoint))
            self._address = str(first.endpoint)
        self._out.note(f"Run {self.name}, seed {self.seed}: {self._rate:g} jobs of kind {self._kind} a second at {self._address}.")
        endless = [self._spawn(work) for work in (self._submit_steadily(), self._disturb(), self._tell())]
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._over.wait()
            self._out.note("Enough; waiting for the last jobs.")
        finally:
            for task in endless:
                task.cancel()
            await asyncio.wait(endless)
            await self._put_right()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._rest()
        return await self._sum_up()

    async def _rest(self) -> None:
        """Wait until everything of ours has ended, retried jobs included."""
        while self._tasks and not self._over.is_set():
            await asyncio.wait(self._tasks, timeout=0.5)
        while any(not row.terminal for row in await self._rows()):  # retried jobs: nobody follows them
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.3):
                    await self._over.wait()
                    return

    async def _sum_up(self) -> Sums:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            if self._error is not None:
                raise self._error
            return self._book.judge(await self._rows())
        finally:
            if self._client is not None:
                await self._client.close()

    async def _rows(self) -> list[JobInfo]:
        rows: list[JobInfo] = await self._ask(lambda client: client.jobs(labels={LABEL: self.name}, limit=1_000_000))
        return rows

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TOLD_EVERY_S)
            entries = self._book.entries
            ended = sum(bool(entry.ends) for entry in entries)
            self._out.note(f"{len(entries)} submitted, {ended} ended, {sum(self.did.values())} disturbances")

    def _spawn(self, work: Awaitable[None]) -> asyncio.Future[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Future[None]) -> None:
        """The first thing that nobody expected ends the run."""
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._error = self._error or error
            self._over.set()

    # ------------------------------------------------------------ the way to the broker

    async def _open(self) -> AsyncClient:
        """The client of this run; connected again and again if need be."""
        async with self._connecting:
            end = time.monotonic() + OUTAGE_S
            while self._client is None:
                client: Any = common.connect(self._address)
                try:
                    self._client = await client.__aenter__()
                except BrokerUnreachable:
                    if time.monotonic() > end:
                        raise
            return self._client

    async def _ask(self, question: Callable[[AsyncClient], Awaitable[Any]]) -> Any:
        """Ask until there is an answer; what has been asked twice does no harm."""
        failures = 0
        while True:
            client = await self._open()
            try:
                return await question(client)
            except BrokerUnreachable:
                failures += self._client is client  # else it was closed by a disturbance of ours
                if failures >= TRIES:
                    raise
                await asyncio.sleep(0.1)

    # ------------------------------------------------------------ jobs

    def _request(self, entry: Entry) -> dict[str, Any]:
        """The job of an entry, always the same."""
        body: dict[str, Any] = {"number": entry.number}
        if self._kind == "echo" and entry.number % 10 == 0:
            body["seconds"] = 1.0
        return {
            "kind": self._kind,
            "body": body,
            "job_id": entry.job_id,
            "name": str(entry.number),
            "labels": {LABEL: self.name},
            "queue": True,
        }

    async def _submit_steadily(self) -> None:
        due = time.monotonic()
        while True:
            self._spawn(self._one(self._book.add()))
            due += 1.0 / self._rate
            await asyncio.sleep(max(due - time.monotonic(), 0.0))

    async def _one(self, entry: Entry) -> None:
        """Submit a job until it is acknowledged, and wait for its end."""
        await self._ask(lambda client: client.submit_request(JobRequest(**self._request(entry), wait_refusals=True)))
        entry.acknowledged = True
        await self._follow(entry)

    async def _follow(self, entry: Entry) -> None:
        async def wait(client: AsyncClient) -> None:
            job = await client.job(entry.job_id)
            entry.ends.add((await job.wait()).state)

        try:
            await self._ask(wait)
        except UnknownJob:
            entry.lost = True

    # ------------------------------------------------------------ disturbances

    async def _disturb(self) -> None:
        deeds = {
            "submitted again": self._again, "cancelled": self._cancel, "retried": self._retry, "reconnected": self._reconnect,
            "second client killed": self._guest_killed, "second client stopped": self._guest_stopped, "worker drained": self._drain,
        }  # fmt: skip
        if self._kill:
            deeds |= {
                "job process killed": self._kill_child, "worker killed": self._kill_worker, "broker killed": self._kill_broker,
                "worker stopped": self._stop_worker, "broker stopped": self._stop_broker,
            }  # fmt: skip
        while True:
            await asyncio.sleep(self._chance.expovariate(1.0 / self._pause))
            name = self._chance.choice(list(deeds))
            luck = random.Random(self._chance.random())  # what a deed draws does not change which deed comes next
            try:
                if await deeds[name](luck):
                    self.did[name] += 1
            except (Refused, UnknownJob, AmbiguousJob, UsageError):
                self.did[f"{name}: refused"] += 1

    async def _again(self, luck: random.Random) -> bool:
        """The same job under the same id, through a connection of its own."""
        if not self._book.entries:
            return False
        entry = luck.choice(self._book.entries)
        with contextlib.suppress(BrokerUnreachable):
            async with common.connect(self._address) as client:
                await client.submit_request(JobRequest(**self._request(entry)))
        return True

    async def _cancel(self, luck: random.Random) -> bool:
        open_ = self._book.open()
        if not open_:
            return False
        entry = luck.choice(open_)
        entry.may_cancel = True
        await self._ask(lambda client: client.cancel([entry.job_id], grace=1.0))
        return True

    async def _retry(self, luck: random.Random) -> bool:
        ended = [entry for entry in self._book.entries if entry.ends]
        if not ended:
            return False
        with contextlib.suppress(BrokerUnreachable):
            await (await self._open()).retry(luck.choice(ended).job_id)
        return True

    async def _reconnect(self, luck: random.Random) -> bool:
        async with self._connecting:
            client, self._client = self._client, None
        if client is not None:
            await client.close()
        return client is not None

    async def _guest_killed(self, luck: random.Random) -> bool:
        self._spawn(self._guest(luck.uniform(0.0, 1.5), killed=True))
        return True

    async def _guest_stopped(self, luck: random.Random) -> bool:
        self._spawn(self._guest(luck.uniform(1.0, 10.0), killed=False))
        return True

    async def _guest(self, seconds: float, *, killed: bool) -> None:
        """A client process of its own, killed or stopped after its first acknowledgement or before; its jobs are then submitted again."""
        entries = [self._book.add() for _ in range(GUESTS)]
        by_id = {entry.job_id: entry for entry in entries}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ktrdr_cli.chaosclient", self._address,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps([self._request(entry) for entry in entries]).encode())
            process.stdin.close()
            listening = asyncio.ensure_future(_listen(process.stdout, by_id))
            await asyncio.sleep(seconds if killed else 0.5)
            if not killed:
                _signal(process, signal.SIGSTOP)
                await asyncio.sleep(seconds)
                _signal(process, signal.SIGCONT)
                await asyncio.wait({listening}, timeout=30.0)
        finally:
            _signal(process, signal.SIGKILL)
            await process.wait()
        await listening
        for entry in entries:
            self._spawn(self._one(entry))

    async def _drain(self, luck: random.Random) -> bool:
        """One worker takes no more jobs for some seconds; one that somebody else drained is left alone."""
        workers = [w for w in await self._ask(lambda client: client.workers()) if w.state == "live" and not w.draining]
        if not workers or self._drained:
            return False
        name = luck.choice(workers).worker_id
        self._drained.add(name)
        await self._ask(lambda client: client.admin("drain", worker_id=name, stop=False, leave=False))
        self._spawn(self._undrain(name, luck.uniform(1.0, 5.0)))
        return True

    async def _undrain(self, name: str, after: float) -> None:
        await asyncio.sleep(after)
        with contextlib.suppress(UsageError, Refused):  # a broker that was restarted does not know it any more
            await self._ask(lambda client: client.admin("undrain", worker_id=name))
        self._drained.discard(name)

    async def _put_right(self) -> None:
        """Nothing stays stopped or drained, whatever ends the run."""
        if self._victims is not None:
            self._victims.resume_all()
        for name in list(self._drained):
            with contextlib.suppress(KtrdrError):
                await self._undrain(name, 0.0)

    # ------------------------------------------------------------ with --kill

    async def _kill_child(self, luck: random.Random) -> bool:
        return self._hit(luck, self._hunted.children())

    async def _kill_worker(self, luck: random.Random) -> bool:
        return self._hit(luck, self._hunted.workers())

    async def _kill_broker(self, luck: random.Random) -> bool:
        return self._hit(luck, self._hunted.brokers())

    async def _stop_worker(self, luck: random.Random) -> bool:
        return self._freeze(luck, self._hunted.workers())

    async def _stop_broker(self, luck: random.Random) -> bool:
        return self._freeze(luck, self._hunted.brokers())

    @property
    def _hunted(self) -> Victims:
        assert self._victims is not None
        return self._victims

    def _hit(self, luck: random.Random, pids: list[int]) -> bool:
        if pids:
            self._hunted.kill(luck.choice(pids))
        return bool(pids)

    def _freeze(self, luck: random.Random, pids: list[int]) -> bool:
        if pids:
            self._spawn(self._frozen(luck.choice(pids), luck.uniform(0.5, 12.0)))
        return bool(pids)

    async def _frozen(self, pid: int, seconds: float) -> None:
        self._hunted.stop(pid)
        try:
            await asyncio.sleep(seconds)
        finally:
            self._hunted.resume(pid)


async def _listen(lines: asyncio.StreamReader, by_id: dict[str, Entry]) -> None:
    """Enter what the second client has said, until its end."""
    while (line := await lines.readline()).endswith(b"\n"):
        what, job_id, *rest = line.decode().split()
        if what == "a":
            by_id[job_id].acknowledged = True
        else:
            by_id[job_id].ends.add(JobState(rest[0]))


def _signal(process: asyncio.subprocess.Process, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
