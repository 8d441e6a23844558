"""A client process of the storm: submits the jobs of a range of numbers, waits for each, and writes both down.

    python -m tests.storm.submitter --broker tcp://127.0.0.1:5555 --book FILE --first 0 --count 1000 ...

Killed and started again it goes on: what its book says was acknowledged is waited for, everything else is submitted again, with
``--own-ids`` under the same id as before.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

from ktrdr_zmq import AsyncClient, AsyncJob, JobRequest, JobResult
from ktrdr_zmq.errors import BrokerUnreachable, JobCancelled, JobEnded, JobFailed
from tests.storm import jobs
from tests.storm.ledger import Book


class Submitter:
    """One run of this process."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.book = Book(options.book)
        last = options.first + options.count
        self._left = iter([number for number in range(options.first, last) if number not in self.book.outcomes])

    async def run(self) -> None:
        """Submit everything and wait for it."""
        client = await self._connect()
        async with asyncio.TaskGroup() as group:
            for _ in range(self.options.window):
                group.create_task(self._caller(client))
        await client.close()
        self.book.close()

    async def _connect(self) -> AsyncClient:
        while True:
            client = AsyncClient(self.options.broker, submitter=f"storm-{self.options.first}")
            with contextlib.suppress(BrokerUnreachable):
                await client.connect()
                return client

    async def _caller(self, client: AsyncClient) -> None:
        for number in self._left:
            while number - self.options.first >= self._quota():  # noqa: ASYNC110  # another process writes it
                await asyncio.sleep(0.05)
            while True:
                try:
                    await self._one(client, number)
                    break
                except BrokerUnreachable:  # after half a minute of silence: the same once more
                    await asyncio.sleep(0.2)

    def _quota(self) -> int:
        """How many jobs may have been submitted by now: they flow as long as the storm lasts."""
        try:
            return int(self.options.quota.read_text()) * self.options.count // 1_000_000 + 1
        except (OSError, ValueError):
            return 1

    async def _one(self, client: AsyncClient, number: int) -> None:
        known = self.book.acknowledged.get(number)
        job = await client.job(known) if known else await self._submit(client, number)
        try:
            result = await job.result()
        except JobCancelled:
            await self.book.write("o", number, "cancelled", 0)
        except JobFailed:
            await self.book.write("o", number, "failed", 0)
        except JobEnded as error:
            await self.book.write("o", number, type(error).__name__, 0)
        else:
            await self._done(job, number, result)

    async def _submit(self, client: AsyncClient, number: int) -> AsyncJob:
        options = self.options
        inputs: dict[str, Any] = {"some": f"input of {number % 1000}".encode() * 100} if number % 103 == 2 else {}
        job_id = jobs.job_id(options.seed, number) if options.own_ids else ""
        request = JobRequest(
            kind="tally", body=jobs.body(number, str(options.mark)), job_id=job_id, name=str(number), inputs=inputs, queue=True,
            wait_refusals=True, max_crashes=jobs.MAX_CRASHES, max_losses=jobs.MAX_LOSSES,
        )  # fmt: skip
        job = await client.submit_request(request)
        await self.book.write("a", number, job.id)
        if jobs.cancelled(number):
            await job.cancel(grace=1.0)
        return job

    async def _done(self, job: AsyncJob, number: int, result: JobResult) -> None:
        right = result["number"] == number
        await self.book.write("o", number, "done" if right else "wrong", result["attempt"])


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", required=True)
    parser.add_argument("--book", type=Path, required=True)
    parser.add_argument("--mark", type=Path, required=True)
    parser.add_argument("--quota", type=Path, required=True)
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--window", type=int, default=100)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--own-ids", action="store_true")
    parser.add_argument("--ready-fd", type=int, default=-1)
    options = parser.parse_args()
    if options.ready_fd >= 0:
        os.close(options.ready_fd)
    asyncio.run(Submitter(options).run())


if __name__ == "__main__":
    main()
